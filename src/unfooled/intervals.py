"""How far a share of examples can be believed: intervals for a size fixed in advance, for every moment, and for pairs.

`clopper_pearson` holds for a number of examples fixed before the first was seen, and only then. `confidence_sequence`
holds at every moment at once, so a run may be watched and stopped whenever its answer is good enough. `paired` compares
two models, or two attacks, on the same examples.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import bdtr, betaincinv, betaln, lambertw, ndtri, xlogy

from .errors import DataError, must_be
from .results import Estimate, Record

Bools = Sequence[bool] | np.ndarray[Any, Any]


class Paired(Record, frozen=True):
    """Two ways of answering the same n examples.

    difference:  accuracy of a less accuracy of b, from -1 to 1; low and high: its interval (`method` says which).
    only_a, only_b:  how many examples only a, or only b, has right; nothing else bears on the difference.
    p_value:  of McNemar's exact test that neither is better, two-sided.
    """

    n: int
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float
    method: str


def clopper_pearson(count: int, n: int, level: float = 0.95) -> Estimate:
    """The exact interval of a share whose n was fixed in advance. Clopper & Pearson 1934.

    It covers the truth with probability `level` or more for that one n; looked at again and again while examples come
    in, it will sooner or later miss (`confidence_sequence` does not). Of no examples it is all of [0, 1].
    Raises `ParameterError` unless 0 <= count <= n and 0.5 <= level < 1.
    """
    alpha = _checked("clopper_pearson", count, n, level)
    low = float(betaincinv(count, n - count + 1, alpha / 2)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - alpha / 2)) if count < n else 1.0
    return _estimate(count, n, low, high, f"Clopper-Pearson {100 * level:g} %")


def confidence_sequence(count: int, n: int, *, tuned_for: float, level: float = 0.95) -> Estimate:
    """The interval of a share after n examples, valid at every n at once and so under any rule for stopping.

        {p : M_n(p) < 1 / (1 - level)},  M_n(p) = B(ap + count, a(1-p) + n - count) / (B(ap, a(1-p)) p^count (1-p)^(n-count))

    M_n(p) is what a gambler has made of 1 who bets against the mean being p: fair if it is p, so that it ever exceeds
    1 / alpha with probability alpha at most (Ville's inequality). The examples must be independent draws in random
    order, and `tuned_for`, the n at which the interval is to be narrowest, must be chosen before the first is seen; the
    interval holds whatever was chosen, and is 1 to 2 % wider at half or twice that n than one tuned for it.
    Of no examples it is all of [0, 1].

    Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, arXiv:1810.08240 (beta-binomial mixture).
    Raises `ParameterError` unless 0 <= count <= n, tuned_for > 0 and 0.5 <= level < 1.
    """
    alpha = _checked("confidence_sequence", count, n, level)
    if not 0 < tuned_for < math.inf:
        raise must_be("confidence_sequence", "tuned_for", "a number of examples > 0", tuned_for)
    a = concentration(tuned_for, level)

    def inside(p: float) -> bool:
        return bool(log_martingale(p, count, n, a) < -math.log(alpha))

    # log M is convex in p and at most 0 at count / n, so that the set is an interval round it. With one success or
    # none M stays below 1 down to p = 0, with one failure or none up to p = 1.
    low = _edge(inside, count / n, 0.0) if count > 1 else 0.0
    high = _edge(inside, count / n, 1.0) if n - count > 1 else 1.0
    return _estimate(count, n, low, high, f"confidence sequence {100 * level:g} %")


def log_martingale(p: Any, count: Any, n: Any, a: float) -> Any:
    """log M_n(p) of `confidence_sequence` for 0 < p < 1, elementwise on numbers or arrays."""
    mixed = betaln(a * p + count, a * (1 - p) + n - count) - betaln(a * p, a * (1 - p))
    return mixed - xlogy(count, p) - xlogy(n - count, 1 - p)


def concentration(tuned_for: float, level: float = 0.95) -> float:
    """The a of `confidence_sequence` that makes it narrowest, near p = 1/2, after `tuned_for` examples."""
    # With a normal prior of variance 1 / rho on the drift, |S_n - np| stays below sqrt((v + rho) (log((v + rho) / rho)
    # + 2 log(1 / alpha))), v = np(1-p). Setting the derivative in rho to zero gives, with y = 1 + v / rho,
    # y - log y = 1 + 2 log(1 / alpha), which Lambert's W solves: y = 9.21 at 95 %. The beta prior has the same variance
    # when a + 1 = rho / (p(1-p)) = n / (y - 1). Minimising the true half-width numerically at n = 16 ... 10,000 gives
    # a = n / (y - 1) + 1 instead: the normal approximation is off by two.
    y = -float(lambertw(-((1 - level) ** 2) / math.e, -1).real)
    return tuned_for / (y - 1) + 1


def examples_needed(half_width: float, level: float = 0.95) -> int:
    """After how many examples a `confidence_sequence` tuned for them is as narrow as +- half_width, whatever the share.

    Half of them right is the worst case; a share of 0.7 takes a sixth fewer. It is the `tuned_for` to choose for a
    run that is to stop at that half-width. Raises `ParameterError` unless 0 < half_width < 0.5.
    """
    _alpha("examples_needed", level)
    if not 1e-6 <= half_width < 0.5:
        raise must_be("examples_needed", "half_width", "a float in [1e-6, 0.5), such as 0.03", half_width)

    def enough(n: int) -> bool:
        widest = confidence_sequence(n // 2, n, tuned_for=n, level=level)
        return (widest.high - widest.low) / 2 <= half_width

    # By the normal approximation above, n = y / (4 half_width²); the search takes twice that as its end.
    y = -float(lambertw(-((1 - level) ** 2) / math.e, -1).real)
    return 1 + bisect_left(range(1, 20 + math.ceil(y / 2 / half_width**2)), True, key=enough)


def half_width(estimate: Estimate) -> float:
    """Half the length of an estimate's interval."""
    return (estimate.high - estimate.low) / 2


def paired(a: Bools, b: Bools, level: float = 0.95) -> Paired:
    """Compare two ways of answering the same examples: a[i] and b[i] say whether each has example i right.

    The p-value is McNemar's, exact (a two-sided binomial test on the examples that only one of them has right). The
    interval is Tango's score interval: Newcombe's method 10 is simpler, but too short where two models differ on a few
    of many examples, which is the usual case here. Being of different kinds, the two may disagree close to 1 - level.

    Source: McNemar 1947; Tango 1998, Statistics in Medicine 17:891-908.
    Raises `DataError` unless a and b are as many, at least one, and each true or false.
    """
    alpha = _alpha("paired", level)
    first, second = _bools("a", a), _bools("b", b)
    if len(first) != len(second) or not len(first):
        raise DataError(
            f"A paired comparison needs the same examples, at least one, on both sides; got {len(first)} and {len(second)}."
        )
    n, only_a, only_b = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    difference = (only_a - only_b) / n
    limit = float(ndtri(1 - alpha / 2)) ** 2

    def inside(delta: float) -> bool:
        return (only_a - only_b - n * delta) ** 2 < limit * _variance(delta, only_a, only_b, n)

    return Paired(
        n=n,
        difference=difference,
        low=_edge(inside, difference, -1.0),
        high=_edge(inside, difference, 1.0),
        only_a=only_a,
        only_b=only_b,
        p_value=min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))),
        method=f"Tango's score interval {100 * level:g} %",
    )


def _variance(delta: float, only_a: int, only_b: int, n: int) -> float:
    """Variance of only_a - only_b were the difference delta, with the likeliest share of only_b that fits (Tango's q)."""
    linear = (2 * n - only_a + only_b) * delta - only_a - only_b
    constant = -only_b * delta * (1 - delta)
    share = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    return n * (2 * share + delta * (1 - delta))


def _edge(inside: Callable[[float], bool], within: float, beyond: float) -> float:
    """Where, between a point within a set and one beyond it, the set ends; the outer side, to be safe."""
    for _ in range(52):
        middle = (within + beyond) / 2
        if inside(middle):
            within = middle
        else:
            beyond = middle
    return beyond


def _estimate(count: int, n: int, low: float, high: float, method: str) -> Estimate:
    # Of no examples nothing is known; the middle stands for it, since JSON has no "not a number".
    value = float(count / n) if n else 0.5
    return Estimate(value=value, low=float(low), high=float(high), n=int(n), method=method)


def _alpha(owner: str, level: float) -> float:
    if not 0.5 <= level < 1:
        raise must_be(owner, "level", "a float in [0.5, 1), such as 0.95", level)
    return 1 - level


def _checked(owner: str, count: int, n: int, level: float) -> float:
    if n < 0:
        raise must_be(owner, "n", "a number of examples, 0 or more", n)
    if not 0 <= count <= n:
        raise must_be(owner, "count", f"an int from 0 to n = {n}", count)
    return _alpha(owner, level)


def _bools(name: str, values: Bools) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found = np.asarray(values)
    if found.ndim != 1 or not np.isin(found, (0, 1)).all():
        raise DataError(f"A paired comparison needs {name} as a flat list of true and false, one for each example.")
    return found.astype(bool)
