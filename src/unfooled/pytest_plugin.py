"""The pytest plugin: `assert_robust` as a function and as a fixture, the marker `robust`, a summary at the end.

    @pytest.mark.robust(data="photos:test[0:500]", threat="linf:8/255", at_least=0.4)
    def test_the_model_resists(model, assert_robust):
        assert_robust(model)

It imports neither torch nor numpy until a test uses it.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from .errors import InternalError, must_be

if TYPE_CHECKING:
    from .assertions import Assertion
    from .results import Estimate, Evaluation

LINE, REPORT = "unfooled", "unfooled_report"  # the properties that a test gets for each evaluation
WORST = 3  # classes that a failure names
T = TypeVar("T")


def assert_robust(
    model: Any,
    data: Any,
    threat: Any,
    at_least: float = 0.4,
    *,
    protocol: Any = "fast",
    seed: int = 0,
    out: str | Path | None = None,
    allow_suspect: bool = False,
    **options: Any,
) -> Evaluation:
    """Evaluate a model and fail the test unless its accuracy under attack is at least so much, by numbers to be believed.

    model, data, threat, protocol, seed:  those of `unfooled.evaluate`, and so are the other options.
    at_least:       the share of images, in (0, 1], that must be right on the image and under every attack. It holds when
                    that is certain at 95 %; the run stops as soon as it is certain either way.
    out:            a run folder, which gets the report too.
    allow_suspect:  whether a trust of "suspect" will do. "invalid" never does.

    Raises:
        AssertionError: it fails, it is not certain, or the numbers cannot be trusted. The text says which, and why.
        UnfooledError:  the model, the data or an option is not what it must be.
    """
    __tracebackhide__ = True
    asked = {"protocol": protocol, "seed": seed} | options
    trial = _try(model, data, threat, at_least=at_least, allow_suspect=allow_suspect, out=out, **asked)
    trial.check()
    return trial.evaluation


# --- what was demanded and what was found --------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One evaluation, what was demanded of it, and where its report is.

    model:   its name.
    report:  the path as it is shown; None where no run folder was asked for.
    """

    model: str
    evaluation: Evaluation
    assertion: Assertion
    allow_suspect: bool
    report: str | None

    @property
    def attacked(self) -> Estimate:
        """Accuracy under attack."""
        return _known(self.evaluation.robust_accuracy).attacked

    def check(self) -> None:
        """Raise an `AssertionError` that says what is wrong, if anything is."""
        __tracebackhide__ = True
        problems = list(self._problems())
        if problems:
            raise AssertionError("\n".join([*problems, *self._facts()]))

    def _problems(self) -> Iterator[str]:
        from .assertions import Verdict

        trust = self.evaluation.trust
        verdict = self.assertion.verdict(self.attacked, trust)
        if verdict is not Verdict.HOLDS:
            yield self.assertion.sentence(verdict, self.attacked)
        if trust not in ("valid", "invalid") and not self.allow_suspect:
            yield f"trust is {trust}: deal with the findings, or pass allow_suspect=True if you know better."

    def _facts(self) -> Iterator[str]:
        from .results import percent

        e = self.evaluation
        asked = [f"{name} {e.settings[name]}" for name in ("threat", "protocol", "seed") if name in e.settings]
        yield f"  demanded: {', '.join([self.assertion.text, *asked])}"
        yield f"  attacked: {percent(self.attacked, interval=True)} of {self.attacked.n} images"
        yield f"  clean:    {percent(_known(e.clean_accuracy), interval=True)}"
        worst = sorted((one for one in e.classes if one.attacked.n), key=lambda one: one.attacked.value)[:WORST]
        if worst:
            yield f"  worst:    {', '.join(f'{one.name or one.label} {percent(one.attacked)}' for one in worst)}"
        yield f"  trust:    {e.trust}"
        for finding in e.findings:
            if finding.severity != "note":
                yield f"    {finding.severity} {finding.code}: {finding.message}"
                yield f"      remedy: {finding.remedy}"
        if self.report:
            yield f"  report:   {self.report}"

    def properties(self) -> list[tuple[str, str]]:
        """Name and value, as pytest's own JUnit XML takes them."""
        from .results import percent

        e = self.evaluation
        line = (
            f"{self.model} under {e.settings.get('threat', 'attack')}: clean {percent(_known(e.clean_accuracy))}, "
            f"attacked {percent(self.attacked, interval=True)}, trust {e.trust}"
        )
        return [(LINE, line)] + ([(REPORT, self.report)] if self.report else [])


def _try(
    model: Any,
    data: Any,
    threat: Any,
    *,
    at_least: float = 0.4,
    allow_suspect: bool = False,
    out: str | Path | None = None,
    near: Path | None = None,
    **options: Any,
) -> Trial:
    """Evaluate, and draw the report where there is a run folder. Its path is shown relative to `near`."""
    __tracebackhide__ = True
    from . import evaluate
    from .assertions import Assertion

    if not isinstance(at_least, int | float) or not 0 < at_least <= 1:
        raise must_be("assert_robust", "at_least", "a share in (0, 1], such as 0.4 for 40 %", at_least)
    demanded = f"attacked>={float(at_least)!r}"
    evaluation = evaluate(model, data, threat, out=out, assertion=demanded, **options)
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    return Trial(name, evaluation, Assertion.parse(demanded), allow_suspect, None if out is None else _drawn(out, near))


def _drawn(out: str | Path, near: Path | None) -> str:
    from .report import draw

    page = draw(out)
    return str(page.relative_to(near) if near is not None and page.is_relative_to(near) else page)


def _known(value: T | None) -> T:
    if value is None:
        raise InternalError("An evaluation of a model has no accuracy: please report it.")
    return value


# --- fixture and marker --------------------------------------------------------------------------


class Checker:
    """What the fixture gives a test: `assert_robust` with the marker's options as defaults, and a run folder of its own."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node = request.node
        self._config = request.config
        self._calls = 0

    def __call__(
        self, model: Any = None, data: Any = None, threat: Any = None, at_least: float | None = None, **options: Any
    ) -> Evaluation:
        """As `unfooled.pytest_plugin.assert_robust`; what is left out here is what the marker `robust` says."""
        __tracebackhide__ = True
        given = {"model": model, "data": data, "threat": threat, "at_least": at_least} | options
        wanted = self._marked() | {name: value for name, value in given.items() if value is not None}
        for name in ("model", "data", "threat"):
            if name not in wanted:
                raise must_be("assert_robust", name, "given, in the call or in @pytest.mark.robust", None)
        wanted["out"] = wanted.get("out") or self._fresh()
        trial = _try(near=self._config.invocation_params.dir, **wanted)
        self._node.user_properties.extend(trial.properties())
        trial.check()
        return trial.evaluation

    def _marked(self) -> dict[str, Any]:
        """The options of the markers, the nearest to the test first."""
        found: dict[str, Any] = {}
        for mark in self._node.iter_markers("robust"):
            if mark.args:
                raise must_be("pytest.mark.robust", "options", "named, such as threat='linf:8/255'", mark.args)
            found = dict(mark.kwargs) | found
        return found

    def _fresh(self) -> Path:
        """A folder for this call. What an earlier test run left in it is gone: the model may have changed since."""
        self._calls += 1
        root = _root(self._config)
        if not root.exists():
            root.mkdir(parents=True, exist_ok=True)
            (root / ".gitignore").write_text("*\n")
        folder = root / (_file_name(self._node.nodeid) + (f"-{self._calls}" if self._calls > 1 else ""))
        if folder.exists():
            shutil.rmtree(folder)
        return folder


def _root(config: pytest.Config) -> Path:
    """The folder of the run folders: --unfooled-out (from where pytest was started), the ini's, or .unfooled."""
    asked = config.getoption("unfooled_out")
    if asked:
        return Path(config.invocation_params.dir, asked)
    return Path(config.rootpath, config.getini("unfooled_out") or ".unfooled")


def _file_name(nodeid: str) -> str:
    """A test's id as a file name: legible, and different for different tests."""
    legible = re.sub(r"[^A-Za-z0-9._]+", "-", nodeid).strip("-.")[:80]
    return f"{legible}-{zlib.crc32(nodeid.encode()):08x}"


@pytest.fixture(name="assert_robust")
def assert_robust_in_test(request: pytest.FixtureRequest) -> Checker:
    """Fail the test unless a model resists: `assert_robust(model, data, threat, at_least=0.4)`. Leaves a report."""
    return Checker(request)


# --- hooks ---------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The folder that reports go to."""
    text = "Folder for the run folders and reports of assert_robust (.unfooled in pytest's root folder)."
    parser.getgroup("unfooled").addoption("--unfooled-out", metavar="DIR", default=None, help=text)
    parser.addini("unfooled_out", text, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "robust(threat, data, at_least, protocol, ...): what the fixture assert_robust takes where a call leaves it out.",
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List every model that was evaluated, in whatever process: the reports of the tests bring it here."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    found = [
        (report.nodeid, name, value)
        for report in reports
        if getattr(report, "when", None) == "teardown"  # it has all that the test and its fixtures have noted
        for name, value in report.user_properties
        if name in (LINE, REPORT)
    ]
    if found:
        terminalreporter.section("unfooled")
    for nodeid, name, value in found:
        terminalreporter.line(f"    report: {value}" if name == REPORT else f"{nodeid}\n    {value}")
