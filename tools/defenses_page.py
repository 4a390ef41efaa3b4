"""Write the measured parts of docs/studies/defenses.md from the run folder of the study.

    unfooled study defenses
    python tools/defenses_page.py

What stands between <!-- measured: NAME --> and <!-- end --> is written here, from the run: the tables, the plot, a line for
each defense, and how long it took. The words around it are the page's own.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from study_page import markdown

from unfooled.results import Evaluation, percent
from unfooled.store import RunFolder
from unfooled.studies.defenses import CASES
from unfooled.studies.defenses_page import Measured

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "studies" / "defenses.md"
PICTURES = ROOT / "docs" / "studies" / "defenses"
PART = re.compile(r"(<!-- measured: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    run = RunFolder(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "study" / "defenses")
    study = run.evaluation()
    each = {case.title: _of(run.path / case.name) for case in CASES}
    parts = {"tables": lambda: _tables(study), "plot": lambda: _plot(study, run.path / "plots")}
    parts |= {
        "findings": lambda: "".join(f"- {sentence}\n" for sentence in study.verdict),
        "made": lambda: _made(study),
    }

    def written(match: re.Match[str]) -> str:
        name = match[2]
        make: Callable[[], str] = parts.get(name) or (lambda: _line(name, each))
        return f"{match[1]}\n{make()}\n{match[3]}"

    PAGE.write_text(PART.sub(written, PAGE.read_text()))


def _of(folder: Path) -> dict[str, Measured]:
    """The evaluations of a data set, by the defense's name."""
    found = [RunFolder(place.parent).evaluation() for place in sorted(folder.glob("*/evaluation.json"))]
    texts = [(one.settings["defense"], one) for one in found]
    return {text.partition(":")[0]: Measured(text.partition(":")[0], text, one) for text, one in texts}


def _tables(study: Evaluation) -> str:
    parts = []
    for table in study.tables:
        parts += [f"**{table.title}**\n", markdown(table), "", f"{table.caption}\n"]
    return "\n".join(parts)


def _plot(study: Evaluation, plots: Path) -> str:
    PICTURES.mkdir(parents=True, exist_ok=True)
    panel = study.panels[0]
    shutil.copy(plots / f"{panel.id}.png", PICTURES / f"{panel.id}.png")
    return f"![{panel.title}](defenses/{panel.id}.png)\n"


def _line(name: str, each: dict[str, dict[str, Measured]]) -> str:
    """One defense: what it costs, seems to keep and keeps, on each data set."""
    said = []
    for title, measured in each.items():
        if name not in measured:
            continue
        one = measured[name]
        ways, trust = one.ways, one.found.trust
        price = (
            f"costs {100 * one.cost:.1f} points without an attack"
            if one.cost > 0
            else "costs nothing without an attack"
        )
        said.append(
            f"{title}: {price}, seems to keep {percent(ways.non_adaptive)} and keeps "
            f"**{percent(ways.adaptive)}** (*{trust}*); the gap is {100 * ways.gap:.1f} points."
        )
    if not said:
        raise SystemExit(f"The run has no defense named {name!r}: unfooled study defenses --only {name}")
    return "  \n".join(said) + "\n"


def _made(study: Evaluation) -> str:
    env = study.environment
    forward, backward = sum(c.forward for c in study.cost), sum(c.backward for c in study.cost)
    return (
        f"{forward:,} forward and {backward:,} backward passes, {sum(c.seconds for c in study.cost) / 60:.0f} minutes of wall "
        f"clock in all, on a machine that did other work as well. Made with unfooled {env.unfooled}, torch {env.torch}, Python "
        f"{env.python} on {env.machine}, {env.threads} thread; seed {study.settings['seed']}.\n"
    )


if __name__ == "__main__":
    main()
