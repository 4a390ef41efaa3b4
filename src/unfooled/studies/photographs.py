"""A pretrained network on photographs of ImageNet: one that millions of programs are built from, attacked as it is.

The photographs lie in a folder with a `labels.csv` (file, label_index) that the user brings; they are cropped and shrunk as
the network's own test does it, so its clean accuracy is the one to expect. The change is one of the 224×224 pixels.
"""

from __future__ import annotations

import csv
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..album import Album
from ..attacks import FMN
from ..data import Dataset
from ..errors import DataError, MissingData
from ..judging import judge
from ..models.efficientnet import LICENCE, SIDE, lite0
from ..results import Evaluation, Table
from ..store import RunFolder
from .case import LEVELS, Asked, Bench
from .case_page import MIDDLE, Measured, measure, page, smallest_galleries
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

FOLDER, TABLE = "imagenet_sample", "labels.csv"
CENTRE = SIDE / (SIDE + 32)  # of the shorter side: the crop that the network's authors test with
MINIMAL = FMN(steps=100)
CHUNK = 16  # images: what a run that is stopped repeats at most


def run(asked: Asked, folder: RunFolder) -> tuple[Evaluation, Album]:
    """Measure the network on the photographs and put it into words."""
    place = Path(asked.data) if asked.data is not None else _own_place()
    data = photographs(place) if (place / TABLE).is_file() or asked.data is None else asked.load(str(asked.data))
    model = lite0() if asked.model is None else asked.model(data)
    about = "EfficientNet-Lite0, pretrained" if asked.model is None else asked.about
    bench = Bench(folder, model, about, data, asked.seed, asked.say)
    m = measure(bench, MINIMAL, CHUNK, (0.0, 0.97))
    asked.say("drawing", 0.97)
    album, after = Album(data.classes), judge(model, torch.from_numpy(m.best.points), data.labels).prediction
    own = {"weights": LICENCE} if asked.model is None else {}
    evaluation = page(
        m, f"Photographs: {about}", _verdict(m, after), [_each(m, after)], smallest_galleries(m, album),
        {"preparation": f"the middle {100 * CENTRE:g} % of the shorter side, bicubic to {SIDE}×{SIDE}", **own},
    )  # fmt: skip
    return evaluation, album


def _verdict(m: Measured, after: Tensor) -> list[str]:
    clean = m.fgsm.accuracy(0.0)
    held = {levels: one.accuracy(levels) for levels, one in m.fast.items()}
    at, first = telling(clean, held, MIDDLE), m.nearest
    what = "" if first is None else f"“{m.bench.name(first)}” is then read as “{m.bench.called(after[first])}”"
    remedy = (
        "Train it against attacks before it decides alone (the recipe pgd), let a person see what matters, and test again "
        "with the attacks that know of the change."
    )
    return [
        headline(clean, held[at], at, "photographs"),
        clean_sentence(clean, "photographs"),
        attacked_sentence(m.fgsm, held),
        smallest_sentence(m.best, what),
        saved_sentence(MIDDLE, m.saved(MIDDLE), held[MIDDLE]),
        decision(clean, held[at], at, "act on a photograph by itself", remedy),
        f"{trust_sentence(m.evaluation)} {SCOPE}",
    ]


def _each(m: Measured, after: Tensor) -> Table:
    """Every photograph with the smallest change that was found for it, the smallest first."""
    before = judge(m.bench.model, m.bench.images, m.bench.data.labels).prediction
    rows = []
    for row in np.argsort(np.where(m.best.correct, m.best.size, -1.0), kind="stable").tolist():
        if not m.best.correct[row]:
            size, then = "wrong unattacked", ""
        elif np.isfinite(m.best.size[row]):
            size, then = f"{LEVELS * m.best.size[row]:.2f}", m.bench.called(after[row])
        else:
            size, then = "not fooled", ""
        rows.append([m.bench.name(row), m.bench.called(before[row]), size, then])
    return Table(
        id="photographs",
        title="Photograph by photograph",
        columns=["it shows", "the network's answer", "smallest change, in steps of 1/255", "the answer then"],
        rows=rows,
        caption="An image saved with 8 bits can hold no change smaller than 1.",
    )


# --- the photographs -------------------------------------------------------------------------------


def _own_place() -> Path:
    base = os.environ.get("UNFOOLED_DATA")
    if not base or not (Path(base).expanduser() / FOLDER / TABLE).is_file():
        where = f"UNFOOLED_DATA ({base})" if base else "UNFOOLED_DATA, which is not set"
        raise MissingData(
            f"There is no {FOLDER}/{TABLE} in {where}. Give a folder of photographs with --data: {TABLE} there names each "
            "file and its class (columns file and label_index, 0 to 999 in ImageNet's order)."
        )
    return Path(base).expanduser() / FOLDER


def photographs(place: Path) -> Dataset:
    """The photographs of a folder by its table, cropped and shrunk to 224×224, uint8."""
    table = place / TABLE
    images, labels, files, named = [], [], [], {}
    with table.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                name, label = row["file"], int(row["label_index"])
            except (KeyError, TypeError, ValueError):
                raise DataError(f"{table} needs columns file and label_index (an int); see line {number}.") from None
            if not 0 <= label < 1000:
                raise DataError(f"{table} has the label_index {label} in line {number}; they go from 0 to 999.")
            images.append(_photograph(place / name, table, number))
            labels.append(label)
            files.append(name)
            named[label] = Path(name).stem.partition("_")[2].replace("_", " ") or f"class {label}"
    if not images:
        raise DataError(f"{table} names no photographs.")
    return Dataset(
        torch.stack(images), torch.tensor(labels), _classes(named), f"{place.name}, {len(images)} photographs",
        f"folder {place.name}", tuple(files),
    )  # fmt: skip


def _photograph(path: Path, table: Path, line: int) -> Tensor:
    if not path.is_file():
        raise MissingData(f"{table} names {path.name} in line {line}, which is not there.")
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise DataError(f"{path} cannot be read as an image: {error}.") from error
    side = int(CENTRE * min(whole.size))
    left, top = ((length - side + 1) // 2 for length in whole.size)
    small = whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return torch.from_numpy(np.array(small).transpose(2, 0, 1).copy())


def _classes(named: dict[int, str]) -> tuple[str, ...]:
    """The names of ImageNet's classes: those of timm's lists where it is installed, else those of the files."""
    found = find_spec("timm")
    place = None if found is None or found.origin is None else Path(found.origin).parent / "data" / "_info"
    if place is None or not (place / "imagenet_synset_to_lemma.txt").is_file():
        return tuple(named.get(k, f"class {k}") for k in range(1000))
    lines = (place / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    order = (place / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    short = [words.get(synset, synset).split(",")[0] for synset in order]
    return tuple(
        name if short.count(name) == 1 else f"{words[synset]} ({k})"  # two cranes, two maillots
        for k, (name, synset) in enumerate(zip(short, order, strict=True))
    )
