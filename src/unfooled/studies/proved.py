"""What can be proved of one model: certificates shard by shard in a run folder, and a report."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..certificates import CROWN, AlphaCROWN, Certified, Method, certify
from ..certificates.asked import CASCADE, Asked, asked, written
from ..certificates.cost import affordable
from ..certificates.sizes import largest
from ..certificates.smoothing import Smoothing, certified
from ..data import Dataset
from ..fingerprint import of_model
from ..inputs import Notes, checked_images
from ..models.classifier import Model
from ..results import Evaluation
from ..store import COLUMNS, KINDS, Row, RunFolder, shard_file
from ..threats import Threat
from . import proved_page
from .proved_page import LEVELS

SHARD = 50  # images; the unit of evidence and of going on after an interruption
CURVE = 50  # images that the curve is drawn from
DRAWS = 1000  # of smoothing, for each image of the curve
CERTIFICATES = KINDS[1]


@dataclass(frozen=True)
class Running:
    """Where a run is: images finished of all, how many of those are proved, and the share that is done of those in work."""

    done: int
    total: int
    proved: int
    within: float = 0.0


def run(
    folder: RunFolder,
    model: Model,
    data: Dataset,
    threat: Threat,
    method: str | Method | Smoothing | Sequence[str | Method],
    settings: Mapping[str, str],
    *,
    seed: int = 0,
    curve: int = CURVE,
    batch_size: int | None = None,
    show: Callable[[Running], None] = lambda _: None,
) -> Evaluation:
    """Certify every image, in shards of a seeded random order; a second call goes on where the first was stopped.

    method:  as `unfooled.certify` takes it; of "auto", what would take longer than `affordable` says is left out.
    curve:   the number of images whose certified size is sought.
    """
    wanted, notes = asked(method, threat), Notes()
    images, labels = checked_images(data.whole(), threat, None, notes), data.labels
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    spec = {
        **settings,
        "threat": str(threat),
        "method": "auto" if method == "auto" else written(wanted),
        "seed": seed,
        "curve": curve,
        "images": len(images),
        "shards": -(-len(images) // SHARD),
        "model_hash": of_model(model, images),
        "data_hash": hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16],
        "unfooled": __version__,
    }
    done = proved = 0
    with folder.running(spec):
        if method == "auto":
            count, note = _cascade(folder, model, images[order[:1]], threat)
            wanted = CASCADE[:count]
            if note:
                notes.add(note)
        finished = folder.shards()
        for number, index in enumerate(order.split(SHARD)):
            if number not in finished:

                def within(part: int, whole: int, done: int = done, proved: int = proved) -> None:
                    show(Running(done, len(images), proved, part / whole))

                shard = _Shard(model, images[index], labels[index], index, threat, wanted, seed, batch_size)
                shard.write(folder, number, max(0, curve - SHARD * number), within)
            done += len(index)
            proved += int(folder.arrays(shard_file(number, CERTIFICATES))["certified"].sum())
            show(Running(done, len(images), proved))
        held = collected(folder)
        _table_of_examples(folder, data, held, wanted)
        asked_for = dict(settings) | {"threat": str(threat), "method": written(wanted), "seed": str(seed)}
        evaluation = proved_page.evaluation(folder, data, threat, wanted, held, asked_for, notes.texts)
        folder.write_evaluation(evaluation)
    return evaluation


@dataclass(frozen=True)
class _Shard:
    """Some of the images, and what is to be proved of them. index: (N,) what they are called."""

    model: Model
    images: Tensor
    labels: Tensor
    index: Tensor
    threat: Threat
    wanted: Asked
    seed: int
    batch_size: int | None

    def write(self, folder: RunFolder, number: int, curve: int, progress: Callable[[int, int], None]) -> None:
        """Certify them, seek the certified sizes of the first `curve`, and put it all on disk."""
        start = time.perf_counter()
        found = self.certify(torch.arange(len(self.index)), self.threat, self.wanted, progress)
        assert found.prediction is not None
        between, few = time.perf_counter(), min(curve, len(self.index))
        size = torch.full((len(self.index),), torch.nan, dtype=torch.float64)
        if few and math.isfinite(self.threat.eps):
            seek = self._smoothed if isinstance(self.wanted, Smoothing) else self._bounded
            size[:few] = seek(few, found)
        none = torch.zeros_like(self.labels)
        draws = none if found.draws is None else found.draws
        refuted = none.bool() if found.refuted is None else found.refuted
        arrays = {
            "example": self.index, "certified": found.certified, "margin": found.margin, "by": found.by, "size": size,
            "refuted": refuted, "draws": draws,
        }  # fmt: skip
        columns = (self.index, self.labels, found.prediction, found.clean_correct, draws)
        rows = [
            Row(example, label, answer, right, False, math.inf, passes, 0)
            for example, label, answer, right, passes in zip(*(column.tolist() for column in columns), strict=True)
        ]
        log = {"seconds": list(found.seconds), "curve": time.perf_counter() - between, "answers": between - start}
        held = {name: value.numpy() for name, value in arrays.items()}
        folder.add_shard(number, held, rows, time.perf_counter() - start, (), log, CERTIFICATES)

    def certify(
        self,
        rows: Tensor,
        threat: Threat,
        wanted: Asked,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Certified:
        """Certify some of them."""
        given = self.images[rows], self.labels[rows]
        return certify(
            self.model, given, threat, wanted, batch_size=self.batch_size, seed=self.seed, ids=self.index[rows],
            progress=progress,
        )  # fmt: skip

    def _bounded(self, few: int, found: Certified) -> Tensor:
        """The largest of the sizes of the curve at which each of the first images is proved; 0: none is.

        By the cheap methods: alpha-crown counts where it was used, at eps itself.
        """
        assert not isinstance(self.wanted, Smoothing)
        cheap = tuple(one for one in self.wanted if not isinstance(one, AlphaCROWN)) or (CROWN(),)
        middle, right = LEVELS.index(1.0), found.clean_correct[:few]
        held = torch.where(found.certified[:few], middle, -1)
        not_ = torch.where(found.certified[:few], len(LEVELS), torch.where(right, middle, 0))

        def proves(rows: Tensor, eps: float) -> Tensor:
            return self.certify(rows, self.threat.within(eps), cheap).certified

        return largest(proves, [self.threat.eps * level for level in LEVELS], held, not_)

    def _smoothed(self, few: int, found: Certified) -> Tensor:
        """The certified radius of each of the first images by a fixed number of draws; 0 where it abstains or is wrong."""
        assert isinstance(self.wanted, Smoothing)
        fixed = replace(self.wanted, draws=min(self.wanted.draws, DRAWS))
        told = certified(
            self.model, self.images[:few], fixed, seed=self.seed, batch_size=self.batch_size, ids=self.index[:few]
        )
        return torch.where(told.prediction.cpu() == self.labels[:few], told.radius.cpu(), 0.0)


def _cascade(folder: RunFolder, model: Model, images: Tensor, threat: Threat) -> tuple[int, str]:
    """How many of all methods do not take too long; what was found stays for the runs that go on with this one."""
    held = folder.kept("methods")
    if held is None:
        held = affordable(model, images, threat)
        folder.keep("methods", held)
    return int(held[0]), str(held[1])


def collected(folder: RunFolder) -> dict[str, np.ndarray]:
    """What was proved and the evidence, by column, in the order of the examples."""
    shards = [folder.arrays(shard_file(number, CERTIFICATES)) for number in sorted(folder.shards())]
    held = {name: np.concatenate([one[name] for one in shards]) for name in shards[0]}
    order = np.argsort(held["example"])
    return folder.evidence() | {name: value[order] for name, value in held.items()}


def _table_of_examples(folder: RunFolder, data: Dataset, held: dict[str, np.ndarray], wanted: Asked) -> None:
    """What is proved of every example, with its file where the data came from a folder of images."""
    names = ["smoothing"] if isinstance(wanted, Smoothing) else [one.name for one in wanted]
    shown = [name for name in COLUMNS if name in ("example", "label", "clean_prediction", "clean_correct")]
    more: dict[str, list[Any]] = {
        "certified": held["certified"].tolist(),
        "by": [names[by] if by >= 0 else "" for by in held["by"].tolist()],
        "size": ["" if math.isnan(size) else size for size in held["size"].tolist()],
    }
    if isinstance(wanted, Smoothing):
        more |= {"refuted": held["refuted"].tolist(), "draws": held["draws"].tolist()}
    else:
        more |= {"margin": ["" if math.isinf(margin) else margin for margin in held["margin"].tolist()]}
    more |= {"file": list(data.files or [""] * len(data))}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*shown, *more])
    writer.writerows(zip(*(held[name].tolist() for name in shown), *more.values(), strict=True))
    folder.write_text("examples.csv", text.getvalue())
