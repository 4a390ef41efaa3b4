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

from . import rng, text
from .attacks import PGD
from .board import Board, Contradiction, Question
from .certificates import METHODS, AlphaCROWN, Method, certify, margins
from .certificates.asked import asked
from .certificates.cost import affordable
from .certificates.sizes import largest
from .certificates.smoothing import Smoothing
from .checks.probing import across
from .errors import ModelError, NotFinite, ParameterError, must_be
from .threats import Threat

SAMPLE = 200  # proved examples of the whole run that are attacked all the same
CHEAP = PGD(steps=10, step_size=0.25)
DOUBT = "pgd on what is proved"
RADII = 32  # examples of a shard whose certified radius is sought
LEVELS = tuple(level / 4 for level in range(1, 9))  # sizes at which it is, as multiples of eps


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
    methods, count, note = wanted(certify, q.threat), 0, ""
    for image in images.split(1):
        try:
            if certify == "auto":
                count, note = affordable(q.model, image, q.threat)
            else:
                margins(q.model, image, torch.zeros(1, dtype=torch.int64), q.threat, methods[0])
                count = len(methods)
            break
        except NotFinite as error:  # of this image nothing can be said; perhaps of the next one
            note = f"Nothing was proved. {error}"
        except (ModelError, ParameterError) as error:
            if certify != "auto":
                raise
            return Means((), f"Nothing was proved. {error}")
    return Means(methods[:count], note if certify == "auto" or not count else "")


def drawn(names: Tensor, seed: int) -> Tensor:
    """The names of the examples that are attacked also where they are proved: `SAMPLE` of all, or all."""
    return names[rng.keys(names, seed, 0xA1A7).argsort()[:SAMPLE]]


def prove(board: Board) -> dict[str, Any] | None:
    """Prove what can be proved of the examples that are right: how many each method tried and proved.

    None where nothing is to be proved.
    """
    methods, start, rows = board.q.certify, time.perf_counter(), board.left
    if not methods:
        return None
    proved = [0] * len(methods)
    if len(rows):
        try:
            of = board.x[rows], board.y[rows]
            found = certify(board.q.model, of, board.q.threat, methods, batch_size=board.q.batch_size)
        except ModelError as error:  # it answers otherwise here than on the image that the methods were tried on
            board.notes.append(f"Nothing was proved of some examples. {error}")
        else:
            for row, by, margin in zip(rows.tolist(), found.by.tolist(), found.margin.tolist(), strict=True):
                if by >= 0 and margin > 0:
                    board.prove(row, text.write(methods[by].name, methods[by]), margin)
                    proved[by] += 1
    return {
        "methods": [method.name for method in methods],
        "tried": [len(rows) - sum(proved[:at]) for at in range(len(methods))],
        "proved": proved,
        "seconds": round(time.perf_counter() - start, 3),
    }


def doubt(board: Board) -> int:
    """Attack what is proved among the examples that were drawn for it: how many they were."""
    q, rows = board.q, board.proved.nonzero().squeeze(1)
    some = rows[torch.isin(board.names[rows], q.doubted)]
    if not len(some) or not isinstance(q.threat, CHEAP.norms):
        return 0
    ways = (None, *(way.surrogate for way in q.strategy.ways[:1]))  # what has bounds has gradients of its own
    for surrogate in ways:
        tried = board.run(CHEAP, some, surrogate=surrogate)
        if tried is not None:
            board.take(*tried, DOUBT)
            board.spent(DOUBT, tried[1], sum(part.seconds for part in tried[1].parts))
    return len(some)


def radii(board: Board, smallest: Sequence[float]) -> list[list[float]]:
    """For some of the examples: a size up to which none fools the model, of a few that are tried, and the smallest found.

    By intervals and CROWN alone. smallest: as `sizes` found them, for the first examples of the shard.
    """
    q, count = board.q, min(RADII, len(smallest))
    methods = [method for method in q.certify if not isinstance(method, AlphaCROWN)]
    if not methods or not count or math.isinf(q.threat.eps):
        return []
    right, proved = (board.correct & board.sound)[:count], board.proved[:count]
    held = torch.where(proved, LEVELS.index(1.0), -1)
    not_ = torch.where(proved, len(LEVELS), torch.where(right, LEVELS.index(1.0), 0))

    def proves(rows: Tensor, eps: float) -> Tensor:
        of = board.x[rows], board.y[rows]
        return certify(q.model, of, q.threat.within(eps), methods, batch_size=q.batch_size).certified

    try:
        certified = largest(proves, [q.threat.eps * level for level in LEVELS], held, not_)
    except ModelError:  # told by `prove`
        return []
    certified = certified.clamp_max(float(q.threat.size(across(board.x, q.threat))[0]))  # no change is larger
    found_sizes = torch.tensor(smallest[:count], dtype=torch.float64)
    for row in (certified > found_sizes).nonzero().squeeze(1).tolist():
        if not bool(board.success[row]):  # the evidence is the point that was found further out
            board.adversarial[row] = board.nearest[row]
        raise Contradiction(
            row,
            f"a change of {found_sizes[row]:.6g} fools the model, and {methods[-1].name} has proved that none of up to "
            f"{certified[row]:.6g} does",
        )
    return [[float(low), float(high)] for low, high in zip(certified, smallest, strict=False)]
