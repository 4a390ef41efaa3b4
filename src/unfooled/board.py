"""The state of some examples while one attack after the other is tried on what is left of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .adapt import Strategy
from .attacks import Plan
from .certificates import Method
from .engine import Result, attack
from .errors import NotFinite
from .inputs import Streamed
from .judging import appraise
from .models.access import Access, access_of
from .models.classifier import Model
from .models.layout import Compute
from .pool import Progress
from .results import AttackCost
from .store import Row
from .threats import Threat

BAD = "its logits are not finite"


class Contradiction(Exception):
    """An attack and a certificate speak against each other on a row. It never leaves the shard: its log has it.

    said:  what was found and what was proved, in words.
    """

    def __init__(self, row: int, said: str) -> None:
        super().__init__(said)
        self.row, self.said = row, said


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a model.

    images (N, *shape), labels (N,), names (N,) int64 that the examples are called by. Images that are many are read
    when a shard asks for them.
    plan:        the protocol; strategy: what adaptation adds to it.
    undefended:  the network without its defense, or None.
    thorough:    whether the dear checks are run too.
    certify:     what proves; empty: nothing is proved.
    doubted:     the names of the examples that are attacked also where they are proved.
    """

    model: Model
    images: Tensor | Streamed
    labels: Tensor
    names: Tensor
    threat: Threat
    plan: Plan
    seed: int
    strategy: Strategy = field(default_factory=Strategy)
    undefended: Model | None = None
    thorough: bool = False
    draws: int = 1
    batch_size: int | None = None
    budget: int | None = None
    surrogate: Model | None = None
    compute: Compute | None = None
    certify: tuple[Method, ...] = ()
    doubted: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def gradients(self) -> Model | None:
        """Where gradients are best taken from: the first way of the strategy, else the surrogate; None: the model."""
        return self.strategy.ways[0].surrogate if self.strategy.ways else self.surrogate

    @property
    def black_box(self) -> bool:
        """Whether the model gives no gradients, so that the plan asks for none of it."""
        return access_of(self.model) < Access.GRADIENT

    @property
    def attackable(self) -> bool:
        """Whether there are gradients to attack with at all."""
        return self.strategy.usable or bool(self.strategy.ways)


class Board:
    """The state of the examples of a shard, as one attack after the other is tried on what is left."""

    def __init__(self, question: Question, index: Tensor, progress: Callable[[Progress], None] | None) -> None:
        self.q, self.progress = question, progress
        self.x, self.y, self.names = question.images[index], question.labels[index], question.names[index]
        n = len(index)
        self.adversarial = self.x.clone()
        self.nearest = self.x.clone()  # points of any size that fool, where `sizes` found one nearer than `adversarial`
        self.correct = torch.zeros(n, dtype=torch.bool)
        self.success = torch.zeros(n, dtype=torch.bool)
        self.prediction = torch.full((n,), -1)
        self.distance = torch.full((n,), torch.inf, dtype=torch.float64)
        self.forward, self.backward = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
        self.fooled_by: list[str | None] = [None] * n
        self.error: list[str | None] = [None] * n
        self.sound = torch.ones(n, dtype=torch.bool)  # its logits have been finite so far
        self.steep = torch.zeros(n, dtype=torch.bool)  # an attack has met gradients of it that were not finite
        self.costs: list[AttackCost] = []
        self.notes: list[str] = []
        self.outside = 0
        self.proved = torch.zeros(n, dtype=torch.bool)
        self.proofs: dict[int, tuple[str, float]] = {}  # by row: the method, and its lower bound of the margin

    @property
    def left(self) -> Tensor:
        """Rows that are right on the image, have not been fooled, and are not proved."""
        return (self.correct & ~self.success & self.sound & ~self.proved).nonzero().squeeze(1)

    def prove(self, row: int, method: str, margin: float) -> None:
        """No change within the threat fools the model on this one."""
        self.proved[row] = True
        self.proofs[row] = method, margin

    def run(self, plan: Plan, rows: Tensor, model: Model | None = None, **options: Any) -> tuple[Tensor, Result] | None:
        """Attack some rows; those that were attacked, and what came of it. None if there are none.

        Left out are rows on which logits turn out not to be finite, which are unsound then, and rows on which gradients
        do, which this attack cannot say anything of.
        """
        q = self.q
        given: dict[str, Any] = {
            "seed": q.seed, "draws": q.draws, "batch_size": q.batch_size, "compute": q.compute,
            "progress": self.progress, "budget": q.budget, **options,
        }  # fmt: skip
        while len(rows):
            known = self.correct[rows] if model is None else None
            try:
                result = attack(
                    model or q.model, self.x[rows], self.y[rows], q.threat, plan, ids=self.names[rows],
                    clean_correct=known, **given,
                )  # fmt: skip
                return rows, result
            except NotFinite as error:
                bad = torch.isin(self.names[rows], torch.tensor(error.examples))
                if not bool(bad.any()):
                    raise
                if error.gradients:
                    self.steep[rows[bad]] = True
                else:
                    self.unsound(rows[bad])
                rows = rows[~bad]
        return None

    def unsound(self, rows: Tensor) -> None:
        """Nothing can be said of these any more."""
        self.sound[rows] = False
        for at in rows.tolist():
            self.error[at] = BAD

    def screen(self) -> None:
        """Find what the model says of the images."""
        found = appraise(self.q.model, self.x, self.y, self.q.seed)
        self.correct, self.prediction = found.clean_correct.clone(), found.prediction.clone()
        self.forward += 1
        self.unsound((found.prediction < 0).nonzero().squeeze(1))

    def take(self, rows: Tensor, result: Result, label: str = "") -> int:
        """Take over what an attack on these rows has found; how many it fooled."""
        won = result.success.cpu() & self.correct[rows]
        self.forward[rows] += result.forward.cpu()
        self.backward[rows] += result.backward.cpu()
        fresh = rows[won & ~self.success[rows]]
        at = won & ~self.success[rows]
        self.success[fresh] = True
        self.distance[fresh] = result.distance.cpu()[at]
        kept = rows[~self.success[rows] | torch.isin(rows, fresh)]
        self.adversarial[kept] = result.adversarial[torch.isin(rows, kept)].to(self.adversarial.dtype)
        for place, row in zip(at.nonzero().squeeze(1).tolist(), fresh.tolist(), strict=True):
            self.fooled_by[row] = label or result.parts[int(result.fooled_by[place])].attack
        self._heed(fresh)
        self.outside += result.outside
        self.notes += [note for note in result.notes if note not in self.notes]
        return len(fresh)

    def given(self, points: Tensor, rows: Tensor, label: str, seconds: float, forward: int = 1) -> int:
        """Judge points (M, *shape) that no attack of the engine has made; take over those that fool."""
        if not len(rows):
            return 0
        q = self.q
        fooled = (
            ~appraise(q.model, points, self.y[rows], q.seed).clean_correct
            & q.threat.contains(points, self.x[rows]).cpu()
        )
        if q.draws > 1 and bool(fooled.any()):  # heard again, as what the engine finds is
            fooled &= ~appraise(q.model, points, self.y[rows], q.seed + 1).clean_correct
        fooled &= self.correct[rows] & ~self.success[rows] & self.sound[rows]
        fresh = rows[fooled]
        self.success[fresh] = True
        self.adversarial[fresh] = points[fooled].to(self.adversarial.dtype)
        self.distance[fresh] = q.threat.size(points[fooled].double() - self.x[fresh].double())
        self.forward[rows] += forward
        for row in fresh.tolist():
            self.fooled_by[row] = label
        self._heed(fresh)
        self._cost(label, len(rows), len(fresh), forward * len(rows), 0, seconds)
        return len(fresh)

    def _heed(self, fooled: Tensor) -> None:
        for row in fooled[self.proved[fooled]].tolist():
            method, margin = self.proofs[row]
            raise Contradiction(
                row,
                f"{self.fooled_by[row]} fools the model with a change of {self.distance[row]:.6g} within {self.q.threat}, "
                f"and {method} has proved that none does, by a margin of {margin:.3g}",
            )

    def spent(self, label: str, result: Result, seconds: float, fooled: int = 0) -> None:
        """Note what an attack took, and how many of the examples left it fooled."""
        passes = int(result.forward.sum()), int(result.backward.sum())
        self._cost(label, len(result.success), fooled, *passes, seconds)

    def _cost(self, label: str, examples: int, fooled: int, forward: int, backward: int, seconds: float) -> None:
        cost = AttackCost(
            attack=label, examples=examples, fooled=fooled, forward=forward, backward=backward,
            seconds=round(seconds, 3),
        )  # fmt: skip
        self.costs.append(cost)

    def rows(self) -> list[Row]:
        """The examples as evidence."""
        columns = (
            self.names, self.y, self.prediction, self.correct, self.success,
            torch.where(self.correct, self.distance, 0.0), self.forward, self.backward,
        )  # fmt: skip
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        return [
            Row._make((*row, by, error)) for row, by, error in zip(numbers, self.fooled_by, self.error, strict=True)
        ]
