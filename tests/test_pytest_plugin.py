"""The pytest plugin, run by pytest on small suites with an `evaluate` that answers at once."""

import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import unfooled
from test_junit import evaluation
from unfooled import models, report
from unfooled.errors import ParameterError
from unfooled.pytest_plugin import assert_robust
from unfooled.store import RunFolder

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parent.parent
INI = "[pytest]\naddopts = -p no:unfooled -p unfooled.pytest_plugin -p no:cacheprovider --strict-markers\n"
ONE = "def test_it(assert_robust):\n    assert assert_robust(len, 'photos', 'linf:8/255').asked == 0\n"
assert models, report  # loaded before pytester, which takes out again what was imported while it ran

FAKE = """
from pathlib import Path
import unfooled
from unfooled.results import read
from unfooled.store import RunFolder

def evaluate(model, data, threat, *, out=None, **options):
    found = read(Path(__file__).with_name("evaluation.json"))
    RunFolder(out).write_evaluation(found)
    return found

unfooled.evaluate = evaluate
"""


@pytest.fixture
def asked(monkeypatch):
    """What `evaluate` was asked for; it answers with `asked.answer`."""

    class Asked(list):
        answer = evaluation()

    calls = Asked()

    def evaluate(model, data, threat, **options):
        calls.append({"model": model, "data": data, "threat": threat} | options)
        if options["out"] is not None:
            assert not Path(options["out"]).exists()
            RunFolder(options["out"]).write_evaluation(calls.answer)
        return calls.answer

    monkeypatch.setattr(unfooled, "evaluate", evaluate)
    return calls


@pytest.fixture
def suite(pytester, asked):
    """Run pytest on one test file."""

    def run(code, *arguments):
        pytester.path.joinpath("pytest.ini").write_text(INI)
        pytester.makepyfile(test_mine=code)
        return pytester.runpytest_inprocess(*arguments)

    return run


def reports(pytester, below=".unfooled"):
    return sorted(page.parent.relative_to(pytester.path) for page in pytester.path.glob(f"{below}/*/report.html"))


# --- the function --------------------------------------------------------------------------------


def test_the_function_returns_the_evaluation(asked, tmp_path):
    assert assert_robust(len, "photos", "linf:8/255") is asked.answer
    assert asked == [
        {
            "model": len,
            "data": "photos",
            "threat": "linf:8/255",
            "protocol": "fast",
            "seed": 0,
            "out": None,
            "assertion": "attacked>=0.4",
        }
    ]
    assert_robust(len, "photos", "linf:8/255", 0.25, protocol="quick", seed=5, out=tmp_path / "run", draws=3)
    assert asked[1]["assertion"] == "attacked>=0.25"
    assert (asked[1]["protocol"], asked[1]["seed"], asked[1]["draws"]) == ("quick", 5, 3)
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_failure_has_the_path_of_the_report(asked, tmp_path):
    asked.answer = evaluation(100)
    with pytest.raises(AssertionError) as caught:
        assert_robust(len, "photos", "linf:8/255", out=tmp_path / "run")
    assert f"report:   {tmp_path / 'run' / 'report.html'}" in str(caught.value)


@pytest.mark.parametrize("wrong", [40, 0, -0.1, float("nan"), "0.4"])
def test_a_share_that_is_none_is_refused_before_any_work(asked, wrong):
    with pytest.raises(ParameterError, match=r"'at_least' parameter of assert_robust must be a share in \(0, 1\]"):
        assert_robust(len, "photos", "linf:8/255", wrong)
    assert not asked


# --- what a failure says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (evaluation(100), ["AssertionError: attacked>=0.4: refuted.*20.0 % ?16.*500 examples*", "*trust: *valid*"]),
        (evaluation(205), ["AssertionError: attacked>=0.4: undecided.*41.0 %*"]),
        (
            evaluation(400, trust="invalid"),
            ["AssertionError: attacked>=0.4: not answered.*", "*invalid zero-gradients:*"],
        ),
        (
            evaluation(400, trust="suspect"),
            ["AssertionError: trust is suspect*allow_suspect=True*", "*suspect zero-gradients: The gradient is zero*"],
        ),
        (evaluation(100, trust="suspect"), ["AssertionError: attacked>=0.4: refuted.*", "*trust is suspect*"]),
    ],
    ids=["refuted", "undecided", "invalid", "suspect", "refuted and suspect"],
)
def test_a_failure_says_what_was_demanded_and_what_was_found(suite, asked, pytester, answer, words):
    asked.answer = answer
    result = suite(ONE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *{word}" for word in words])
    result.stdout.fnmatch_lines(["E *demanded: attacked>=0.4, threat linf:8/255, protocol fast, seed 3"])
    result.stdout.fnmatch_lines(["E *clean: *90.0 % ?87.*"])
    result.stdout.fnmatch_lines(["E *worst: *shirt 10.0 %, dress 20.0 %, coat 30.0 %"])
    (folder,) = reports(pytester)
    result.stdout.fnmatch_lines([f"E *report: *{folder}/report.html"])
    result.stdout.fnmatch_lines([f"    len under linf:8/255: clean 90.0 %, attacked *, trust {answer.trust}"])
    shown = result.stdout.str()
    assert "train-mode" not in shown, "notes are no reason"
    assert ("remedy: Take gradients" in shown) == bool(answer.trust != "valid")
    assert "pytest_plugin.py" not in shown, "the traceback ends in the test"


def test_suspect_will_do_where_that_is_said_and_invalid_never(suite, asked):
    code = "def test_it(assert_robust):\n    assert_robust(len, 'photos', 'linf:8/255', allow_suspect=True)\n"
    asked.answer = evaluation(trust="suspect")
    suite(code).assert_outcomes(passed=1)
    asked.answer = evaluation(trust="invalid")
    suite(code).assert_outcomes(failed=1)
    asked.answer = evaluation(trust=None, findings=[])
    suite(ONE).stdout.fnmatch_lines(["E *trust is None*"])


# --- fixture and marker --------------------------------------------------------------------------


def test_the_marker_says_what_a_call_leaves_out_and_the_nearest_counts(suite, asked):
    result = suite(
        """
        import pytest
        pytestmark = pytest.mark.robust(threat="linf:8/255", data="photos", at_least=0.3, seed=1)

        @pytest.mark.robust(at_least=0.2, protocol="standard")
        class TestIt:
            @pytest.mark.robust(seed=7)
            def test_a(self, assert_robust):
                assert_robust(len)

            def test_b(self, assert_robust):
                assert_robust(len, "others", "l2:1", 0.1, seed=0)
        """
    )
    result.assert_outcomes(passed=2)
    first, second = asked
    assert (first["threat"], first["data"], first["assertion"]) == ("linf:8/255", "photos", "attacked>=0.2")
    assert (first["protocol"], first["seed"]) == ("standard", 7)
    assert (second["data"], second["threat"], second["assertion"]) == ("others", "l2:1", "attacked>=0.1")
    assert (second["protocol"], second["seed"]) == ("standard", 0)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("data='photos'", "*'threat' parameter of assert_robust must be given, in the call or in @pytest.mark.robust*"),
        ("'linf:8/255'", "*pytest.mark.robust must be named, such as threat='linf:8/255'*"),
    ],
)
def test_a_marker_that_says_too_little_or_has_no_names_is_refused(suite, asked, mark, message):
    result = suite(
        f"import pytest\n@pytest.mark.robust({mark})\ndef test_it(assert_robust):\n    assert_robust(len, 'photos')\n"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([message])
    assert not asked


def test_the_marker_is_known(suite):
    suite(ONE, "--markers").stdout.fnmatch_lines(["@pytest.mark.robust(threat, data, at_least, *"])


# --- folders, summary, properties ----------------------------------------------------------------

PARAMETERS = """
import pytest

@pytest.mark.parametrize("eps", ["1/255", "1:255", "../../1"])
def test_it(assert_robust, eps):
    assert_robust(len, "photos", "linf:" + eps)
    assert_robust(len, "photos", "l2:" + eps)
"""


def test_every_call_of_every_test_has_a_folder_of_its_own_that_begins_anew(suite, pytester, asked):
    suite(PARAMETERS).assert_outcomes(passed=3)
    first = reports(pytester)
    assert len(first) == len({call["out"] for call in asked}) == 6
    assert (pytester.path / ".unfooled" / ".gitignore").read_text() == "*\n"
    (pytester.path / first[0] / "left").touch()
    suite(PARAMETERS).assert_outcomes(passed=3)
    assert reports(pytester) == first
    assert not (pytester.path / first[0] / "left").exists()


def test_the_folders_go_where_they_are_wanted(suite, pytester, asked):
    suite(ONE, "--unfooled-out=artifacts").assert_outcomes(passed=1)
    assert len(reports(pytester, "artifacts")) == 1
    pytester.makepyfile(test_mine=ONE)
    pytester.path.joinpath("pytest.ini").write_text(INI + "unfooled_out = kept\n")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert len(reports(pytester, "kept")) == 1
    suite(ONE.replace("255')", "255', out='mine')")).assert_outcomes(passed=1)
    assert (pytester.path / "mine" / "report.html").is_file()
    assert not reports(pytester)


def test_the_summary_and_the_junit_xml_have_every_evaluation(suite, pytester, asked):
    result = suite(PARAMETERS + "def test_other():\n    pass\n", "--junitxml=out.xml")
    lines = [line.strip() for line in result.stdout.lines]
    assert sum(line.strip("= ") == "unfooled" for line in lines) == 1
    found = "len under linf:8/255: clean 90.0 %, attacked 60.0 % [55.6, 64.3], trust valid"
    assert lines.count(found) == 6
    shown = {line.removeprefix("report: ") for line in lines if line.startswith("report: ")}
    assert shown == {f"{folder}/report.html" for folder in reports(pytester)}
    kept = [(p.get("name"), p.get("value")) for p in ET.parse(pytester.path / "out.xml").iter("property")]
    assert {value for name, value in kept if name == "unfooled_report"} == shown
    assert kept.count(("unfooled", found)) == 6


def test_without_an_evaluation_there_is_no_summary(suite):
    assert "unfooled =" not in suite("def test_other():\n    pass\n").stdout.str()


def test_what_is_found_in_another_process_comes_back(pytester):
    pytest.importorskip("xdist")
    pytester.path.joinpath("pytest.ini").write_text(INI)
    pytester.path.joinpath("evaluation.json").write_text(evaluation().to_json())
    pytester.makeconftest(FAKE)
    pytester.makepyfile(test_mine=PARAMETERS)
    result = pytester.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=3)
    assert result.stdout.str().count("    len under linf:8/255: clean 90.0 %") == 6
    assert len(reports(pytester)) == 6


# --- what it costs those who do not use it -------------------------------------------------------


@pytest.mark.parametrize("code", ["import unfooled.pytest_plugin", "import pytest; assert pytest.main(ARGS) == 0"])
def test_torch_and_numpy_are_not_imported_until_a_test_needs_them(pytester, code):
    pytester.path.joinpath("pytest.ini").write_text(INI)
    pytester.makepyfile(test_mine="import pytest\n@pytest.mark.robust(threat='linf:1')\n" + ONE)
    code = f"{code.replace('ARGS', repr(['--collect-only', '-q']))}\nimport sys\n"
    code += "assert 'unfooled.pytest_plugin' in sys.modules and not {'torch', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=pytester.path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_brings_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"unfooled": "unfooled.pytest_plugin"}


def test_the_example_is_a_suite_that_passes(suite, asked):
    suite((ROOT / "examples" / "ci" / "test_robustness.py").read_text()).assert_outcomes(passed=2)
    assert [call["threat"] for call in asked] == ["linf:0.1", "l2:0.5"]
