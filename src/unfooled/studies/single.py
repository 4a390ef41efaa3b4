"""One attack on one model: evidence shard by shard in a run folder, adversarial images on disk, and a report."""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .._version import __version__
from ..album import Album
from ..attacks.base import Plan
from ..data import Dataset
from ..engine import Result, attack
from ..environment import command_line, environment, now
from ..fingerprint import state_hash
from ..intervals import clopper_pearson
from ..judging import eight_bits, judge
from ..pool import Progress
from ..results import Cost, Evaluation, Gallery, Table, percent
from ..store import COLUMNS, Row, RunFolder, shard_file
from ..threats import Threat

SHARD = 512  # examples; the unit of evidence and of going on after an interruption


@dataclass(frozen=True)
class Running:
    """Where a run is: examples finished of all, and of those right on the image and not fooled."""

    done: int
    total: int
    robust: int
    within: Progress | None


def run(
    folder: RunFolder,
    model: nn.Module,
    data: Dataset,
    threat: Threat,
    plan: Plan,
    settings: Mapping[str, str],
    *,
    seed: int = 0,
    targets: Tensor | None = None,
    examples: Tensor | None = None,
    show: Callable[[Running], None] = lambda _: None,
    **options: Any,
) -> Evaluation:
    """Attack every image, in shards of a seeded random order; a second call goes on where the first was stopped.

    targets:   (N,) classes that the model shall answer, or None.
    examples:  (N,) rising numbers to call the images by; None: 0, 1, 2 …
    """
    images, labels = data.whole(), data.labels
    content = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]
    spec = {
        **settings,
        **{name: str(value) for name, value in sorted(options.items()) if name != "batch_size"},
        "threat": str(threat),
        "attack": str(plan),
        "seed": seed,
        "images": len(images),
        "shards": -(-len(images) // SHARD),
        "model_hash": state_hash(model),
        "data_hash": content,
        "targets": "" if targets is None else hashlib.sha256(targets.numpy().tobytes()).hexdigest()[:16],
        "unfooled": __version__,
    }
    names = torch.arange(len(images)) if examples is None else examples
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    done = robust = 0
    with folder.running(spec):
        finished = folder.shards()
        for number, index in enumerate(order.split(SHARD)):
            if number not in finished:

                def within(at: Progress, done: int = done, robust: int = robust) -> None:
                    show(Running(done, len(images), robust, at))

                aim, start = None if targets is None else targets[index], time.perf_counter()
                result = attack(
                    model, images[index], labels[index], threat, plan, seed=seed, targets=aim, ids=names[index],
                    progress=within, **options,
                )  # fmt: skip
                folder.add_shard(
                    number,
                    {"adversarial": result.adversarial.numpy(), "example": names[index].numpy()},
                    _rows(names[index], labels[index], result),
                    time.perf_counter() - start,
                    result.notes,
                )
            done += len(index)
            evidence = folder.evidence()
            robust = int((evidence["clean_correct"] & ~evidence["success"]).sum())
            show(Running(done, len(images), robust, None))
    adversarial = _collected(folder, order, images)
    rounded = _pngs(folder, model, images, adversarial, labels, targets, threat)
    _table_of_examples(folder, data)
    return _evaluation(
        folder, model, data, images, adversarial, rounded, threat, plan, dict(settings) | {"seed": str(seed)}
    )


def _table_of_examples(folder: RunFolder, data: Dataset) -> None:
    """What became of every example, with its file where the data came from a folder of images."""
    evidence = folder.evidence()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, "file"])
    files = data.files or [""] * len(data)
    for row in zip(*(evidence[name].tolist() for name in COLUMNS), files, strict=True):
        writer.writerow(row)
    folder.write_text("examples.csv", text.getvalue())


def _rows(index: Tensor, labels: Tensor, result: Result) -> list[Row]:
    columns = (
        index, labels, result.clean_prediction, result.clean_correct, result.success, result.distance,
        result.forward, result.backward,
    )  # fmt: skip
    names = [None if by < 0 else result.parts[by].attack for by in result.fooled_by.tolist()]
    return [Row(*row) for row in zip(*(column.tolist() for column in columns), names, strict=True)]


def _collected(folder: RunFolder, order: Tensor, images: Tensor) -> Tensor:
    adversarial = images.clone()
    for number, index in enumerate(order.split(SHARD)):
        held = folder.arrays(shard_file(number))["adversarial"]
        adversarial[index] = torch.from_numpy(held).to(images.dtype)
    return adversarial


def _pngs(
    folder: RunFolder, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor,
    targets: Tensor | None, threat: Threat,
) -> Tensor | None:  # fmt: skip
    """Write what fooled as 8-bit PNGs; which still fool after the rounding. None where PNGs cannot hold the images."""
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not threat.unit_range:
        return None
    evidence = folder.evidence()
    points = eight_bits(adversarial, images)
    for at in np.flatnonzero(evidence["success"]):
        pixels = (points[at] * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        folder.write_bytes(f"png/{evidence['example'][at]:05d}.png", buffer.getvalue())
    found = judge(model, points, labels)
    fooled = ~found.clean_correct if targets is None else found.prediction == targets
    return fooled & torch.from_numpy(evidence["success"]) & threat.contains(points, images)


def _evaluation(
    folder: RunFolder,
    model: nn.Module,
    data: Dataset,
    images: Tensor,
    adversarial: Tensor,
    rounded: Tensor | None,
    threat: Threat,
    plan: Plan,
    settings: dict[str, str],
) -> Evaluation:
    evidence = folder.evidence()
    n = len(images)
    correct, fooled = evidence["clean_correct"], evidence["success"]
    clean, attacked = clopper_pearson(int(correct.sum()), n), clopper_pearson(int((correct & ~fooled).sum()), n)
    album = Album(data.classes)
    galleries = _galleries(model, images, adversarial, data.labels, evidence, threat, plan, album)
    if galleries:
        folder.write_arrays("pictures.safetensors", album.arrays())
    passes = (evidence["forward"] + evidence["backward"]).mean()
    rows = [
        ["clean accuracy", percent(clean, interval=True)],
        ["accuracy under the attack", percent(attacked, interval=True)],
    ]
    if rounded is not None:
        kept = clopper_pearson(int((correct & ~rounded.numpy()).sum()), n)
        rows.append(["the same, of 8-bit images", percent(kept, interval=True)])
    rows += [["images fooled", f"{int(fooled.sum())} of {n}"], ["passes per image", f"{passes:.1f}"]]
    if fooled.any():
        rows.append(["median size of the change", f"{np.median(evidence['distance'][fooled]):.4g}"])
    evaluation = Evaluation(
        kind="attack",
        title=f"{settings.get('model', 'The model')} under {plan}",
        verdict=[
            f"Of {n} images the model gets {percent(clean)} right, and {percent(attacked)} under {plan} with {threat}. "
            "That is an upper bound of its robust accuracy: a stronger attack may find more."
        ],
        settings=settings | {"threat": str(threat), "attack": str(plan)},
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[
            Table(id="summary", title="Result", columns=["measure", "value"], rows=rows, strong=[1]),
            _per_class(data, correct, fooled),
        ],
        galleries=galleries,
        cost=[
            Cost(
                part=str(plan),
                forward=int(evidence["forward"].sum()),
                backward=int(evidence["backward"].sum()),
                seconds=round(folder.seconds(), 2),
            )
        ],
        notes=folder.notes(),
    )
    folder.write_evaluation(evaluation)
    return evaluation


def _per_class(data: Dataset, correct: np.ndarray, fooled: np.ndarray) -> Table:
    rows = []
    for label in sorted(set(data.labels.tolist())):
        mine = data.labels.numpy() == label
        name = data.classes[label] if label < len(data.classes) else str(label)
        clean = clopper_pearson(int((correct & mine).sum()), int(mine.sum()))
        kept = clopper_pearson(int((correct & ~fooled & mine).sum()), int(mine.sum()))
        rows.append([name, str(clean.n), percent(clean), percent(kept, interval=True)])
    return Table(id="classes", title="By class", columns=["class", "images", "clean", "under the attack"], rows=rows)


def _galleries(
    model: nn.Module,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    evidence: dict[str, np.ndarray],
    threat: Threat,
    plan: Plan,
    album: Album,
) -> list[Gallery]:
    hit, names = torch.from_numpy(np.flatnonzero(evidence["success"])), torch.from_numpy(evidence["example"])
    if not len(hit) or images.dim() != 4 or images.shape[1] not in (1, 3) or not threat.unit_range:
        return []
    at = hit[torch.from_numpy(evidence["distance"])[hit].argsort(stable=True)]

    def pictures(index: Tensor) -> list[Any]:
        return album.add(
            model, images[index], adversarial[index], labels[index], names[index], threat, str(plan), "the model"
        )

    return [
        Gallery(id="triptych", title="What the attack does", kind="triptych", pictures=pictures(at[:4])),
        Gallery(id="smallest", title="The smallest changes that fooled", kind="grid", pictures=pictures(at[:12])),
    ]
