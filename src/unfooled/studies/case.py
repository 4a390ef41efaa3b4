"""What the safety-critical cases share: a network is trained or brought, attacked, and everything found is kept.

Every part is measured once. The evaluation is a run folder of its own inside the study's; sweeps lie beside it in parts. So a
study that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import structs
from torch import Tensor, nn

from .. import protocols, report, rng
from ..attacks import Plan
from ..data import Dataset
from ..environment import command_line
from ..evaluation import Standing, evaluate
from ..intervals import clopper_pearson
from ..judging import eight_bits, judge
from ..models import Model, load_weights, save_weights
from ..results import Cost, Estimate, Evaluation
from ..store import RunFolder, shard_file
from ..sweeping import sweep
from ..threats import Linf
from ..training import Recipe, train
from .common import Say

LEVELS = 255  # of an 8-bit pixel: changes are counted in them
PROTOCOL = "fast"
ATTACKED_AT = (1, 4, 8)  # levels at which the protocol is run
GRID = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)  # levels of the curves


@dataclass(frozen=True)
class Asked:
    """What the user wants of a study.

    data:   the spec of the images to attack; None: the study's own.
    model:  makes the user's own network for that data; None: the study's.
    about:  what the report shall call that network.
    load:   reads a spec.
    say:    is told how far the study is.
    images: how many to attack, and `only` the names of what is to be measured, in studies that ask; None, empty: their own.
    """

    data: str | None
    model: Callable[[Dataset], Any] | None
    about: str
    load: Callable[[str], Dataset]
    seed: int = 0
    say: Say = lambda text, share: None
    images: int | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reached:
    """What one attack or protocol did to N images.

    size:     (N,) of the change that fooled; inf where none did, 0 where the model was wrong anyway.
    points:   (N, *shape) the images that fooled; the images themselves elsewhere.
    correct:  (N,) right without an attack.
    by:       (N,) which attack it was, in text.
    """

    size: np.ndarray
    points: np.ndarray
    correct: np.ndarray
    by: np.ndarray
    cost: Cost

    def accuracy(self, levels: float, rows: np.ndarray | slice = slice(None)) -> Estimate:
        """The share right and not fooled by a change of that many levels or fewer, of some rows."""
        right = (self.correct & (self.size > levels / LEVELS * (1 + 1e-6)))[rows]
        return clopper_pearson(int(right.sum()), len(right))

    def fooled(self, levels: float = np.inf) -> np.ndarray:
        """Which images were right and were fooled by a change of that many levels or fewer."""
        hit: np.ndarray = self.correct & np.isfinite(self.size) & (self.size <= levels / LEVELS * (1 + 1e-6))
        return hit


@dataclass(frozen=True)
class Bench:
    """A network on images, with the folder that keeps what is measured of it."""

    folder: RunFolder
    model: Model
    about: str
    data: Dataset
    seed: int
    say: Say
    images: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", self.data.whole())

    def called(self, label: int | Tensor) -> str:
        """The name of a class."""
        at = int(label)
        return self.data.classes[at] if at < len(self.data.classes) else str(at)

    def name(self, row: int) -> str:
        """The name of an image's own class."""
        return self.called(self.data.labels[row])

    def evaluated(self, levels: int, share: tuple[float, float]) -> tuple[Evaluation, Reached]:
        """A whole evaluation at that many levels, with its own folder, checks and page; and what it reached."""
        first, last = share
        place = self.folder.path / f"evaluation-{levels}"

        reached = first

        def told(at: Standing) -> None:
            nonlocal reached
            within = at.within.ended / max(1, at.within.trials) if at.within else 0.0
            note = at.stage or (at.within.attack if at.within else "")
            done = (at.done + within * min(512, at.total - at.done)) / at.total
            reached = max(reached, first + (last - first) * min(done, 1.0))  # each attack counts its own trials
            self.say(f"{PROTOCOL} at {levels}/255: {note}", reached)

        found = evaluate(
            self.model, self.data, Linf(levels / LEVELS), PROTOCOL, seed=self.seed, out=place, command=command_line(),
            settings={"model": self.about, "data": self.data.name}, progress=told,
        )  # fmt: skip
        report.draw(place)
        return found, self._evidence(RunFolder(place), levels, found)

    def _evidence(self, place: RunFolder, levels: int, found: Evaluation) -> Reached:
        rows = place.evidence()
        points = self.images.numpy().copy()
        for number in sorted(place.shards()):
            held = place.arrays(shard_file(number))
            points[held["example"]] = held["adversarial"]
        size = np.where(rows["success"], np.minimum(rows["distance"], levels / LEVELS), np.inf)
        cost = Cost(
            part=f"{PROTOCOL} at {levels}/255, with its checks", forward=sum(part.forward for part in found.cost),
            backward=sum(part.backward for part in found.cost), seconds=sum(part.seconds for part in found.cost),
        )  # fmt: skip
        correct = rows["clean_correct"]
        return Reached(np.where(correct, size, 0.0), points, correct, rows["fooled_by"], cost)

    def held(self, levels: int, share: tuple[float, float], chunk: int) -> Reached:
        """The protocol alone at that many levels."""
        plan = protocols.named(PROTOCOL, Linf(1.0))
        found = self.swept(f"{PROTOCOL}-at-{levels}", plan, share, levels=(0.0, levels), chunk=chunk)
        return replace(found, cost=structs.replace(found.cost, part=f"{PROTOCOL} at {levels}/255"))

    def saved(self, reached: Reached, levels: int) -> Estimate:
        """Accuracy on the points that fooled once they are written with 8 bits a pixel, rounded towards the images."""
        points = eight_bits(torch.from_numpy(reached.points), self.images)
        fooled = ~judge(self.model, points, self.data.labels).clean_correct.numpy() & reached.fooled(levels)
        return clopper_pearson(int((reached.correct & ~fooled).sum()), len(fooled))

    def swept(
        self, name: str, method: Plan, share: tuple[float, float], *, levels: Sequence[float] = GRID, chunk: int = 128,
        targets: Tensor | None = None, rows: Tensor | None = None,
    ) -> Reached:  # fmt: skip
        """A sweep over `levels`, or of a minimum-norm attack one run, in parts of `chunk` images that are kept."""
        chosen = torch.arange(len(self.images)) if rows is None else rows
        parts = []
        for number, index in enumerate(torch.arange(len(chosen)).split(chunk)):
            at = chosen[index]
            self.say(name.replace("-", " "), share[0] + (share[1] - share[0]) * int(index[0]) / len(chosen))

            def measure(at: Tensor = at, index: Tensor = index) -> dict[str, np.ndarray]:
                start = time.perf_counter()
                found = sweep(
                    self.model, self.images[at], self.data.labels[at], Linf(1.0), [e / LEVELS for e in levels], method,
                    seed=self.seed, ids=at, targets=None if targets is None else targets[index],
                )  # fmt: skip
                spent = [found.forward, found.backward, time.perf_counter() - start]
                return {"size": found.fooled_at.numpy(), "points": found.adversarial.numpy(),
                        "correct": found.clean_correct.numpy(), "spent": np.array(spent)}  # fmt: skip

            parts.append(_kept(self.folder, f"measured/{name}-{number:05d}.safetensors", measure))
        forward, backward, seconds = np.sum([part["spent"] for part in parts], axis=0).tolist()
        joined = {key: np.concatenate([part[key] for part in parts]) for key in ("size", "points", "correct")}
        cost = Cost(
            part=name.replace("-", " "), forward=int(forward), backward=int(backward), seconds=round(seconds, 2)
        )
        by = np.full(len(chosen), str(method), dtype=object)
        return Reached(joined["size"], joined["points"], joined["correct"].astype(bool), by, cost)


def best_of(several: Sequence[Reached]) -> Reached:
    """For each image the smallest change among them."""
    which = np.stack([one.size for one in several]).argmin(0)
    size, points, by = (
        np.array([getattr(several[k], name)[row] for row, k in enumerate(which)]) for name in ("size", "points", "by")
    )
    return Reached(size, points, several[0].correct, by, several[0].cost)


def _kept(folder: RunFolder, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not (folder.path / name).exists():
        folder.write_arrays(name, make())
    return folder.arrays(name)


def fitted(
    folder: RunFolder, build: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]], recipe: Recipe,
    seed: int, say: Say, share: tuple[float, float], about: dict[str, str],
) -> nn.Module:  # fmt: skip
    """A network trained by a recipe, from the folder if it is there; its weights are rounded to float16 first of all."""
    path = folder.path / "model.safetensors"
    if not path.exists():
        say("reading the training images", share[0])
        images, labels = data()
        folder.keep("training", {"images": len(images)})
        with rng.forked(seed):
            model = build()
        train(
            model, (images, labels), None, recipe, seed=seed,
            progress=lambda at: say(
                f"training: epoch {at.epoch} of {recipe.epochs}, accuracy {at.accuracy:.3f}",
                share[0] + (share[1] - share[0]) * at.step / at.steps,
            ),
        )  # fmt: skip
        save_weights(model, path, about | {"recipe": str(recipe), "seed": str(seed)})
    return load_weights(build(), Path(path)).eval()


def training_words(folder: RunFolder, spec: str, copies: str = "") -> dict[str, str]:
    """The setting that says what the study's own network was trained on; nothing where it was brought."""
    held = folder.kept("training")
    return {} if held is None else {"training": f"{spec}, {held['images']:,} images{copies}"}
