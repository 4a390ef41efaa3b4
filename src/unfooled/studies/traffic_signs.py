"""Traffic signs: a small network that reads German signs, and what a stop sign can be made to say.

German Traffic Sign Recognition Benchmark, Stallkamp et al. 2012, shrunk to 32×32. The network is trained here, in a few
minutes, and kept in the folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..album import Album
from ..attacks import FMN
from ..data import Dataset
from ..data.catalog import GTSRB
from ..errors import DataError
from ..intervals import clopper_pearson
from ..judging import judge
from ..results import Evaluation, Gallery, Table, percent
from ..store import RunFolder
from ..training import Recipe
from .case import ATTACKED_AT, LEVELS, Asked, Bench, Reached, best_of, fitted, training_words
from .case_page import MIDDLE, Measured, measure, page, pictures, smallest_galleries
from .case_words import (
    SCOPE,
    attacked_sentence,
    clean_sentence,
    decision,
    headline,
    saved_sentence,
    smallest_sentence,
    steps,
    telling,
    trust_sentence,
)

DATA, TRAINING = "gtsrb:test[0:500]", "gtsrb:train"
STOP, LIMIT = "stop", "speed limit"
STOPS = 50  # stop signs that are turned into speed limits
MINIMAL, AIMED = FMN(steps=200), FMN(steps=100)
CHUNK = 125
LISTED = 15  # kinds of signs in the table
COPIES = 4  # of each training image, varied
RECIPE = Recipe("cross-entropy on varied copies of the images", epochs=5)


class SignNet(nn.Sequential):
    """Three 3×3 convolutions of 32, 64 and 128 channels with batch norm, each halving the side; one linear layer.

    Images (N, 3, 32, 32) in [0, 1] to logits (N, 43).
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(128 * 4 * 4, len(GTSRB)))


@dataclass(frozen=True)
class Stops:
    """Stop signs, and for each kind of speed limit what made them read so; `best` is the nearest limit of each."""

    bench: Bench
    limits: dict[int, Reached]
    best: Reached


def run(asked: Asked, folder: RunFolder) -> tuple[Evaluation, Album]:
    """Train or take the network, measure it, and put it into words."""
    data = asked.load(asked.data or DATA)
    if asked.model is None and data.classes != GTSRB:
        raise DataError(f"The study's own network reads the 43 signs of gtsrb; {data.name} has others. Give a --model.")
    model = _own(asked, folder) if asked.model is None else asked.model(data)
    about = "a small CNN, trained by the study" if asked.model is None else asked.about
    bench = Bench(folder, model, about, data, asked.seed, asked.say)
    m = measure(bench, MINIMAL, CHUNK, (0.2, 0.8))
    everything = _all_signs(asked, data)
    stops = _stops(bench, everything)
    asked.say("drawing", 0.98)
    album = Album(data.classes)
    galleries = [*([] if stops is None else [_turned(stops, album)]), *smallest_galleries(m, album)]
    evaluation = page(
        m, "Traffic signs: what a stop sign can be made to say", _verdict(m, stops, everything),
        [*([] if stops is None else [_limits(stops)]), _by_class(m)], galleries,
        {**training_words(folder, TRAINING, f", {COPIES} in {COPIES + 1} of them varied copies"),
         "terms": "GTSRB is free for research; cite Stallkamp et al. 2012"},
        costs=[] if stops is None else [one.cost for one in stops.limits.values()],
    )  # fmt: skip
    return evaluation, album


# --- the network -----------------------------------------------------------------------------------


def _own(asked: Asked, folder: RunFolder) -> nn.Module:
    def training() -> tuple[Tensor, Tensor]:
        found = asked.load(TRAINING)
        return varied(found.whole(), found.labels, COPIES, asked.seed)

    about = {"data": TRAINING, "model": "SignNet", "copies": str(COPIES)}
    return fitted(folder, SignNet, training, RECIPE, asked.seed, asked.say, (0.0, 0.2), about)


def varied(images: Tensor, labels: Tensor, copies: int, seed: int) -> tuple[Tensor, Tensor]:
    """The images and copies of them: turned by up to 11°, scaled and shifted by up to 15 %, lighter or darker.

    Never mirrored: that would make another sign of it.
    """
    generator = torch.Generator().manual_seed(seed)
    made = [images]
    for _ in range(copies):
        angle, scale, across, down, gain, shift = (
            torch.rand(6, len(images), generator=generator) * 2 - 1
        ) * torch.tensor([[0.2], [0.15], [0.15], [0.15], [0.4], [0.1]])
        cos, sin = angle.cos() * (1 + scale), angle.sin() * (1 + scale)
        moved = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
        grid = F.affine_grid(moved, list(images.shape), align_corners=False)
        seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        made.append((seen * (1 + gain[:, None, None, None]) + shift[:, None, None, None]).clamp(0, 1))
    return torch.cat(made), labels.repeat(copies + 1)


# --- stop signs ------------------------------------------------------------------------------------


def _all_signs(asked: Asked, data: Dataset) -> Dataset:
    """The whole of the set that the study's images are a part of, since few of them are stop signs."""
    spec = asked.data or DATA
    return asked.load(spec.partition("[")[0]) if "[" in spec else data


def _stops(bench: Bench, everything: Dataset) -> Stops | None:
    """Stop signs turned into each speed limit; None where the classes have no such names."""
    classes = everything.classes
    limits = [k for k, name in enumerate(classes) if name.startswith(LIMIT)]
    if STOP not in classes or not limits:
        return None
    rows = (everything.labels == classes.index(STOP)).nonzero().squeeze(1)[:STOPS]
    if not len(rows):
        return None
    some = Dataset(
        everything.whole()[rows], everything.labels[rows], classes, f"{len(rows)} stop signs", everything.name
    )
    own = Bench(bench.folder, bench.model, bench.about, some, bench.seed, bench.say)
    found = {}
    for k, limit in enumerate(limits):
        share = (0.8 + 0.18 * k / len(limits), 0.8 + 0.18 * (k + 1) / len(limits))
        aim = torch.full((len(rows),), limit)
        name = f"stop-to-{classes[limit].replace(' ', '-')}"
        found[limit] = own.swept(name, AIMED, share, targets=aim, chunk=STOPS)
    return Stops(own, found, best_of(list(found.values())))


def _turned(stops: Stops, album: Album) -> Gallery:
    """Stop signs that the least change turns into a speed limit, each into another one; of the brighter half."""
    light = stops.bench.images.mean((1, 2, 3)).numpy()
    able = stops.best.fooled() & (light >= np.median(light))
    order = np.argsort(np.where(able, stops.best.size, np.inf), kind="stable")
    points = torch.from_numpy(stops.best.points)
    then = judge(stops.bench.model, points, stops.bench.data.labels).prediction.tolist()
    chosen: list[int] = []
    for row in order.tolist():
        if able[row] and len(chosen) < 3 and then[row] not in [then[other] for other in chosen]:
            chosen.append(row)
    return Gallery(
        id="stop",
        title="A stop sign that says: drive on",
        kind="triptych",
        pictures=pictures(stops.bench, album, chosen, stops.best),
        caption="The smallest change found that makes the network answer a speed limit, for three of the limits, among the "
        "brighter half of the stop signs: on the others there is little to see.",
    )


def _limits(stops: Stops) -> Table:
    """How many stop signs each speed limit can be made of, at each size of change."""
    right = int(stops.best.correct.sum())

    def row(name: str, reached: Reached) -> list[str]:
        hit = reached.size[reached.fooled()]
        least = f"{LEVELS * hit.min():.2f}" if len(hit) else "–"
        return [name, *(f"{int(reached.fooled(levels).sum())} of {right}" for levels in ATTACKED_AT), least]

    rows = [row(stops.bench.called(limit), reached) for limit, reached in stops.limits.items()]
    return Table(
        id="stop",
        title="Stop signs read as a speed limit",
        columns=["read as", *(f"at {levels}/255" for levels in ATTACKED_AT), "smallest change, in steps of 1/255"],
        rows=[*rows, row("any of them", stops.best)],
        strong=[len(rows)],
        caption=f"{right} of {len(stops.bench.data)} stop signs are read rightly when nothing is changed; the attack "
        f"({AIMED}) aims at each limit in turn.",
    )


# --- words -----------------------------------------------------------------------------------------


def _verdict(m: Measured, stops: Stops | None, everything: Dataset) -> list[str]:
    clean = m.fgsm.accuracy(0.0)
    held = {levels: one.accuracy(levels) for levels, one in m.fast.items()}
    at = telling(clean, held, MIDDLE)
    made = "" if stops is None else f", and makes a speed limit of {_count(stops, at)} stop signs"
    return [
        headline(clean, held[at], at, "signs", made),
        clean_sentence(clean, "signs") + _of_all(m, everything),
        attacked_sentence(m.fgsm, held),
        *([] if stops is None else [_stop_sentence(stops)]),
        smallest_sentence(m.best, _nearest(m)),
        saved_sentence(MIDDLE, m.saved(MIDDLE), held[MIDDLE]),
        decision(
            clean, held[at], at, "brake or steer by itself",
            "Keep a second source beside it (a map, another sensor, a person), train it against attacks (the recipe pgd), "
            "and test again.",
        ),
        f"{trust_sentence(m.evaluation)} {SCOPE}",
    ]  # fmt: skip


def _of_all(m: Measured, everything: Dataset) -> str:
    if len(everything) <= len(m.bench.data):
        return ""
    right = judge(m.bench.model, everything.whole(), everything.labels).clean_correct
    return f" On all {len(everything):,} test signs it gets {percent(clopper_pearson(int(right.sum()), len(right)))} right."


def _nearest(m: Measured) -> str:
    row = m.nearest
    if row is None:
        return ""
    after = judge(m.bench.model, torch.from_numpy(m.best.points[row : row + 1]), m.bench.data.labels[row : row + 1])
    return f"“{m.bench.name(row)}” is then read as “{m.bench.called(after.prediction[0])}”"


def _count(stops: Stops, levels: int) -> str:
    return f"{int(stops.best.fooled(levels).sum())} of {int(stops.best.correct.sum())}"


def _stop_sentence(stops: Stops) -> str:
    found = stops.best.fooled()
    first = f"Of {int(stops.best.correct.sum())} stop signs that it reads rightly"
    if not found.any():
        return f"{first}, the attack turned none into a speed limit."
    row = int(np.where(found, stops.best.size, np.inf).argmin())
    limit = min(stops.limits, key=lambda one: float(stops.limits[one].size[row]))
    counts = [f"{int(stops.best.fooled(levels).sum())} at {levels}/255" for levels in ATTACKED_AT]
    return (
        f"{first}, an attacker who wants a speed limit there gets {', '.join(counts[:-1])} and {counts[-1]}. For one of them "
        f"{steps(float(stops.best.size[row]))} are enough: the network reads “{stops.bench.called(limit)}”."
    )


def _by_class(m: Measured) -> Table:
    """The signs with most images: accuracy, and what the attacked ones are read as most often."""
    reached, labels = m.fast[MIDDLE], m.bench.data.labels.numpy()
    after = judge(m.bench.model, torch.from_numpy(reached.points), m.bench.data.labels).prediction.numpy()
    rows = []
    kinds, counts = np.unique(labels, return_counts=True)
    for label in kinds[np.argsort(-counts, kind="stable")][:LISTED].tolist():
        mine = labels == label
        wrong = after[mine & reached.fooled(MIDDLE)]
        often = np.bincount(wrong).argmax() if len(wrong) else None
        said = "" if often is None else f"{m.bench.called(int(often))} ({int((wrong == often).sum())} of {len(wrong)})"
        held = percent(reached.accuracy(MIDDLE, mine))
        rows.append([m.bench.called(label), str(int(mine.sum())), percent(reached.accuracy(0, mine)), held, said])
    return Table(
        id="classes",
        title=f"Sign by sign, under the protocol at {MIDDLE}/255",
        columns=["sign", "images", "clean", "attacked", "then read most often as"],
        rows=rows,
        caption=f"The {len(rows)} kinds of signs with most images, of {len(kinds)}.",
    )
