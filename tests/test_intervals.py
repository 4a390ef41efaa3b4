"""Intervals: those for a size fixed in advance, those valid at every moment, and those of pairs."""

import itertools
import math
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest

from unfooled.errors import DataError, ParameterError
from unfooled.intervals import (
    clopper_pearson,
    concentration,
    confidence_sequence,
    examples_needed,
    half_width,
    log_martingale,
    paired,
)

LIMIT = math.log(20)
SEQUENCES, LONGEST = 10_000, 2_000


def sequences(p, number, length, seed=0):
    """Running counts of successes, (number, length)."""
    draws = np.random.default_rng(seed).random((number, length), dtype=np.float32) < p
    return np.cumsum(draws, axis=1, dtype=np.int16)


def ever_outside(p, low, high):
    """Share of `SEQUENCES` sequences whose count after some n is below low[n - 1] or above high[n - 1]."""
    outside = 0
    for seed in range(4):
        counts = sequences(p, SEQUENCES // 4, LONGEST, seed)
        outside += ((counts < low) | (counts > high)).any(axis=1).sum()
    return outside / SEQUENCES


# -- valid at every moment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "tuned_for"), [(0.5, 200), (0.685, 200), (0.685, 2556), (0.05, 200), (0.97, 50)])
def test_the_sequence_covers_at_every_moment_at_once(p, tuned_for):
    a = concentration(tuned_for)
    low, high = np.empty(LONGEST, np.int16), np.empty(LONGEST, np.int16)
    for n in range(1, LONGEST + 1):
        kept = np.flatnonzero(log_martingale(p, np.arange(n + 1), n, a) < LIMIT)
        low[n - 1], high[n - 1] = kept[0], kept[-1]
        assert len(kept) == kept[-1] - kept[0] + 1
    missed = ever_outside(p, low, high)
    assert missed <= binom.ppf(0.999, SEQUENCES, 0.05) / SEQUENCES
    # Ville's bound is nearly reached where sequences are ten times as long as tuned for: a test that nothing can fail
    # would show no misses.
    assert missed >= 0.02 or tuned_for > LONGEST / 10


@pytest.mark.parametrize("p", [0.5, 0.685])
def test_clopper_pearson_looked_at_at_every_moment_does_not_cover(p):
    n = np.arange(1, LONGEST + 1)
    low, high = binom.ppf(0.025, n, p), binom.isf(0.025, n, p)
    for at in (10, 137, 2000):
        for count in (low[at - 1], high[at - 1]):
            assert clopper_pearson(int(count), at).low <= p <= clopper_pearson(int(count), at).high
    assert ever_outside(p, low, high) > 0.3


@pytest.mark.parametrize("p", [0.03, 0.5, 0.685, 0.9])
def test_the_ends_are_where_the_martingale_reaches_its_limit(p):
    a = concentration(60)
    disagreed = 0
    for run, counts in enumerate(sequences(p, 300, 400, seed=9)):
        n = 1 + (run * 37) % 400
        count = int(counts[n - 1])
        found = confidence_sequence(count, n, tuned_for=60)
        covered = found.low <= p <= found.high
        assert covered == (log_martingale(p, count, n, a) < LIMIT)
        disagreed += not covered
        for end in {found.low, found.high} - {0.0, 1.0}:
            assert log_martingale(end, count, n, a) == pytest.approx(LIMIT, abs=1e-6)
    assert disagreed < 15


def test_the_martingale_is_a_fair_game_that_begins_with_one():
    p = np.linspace(0.01, 0.99, 25)
    for a in (0.7, 12.0, 300.0):
        assert log_martingale(p, 0, 0, a) == pytest.approx(0)
        for count, n in ((0, 0), (0, 7), (7, 7), (300, 500), (4999, 9999)):
            now = log_martingale(p, count, n, a)
            right, wrong = log_martingale(p, count + 1, n + 1, a), log_martingale(p, count, n + 1, a)
            assert p * np.exp(right - now) + (1 - p) * np.exp(wrong - now) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("method", [clopper_pearson, lambda s, n: confidence_sequence(s, n, tuned_for=50)])
@pytest.mark.parametrize("n", [1, 2, 3, 17, 100])
def test_intervals_contain_the_share_are_symmetric_and_rise_with_it(method, n):
    found = [method(count, n) for count in range(n + 1)]
    for count, one in enumerate(found):
        mirrored = found[n - count]
        assert 0 <= one.low <= one.value <= one.high <= 1
        assert (one.value, one.n) == (count / n, n)
        assert one.low == pytest.approx(1 - mirrored.high, abs=1e-9)
    for first, second in itertools.pairwise(found):
        assert first.low <= second.low
        assert first.high <= second.high
    assert found[0].low == 0
    assert found[n].high == 1
    assert n < 17 or found[n // 2].low > 0.05


def test_of_nothing_nothing_is_known():
    for one in (clopper_pearson(0, 0), confidence_sequence(0, 0, tuned_for=10)):
        assert (one.low, one.high, one.n, one.value) == (0, 1, 0, 0.5)


def test_all_right_is_bounded_from_below_only():
    found = confidence_sequence(1000, 1000, tuned_for=1000)
    assert 0.99 < found.low < clopper_pearson(1000, 1000).low
    assert found.high == 1


def test_counts_from_numpy_give_plain_numbers():
    count, n = np.int64(40), np.int64(90)
    for found in (clopper_pearson(count, n), confidence_sequence(count, n, tuned_for=n), of_counts(40, 1, 2, 40)):
        plain = msgspec.json.decode(msgspec.json.encode(found))
        assert type(plain["n"]) is int
        assert plain["low"] == found.low


def test_the_method_and_the_level_are_said():
    assert confidence_sequence(3, 9, tuned_for=9).method == "confidence sequence 95 %"
    assert confidence_sequence(3, 9, tuned_for=9, level=0.99).method == "confidence sequence 99 %"
    assert clopper_pearson(3, 9).method == "Clopper-Pearson 95 %"
    for method in (clopper_pearson, lambda s, n, level: confidence_sequence(s, n, tuned_for=99, level=level)):
        widths = [half_width(method(30, 99, level=level)) for level in (0.5, 0.9, 0.95, 0.999)]
        assert widths == sorted(set(widths))


# -- how many examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [16, 100, 1000, 10_000])
def test_no_other_concentration_makes_it_narrower(n):
    def width(a):
        """Of the interval at n / 2, by bisection on the martingale alone."""
        within, beyond = 0.5, 1.0
        for _ in range(40):
            middle = (within + beyond) / 2
            if log_martingale(middle, n // 2, n, a) < LIMIT:
                within = middle
            else:
                beyond = middle
        return within - 0.5

    best = minimize_scalar(lambda log_a: width(math.exp(log_a)), bounds=(-2, 9), method="bounded")
    assert width(concentration(n)) == pytest.approx(best.fun, rel=1e-4)
    assert half_width(confidence_sequence(n // 2, n, tuned_for=n)) == pytest.approx(best.fun, rel=1e-4)
    assert width(concentration(n) * 2) > best.fun * 1.005


@pytest.mark.parametrize(("goal", "level"), [(0.2, 0.95), (0.03, 0.95), (0.03, 0.99)])
def test_the_examples_needed_suffice_and_fewer_do_not(goal, level):
    n = examples_needed(goal, level)

    def widest(n, tuned_for):
        """Over all shares."""
        counts = {*range(0, n + 1, 1 + n // 40), n // 2}
        return max(half_width(confidence_sequence(count, n, tuned_for=tuned_for, level=level)) for count in counts)

    assert widest(n, n) <= goal < widest(n - 1, n - 1)
    assert widest(n + 512, n) < goal


@pytest.mark.parametrize("p", [0.5, 0.6, 0.685])
def test_three_points_take_three_and_a_half_times_fewer_than_ten_thousand(p):
    tuned_for, stops, covered = examples_needed(0.03), [], 0
    for counts in sequences(p, 25, 2857, seed=3):
        for n in range(1600, 2857, 64):
            found = confidence_sequence(int(counts[n - 1]), n, tuned_for=tuned_for)
            if half_width(found) <= 0.03:
                break
        assert half_width(found) <= 0.03
        stops.append(n)
        covered += found.low <= p <= found.high
    assert max(stops) < 10_000 / 3.5
    assert np.mean(stops) == pytest.approx(tuned_for * 4 * p * (1 - p), rel=0.05)
    assert covered >= 22


# -- of a fixed size ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 10), (3, 10), (10, 10), (480, 1000), (9999, 10_000)])
def test_clopper_pearson_is_the_exact_binomial_interval(count, n):
    found, known = clopper_pearson(count, n, 0.9), binomtest(count, n).proportion_ci(0.9)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)
    assert half_width(found) == pytest.approx((known.high - known.low) / 2)
    assert (found.value, found.n) == (count / n, n)


def test_clopper_pearson_of_none_in_ten_is_the_textbook_value():
    assert clopper_pearson(0, 10).high == pytest.approx(1 - 0.025**0.1)


# -- pairs --------------------------------------------------------------------------------------------------------------


def of_counts(both, only_a, only_b, neither):
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return paired(a, b)


def test_a_published_example():
    # Complete response before and after consolidation (Cavo et al. 2012), as in Fagerland, Lydersen & Laake 2017, ch. 8.
    found = of_counts(59, 6, 16, 80)
    assert (found.n, found.only_a, found.only_b) == (161, 6, 16)
    assert (found.difference, found.low, found.high) == pytest.approx((-0.0621, -0.1240, -0.0054), abs=5e-5)
    assert found.method == "Tango's score interval 95 %"


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (7, 7), (6, 16), (31, 4), (300, 250)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(only_a, only_b):
    known = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert of_counts(20, only_a, only_b, 30).p_value == pytest.approx(known)


@pytest.mark.parametrize(("only_a", "only_b", "rest"), [(6, 16, 139), (40, 20, 100), (3, 0, 997), (0, 9, 20)])
def test_the_score_is_at_its_limit_at_the_ends(only_a, only_b, rest):
    found, n = of_counts(rest, only_a, only_b, 0), only_a + only_b + rest
    for delta, sign in ((found.low, 1), (found.high, -1)):
        # The likeliest share q of only_b given the difference delta, without the formula for it.
        floor = max(0.0, -delta)

        def unlikely(q, delta=delta):
            return -sum(
                k * math.log(max(r, 1e-300)) for k, r in ((only_a, q + delta), (only_b, q), (rest, 1 - 2 * q - delta))
            )

        q = minimize_scalar(unlikely, bounds=(floor, (1 - delta) / 2), method="bounded", options={"xatol": 1e-10}).x
        score = (only_a - only_b - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))
        assert score == pytest.approx(sign * 1.959964, rel=2e-4)


def test_the_paired_interval_is_symmetric_and_contains_the_difference():
    for counts in ((50, 3, 9, 40), (0, 5, 0, 0), (9, 0, 0, 1), (1, 1, 7, 12)):
        found, swapped = of_counts(*counts), of_counts(counts[0], counts[2], counts[1], counts[3])
        assert -1 <= found.low <= found.difference <= found.high <= 1
        assert (found.low, found.high) == pytest.approx((-swapped.high, -swapped.low), abs=1e-9)
        assert found.low < found.high
        assert (found.difference, found.p_value) == pytest.approx((-swapped.difference, swapped.p_value))


def test_where_nothing_differs_the_interval_still_has_room_for_what_was_not_seen():
    found = of_counts(6000, 0, 0, 4000)
    assert (found.difference, found.p_value) == (0, 1)
    assert found.high == pytest.approx(3.8415 / 10_003.84, rel=1e-3)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.1, 0.05), (0.3, 0.3), (0.02, 0.06)])
def test_the_paired_interval_covers(only_a, only_b):
    rng, covered = np.random.default_rng(5), 0
    for counts in rng.multinomial(200, [0.3, only_a, only_b, 0.7 - only_a - only_b], size=1000):
        found = of_counts(*counts)
        covered += found.low <= only_a - only_b <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: clopper_pearson(3, 2), "count"),
        (lambda: clopper_pearson(-1, 2), "count"),
        (lambda: clopper_pearson(0, -1), "n"),
        (lambda: clopper_pearson(1, 2, level=1.0), "level"),
        (lambda: clopper_pearson(1, 2, level=95), "level"),
        (lambda: confidence_sequence(3, 2, tuned_for=9), "count"),
        (lambda: confidence_sequence(1, 2, tuned_for=0), "tuned_for"),
        (lambda: confidence_sequence(1, 2, tuned_for=math.inf), "tuned_for"),
        (lambda: confidence_sequence(1, 2, tuned_for=math.nan), "tuned_for"),
        (lambda: confidence_sequence(1, 2, tuned_for=9, level=0.05), "level"),
        (lambda: examples_needed(0), "half_width"),
        (lambda: examples_needed(3), "half_width"),
        (lambda: examples_needed(0.03, level=2), "level"),
        (lambda: paired([True], [True], level=0), "level"),
    ],
)
def test_a_wrong_parameter_is_named(call, name):
    with pytest.raises(ParameterError, match=f"The '{name}' parameter of "):
        call()


@pytest.mark.parametrize(
    ("a", "b"),
    [([], []), ([True], [True, False]), ([[True]], [[True]]), ([0.5], [1.0]), (["yes"], ["no"]), ([2], [1])],
)
def test_pairs_that_are_none_are_refused(a, b):
    with pytest.raises(DataError, match="A paired comparison needs"):
        paired(a, b)


def test_neither_module_needs_torch():
    code = "import unfooled.intervals, unfooled.assertions, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
