"""One shard of an evaluation: what the protocol, the adapted attacks and the checks do to some examples.

A shard depends on nothing outside it but the question and the strategy, so it can be measured again, alone, elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from .afterwards import at_half, cheap, dear, rate, rounded, sizes, transfer
from .attacks import APGD, Plan, Square
from .board import Board, Contradiction, Question
from .checks.record import Record
from .errors import ModelError
from .judging import appraise, draws_from
from .pool import Progress
from .protocols import by_gradient
from .proving import doubt, prove, radii
from .store import Row
from .threats import L2, Linf


@dataclass(eq=False)
class Outcome:
    """What became of a shard's examples: columns with one row each, and the log."""

    adversarial: Tensor
    rows: list[Row]
    log: dict[str, Any]
    notes: tuple[str, ...]


Arriving = Generator[tuple[int, Outcome], None, None]


class Runner(Protocol):
    """Who examines shards: this process, or many machines."""

    def __call__(
        self,
        question: Question,
        parts: Mapping[int, Tensor],
        ordered: bool,
        progress: Callable[[Progress], None] | None = None,
    ) -> Arriving:
        """The outcomes of the shards `parts`: indices (M,) of examples by number.

        ordered:   give them in the order of `parts`; else as they come.
        progress:  called with what is running within a shard, where that is known.
        """


def in_turn(
    question: Question,
    parts: Mapping[int, Tensor],
    ordered: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Arriving:
    """Examine shards in this process, one after the other."""
    for number, index in parts.items():
        yield number, examine(question, index, progress)


def examine(question: Question, index: Tensor, progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Measure the examples of these indices (M,)."""
    board = Board(question, index, progress)
    log: dict[str, Any] = {}
    try:
        log |= _measured(board)
    except Contradiction as found:
        log["contradiction"] = {"example": int(board.names[found.row]), "said": found.said}
    log["proofs"] = [[int(board.names[row]), *proof] for row, proof in board.proofs.items()]
    log["attacks"] = [msgspec.to_builtins(cost) for cost in board.costs]
    return Outcome(board.adversarial, board.rows(), log, tuple(board.notes))


def _measured(board: Board) -> dict[str, Any]:
    """The log of a shard. Raises `Contradiction`."""
    question = board.q
    log: dict[str, Any] = {}
    board.screen()
    log["proof"] = prove(board)
    log["doubted"] = doubt(board)
    if question.strategy.usable:
        log["seen"] = _protocol(board)
    log["ways"] = [_way(board, at) for at in range(len(question.strategy.ways))]
    if not question.strategy.usable:  # what needs no gradient is dear, so it comes last
        log["seen"] = _protocol(board)
    log["defense"] = _undefended(board)
    log["checks"] = cheap(board) | (dear(board) if question.thorough else {})
    log["sizes"] = sizes(board)
    log["radii"] = radii(board, log["sizes"])
    log["rounded"] = rounded(board)
    log["rate"] = rate(board)
    log["transfer"] = transfer(board)
    log["half"] = at_half(board) if question.thorough else None
    log["steep"] = int((board.steep & board.correct).sum())
    log["unmoved"] = int((board.adversarial[board.left] == board.x[board.left]).flatten(1).all(1).sum())
    log["outside"] = board.outside
    return log


def _protocol(board: Board) -> dict[str, Any]:
    """The protocol as it is; where the model's own gradients are of no use, what of it needs none."""
    q = board.q
    plan: Plan | None = q.plan if q.strategy.usable or q.black_box else _without_gradients(q)
    rows = board.left
    if plan is None or not len(rows):
        return Record(0).summary(torch.zeros(0, dtype=torch.bool))
    record = Record(len(rows))
    found = board.run(plan, rows, surrogate=q.surrogate, observer=record)
    if found is None:
        return Record(0).summary(torch.zeros(0, dtype=torch.bool))
    attacked, result = found
    board.take(attacked, result)
    board.costs += result.parts
    if len(attacked) < len(rows):  # the record numbers what was left out too: it says nothing
        record = Record(len(attacked))
    return record.summary(~result.success.cpu() & result.clean_correct.cpu())


def _without_gradients(q: Question) -> Plan | None:
    """The search that needs no gradients, whole where nothing else can attack the model; None for norms that it has not."""
    if not isinstance(q.threat, Linf | L2):
        return None
    return Square(steps=500) if q.strategy.ways else Square()


def _way(board: Board, at: int) -> dict[str, Any]:
    """An adapted attack on what is left: the first way gets the protocol's gradient attacks, the others a short one."""
    way, rows, start = board.q.strategy.ways[at], board.left, time.perf_counter()
    plan = by_gradient(board.q.plan) if at == 0 else APGD(steps=40, loss="margin")
    forward = backward = fooled = 0
    try:
        found = None if plan is None else board.run(plan, rows, surrogate=way.surrogate)
    except ModelError as error:  # a way that works on the probe may fail elsewhere: then it is no way there
        found = None
        board.notes.append(f"A remedy failed ({way.name}): {error}")
    seconds = time.perf_counter() - start
    if found is not None:
        attacked, result = found
        fooled = board.take(attacked, result, f"adapted: {way.name}")
        board.spent(f"adapted: {way.name}", result, seconds, fooled)
        forward, backward = int(result.forward.sum()), int(result.backward.sum())
    return {
        "name": way.name, "examples": len(rows), "fooled": fooled, "forward": forward, "backward": backward,
        "seconds": round(seconds, 3), "correct": int(board.correct.sum()),
    }  # fmt: skip


def _undefended(board: Board) -> dict[str, int] | None:
    """Attack the network alone, and give the defended model what came of it: the non-adaptive attack, and a transfer."""
    q, start = board.q, time.perf_counter()
    plan = by_gradient(q.plan)
    if q.undefended is None or plan is None:
        return None
    draws = q.draws if draws_from(q.undefended, board.x[:1], q.seed) else 1  # the dice may be the defense's alone
    found = board.run(plan, board.sound.nonzero().squeeze(1), model=q.undefended, draws=draws)
    if found is None:
        return None
    rows, result = found
    board.forward[rows] += result.forward.cpu()
    board.backward[rows] += result.backward.cpu()
    board.spent("the network without its defense", result, time.perf_counter() - start)
    points = result.adversarial
    clean, alone = result.clean_correct.cpu(), result.success.cpu()
    held = appraise(q.model, points, board.y[rows], q.seed).clean_correct & board.correct[rows]
    fooled = board.correct[rows] & ~held & (points != board.x[rows]).flatten(1).any(1).cpu()
    hit = (fooled & ~board.success[rows]).nonzero().squeeze(1)
    board.given(points[hit], rows[hit], "transfer from the network without its defense", 0.0)
    return {
        "clean": int(clean.sum()), "undefended": int((clean & ~alone).sum()), "non_adaptive": int(held.sum()),
        "defended_clean": int(board.correct.sum()),
    }  # fmt: skip
