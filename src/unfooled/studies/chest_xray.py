"""Chest X-rays: a small network that finds pneumonia, the cases that an attacker makes it miss, and the false alarms.

PneumoniaMNIST (Yang et al. 2023, from Kermany et al. 2018): X-rays of children's chests at 28×28, healthy or pneumonia. The
user brings its file; the network is trained here and kept in the folder.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ..album import Album
from ..attacks import FMN
from ..data import Dataset
from ..errors import DataError, MissingData
from ..models import SeedCNN
from ..results import Estimate, Evaluation, Gallery, Table, percent
from ..store import RunFolder
from ..training import Recipe
from .case import ATTACKED_AT, Asked, Bench, Reached, fitted, training_words
from .case_page import MIDDLE, Measured, measure, page, pictures, smallest_galleries
from .case_words import (
    SCOPE,
    attacked_sentence,
    clean_sentence,
    decision,
    headline,
    saved_sentence,
    smallest_sentence,
    telling,
    trust_sentence,
)

NAME = "pneumoniamnist"
SOURCE = "https://medmnist.com"
CLASSES = ("normal", "pneumonia")
HEALTHY, ILL = 0, 1
MINIMAL = FMN(steps=200)
CHUNK = 208
RECIPE = Recipe("cross-entropy on the images", epochs=8)


def run(asked: Asked, folder: RunFolder) -> tuple[Evaluation, Album]:
    """Train or take the network, measure it, and put it into words."""
    spec = asked.data or _own_file()
    data = _two_classes(asked.load(spec))
    if asked.data is None:
        data = replace(data, name=f"{NAME}:test")
    model = _own(asked, folder, spec, data) if asked.model is None else asked.model(data)
    about = "the seed's CNN, trained by the study" if asked.model is None else asked.about
    m = measure(Bench(folder, model, about, data, asked.seed, asked.say), MINIMAL, CHUNK, (0.2, 0.97))
    asked.say("drawing", 0.97)
    album = Album(data.classes)
    evaluation = page(
        m, "Chest X-rays: pneumonia missed", _verdict(m), [_both_kinds(m)],
        [_missed(m, album), *smallest_galleries(m, album)],
        {
            **training_words(folder, f"{NAME}:train" if asked.data is None else _training(spec)),
            "terms": "PneumoniaMNIST is under CC BY 4.0; cite Yang et al. 2023 and Kermany et al. 2018",
        },
    )  # fmt: skip
    return evaluation, album


def _own_file() -> str:
    """The spec of the test split in the user's folder of data."""
    base = os.environ.get("UNFOOLED_DATA")
    for folder in [] if not base else [Path(base).expanduser(), Path(base).expanduser() / "medmnist"]:
        if (folder / f"{NAME}.npz").is_file():
            return f"{folder / f'{NAME}.npz'}:test"
    where = f"UNFOOLED_DATA ({base})" if base else "UNFOOLED_DATA, which is not set"
    raise MissingData(
        f"There is no {NAME}.npz in {where}. Download it from {SOURCE} (4 MB, CC BY 4.0), or name a file "
        "of its form with --data."
    )


def _two_classes(data: Dataset) -> Dataset:
    """The data with the names of the two classes, both of which must be there."""
    if not data.classes:
        data = replace(data, classes=CLASSES)
    if data.classes != CLASSES or set(data.labels.tolist()) != {HEALTHY, ILL}:
        raise DataError(
            f"{data.name} must hold both healthy images (label 0) and pneumonias (label 1), and nothing else: give "
            "pneumoniamnist:test, or a file of that form."
        )
    return data


def _training(spec: str) -> str:
    """The training split of the same set."""
    return f"{spec.partition('[')[0].removesuffix(':test')}:train"


def _own(asked: Asked, folder: RunFolder, spec: str, data: Dataset) -> nn.Module:
    training = _training(spec)
    channels, side = data.images.shape[1], data.images.shape[-1]

    def build() -> nn.Module:
        return SeedCNN(channels, side, len(CLASSES))

    def images() -> tuple[Tensor, Tensor]:
        found = _two_classes(asked.load(training))
        return found.whole(), found.labels

    about = {"data": training, "model": "seed-cnn"}
    return fitted(folder, build, images, RECIPE, asked.seed, asked.say, (0.0, 0.2), about)


def _of(m: Measured, label: int, reached: Reached, levels: float) -> Estimate:
    return reached.accuracy(levels, m.bench.data.labels.numpy() == label)


def _both_kinds(m: Measured) -> Table:
    """Sensitivity and specificity, not attacked and under the protocol."""
    rows = [["0 (not attacked)", *(percent(_of(m, kind, m.fgsm, 0), interval=True) for kind in (ILL, HEALTHY))]]
    for levels, reached in m.fast.items():
        both = (percent(_of(m, kind, reached, levels), interval=True) for kind in (ILL, HEALTHY))
        rows.append([f"{levels}/255", *both])
    return Table(
        id="kinds",
        title="Pneumonias found, healthy images cleared",
        columns=["largest change of a pixel", "pneumonias found (sensitivity)", "healthy cleared (specificity)"],
        rows=rows,
        strong=[1 + ATTACKED_AT.index(MIDDLE)],
        caption="Under the protocol fast. Each column is attacked to its own harm: a pneumonia to be missed, a healthy image "
        "to raise an alarm.",
    )


def _missed(m: Measured, album: Album) -> Gallery:
    """Pneumonias that the least change hides."""
    hit = np.flatnonzero(m.best.fooled() & (m.bench.data.labels.numpy() == ILL))
    chosen = hit[np.argsort(m.best.size[hit], kind="stable")][:3].tolist()
    return Gallery(
        id="missed",
        title="Pneumonias that are no longer seen",
        kind="triptych",
        pictures=pictures(m.bench, album, chosen, m.best),
        caption="The smallest changes found that make the network answer normal.",
    )


def _verdict(m: Measured) -> list[str]:
    clean = m.fgsm.accuracy(0.0)
    held = {levels: one.accuracy(levels) for levels, one in m.fast.items()}
    row = m.nearest
    what = (
        "" if row is None else f"“{m.bench.name(row)}” is then read as “{CLASSES[1 - int(m.bench.data.labels[row])]}”"
    )
    at = telling(clean, held, MIDDLE)
    missed = int((m.fast[at].fooled(at) & (m.bench.data.labels.numpy() == ILL)).sum())
    return [
        headline(clean, held[at], at, "images", f", and hides {missed} pneumonias that it had found"),
        f"{clean_sentence(clean, 'images')} It finds {percent(_of(m, ILL, m.fgsm, 0))} of the pneumonias and clears "
        f"{percent(_of(m, HEALTHY, m.fgsm, 0))} of the healthy.",
        attacked_sentence(m.fgsm, held),
        _missed_sentence(m),
        smallest_sentence(m.best, what),
        saved_sentence(MIDDLE, m.saved(MIDDLE), held[MIDDLE]),
        decision(
            clean, held[at], at, "clear a patient by itself",
            "Let a physician read every image that it clears, guard the way from the detector to the screen, and test again "
            "after any change.",
        ),
        f"{trust_sentence(m.evaluation)} {SCOPE} These are miniatures of {m.bench.data.images.shape[-1]} pixels a side: a "
        "network in a clinic sees more, and must be tested itself.",
    ]  # fmt: skip


def _missed_sentence(m: Measured) -> str:
    """How many pneumonias an attacker hides, and how many alarms it raises."""
    labels, reached = m.bench.data.labels.numpy(), m.fast[MIDDLE]
    counts = []
    for kind in (ILL, HEALTHY):
        mine = labels == kind
        counts.append((int((reached.fooled(MIDDLE) & mine).sum()), int((reached.correct & mine).sum())))
    (missed, found), (alarms, cleared) = counts
    return (
        f"At {MIDDLE}/255 an attacker makes it miss {missed} of the {found} pneumonias that it finds, and raise an alarm on "
        f"{alarms} of the {cleared} healthy images that it clears."
    )
