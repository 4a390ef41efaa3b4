"""What the report of a run that proves says: tables, the curve, and the verdict in sentences."""

from __future__ import annotations

import math

import numpy as np

from ..certificates.asked import Asked
from ..certificates.smoothing import Smoothing, curve
from ..data import Dataset
from ..environment import command_line, environment, now
from ..intervals import clopper_pearson
from ..results import Cost, Curve, Estimate, Evaluation, Mark, Panel, Table, percent
from ..store import RunFolder
from ..threats import Threat

Held = dict[str, np.ndarray]

LEVELS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0, 1.5, 2.0)  # of the sizes of the curve, in eps
POINTS = 17  # of smoothing's curve
BINS = 8  # of margins, about


def evaluation(
    folder: RunFolder,
    data: Dataset,
    threat: Threat,
    wanted: Asked,
    held: Held,
    settings: dict[str, str],
    notes: list[str],
) -> Evaluation:
    """The answer. held: what was proved and the evidence, by column."""
    n = len(held["example"])
    clean, proved = (_share(held[name], n) for name in ("clean_correct", "certified"))
    tables = [_summary(clean, proved, held, wanted), _methods(folder, held, wanted)]
    if not isinstance(wanted, Smoothing):
        tables += _margins(held)
    panel = _panel(held, threat, wanted, proved)
    logs = [log for _, log in sorted(folder.logs().items())]
    cost = [Cost(part=settings["method"], forward=int(held["draws"].sum()), backward=0,
                 seconds=round(sum(log["answers"] for log in logs), 2))]  # fmt: skip
    if panel is not None:
        cost.append(Cost(part="the curve", forward=0, backward=0, seconds=round(sum(log["curve"] for log in logs), 2)))
    return Evaluation(
        kind="certificate",
        title=f"{settings.get('model', 'The model')}: what is proved within {threat}",
        verdict=_verdict(clean, proved, held, threat, wanted),
        settings=settings,
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[*tables, _classes(data, held)],
        panels=[] if panel is None else [panel],
        cost=cost,
        notes=notes,
        clean_accuracy=clean,
        certified_accuracy=proved,
        asked=n,
    )


def _share(right: np.ndarray, n: int) -> Estimate:
    return clopper_pearson(int(right.sum()), n)


def _verdict(clean: Estimate, proved: Estimate, held: Held, threat: Threat, wanted: Asked) -> list[str]:
    """What is proved, of whom, and what is not said."""
    n, open_ = clean.n, int((held["clean_correct"] & ~held["certified"]).sum())
    first = (
        f"At least {percent(proved)} [{100 * proved.low:.1f}, {100 * proved.high:.1f}] of {n} images are right and stay "
        f"right under every change within {threat}"
    )
    if isinstance(wanted, Smoothing):
        return [
            f"{first}: certified, not attacked.",
            "The certificate speaks of the smoothed classifier, which answers by majority over noise, not of the model "
            f"alone. It is wrong with probability at most {wanted.alpha:g} for each image.",
        ]
    found = [f"{first}: proved, not attacked."]
    if open_:
        images = (
            "1 image is right and not proved: it" if open_ == 1 else f"{open_} images are right and not proved: they"
        )
        found.append(f"{images} may hold or not. Tighter bounds can prove more, attacks can refute more.")
    return found


def _summary(clean: Estimate, proved: Estimate, held: Held, wanted: Asked) -> Table:
    rows = [["clean accuracy", percent(clean, interval=True)], ["certified accuracy", percent(proved, interval=True)]]
    if isinstance(wanted, Smoothing):
        refuted, draws = held["refuted"], held["draws"]
        abstained = int((~held["certified"] & ~refuted).sum())
        rows += [
            ["refuted: more draws would not help", str(int(refuted.sum()))],
            ["abstained: undecided when draws ended", str(abstained)],
            ["draws an image, on average", f"{draws.mean():.0f}"],
            ["draws an image, median", f"{np.median(draws):.0f}"],
            ["alpha", f"{wanted.alpha:g}"],
        ]
    else:
        open_ = held["clean_correct"] & ~held["certified"]
        rows += [["right, not proved", f"{int(open_.sum())} of {clean.n}"]]
    return Table(id="summary", title="Result", columns=["measure", "value"], rows=rows, strong=[1])


def _methods(folder: RunFolder, held: Held, wanted: Asked) -> Table:
    """What each method was tried on, proved and took."""
    logs = [log["seconds"] for log in folder.logs().values()]
    if isinstance(wanted, Smoothing):
        names, left = ["smoothing"], len(held["example"])
    else:
        names, left = [one.name for one in wanted], int(held["clean_correct"].sum())
    rows = []
    for number, name in enumerate(names):
        proved = int((held["by"] == number).sum())
        rows.append([name, str(left), str(proved), f"{sum(log[number] for log in logs):.1f}"])
        left -= proved
    return Table(id="methods", title="By method", columns=["method", "tried", "proved", "seconds"], rows=rows)


def _margins(held: Held) -> list[Table]:
    """A histogram of the margins of what is right: how far from the edge each image is."""
    margin = held["margin"][held["clean_correct"] & np.isfinite(held["margin"])].clip(-1e150, 1e150)
    if not len(margin):
        return []
    edges = _edges(float(margin.min()), float(margin.max()))
    counts, _ = np.histogram(margin, edges)
    most = max(1, counts.max())
    rows = [
        [f"{low:.4g} to {high:.4g}", str(count), "█" * math.ceil(20 * count / most)]
        for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False)
    ]
    strong = [at for at, low in enumerate(edges[:-1]) if low >= 0]
    return [
        Table(
            id="margins", title="Margins of the images that are right", columns=["margin", "images", "in bars"], rows=rows,
            strong=strong,
            caption="A lower bound of the logit of the label less the largest other, over the threat's set. Above 0: proved.",
        )
    ]  # fmt: skip


def _edges(low: float, high: float) -> list[float]:
    """Round numbers from below the least to above the largest, 0 among them if it is between."""
    width = (high - low) / BINS or 1.0
    unit = 10.0 ** math.floor(math.log10(width))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= width * (1 - 1e-9))
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return [float(f"{step * at:.12g}") + 0.0 for at in range(first, last + 1)]


def _panel(held: Held, threat: Threat, wanted: Asked, proved: Estimate) -> Panel | None:
    """Certified accuracy against the size of the change, on the images whose certified size was sought."""
    sought = ~np.isnan(held["size"])
    if not sought.any():
        return None
    size, norm, n = held["size"][sought], type(threat).__name__, int(sought.sum())
    if isinstance(wanted, Smoothing):
        top = max(2 * threat.eps, float(size.max()))
        drawn = curve(
            size, np.asarray(size > 0), [top * k / (POINTS - 1) for k in range(POINTS)], "certified by smoothing"
        )
        caption = (
            f"The share of {n} images that are right and certified so far, by a fixed number of draws for all sizes. "
            "The mark is the sequential test at eps alone, with more draws where they are needed, on all images."
        )
    else:
        drawn = _steps(size, held["clean_correct"][sought], threat.eps)
        caption = (
            f"The share of {n} images that are right and proved up to that size, found by halving among few sizes without "
            "alpha-crown, but for eps itself. The mark is what all methods prove of all images."
        )
    return Panel(
        id="certified-accuracy-against-eps", title="Certified accuracy against epsilon", x_label=f"eps ({norm})",
        curves=[drawn], marks=[Mark(label=f"{proved.n} images at {threat}", x=threat.eps, y=proved)], caption=caption,
    )  # fmt: skip


def _steps(size: np.ndarray, right: np.ndarray, eps: float) -> Curve:
    at = [eps * level for level in LEVELS]
    shares = [_share(right, len(right)), *(_share(size >= x * (1 - 1e-9), len(size)) for x in at)]
    return Curve(label="proved", x=[0.0, *at], y=shares)


def _classes(data: Dataset, held: Held) -> Table:
    rows = []
    for label in sorted(set(held["label"].tolist())):
        mine = held["label"] == label
        name = data.classes[label] if label < len(data.classes) else str(label)
        n = int(mine.sum())
        clean, proved = (_share(held[column] & mine, n) for column in ("clean_correct", "certified"))
        rows.append([name, str(n), percent(clean), percent(proved, interval=True)])
    return Table(id="classes", title="By class", columns=["class", "images", "clean", "certified"], rows=rows)
