"""Write docs/studies/seed.md and the README's pictures from the run folders of the studies and the demo.

    unfooled sweep --study seed --data mnist            (and fashion-mnist, cifar10)
    unfooled demo --out demo
    python tools/study_page.py

Numbers and plots are copied from the runs; the words around them are here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from unfooled.results import Evaluation, Table
from unfooled.store import RunFolder

ROOT = Path(__file__).parents[1]
SETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
PLOTS = ("accuracy-against-eps", "blur-at-0.2", "blur-all", "percentile-filter-at-0.2", "triptych")

HEAD = """# Why blur is no defense: the seed's study

*FGSM on a CNN; the adversarial images blurred or percentile-filtered before the model; accuracy against the filter's strength.*

This is the student's project that `unfooled` grew out of, run again on the full 10,000 test images of three data sets, with the
half that it left out. It attacked the bare model and filtered afterwards (**non-adaptive**). An attacker who knows of the
filter takes the gradient through it (**adaptive**). Both are the same attack, FGSM at the same eps; only what the attacker knows
differs, and the difference between the two accuracies is the **gap**: the part of the defense that was the attacker's ignorance.

FGSM is a single step. So each table ends with PGD through the filter ({stronger}) on what FGSM left.

## What it means

{meaning}

Each accuracy counts an image that the model gets wrong as wrong, and a point found at a smaller eps at every larger one. All of them
are upper bounds: a stronger attack may find more. How an accuracy is counted, and how that differs from the student's own count, is in
[decision 3](../decisions/0003-misclassified-images.md).
"""

TAIL = """## How to repeat it

```sh
{commands}
```

Made with unfooled {env.unfooled}, torch {env.torch}, Python {env.python} on {env.machine}, {env.threads} thread for each study; seed 0. The CNNs
are the seed's, trained by the recipe `standard` (8 epochs of AdamW) and rounded to float16 before anything was measured. Times are
wall-clock on a machine that did other work as well.

| data | forward passes | backward passes | minutes |
| --- | ---: | ---: | ---: |
{costs}
"""


MEANING = """The student's curves are real, and so is the illusion in them. On MNIST, a blur or a small percentile filter brings back more than
twenty points that FGSM had taken at eps 0.2. The same single step, with its gradient taken through the filter, takes them away again at the
best blur, where it leaves less than it left of the bare CNN, and half of them at the percentile filter. That much of the filter's worth was only
an attack aimed at another model. On Fashion-MNIST the illusion is smaller, since a blur that removes FGSM's pattern also removes much of the clothes, and an
attacker who knows of it leaves almost nothing. On CIFAR-10 there is hardly anything to bring back.

Two numbers deserve a second look. The MNIST CNN resists FGSM at eps 0.2 better than the others (dark background, few classes, a bright
stroke), but PGD takes it down: one step is no measure of robustness. And behind the MNIST filters PGD leaves more than it
leaves of the bare CNN. That may be some real smoothing, or ten steps may be too few through a filter: it is an upper bound, from an
attack that was chosen to be simple. A filter that is to count as a defense has to hold against the strongest attack that knows of it."""


def markdown(table: Table) -> str:
    head = "| " + " | ".join(table.columns) + " |"
    line = "| " + " | ".join(["---", *["---:"] * (len(table.columns) - 1)]) + " |"
    return "\n".join([head, line, *("| " + " | ".join(row) + " |" for row in table.rows)])


def value(table: Table, row: int, column: str) -> str:
    return table.rows[row][table.columns.index(column)]


def gap_line(title: str, evaluation: Evaluation, kind: str) -> str:
    table = next(t for t in evaluation.tables if t.id == f"{kind}-best")
    eps = next(t for t in evaluation.tables if t.id == "accuracy-against-eps")
    bare = next(row[1].split(" [")[0] for row in eps.rows if row[0] == "0.2")
    cells = [
        bare,
        *(value(table, 0, name) for name in ("FGSM, non-adaptive", "FGSM, adaptive", "gap", "PGD, adaptive")),
    ]
    return f"| {title} | {kind} | " + " | ".join(cells) + " |"


def main() -> None:
    pages = ROOT / "docs" / "studies"
    images = pages / "seed"
    images.mkdir(parents=True, exist_ok=True)
    runs = {name: RunFolder(ROOT / "runs" / "seed" / name) for name in SETS}
    found = {name: run.evaluation() for name, run in runs.items()}
    overview = [
        "| data | filter | FGSM, no filter | FGSM, non-adaptive | FGSM, adaptive | gap (points) | PGD, adaptive |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, title in SETS.items():
        overview += [gap_line(title, found[name], kind) for kind in ("blur", "percentile filter")]
    first = found["mnist"]
    stronger = first.settings["attacks"].split("; ")[1].removesuffix(" where FGSM did not fool")
    parts = [
        HEAD.format(stronger=f"`{stronger}`", meaning=MEANING),
        "## At eps 0.2, the best strength of each filter\n",
        "\n".join(overview) + "\n",
    ]
    for name, title in SETS.items():
        parts.append(section(name, title, found[name], runs[name].path / "plots", images))
    costs = []
    for name, title in SETS.items():
        cost = found[name].cost
        forward, backward = sum(c.forward for c in cost), sum(c.backward for c in cost)
        costs.append(f"| {title} | {forward:,} | {backward:,} | {sum(c.seconds for c in cost) / 60:.1f} |")
    commands = "\n".join(f"unfooled sweep --study seed --data {name}" for name in SETS)
    commands += "\nunfooled demo --out demo\npython tools/study_page.py"
    parts.append(TAIL.format(commands=commands, env=first.environment, costs="\n".join(costs)))
    (pages / "seed.md").write_text("\n".join(parts))
    pictures = ROOT / "docs" / "images"
    pictures.mkdir(exist_ok=True)
    shutil.copy(ROOT / "demo" / "plots" / "triptych.png", pictures / "triptych.png")
    shutil.copy(runs["mnist"].path / "plots" / "blur-at-0.2.png", pictures / "blur.png")


def section(name: str, title: str, evaluation: Evaluation, plots: Path, images: Path) -> str:
    parts = [f"## {title}\n", *(f"- {sentence}" for sentence in evaluation.verdict), ""]
    for table in evaluation.tables:
        parts += [f"**{table.title}**\n", markdown(table), ""]
    for plot in PLOTS:
        target = f"{name}-{plot.replace(' ', '-')}.png"
        shutil.copy(plots / f"{plot}.png", images / target)
        parts.append(f"![{title}: {plot.replace('-', ' ')}](seed/{target})\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
