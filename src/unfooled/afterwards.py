"""What is measured after the attacks: whether anything plainer would have done better, and what rounding leaves."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import rng
from .attacks import APGD, DDN, FGSM, FMN, HopSkipJump, Plan, SigmaZero
from .board import Board
from .checks.probing import across
from .defenses.base import straight
from .engine import attack
from .errors import ModelError
from .judging import appraise, eight_bits
from .models.classifier import Classifier, Model, untouched
from .oracle import DRAWS
from .threats import Linf

NOISES = 10  # random points that the adversary's best is compared with
SOME = 64  # examples of a shard that are attacked at Linf 0.5


def cheap(board: Board) -> dict[str, int]:
    """One step of the sign, and random points: what iterative attacks left should be beyond them."""
    found = {}
    rows = board.left
    if board.q.strategy.usable and len(rows):
        tried = board.run(FGSM(), rows, surrogate=board.q.surrogate)
        if tried is not None:
            found["single-step-better"] = board.take(*tried, "fgsm")
            board.costs += tried[1].parts
    rows = board.left
    if len(rows):
        found["noise-fools"] = _noise(board, rows)
    return found


def _noise(board: Board, rows: Tensor) -> int:
    threat, x, start = board.q.threat, board.x[rows], time.perf_counter()
    ids, best, lowest = board.names[rows], x.clone(), torch.ones(len(rows))
    for draw in range(NOISES):
        noise = rng.normal(rng.keys(ids, board.q.seed, 0xA015E, draw), x.shape[1:], x.dtype)
        z = threat.project(x + threat.eps * threat.steepest(noise, x), x)
        found = appraise(board.q.model, z, board.y[rows], board.q.seed)
        lead = torch.where(found.clean_correct, found.confidence.float().cpu(), -1.0)
        better = lead < lowest
        best[better], lowest[better] = z[better], lead[better]
    return board.given(best, rows, "random noise", time.perf_counter() - start, forward=NOISES)


def dear(board: Board) -> dict[str, int]:
    """Twice the steps, and decisions alone: what the protocol left should be beyond them too."""
    found = {}
    q = board.q
    tries: list[tuple[str, Plan]] = [("more-steps-help", APGD(steps=200, loss="dlr"))]
    if isinstance(q.threat, HopSkipJump.norms):
        tries.append(("hard-label-better", HopSkipJump(steps=2000)))
    for code, plan in tries:
        rows = board.left
        fits = all(isinstance(q.threat, stage.attack.norms) for stage in plan.stages())
        usable = q.attackable or code == "hard-label-better"
        if not len(rows) or not fits or not usable:
            continue
        tried = board.run(plan, rows, surrogate=q.gradients)
        if tried is not None:
            found[code] = board.take(*tried)
            board.costs += tried[1].parts
    return found


def sizes(board: Board) -> list[float]:
    """The smallest changes that fool the first examples of the shard: 0 where the model is wrong, the box where none does.

    One minimum-norm run tells of every eps. A point within eps counts as any other. Empty where none is run.
    """
    q, start = board.q, time.perf_counter()
    rows = (board.correct & board.sound)[:SOME].nonzero().squeeze(1)
    found = torch.zeros(min(SOME, len(board.correct)), dtype=torch.float64)
    if not len(rows) or not q.attackable or q.draws > 1:  # a random model's would take hours
        return []
    plan = next(
        plan for plan in (DDN(steps=100), SigmaZero(steps=100), FMN(steps=100)) if isinstance(q.threat, plan.norms)
    )
    try:
        result = attack(
            q.model, board.x[rows], board.y[rows], q.threat.within(torch.inf), plan, seed=q.seed, draws=q.draws,
            ids=board.names[rows], batch_size=q.batch_size, surrogate=q.gradients,
        )  # fmt: skip
    except ModelError:  # it overflows far from the images; within eps that has been told already
        return []
    found[rows] = torch.minimum(result.distance.cpu(), board.distance[rows])
    closer = result.distance.cpu() < board.distance[rows]
    board.nearest[rows[closer]] = result.adversarial[closer].to(board.nearest.dtype)
    board.spent(f"smallest changes: {plan}", result, time.perf_counter() - start)
    near = (result.distance.cpu() <= q.threat.eps) & ~board.success[rows]
    board.forward[rows] += result.forward.cpu()
    board.backward[rows] += result.backward.cpu()
    board.given(result.adversarial[near], rows[near], str(plan), 0.0)
    whole = float(q.threat.size(across(board.x, q.threat))[0])
    return [min(float(size), whole) for size in found]


def rounded(board: Board) -> int | None:
    """How many examples hold when what fools them is rounded to 8 bits; None where the images are not of that kind.

    Where the rounding undoes a point, one is sought among the roundings themselves.
    """
    if not board.q.threat.unit_range or board.x.dim() != 4:
        return None
    rows = board.success.nonzero().squeeze(1)
    lost = rows[~_fools(board, eight_bits(board.adversarial[rows], board.x[rows]), rows)] if len(rows) else rows
    if len(lost) and isinstance(board.q.threat, Linf):
        lost = lost[~_on_lattice(board, lost)]
    return int((board.correct & ~board.success).sum()) + len(lost)


def _fools(board: Board, points: Tensor, rows: Tensor) -> Tensor:
    wrong = ~appraise(board.q.model, points, board.y[rows], board.q.seed).clean_correct
    return wrong & board.q.threat.contains(points, board.x[rows]).cpu()


@dataclass(frozen=True)
class _Rounding:
    """A model of images that are rounded to 8 bits first; gradients as if they were not."""

    model: Model

    def __call__(self, images: Tensor) -> Any:
        return self.model(straight(images, (images.detach() * 255).round() / 255))


def _on_lattice(board: Board, rows: Tensor) -> Tensor:
    """Attack with every point rounded to 8 bits before the model sees it: which rows (M,) fall."""
    q, start = board.q, time.perf_counter()
    eps = math.floor(q.threat.eps * 255 + 1e-6) / 255  # whole steps: rounding cannot leave the set
    fell = torch.zeros(len(rows), dtype=torch.bool)
    if eps <= 0 or not q.attackable:
        return fell
    try:
        found = attack(
            _Rounding(q.model), board.x[rows], board.y[rows], q.threat.within(eps), APGD(steps=40, loss="margin"),
            seed=q.seed, draws=q.draws, ids=board.names[rows], batch_size=q.batch_size,
            surrogate=None if q.gradients is None else _Rounding(q.gradients),
        )  # fmt: skip
    except ModelError:  # what the model answers off these points has been told already
        return fell
    board.forward[rows] += found.forward.cpu()
    board.backward[rows] += found.backward.cpu()
    board.spent("on the lattice of 8-bit pixels", found, time.perf_counter() - start)
    return _fools(board, (found.adversarial * 255).round() / 255, rows)


def rate(board: Board) -> list[float] | None:
    """Of a random model, on how many draws the points found fool it: the sum of their shares, and how many they are."""
    rows = board.success.nonzero().squeeze(1)
    if board.q.draws == 1 or not len(rows):
        return None
    victim, wrong = Classifier(board.q.model), torch.zeros(len(rows))
    with torch.no_grad(), untouched(board.q.model), rng.forked(board.q.seed, 0x7A7E):
        for _ in range(DRAWS):
            answers = [victim(z).argmax(1).cpu() for z in board.adversarial[rows].split(128)]
            wrong += (torch.cat(answers) != board.y[rows]).float()
    return [float((wrong / DRAWS).sum()), len(rows)]


def transfer(board: Board) -> list[int] | None:
    """How many examples fool the surrogate that was given, and how many of those points fool the model too."""
    q = board.q
    if q.surrogate is None or not isinstance(q.threat, APGD.norms):
        return None
    tried = board.run(APGD(steps=20), board.correct.nonzero().squeeze(1), model=q.surrogate)
    if tried is None:
        return None
    result = tried[1]
    rows, points = tried[0][result.success.cpu()], result.adversarial[result.success]
    if not len(rows):
        return [0, 0]
    sure = board.proved[rows]
    board.given(points[sure], rows[sure], "transfer from the surrogate", 0.0)  # which none of them may fool
    return [len(rows), int(_fools(board, points, rows).sum())]


def at_half(board: Board) -> list[int] | None:
    """At Linf 0.5 of the range every image can be grey: how many hold, of how many."""
    q = board.q
    if not isinstance(q.threat, Linf) or q.threat.mask is not None or not q.attackable:
        return None
    rows = board.correct.nonzero().squeeze(1)[:SOME]
    if not len(rows):
        return None
    threat = q.threat.within(0.5 * float(across(board.x, q.threat).max()))
    found = attack(
        q.model, board.x[rows], board.y[rows], threat, APGD(steps=50, loss="margin"), seed=q.seed, draws=q.draws,
        surrogate=q.gradients, batch_size=q.batch_size, clean_correct=board.correct[rows],
    )  # fmt: skip
    return [int((found.clean_correct & ~found.success).sum()), len(rows)]
