"""One shard of an evaluation: what the protocol, the adapted attacks and the cheap checks do to some examples.

A shard depends on nothing outside it but the question and the strategy, so it can be measured again, alone, elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import Tensor

from . import rng
from .adapt import Strategy
from .attacks import APGD, FGSM, HopSkipJump, Plan, Square
from .checks.record import Record
from .engine import Result, attack
from .errors import NotFinite
from .judging import appraise, eight_bits
from .models.classifier import Model
from .models.layout import Compute
from .pool import Progress
from .protocols import by_gradient
from .results import AttackCost
from .store import Row
from .threats import L2, Linf, Threat

NOISES = 10  # random points that the adversary's best is compared with
BAD = "its logits are not finite"


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a model.

    images (N, *shape), labels (N,), names (N,) int64 that the examples are called by.
    plan:        the protocol; strategy: what adaptation adds to it.
    undefended:  the network without its defense, or None.
    thorough:    whether the dear checks are run too.
    """

    model: Model
    images: Tensor
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


@dataclass(eq=False)
class Outcome:
    """What became of a shard's examples: columns with one row each, and the log."""

    adversarial: Tensor
    rows: list[Row]
    log: dict[str, Any]
    notes: tuple[str, ...]


class _Board:
    """The state of the examples of a shard, as one attack after the other is tried on what is left."""

    def __init__(self, question: Question, index: Tensor, progress: Callable[[Progress], None] | None) -> None:
        self.q, self.progress = question, progress
        self.x, self.y, self.names = question.images[index], question.labels[index], question.names[index]
        n = len(index)
        self.adversarial = self.x.clone()
        self.correct = torch.zeros(n, dtype=torch.bool)
        self.success = torch.zeros(n, dtype=torch.bool)
        self.prediction = torch.full((n,), -1)
        self.distance = torch.full((n,), torch.inf, dtype=torch.float64)
        self.forward, self.backward = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
        self.fooled_by: list[str | None] = [None] * n
        self.error: list[str | None] = [None] * n
        self.sound = torch.ones(n, dtype=torch.bool)  # its logits have been finite so far
        self.costs: list[AttackCost] = []
        self.notes: list[str] = []
        self.outside = 0

    @property
    def left(self) -> Tensor:
        """Rows that are right on the image and have not been fooled."""
        return (self.correct & ~self.success & self.sound).nonzero().squeeze(1)

    def run(
        self, plan: Plan, rows: Tensor, label: str = "", model: Model | None = None, **options: Any
    ) -> Result | None:
        """Attack some rows, leaving out those on which logits turn out not to be finite; None if none is left."""
        q = self.q
        given: dict[str, Any] = {
            "seed": q.seed, "draws": q.draws, "batch_size": q.batch_size, "compute": q.compute,
            "progress": self.progress, "budget": q.budget, **options,
        }  # fmt: skip
        while len(rows):
            try:
                return attack(
                    model or q.model, self.x[rows], self.y[rows], q.threat, plan, ids=self.names[rows], **given
                )
            except NotFinite as error:
                bad = torch.isin(self.names[rows], torch.tensor(error.examples))
                if error.gradients or not bool(bad.any()):
                    raise
                for at in rows[bad].tolist():
                    self.error[at] = BAD
                self.sound[rows[bad]] = False
                rows = rows[~bad]
        return None

    def screen(self) -> None:
        """Find what the model says of the images."""
        found = appraise(self.q.model, self.x, self.y, self.q.seed)
        self.correct, self.prediction = found.clean_correct.clone(), found.prediction.clone()
        self.forward += 1
        for at in (found.prediction < 0).nonzero().squeeze(1).tolist():
            self.error[at], self.sound[at] = BAD, False

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
        fooled &= self.correct[rows] & ~self.success[rows] & self.sound[rows]
        fresh = rows[fooled]
        self.success[fresh] = True
        self.adversarial[fresh] = points[fooled].to(self.adversarial.dtype)
        self.distance[fresh] = q.threat.size(points[fooled].double() - self.x[fresh].double())
        self.forward[rows] += forward
        for row in fresh.tolist():
            self.fooled_by[row] = label
        self.costs.append(AttackCost(
            attack=label, examples=len(rows), fooled=len(fresh), forward=forward * len(rows), backward=0,
            seconds=round(seconds, 3),
        ))  # fmt: skip
        return len(fresh)


def examine(question: Question, index: Tensor, progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Measure the examples of these indices (M,)."""
    board = _Board(question, index, progress)
    board.screen()
    log: dict[str, Any] = {"seen": _protocol(board)}
    log["ways"] = [_way(board, at) for at in range(len(question.strategy.ways))]
    log["defense"] = _undefended(board)
    log["checks"] = _cheap(board) | (_dear(board) if question.thorough else {})
    log["rounded"] = _rounded(board)
    log["unmoved"] = int((board.adversarial[board.left] == board.x[board.left]).flatten(1).all(1).sum())
    log["outside"] = board.outside
    log["attacks"] = [msgspec.to_builtins(cost) for cost in board.costs]
    return Outcome(board.adversarial, _rows(board), log, tuple(board.notes))


def _rows(board: _Board) -> list[Row]:
    columns = (
        board.names, board.y, board.prediction, board.correct, board.success,
        torch.where(board.correct, board.distance, 0.0), board.forward, board.backward,
    )  # fmt: skip
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    return [Row._make((*row, by, error)) for row, by, error in zip(numbers, board.fooled_by, board.error, strict=True)]


def _protocol(board: _Board) -> dict[str, Any]:
    """The protocol as it is; where the model's own gradients are of no use, what of it needs none."""
    q = board.q
    plan: Plan | None = q.plan if q.strategy.usable else _without_gradients(q.threat)
    rows = board.left
    if plan is None or not len(rows):
        return Record(0).summary(torch.zeros(0, dtype=torch.bool))
    record = Record(len(rows))
    result = board.run(plan, rows, surrogate=q.surrogate, observer=record)
    if result is None:
        return record.summary(torch.zeros(len(rows), dtype=torch.bool))
    if len(result.success) < len(rows):  # some were left out; their looks are of another numbering
        rows = rows[board.sound[rows]]
        record = Record(len(rows))
    board.take(rows, result)
    board.costs += result.parts
    return record.summary(~result.success.cpu() & result.clean_correct.cpu())


def _without_gradients(threat: Threat) -> Plan | None:
    return Square(steps=500) if isinstance(threat, Linf | L2) else None


def _way(board: _Board, at: int) -> dict[str, Any]:
    """An adapted attack on what is left: the first way gets the protocol's gradient attacks, the others a short one."""
    way, rows, start = board.q.strategy.ways[at], board.left, time.perf_counter()
    plan = by_gradient(board.q.plan) if at == 0 else APGD(steps=40, loss="margin")
    label = f"adapted: {way.name}"
    fooled = forward = backward = 0
    if len(rows) and plan is not None:
        result = board.run(plan, rows, surrogate=way.surrogate)
        if result is not None:
            rows = rows[board.sound[rows]]
            fooled = board.take(rows, result, label)
            forward, backward = int(result.forward.sum()), int(result.backward.sum())
    seconds = round(time.perf_counter() - start, 3)
    board.costs.append(AttackCost(
        attack=label, examples=len(rows), fooled=fooled, forward=forward, backward=backward, seconds=seconds
    ))  # fmt: skip
    return {"name": way.name, "examples": len(rows), "fooled": fooled, "forward": forward, "backward": backward,
            "seconds": seconds, "correct": int(board.correct.sum())}  # fmt: skip


def _undefended(board: _Board) -> dict[str, int] | None:
    """Attack the network alone, and give the defended model what came of it: the non-adaptive attack, and a transfer."""
    q, start = board.q, time.perf_counter()
    plan = by_gradient(q.plan)
    if q.undefended is None or plan is None:
        return None
    rows = board.sound.nonzero().squeeze(1)
    result = board.run(plan, rows, model=q.undefended)
    if result is None:
        return None
    rows = rows[board.sound[rows]]
    board.forward[rows] += result.forward.cpu()
    board.backward[rows] += result.backward.cpu()
    points = result.adversarial
    clean, alone = result.clean_correct.cpu(), result.success.cpu()
    held = appraise(q.model, points, board.y[rows], q.seed).clean_correct & board.correct[rows]
    fooled = board.correct[rows] & ~held
    hit = (fooled & ~board.success[rows]).nonzero().squeeze(1)
    board.given(points[hit], rows[hit], "transfer from the network without its defense", time.perf_counter() - start)
    return {
        "clean": int(clean.sum()), "undefended": int((clean & ~alone).sum()), "non_adaptive": int(held.sum()),
        "defended_clean": int(board.correct.sum()),
    }  # fmt: skip


def _cheap(board: _Board) -> dict[str, int]:
    """One step of the sign, and random points: what iterative attacks left should be beyond them."""
    found = {}
    rows, start = board.left, time.perf_counter()
    if board.q.strategy.usable and len(rows):
        result = board.run(FGSM(), rows, surrogate=board.q.surrogate)
        if result is not None:
            rows = rows[board.sound[rows]]
            found["single-step-better"] = board.take(rows, result, "fgsm")
            board.costs += result.parts
    rows, start = board.left, time.perf_counter()
    if len(rows):
        found["noise-fools"] = _noise(board, rows, start)
    return found


def _noise(board: _Board, rows: Tensor, start: float) -> int:
    threat, x = board.q.threat, board.x[rows]
    ids, best, lowest = board.names[rows], x.clone(), torch.ones(len(rows))
    for draw in range(NOISES):
        noise = rng.normal(rng.keys(ids, board.q.seed, 0xA015E, draw), x.shape[1:], x.dtype)
        z = threat.project(x + threat.eps * threat.steepest(noise, x), x)
        found = appraise(board.q.model, z, board.y[rows], board.q.seed)
        lead = torch.where(found.clean_correct, found.confidence.float().cpu(), -1.0)
        better = lead < lowest
        best[better], lowest[better] = z[better], lead[better]
    return board.given(best, rows, "random noise", time.perf_counter() - start, forward=NOISES)


def _dear(board: _Board) -> dict[str, int]:
    """Twice the steps, and decisions alone: what the protocol left should be beyond them too."""
    found = {}
    q = board.q
    tries: list[tuple[str, Plan]] = [("more-steps-help", APGD(steps=200, loss="dlr"))]
    if isinstance(q.threat, HopSkipJump.norms):
        tries.append(("hard-label-better", HopSkipJump(steps=2000)))
    for code, plan in tries:
        rows = board.left
        fits = all(isinstance(q.threat, stage.attack.norms) for stage in plan.stages())
        usable = q.strategy.usable or code == "hard-label-better"
        if not len(rows) or not fits or not usable:
            continue
        result = board.run(plan, rows, surrogate=q.surrogate)
        if result is not None:
            rows = rows[board.sound[rows]]
            found[code] = board.take(rows, result)
            board.costs += result.parts
    return found


def _rounded(board: _Board) -> int | None:
    """How many examples hold when what fools them is rounded to 8 bits; None where the images are not of that kind."""
    if not board.q.threat.unit_range or board.x.dim() != 4:
        return None
    rows = board.success.nonzero().squeeze(1)
    if not len(rows):
        return int(board.correct.sum())
    points = eight_bits(board.adversarial[rows], board.x[rows])
    again = appraise(board.q.model, points, board.y[rows], board.q.seed).clean_correct
    again |= ~board.q.threat.contains(points, board.x[rows]).cpu()
    return int((board.correct & ~board.success).sum() + again.sum())
