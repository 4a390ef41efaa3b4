"""The lower side of the bracket: what is proved of a shard's examples before any is attacked, and whether it stands.

An example that is proved is attacked no more, but for a sample of them, so that a certificate that is wrong would show.
If any attack fools a proved example, by whatever way, that is an alarm, and the end of the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import rng
from .attacks import PGD
from .board import Board, Contradiction, Question
from .certificates import METHODS, AlphaCROWN, Method, certify, margins
from .certificates.asked import asked
from .certificates.cost import affordable
from .certificates.smoothing import Smoothing
from .errors import ModelError, ParameterError, must_be
from .threats import Threat

SAMPLE = 200  # proved examples of the whole run that are attacked all the same
CHEAP = PGD(steps=10, step_size=0.25)
RADII = 32  # examples of a shard whose certified radius is sought
LEVELS = 8  # sizes at which it is, up to twice eps


@dataclass(frozen=True)
class Means:
    """By which methods an evaluation proves, and what is to be said of those that it leaves out."""

    methods: tuple[Method, ...] = ()
    note: str = ""


def wanted(certify: str | None, threat: Threat) -> tuple[Method, ...]:
    """The methods of `evaluate`'s option: none, all ("auto"), or those that are named."""
    if certify is None:
        return ()
    if not isinstance(certify, str):
        raise must_be("evaluate", "certify", f"None, auto, or one or more of {', '.join(METHODS)}", certify)
    found = asked(certify, threat)
    if isinstance(found, Smoothing):
        raise ParameterError(
            "Smoothing certifies another classifier than the one that is attacked. Ask uf.certify for it."
        )
    return found


def means(q: Question, images: Tensor, certify: str) -> Means:
    """The methods that can be used on the model: of "auto" those that have bounds for it, and do not take too long.

    Raises `ModelError`, `ParameterError` where a method that was asked for by name has no bounds for the model or threat.
    """
    methods = wanted(certify, q.threat)
    if certify != "auto":
        margins(q.model, images, torch.zeros(len(images), dtype=torch.int64), q.threat, methods[0])
        return Means(methods)
    try:
        count, note = affordable(q.model, images, q.threat)
    except (ModelError, ParameterError) as error:
        return Means((), f"Nothing was proved. {error}")
    return Means(methods[:count], note)


def prove(board: Board) -> dict[str, Any] | None:
    """Prove what can be proved of the examples that are right: how many each method tried and proved.

    None where nothing is to be proved.
    """
    methods, start, rows = board.q.certify, time.perf_counter(), board.left
    if not methods:
        return None
    proved = [0] * len(methods)
    if len(rows):
        found = certify(board.q.model, (board.x[rows], board.y[rows]), board.q.threat, methods)
        for row, by, margin in zip(rows.tolist(), found.by.tolist(), found.margin.tolist(), strict=True):
            if by >= 0 and margin > 0:
                board.prove(row, methods[by].name, margin)
                proved[by] += 1
    return {
        "methods": [method.name for method in methods],
        "tried": [len(rows) - sum(proved[:at]) for at in range(len(methods))],
        "proved": proved,
        "seconds": round(time.perf_counter() - start, 3),
    }


def doubt(board: Board) -> int:
    """Attack a sample of what is proved, as many as are this shard's part of `SAMPLE`: how many they were."""
    q, rows = board.q, board.proved.nonzero().squeeze(1)
    part = math.ceil(SAMPLE * len(board.x) / len(q.images))
    order = rng.keys(board.names[rows], q.seed, 0xA1A7).argsort()
    some = rows[order[:part]].sort().values
    if not len(some) or not q.attackable or not isinstance(q.threat, CHEAP.norms):
        return 0
    tried = board.run(CHEAP, some, surrogate=q.gradients)
    if tried is None:
        return 0
    board.take(*tried, "pgd on what is proved")
    board.spent("pgd on what is proved", tried[1], sum(part.seconds for part in tried[1].parts))
    return len(tried[0])


def radii(board: Board, smallest: Sequence[float]) -> list[list[float]]:
    """For some of the examples: a size up to which none fools the model, of a few that are tried, and the smallest found.

    By intervals and CROWN alone. smallest: as `sizes` found them, for the first examples of the shard.
    """
    q, count = board.q, min(RADII, len(smallest))
    methods = [method for method in q.certify if not isinstance(method, AlphaCROWN)]
    if not methods or not count or math.isinf(q.threat.eps):
        return []
    certified = torch.zeros(count, dtype=torch.float64)
    left = (board.correct & board.sound)[:count].nonzero().squeeze(1)
    for level in range(1, LEVELS + 1):
        eps = 2 * q.threat.eps * level / LEVELS
        if not len(left):
            break
        found = certify(q.model, (board.x[left], board.y[left]), q.threat.within(eps), methods)
        left = left[found.certified]
        certified[left] = eps
    certified = torch.where(board.proved[:count], certified.clamp_min(q.threat.eps), certified)
    found_sizes = torch.tensor(smallest[:count], dtype=torch.float64)
    for row in (certified > found_sizes).nonzero().squeeze(1).tolist():
        raise Contradiction(
            row,
            f"a change of {found_sizes[row]:.6g} fools the model, and {methods[-1].name} has proved that none of up to "
            f"{certified[row]:.6g} does",
        )
    return [[float(low), float(high)] for low, high in zip(certified, smallest, strict=False)]
