"""One attack on one model: evidence shard by shard in a run folder, adversarial images on disk, and a report."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .._version import __version__
from ..attacks.base import Plan
from ..data import Dataset
from ..engine import Result, attack
from ..evaluation import judge
from ..pool import Progress
from ..results import Evaluation, Gallery, Table, percent, share
from ..store import Row, RunFolder
from ..threats import Threat
from .common import Album, Clock, command_line, environment, now

SHARD = 512  # examples; the unit of evidence and of going on after an interruption


@dataclass(frozen=True)
class Running:
    """Where a run is: examples finished of all, and of those right on the image and not fooled."""

    done: int
    total: int
    robust: int
    within: Progress | None


def state_hash(model: nn.Module) -> str:
    """A hash of the model's parameters and buffers."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else
                      np.asarray(value.cpu()).tobytes())  # fmt: skip
    return digest.hexdigest()[:16]


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
    show: Callable[[Running], None] = lambda _: None,
    **options: Any,
) -> Evaluation:
    """Attack every image, in shards of a seeded random order; a second call goes on where the first was stopped."""
    images, labels = data.floats(), data.labels
    content = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]
    spec = {
        **settings,
        **{name: str(value) for name, value in sorted(options.items())},
        "threat": str(threat),
        "attack": str(plan),
        "seed": seed,
        "images": len(images),
        "model_hash": state_hash(model),
        "data_hash": content,
        "targets": "" if targets is None else hashlib.sha256(targets.numpy().tobytes()).hexdigest()[:16],
        "unfooled": __version__,
    }
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    done, robust, clock, notes = 0, 0, Clock(), []
    with clock.part("attack") as spent, folder.running(spec):
        finished = folder.shards()
        for number, index in enumerate(order.split(SHARD)):
            if number not in finished:

                def within(at: Progress, done: int = done, robust: int = robust) -> None:
                    show(Running(done, len(images), robust, at))

                aim = None if targets is None else targets[index]
                result = attack(
                    model,
                    images[index],
                    labels[index],
                    threat,
                    plan,
                    seed=seed,
                    targets=aim,
                    progress=within,
                    **options,
                )
                notes += [note for note in result.notes if note not in notes]
                folder.add_shard(number, {"adversarial": result.adversarial.numpy(), "example": index.numpy()},
                                 _rows(index, labels[index], result))  # fmt: skip
                spent.add(int(result.forward.sum()), int(result.backward.sum()))
            done += len(index)
            evidence = folder.evidence()
            robust = int((evidence["clean_correct"] & ~evidence["success"]).sum())
            show(Running(done, len(images), robust, None))
    adversarial = _collected(folder, order, images)
    with clock.part("8-bit check") as spent:
        rounded = _pngs(folder, model, images, adversarial, labels, threat)
        spent.add(0 if rounded is None else len(images))
    return _evaluation(
        folder,
        model,
        data,
        images,
        adversarial,
        rounded,
        threat,
        plan,
        dict(settings) | {"seed": str(seed)},
        clock,
        notes,
    )


def _rows(index: Tensor, labels: Tensor, result: Result) -> list[Row]:
    columns = (index, labels, result.clean_correct, result.success, result.distance, result.forward, result.backward)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _collected(folder: RunFolder, order: Tensor, images: Tensor) -> Tensor:
    adversarial = images.clone()
    for number, index in enumerate(order.split(SHARD)):
        held = folder.arrays(f"adversarial/{number:05d}.safetensors")["adversarial"]
        adversarial[index] = torch.from_numpy(held).to(images.dtype)
    return adversarial


def eight_bits(adversarial: Tensor, images: Tensor) -> Tensor:
    """Adversarial images in [0, 1] on the lattice of 8-bit pixels, every pixel rounded towards its original.

    Where the images themselves came from 8 bits, no change grows, so the point stays in any set that it was in.
    """
    up = torch.floor(adversarial.double() * 255 + 1e-4)
    down = torch.ceil(adversarial.double() * 255 - 1e-4)
    return (torch.where(adversarial >= images, up, down).clamp(0, 255) / 255).to(images.dtype)


def _pngs(
    folder: RunFolder, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
) -> Tensor | None:
    """Write what fooled as 8-bit PNGs; which still fool after the rounding. None where PNGs cannot hold the images."""
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not threat.unit_range:
        return None
    evidence = folder.evidence()
    points = eight_bits(adversarial, images)
    for example in evidence["example"][evidence["success"]]:
        pixels = (points[example] * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        folder.write_bytes(f"png/{example:05d}.png", buffer.getvalue())
    wrong = ~judge(model, points, labels).clean_correct
    return wrong & torch.from_numpy(evidence["success"]) & threat.contains(points, images)


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
    clock: Clock,
    notes: Sequence[str],
) -> Evaluation:
    evidence = folder.evidence()
    n = len(images)
    correct, fooled = evidence["clean_correct"], evidence["success"]
    clean, attacked = share(int(correct.sum()), n), share(int((correct & ~fooled).sum()), n)
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
        kept = share(int((correct & ~rounded.numpy()).sum()), n)
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
        cost=clock.costs,
        notes=list(notes),
    )
    folder.write_evaluation(evaluation)
    return evaluation


def _per_class(data: Dataset, correct: np.ndarray, fooled: np.ndarray) -> Table:
    rows = []
    for label in sorted(set(data.labels.tolist())):
        mine = data.labels.numpy() == label
        name = data.classes[label] if label < len(data.classes) else str(label)
        clean = share(int((correct & mine).sum()), int(mine.sum()))
        kept = share(int((correct & ~fooled & mine).sum()), int(mine.sum()))
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
    hit = torch.from_numpy(np.flatnonzero(evidence["success"]))
    if not len(hit) or images.dim() != 4 or images.shape[1] not in (1, 3) or not threat.unit_range:
        return []
    at = hit[torch.from_numpy(evidence["distance"])[hit].argsort(stable=True)]

    def pictures(index: Tensor) -> list[Any]:
        return album.add(model, images[index], adversarial[index], labels[index], index, threat, str(plan), "the model")

    return [
        Gallery(id="triptych", title="What the attack does", kind="triptych", pictures=pictures(at[:4])),
        Gallery(id="smallest", title="The smallest changes that fooled", kind="grid", pictures=pictures(at[:12])),
    ]
