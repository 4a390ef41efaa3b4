"""What the page of a safety-critical case shows: tables, curves, pictures, and the sentences that all cases share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..album import Album
from ..attacks import FGSM, Plan
from ..environment import command_line, environment, now
from ..judging import judge
from ..results import Cost, Curve, Estimate, Evaluation, Gallery, Mark, Panel, Picture, Table, percent
from ..threats import Linf
from .case import ATTACKED_AT, GRID, PROTOCOL, Bench, Reached, best_of
from .case_words import doubts

MIDDLE = 4  # levels: the size of change that the sentences speak of
SHOWN, CARDS = 3, 12
SURE = 0.9  # the confidence of an answer that is no toss-up


@dataclass(frozen=True)
class Measured:
    """Everything that was measured of a network on N images.

    evaluation:      the whole evaluation at `MIDDLE`.
    fast:            by levels, what the protocol reached; at `MIDDLE` the evaluation did.
    fgsm, smallest:  FGSM over the grid; a minimum-norm attack.
    best:            of each image the smallest change that any of them found.
    """

    bench: Bench
    evaluation: Evaluation
    fast: dict[int, Reached]
    fgsm: Reached
    smallest: Reached
    best: Reached

    def saved(self, levels: int) -> Estimate:
        """Accuracy on the protocol's points in 8 bits; the evaluation, at `MIDDLE`, also searched among 8-bit images."""
        searched = self.evaluation.rounded if levels == MIDDLE else None
        return searched or self.bench.saved(self.fast[levels], levels)

    @property
    def costs(self) -> list[Cost]:
        """What each part took, when it was measured."""
        return [*(one.cost for one in self.fast.values()), self.fgsm.cost, self.smallest.cost]

    @property
    def nearest(self) -> int | None:
        """The image that the smallest change of all fools; None where nothing fools any."""
        hit = np.flatnonzero(self.best.fooled())
        return int(hit[self.best.size[hit].argmin()]) if len(hit) else None


def measure(bench: Bench, minimal: Plan, chunk: int, share: tuple[float, float]) -> Measured:
    """FGSM, the protocol and a minimum-norm attack; what was measured before is read from the folder.

    One whole evaluation, at `MIDDLE`, checks the network and its gradients: that holds for every size of change.
    """
    ends = np.linspace(*share, 6).tolist()
    evaluation, middle = bench.evaluated(MIDDLE, (ends[0], ends[1]))
    fast = {}
    for k, levels in enumerate(ATTACKED_AT):
        fast[levels] = middle if levels == MIDDLE else bench.held(levels, (ends[1 + k // 2], ends[2 + k // 2]), chunk)
    fgsm = bench.swept("fgsm", FGSM(), (ends[3], ends[4]), chunk=chunk)
    smallest = bench.swept("smallest-changes", minimal, (ends[4], ends[5]), chunk=chunk)
    return Measured(bench, evaluation, fast, fgsm, smallest, best_of([smallest, fgsm, *fast.values()]))


def page(
    m: Measured, title: str, verdict: list[str], tables: list[Table], galleries: list[Gallery], settings: dict[str, str],
    costs: Sequence[Cost] = (), notes: Sequence[str] = (),
) -> Evaluation:  # fmt: skip
    """The study as an `Evaluation`: what all cases show, and `tables` and `galleries` of this one."""
    bench = m.bench
    return Evaluation(
        kind="study",
        title=title,
        verdict=verdict,
        settings={
            "data": bench.data.name, "model": bench.about, "threat": "Linf; levels are steps of 1/255",
            "attacks": f"{FGSM()}; the protocol {PROTOCOL}; {m.smallest.by[0]} for the smallest changes", **settings,
            "seed": str(bench.seed),
        },
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[summary(m), *tables],
        panels=curves(m),
        galleries=galleries,
        cost=[*m.costs, *costs],
        notes=[*notes, *doubts(m.evaluation, MIDDLE)],
        clean_accuracy=m.fgsm.accuracy(0.0),
        trust=m.evaluation.trust,
        findings=m.evaluation.findings,
    )  # fmt: skip


def summary(m: Measured) -> Table:
    """Accuracy clean, under FGSM and under the protocol, of floats and of 8-bit files."""
    rows = [["0 (not attacked)", *[percent(m.fgsm.accuracy(0.0), interval=True)] * 3]]
    for levels, reached in m.fast.items():
        found = (m.fgsm.accuracy(levels), reached.accuracy(levels), m.saved(levels))
        rows.append([f"{levels}/255", *(percent(one, interval=True) for one in found)])
    return Table(
        id="summary",
        title="Accuracy",
        columns=["largest change of a pixel", "FGSM", f"protocol {PROTOCOL}", "the same, saved with 8 bits"],
        rows=rows,
        strong=[1 + ATTACKED_AT.index(MIDDLE)],
        caption=f"Of {len(m.bench.data):,} images, with 95 % intervals. A point that FGSM finds at a smaller change counts "
        "at every larger one. Saved with 8 bits: each pixel is rounded towards its original, as in an image file; at "
        f"{MIDDLE}/255 the evaluation also searched among such images.",
    )


def curves(m: Measured) -> list[Panel]:
    """Accuracy against eps; where half is lost before the first step, that step once more, larger."""
    whole = _panel(m, GRID[-1], "accuracy-against-eps", "Accuracy against epsilon")
    if m.best.accuracy(1.0).value >= m.best.accuracy(0.0).value / 2:
        return [whole]
    return [whole, _panel(m, 1.0, "first-step", "The first step of 255, larger")]


def _panel(m: Measured, last: float, name: str, title: str) -> Panel:
    """FGSM, and the smallest change that any attack found, up to so many levels."""
    grid = [level for level in GRID if level <= last]
    return Panel(
        id=name,
        title=title,
        x_label="eps (Linf), in steps of 1/255",
        curves=[
            Curve(label="FGSM", x=grid, y=[m.fgsm.accuracy(x) for x in grid], family="FGSM"),
            Curve(label="strongest found", x=grid, y=[m.best.accuracy(x) for x in grid], family="strongest"),
        ],
        marks=[
            Mark(label=PROTOCOL, x=float(at), y=m.fast[at].accuracy(at), family="strongest")
            for at in ATTACKED_AT
            if at <= last
        ],
        caption="Strongest found: for each image the smallest change among FGSM's, the protocol's and the minimum-norm "
        "attack's. All of it is an upper bound: a stronger attack may find smaller changes.",
    )


# --- pictures --------------------------------------------------------------------------------------


def pictures(bench: Bench, album: Album, rows: Sequence[int], reached: Reached) -> list[Picture]:
    """Images of these rows with the points that fooled."""
    found = []
    for row in rows:
        at = torch.tensor([row])
        point = torch.from_numpy(reached.points[row : row + 1])
        found += album.add(
            bench.model, bench.images[at], point, bench.data.labels[at], at, Linf(1.0), str(reached.by[row]), "the network"
        )  # fmt: skip
    return found


def smallest_galleries(m: Measured, album: Album) -> list[Gallery]:
    """The image that the smallest change fools; the smallest where the network was sure; the twelve smallest."""
    hit = np.flatnonzero(m.best.fooled())
    order = hit[np.argsort(m.best.size[hit], kind="stable")].tolist()
    sure = judge(m.bench.model, m.bench.images, m.bench.data.labels).confidence >= SURE
    labels = m.bench.data.labels.tolist()
    chosen: list[int] = order[:1]
    for row in order:
        if len(chosen) < SHOWN and sure[row] and labels[row] not in [labels[other] for other in chosen]:
            chosen.append(row)
    return [
        Gallery(
            id="triptych",
            title="The smallest changes that fool",
            kind="triptych",
            pictures=pictures(m.bench, album, chosen, m.best),
            caption="First the smallest of all: an image that the network had all but misread. Then the smallest, of other "
            f"classes, where it had been sure by {100 * SURE:g} % or more. The change in the middle is shown many times "
            "stronger than it is, or there would be nothing to see.",
        ),
        Gallery(
            id="smallest",
            title=f"The {min(CARDS, len(order))} smallest",
            kind="grid",
            pictures=pictures(m.bench, album, order[:CARDS], m.best),
        ),
    ]
