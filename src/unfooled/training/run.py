"""A training run: its state, how it takes a step, how it is judged, and how it is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import ModelError
from ..goals import Goal
from ..inputs import Streamed
from ..models import Compute
from ..store import RunFolder
from ..threats import Threat
from . import augment, checkpoints, devices, objectives, perturbations, schedules
from .averaging import averaged
from .awp import worst_weights
from .guard import Held, fallen
from .history import Epoch, Progress
from .log import Log
from .recipes import Recipe

CHECKPOINT = "checkpoint.pt"
EVERY = 60.0  # seconds between checkpoints within an epoch


@dataclass(frozen=True)
class Trained:
    """What a run made.

    model:     the model that was handed in, in eval mode, with the weights that were chosen.
    history:   an entry for each epoch.
    chosen:    the epoch whose weights these are: the best on the images held out; the last one where none are.
    held_out:  how many images were set aside.
    ended:     why it ended before its last epoch, in a sentence; empty if it did not.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    chosen: int
    held_out: int
    ended: str = ""


class Run:
    """One run. `to_its_end` begins where the folder's checkpoint ends."""

    def __init__(
        self, model: nn.Module, images: Tensor | Streamed, labels: Tensor, kept: Tensor, recipe: Recipe,
        threat: Threat | None, seed: int, where: devices.Alone | devices.Several, compute: Compute, folder: RunFolder | None,
        progress: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self.model, self.images, self.labels, self.kept = model, images, labels, kept
        self.recipe, self.threat, self.seed, self.where = recipe, threat, seed, where
        self.folder, self.progress = folder, progress
        self.objective = objectives.parse(recipe.objective)
        self.attack = None if recipe.attack is None else perturbations.parse(recipe.attack)
        self.schedule = schedules.named(recipe.schedule)
        self.vary = None if recipe.augment is None else augment.parse(recipe.augment)
        self.per_epoch = math.ceil(len(kept) / recipe.batch_size)
        self.steps = self.per_epoch * recipe.epochs
        self.layout = self._layout(compute)
        if self.layout is not None:
            model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.wrapped = where.wrapped(model)
        self.forward: Callable[[Tensor], Any] = self.wrapped
        self.bare = model
        if compute.compile:
            self.forward, self.bare = torch.compile(self.wrapped), torch.compile(model)  # type: ignore[assignment]
        self.autocast = compute.autocast
        self.optimizer = _optimizer(model, recipe)
        self.average = averaged(model, recipe.average) if recipe.average else None
        self.step = 0
        self.sums = [0.0, 0.0, 0.0]  # of the epoch so far: loss, right answers, images
        self.seconds = 0.0
        self.history: list[Epoch] = []
        self.best: dict[str, Any] | None = None
        self.log = Log(None if folder is None or not where.main else folder.path / "tensorboard")
        self.ended = ""

    def _layout(self, compute: Compute) -> torch.memory_format | None:
        """By a rule, not by a measurement: a run that goes on must compute as it began."""
        return None if len(self.images.shape) != 4 or compute.layout == "same" else torch.channels_last

    # --- from the first step, or the last checkpoint, to the end -------------------------------------------------

    def to_its_end(self, held: Held) -> Trained:
        """Every step that is left, and the weights that were chosen."""
        self.restore()
        try:
            self.go_on(held)
        finally:
            self.log.close()
        return self.finished(len(held.labels))

    def go_on(self, held: Held) -> None:
        """Step after step, epochs judged and checkpoints written as they come."""
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        while self.step < self.steps and not self.ended:
            self.take_step()
            self.seconds = time.monotonic() - began
            if self.step % self.per_epoch == 0:
                self.end_epoch(held)
            last = self.history[-1] if self.history else None
            images = max(1.0, self.sums[2])
            epoch = (self.step - 1) // self.per_epoch + 1
            self.progress(Progress(epoch, self.step, self.steps, self.sums[0] / images, self.sums[1] / images, last))
            if self.step % self.per_epoch == 0:
                self.sums = [0.0, 0.0, 0.0]
            if self.step % self.per_epoch == 0 or time.monotonic() - saved > EVERY:
                self.save()
                saved = time.monotonic()

    def take_step(self) -> None:
        """One batch. Its random numbers are made from the seed and the step, so a run goes on as it would have."""
        self.model.train()
        batch, index, weight = self.batch()
        share = self.step / self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self.schedule(share)
        with self.casting():
            loss = self.objective(batch)
        gamma = self.recipe.awp if share >= self.recipe.awp_from else 0.0
        self.optimizer.zero_grad(set_to_none=True)
        with worst_weights(self.model, lambda: self.mean(loss, index, weight)[0], gamma):
            value, logits = self.mean(loss, index, weight)
            value.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        answers = logits.detach().argmax(1).view(-1, len(batch.goal.label))  # several copies of each image: smooth-adv
        right = (answers == batch.goal.label).double().mean(0).sum()
        self.sums[0] += float(value.detach()) / max(weight, 1e-12) * len(index) * (weight > 0)
        self.sums[1] += float(right) * (weight > 0)
        self.sums[2] += len(index) * (weight > 0)

    def mean(self, loss: Callable[[], objectives.Scored], index: Tensor, weight: float) -> objectives.Scored:
        """The loss, weighed, if it is finite."""
        with self.casting():
            value, logits = loss()
        number = float(value.detach())
        if not math.isfinite(number):
            raise ModelError(
                f"The loss became {number} {self.place()}, on the images {', '.join(map(str, index[:5].tolist()))}"
                f"{f' and {len(index) - 5} more' if len(index) > 5 else ''}. {self.last_good()} "
                "Train with a smaller learning rate, or clip gradients."
            )
        return value * weight, logits

    def batch(self) -> tuple[objectives.Batch, Tensor, float]:
        """The step's images as its objective sees them, their places in the data, and what their loss weighs."""
        epoch, at = divmod(self.step, self.per_epoch)
        shuffle = torch.Generator().manual_seed(_number(self.seed, epoch, 1))
        order = self.kept[torch.randperm(len(self.kept), generator=shuffle)]
        index, weight = self.where.part(order[at * self.recipe.batch_size : (at + 1) * self.recipe.batch_size])
        rng.seed_globally(self.seed, self.step, 2)
        device = self.where.device
        images, ids = self.images[index].to(device), index.to(device)
        if self.vary is not None:
            images = self.vary(images, rng.keys(ids, self.seed, epoch, 0x61))
        if self.layout is not None:
            images = images.contiguous(memory_format=self.layout)
        warm = schedules.warmed((self.step + 1) / self.steps, self.recipe.warm_up, self.recipe.rise)
        threat = self.threat
        if threat is not None:
            threat = threat.within(threat.eps * warm)
        goal = Goal(self.labels[index].to(device))
        seed = self.seed * self.steps + self.step
        smoothing = self.recipe.smoothing
        return (
            objectives.Batch(self.forward, self.bare, images, goal, ids, seed, threat, self.attack, smoothing, warm),
            index,
            weight,
        )

    def casting(self) -> AbstractContextManager[Any]:
        """bfloat16 where torch holds that safe, if it was asked for."""
        return torch.autocast(self.where.device.type, torch.bfloat16) if self.autocast else nullcontext()

    # --- judging and choosing ------------------------------------------------------------------------------------

    def end_epoch(self, held: Held) -> None:
        """Judge the weights on the images held out, keep them if they are the best, and end where they fell."""
        judged = self.model if self.average is None else self.average.module
        clean, robust = self.where.agreed(*(held.judged(judged) if self.where.main else (0.0, 0.0)))
        loss, right, images = self.where.summed(*self.sums)
        eps = math.nan if self.threat is None else self.threat.eps
        share = self.step / self.steps
        entry = Epoch(
            len(self.history) + 1, self.step, loss / images, right / images, clean, robust,
            self.recipe.learning_rate * self.schedule(share),
            eps * schedules.warmed(share, self.recipe.warm_up, self.recipe.rise), self.seconds,
        )  # fmt: skip
        self.history.append(entry)
        self.log.write(entry)
        value = robust if math.isfinite(robust) else clean
        if self.best is not None and held.guarded and fallen(self.best["value"], robust):
            self.ended = (
                f"Catastrophic overfitting in epoch {entry.epoch}: robust accuracy on images held out fell from "
                f"{self.best['value']:.3f} to {robust:.3f}. The weights are those of epoch {self.best['epoch']}."
            )
        elif self.best is None or not value < self.best["value"]:  # of equals the later; with none held out the last
            state = {name: held.detach().clone() for name, held in judged.state_dict().items()}
            self.best = {"epoch": entry.epoch, "value": value, "weights": state}
        elif self.recipe.patience and entry.epoch - self.best["epoch"] >= self.recipe.patience:
            self.ended = (
                f"No better choice for {self.recipe.patience} epochs: ended after epoch {entry.epoch}, "
                f"with the weights of epoch {self.best['epoch']}."
            )

    def finished(self, held_out: int) -> Trained:
        """The model with the weights that were chosen."""
        assert self.best is not None
        self.model.load_state_dict(self.best["weights"])
        self.model.zero_grad(set_to_none=True)
        if self.layout is not None:
            self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return Trained(self.model.eval(), tuple(self.history), self.best["epoch"], held_out, self.ended)

    # --- on disk -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Everything that the next step depends on; nothing while the weights are not finite."""
        if self.folder is None or not self.where.main:
            return
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise ModelError(
                f"The weights became NaN or inf with step {self.step} of {self.steps}. {self.last_good()} "
                "Train with a smaller learning rate, or clip gradients."
            )
        checkpoints.save(
            self.folder.path / CHECKPOINT,
            {
                "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "step": self.step, "sums": self.sums, "seconds": self.seconds, "ended": self.ended,
                "history": [asdict(entry) for entry in self.history], "best": self.best,
            },
        )  # fmt: skip

    def restore(self) -> None:
        """Go on from the folder's checkpoint, if it has one."""
        if self.folder is None or not (self.folder.path / CHECKPOINT).exists():
            return
        state = checkpoints.load(self.folder.path / CHECKPOINT)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.sums, self.seconds, self.ended = state["step"], state["sums"], state["seconds"], state["ended"]
        self.history, self.best = [Epoch(**entry) for entry in state["history"]], state["best"]

    def place(self) -> str:
        """Where the run is, for a message."""
        epoch, at = divmod(self.step, self.per_epoch)
        return f"at step {self.step + 1} of {self.steps} (epoch {epoch + 1}, batch {at + 1})"

    def last_good(self) -> str:
        """Which checkpoint there is, for a message."""
        if self.folder is None or not (self.folder.path / CHECKPOINT).exists():
            return "There is no checkpoint before it."
        path = self.folder.path / CHECKPOINT
        return f"The last good checkpoint is {path}, of step {checkpoints.load(path)['step']}."


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ModelError("The model has no parameters that learn (requires_grad is False for all of them).")
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(learning, lr=rate, momentum=0.9, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(learning, lr=rate, weight_decay=decay, fused=True)


def _number(*parts: int) -> int:
    """A seed made from others."""
    return int(rng.keys(torch.tensor([parts[0]]), *parts[1:])[0]) & ((1 << 62) - 1)
