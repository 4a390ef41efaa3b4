"""Whether the smoothed classifier is certified at a given radius, in as few draws as that takes.

A radius eps is certified where the share p of the class exceeds the noise's `needed(eps)`. Two gamblers bet on the draws,
one that it does, one that it does not; whoever first makes 1 / alpha of 1 has shown it, and the draws end there. Either is
wrong with probability alpha at most, however long the game may last (Ville's inequality).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy.special import betainc, betaln
from torch import Tensor

from ..errors import must_be
from ..models.classifier import Model
from .smoothing import ABSTAINED, ESTIMATE, SELECTION, Progress, Sampler, Smoothing

PRIOR = 0.5  # Beta(1/2, 1/2), Jeffreys': most shares of a model under noise lie near 0 or 1
FIRST = 8  # draws before the first look; then a look at every sixteenth more, and at least as many


@dataclass(frozen=True, repr=False)
class Decided:
    """Whether each image is certified at eps, one row per image.

    prediction:  (N,) int64 the class that is certified up to eps; -1 where none is.
    certified:   (N,) bools: no change of at most eps, in the norm of the noise, changes the answer.
    refuted:     (N,) bools: the share of the class is too small, so more draws would not help. That the smoothed classifier
                 can be fooled is not said. What is neither has abstained.
    draws:       (N,) int64 forward passes spent, those that selected the class included.
    """

    prediction: Tensor
    certified: Tensor
    refuted: Tensor
    draws: Tensor
    eps: float
    smoothing: Smoothing

    def __repr__(self) -> str:
        n, yes, no = len(self.draws), int(self.certified.sum()), int(self.refuted.sum())
        return (
            f"Decided({n} images at {self.eps:g} by {self.smoothing.noise}: {yes} certified, {no} refuted, {n - yes - no} "
            f"abstained, {float(self.draws.double().mean()):.0f} draws each)"
        )


def certified_at(
    model: Model,
    images: Any,
    eps: float,
    smoothing: Smoothing,
    *,
    labels: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Any = None,
    progress: Progress | None = None,
) -> Decided:
    """Decide for each image whether the smoothed classifier is certified at eps; see `Decided` for what comes back.

    eps:     the radius in the norm of the noise, a finite float > 0.
    labels:  (N,) the classes to certify, e.g. the true ones: no draws are then spent on selecting one; None: select.

    An image ends when one side has won, when even agreement of all draws left would not certify it, or after
    `smoothing.draws`. The rest is as in `certified`.

    Source: Voracek 2024, arXiv:2406.17830 (confidence sequences for this decision); the test is our own, see `evidence`.
    Raises as `certified` does.
    """
    given: object = eps
    if isinstance(given, bool) or not isinstance(given, Real) or not 0 < float(given) < math.inf:
        raise must_be("certified_at", "eps", "a finite float > 0, in the norm of the noise", eps)
    with Sampler(model, images, smoothing, seed, batch_size, ids, progress, labels) as sampler:
        everything = torch.arange(len(sampler))
        race = Race(len(sampler), smoothing.noise.needed(float(eps)), smoothing)
        chosen, spent = sampler.labels, 0
        if chosen is None and len(race.open):
            spent = smoothing.selection
            sampler.most = len(sampler) * spent
            chosen = sampler.counts(everything, 0, spent, SELECTION).argmax(1)
        while chosen is not None and len(race.open):
            sampler.most = sampler.passes + len(race.open) * (smoothing.draws - race.drawn)
            counts = sampler.counts(race.open, race.drawn, race.next, ESTIMATE)
            race.tell(counts.gather(1, chosen[race.open][:, None]).squeeze(1))
    where = sampler.images.device
    return Decided(
        prediction=(torch.full_like(everything, ABSTAINED) if chosen is None else chosen.where(race.won, ABSTAINED)).to(
            where
        ),
        certified=race.won.to(where),
        refuted=race.lost.to(where),
        draws=(spent + race.draws).to(where),
        eps=float(eps),
        smoothing=smoothing,
    )


class Race:
    """The draws of N images, counted at looks that are fixed beforehand, until each is decided.

    needed:    the share that has to be exceeded.
    open:      (M,) the images that are not decided;  drawn: how many draws each of them has had.
    won, lost: (N,) bools: the share is above `needed`; it is not.
    draws:     (N,) int64 draws spent on each.
    """

    def __init__(self, images: int, needed: float, smoothing: Smoothing) -> None:
        self.needed, self.limit, self.most = needed, -math.log(smoothing.alpha), smoothing.draws
        self.won = torch.zeros(images, dtype=torch.bool)
        self.lost = torch.zeros(images, dtype=torch.bool)
        self.draws = torch.zeros(images, dtype=torch.int64)
        self.hits = torch.zeros(images, dtype=torch.int64)
        self.drawn = 0
        self.open = torch.arange(images)[torch.from_numpy(self._hope(self.hits.numpy()))]

    @property
    def next(self) -> int:
        """The number of draws at the next look."""
        return min(self.most, self.drawn + max(FIRST, self.drawn // 16))

    def tell(self, hits: Tensor) -> None:
        """Add the hits (M,) among the draws up to the next look of the open images."""
        self.drawn = self.next
        self.hits[self.open] += hits
        self.draws[self.open] = self.drawn
        hit = self.hits[self.open].numpy()
        won = evidence(hit, self.drawn, self.needed) >= self.limit
        lost = evidence(self.drawn - hit, self.drawn, 1 - self.needed) >= self.limit
        self.won[self.open] = torch.from_numpy(won)
        self.lost[self.open] = torch.from_numpy(lost)
        self.open = self.open[torch.from_numpy(~won & ~lost & self._hope(hit))]

    def _hope(self, hits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Whether all draws that are left, were they hits, would win."""
        left = self.most - self.drawn
        return np.asarray((evidence(hits + left, self.most, self.needed) >= self.limit) & (left > 0))


def evidence(hits: Any, n: int, p: float) -> Any:
    """Log of what a gambler has made of 1 who bets after each of n draws on the share being above p; elementwise.

        E_n = integral over q in (p, 1) of (q / p)^hits ((1 - q) / (1 - p))^(n - hits) dPi(q),   Pi = Beta(1/2, 1/2) on (p, 1)

    If the share is p or less, no factor gains on average, so that E_n ever reaches 1 / alpha with probability alpha at most,
    under any rule for stopping. Where no more than p of the draws are hits it counts as nothing won (-inf): that is
    on the safe side, and spares the tails of the incomplete beta function.

    Source: Robbins 1970 (mixtures); the one-sided prior as in a test of power one.
    """
    hits = np.asarray(hits, dtype=np.float64)
    ahead = hits > n * p
    if not ahead.any():
        return np.full(hits.shape, -np.inf)
    k = np.where(ahead, hits, n)
    a, b = PRIOR + k, PRIOR + n - k
    posterior = betaln(a, b) + np.log(betainc(b, a, 1 - p))
    prior = betaln(PRIOR, PRIOR) + math.log(betainc(PRIOR, PRIOR, 1 - p))
    return np.where(ahead, posterior - prior - k * math.log(p) - (n - k) * math.log1p(-p), -np.inf)
