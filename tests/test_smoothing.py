"""Randomized smoothing: known shares, coverage by simulation and exactly, and noise that belongs to an image."""

import math
import random

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import beta, binom, kstest, norm, uniform
from torch import nn

from helpers import Net
from unfooled import rng
from unfooled.certificates import sequential, smoothing
from unfooled.certificates.noise import Gaussian, Uniform
from unfooled.certificates.sequential import Race, certified_at, evidence
from unfooled.certificates.smoothing import Sampler, Smoothing, certified, curve, lower_bound, predicted
from unfooled.errors import DataError, ModelError, NotFinite, ParameterError
from unfooled.threats import L1, L2

F64 = torch.float64
RUNS = 10_000
ALPHA = 0.05
MOST = binom.ppf(0.9999, RUNS, ALPHA) / RUNS  # what a share of RUNS may be, if each is true with probability ALPHA


class Halfspace(nn.Module):
    """Class 1 where <w, x> exceeds the offset: the smoothed classifier's radius is the distance to the plane."""

    def __init__(self, w, offset=0.0, classes=2):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(w, dtype=F64))
        self.offset, self.classes, self.rows = offset, classes, 0

    def forward(self, x):
        self.rows += len(x)
        side = x.flatten(1) @ self.w - self.offset
        none = torch.full_like(side, -1e9)
        return torch.stack([-side, side] + [none] * (self.classes - 2), 1)


def on_the_plane(count):
    """Images of which each class wins exactly half of the noise: no radius above 0 is true."""
    return Halfspace([1.0]), torch.zeros(count, 1, dtype=F64), torch.arange(count)


# -- known shares -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [100, 2000])
@pytest.mark.parametrize("distance", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("noise", [Gaussian(0.5), Uniform(1.0)])
def test_no_more_than_alpha_of_the_radii_exceed_the_true_distance(noise, distance, draws):
    share = norm.cdf(distance / 0.5) if isinstance(noise, Gaussian) else (1 + distance) / 2
    hits, times = np.unique(np.random.default_rng(1).binomial(draws, share, RUNS), return_counts=True)
    low = np.array([lower_bound(int(k), draws, ALPHA) for k in hits])
    radius = np.where(low > 0.5, noise.radius(np.maximum(low, 0.5)), 0)
    wrong = times[radius > distance].sum() / RUNS
    assert wrong <= MOST
    if draws == 2000:
        assert wrong >= ALPHA / 2  # a bound that is never wrong would say nothing


@pytest.mark.parametrize("hits", [1, 60, 500, 990, 1000])
def test_the_lower_bound_is_where_so_many_hits_have_probability_alpha(hits):
    low = lower_bound(hits, 1000, 0.001)
    assert binom.sf(hits - 1, 1000, low) == pytest.approx(0.001, rel=1e-9)


def test_the_selection_draws_do_not_count_in_the_estimate():
    # With them in it, or with the same noise again, the class that was luckier in them is certified too often.
    model, x, ids = on_the_plane(RUNS)
    found = certified(
        model, x, Smoothing(Gaussian(1.0), selection=60, draws=60, alpha=ALPHA), ids=ids, batch_size=50_000
    )
    assert ALPHA / 4 < float((found.radius > 0).double().mean()) <= MOST
    assert set(found.prediction.tolist()) == {-1, 0, 1}


def test_no_noise_is_drawn_twice_for_an_image():
    seen = []

    def model(z):
        seen.extend(z.flatten().tolist())
        return torch.stack([z.flatten(), -z.flatten()], 1)

    x, options = torch.zeros(3, 1, dtype=F64), Smoothing(Gaussian(1.0), selection=40, draws=50)
    certified(model, x, options, ids=torch.arange(3))
    assert len(seen) == len(set(seen)) == 3 * 90
    predicted(model, x, options, 30, ids=torch.arange(3))
    assert len(seen) == len(set(seen)) == 3 * 120
    certified(model, x, options, ids=torch.arange(3), seed=1)
    assert len(seen) == len(set(seen)) == 3 * 210


@pytest.mark.parametrize(
    ("noise", "w", "size"),
    [(Gaussian(0.5), [3.0, -4.0, 0.0], 2), (Gaussian(0.5), [1.0, 1.0, 1.0], 2), (Uniform(0.8), [0.0, 2.0, 0.0], 1)],
)
def test_the_radius_tends_to_the_distance_of_a_plane(noise, w, size):
    x = torch.tensor([[0.2, 0.3, 0.9], [0.6, 0.1, 0.4]], dtype=F64)
    weights = torch.tensor(w, dtype=F64)
    dual = torch.linalg.vector_norm(weights, ord=2 if size == 2 else math.inf)
    model = Halfspace(w, float(weights @ x[0] - 0.4 * dual))  # the first image is 0.4 away from it
    distance = (x @ weights - model.offset) / dual
    found = certified(model, x, Smoothing(noise, draws=40_000), batch_size=8192)
    assert found.prediction.tolist() == (distance > 0).long().tolist()
    assert distance[0] == pytest.approx(0.4)
    gap = distance.abs() - found.radius
    assert 0 < float(gap.min()) <= float(gap.max()) < 0.02
    exact = noise.needed(float(distance[0]))
    assert float(found.p_low[0]) == pytest.approx(exact, abs=0.015)


def test_the_l1_radius_of_planes_in_closed_form():
    noise = Uniform(0.7)
    d = np.linspace(0, 0.69, 20)
    assert noise.radius((1 + d / 0.7) / 2) == pytest.approx(d)  # across one axis it is the distance
    corner = 1 - (2 * 0.7 - d) ** 2 / (8 * 0.7**2)  # across the diagonal of a square the triangle that is cut off
    assert noise.radius(corner) == pytest.approx(d - d**2 / (4 * 0.7))
    assert (noise.radius(corner) <= d).all()
    assert noise.needed(5) == 1


@pytest.mark.parametrize("noise", [Gaussian(0.25), Uniform(0.4)])
def test_needed_is_the_inverse_of_the_radius(noise):
    for eps in (0.01, 0.1, 0.39):
        assert noise.radius(noise.needed(eps)) == pytest.approx(eps)
    assert noise.certifies is (L2 if isinstance(noise, Gaussian) else L1)


# -- sequential ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "n", "p"), [(3, 3, 0.6), (40, 50, 0.7), (95, 100, 0.9), (300, 500, 0.55), (8, 9, 0.5)]
)
def test_the_evidence_is_the_mixture_of_likelihood_ratios(hits, n, p):
    prior = beta(0.5, 0.5)

    def factor(t):  # q = 1 - t², which takes away the pole of the prior
        q = 1 - t * t
        return (q / p) ** hits * (t * t / (1 - p)) ** (n - hits) * prior.pdf(q) * 2 * t

    mean = quad(factor, 0, math.sqrt(1 - p), limit=200)[0] / prior.sf(p)
    assert float(evidence(hits, n, p)) == pytest.approx(math.log(mean), abs=1e-6)
    assert float(evidence(int(n * p), n, p)) == -math.inf


def ever_won(share, p, wins, longest=1000):
    """The exact probability that so many draws of a share are at some moment among those that `wins`(n) tells."""
    alive, won = np.ones(1), 0.0
    for n in range(1, longest + 1):
        alive = np.convolve(alive, [1 - share, share])
        over = wins(n)
        won += alive[over].sum()
        alive[over] = 0
    return won


@pytest.mark.parametrize("p", [0.5, 0.8, 0.98])
def test_stopped_at_any_moment_it_is_wrong_with_probability_alpha_at_most(p):
    limit = math.log(1 / ALPHA)
    wrong = ever_won(p, p, lambda n: evidence(np.arange(n + 1), n, p) >= limit)
    assert ALPHA / 3 < wrong <= ALPHA
    assert ever_won(p - 0.01, p, lambda n: evidence(np.arange(n + 1), n, p) >= limit) < wrong
    assert ever_won(min(1, p + 0.1), p, lambda n: evidence(np.arange(n + 1), n, p) >= limit) > 0.9


def test_a_bound_for_a_fixed_number_of_draws_does_not_bear_stopping():
    assert ever_won(0.8, 0.8, lambda n: binom.sf(np.arange(n + 1) - 1, n, 0.8) <= ALPHA, 300) > 3 * ALPHA


def raced(share, needed, draws=2000, runs=RUNS, alpha=ALPHA, seed=0):
    """A race of images with the same share, their draws from numpy."""
    race, numbers = Race(runs, needed, Smoothing(Gaussian(1.0), draws=draws, alpha=alpha)), np.random.default_rng(seed)
    while len(race.open):
        race.tell(torch.from_numpy(numbers.binomial(race.next - race.drawn, share, len(race.open))))
    return race


@pytest.mark.parametrize("needed", [0.55, 0.84, 0.977])
def test_the_race_covers_both_ways(needed):
    race = raced(needed, needed)
    for wrong in (race.won, race.lost):
        assert ALPHA / 20 < float(wrong.double().mean()) <= MOST
    assert not bool((race.won & race.lost).any())
    assert float(raced(needed - 0.02, needed, runs=2000).won.double().mean()) < ALPHA / 2
    assert float(raced(needed + 0.02, needed, runs=2000).lost.double().mean()) < ALPHA / 2


def test_the_race_ends_early_where_the_answer_is_clear_and_late_where_not():
    clear, closer, close = (raced(share, 0.84, 100_000, 500, 0.001) for share in (0.999, 0.9, 0.841))
    assert bool(clear.won.all())
    assert bool(closer.won.all())
    means = [float(race.draws.double().mean()) for race in (clear, closer, close)]
    assert means[0] < 100 < means[1] < 2000 < 50_000 < means[2] <= 100_000
    assert float((~close.won & ~close.lost).double().mean()) > 0.9
    assert bool(raced(0.3, 0.84, 100_000, 500, 0.001).lost.all())


def test_draws_that_cannot_win_are_not_made():
    assert not len(Race(5, 0.9999, Smoothing(Gaussian(1.0), draws=1000)).open)
    assert not len(Race(5, 1.0, Smoothing(Gaussian(1.0), draws=1000)).open)
    late = raced(0.95, 0.97, 400, 500, 0.001)
    given_up = ~late.won & ~late.lost
    assert bool(given_up.any())
    assert float(late.draws[given_up].double().mean()) < 350


def test_certified_at_decides_images():
    model = Halfspace([1.0, 0.0])
    x = torch.tensor([[0.9, 0.5], [0.3, 0.5], [-0.9, 0.1], [0.5001, 0.2]], dtype=F64)
    options = Smoothing(Gaussian(0.5), draws=4000)
    found = certified_at(model, x, 0.5, options, batch_size=512)
    assert model.rows == int(found.draws.sum())
    assert found.certified.tolist() == [True, False, True, False]
    assert found.prediction.tolist() == [1, -1, 0, -1]
    assert int(found.draws[0]) < 500
    assert int(found.draws[3]) == 4000 + options.selection or not bool(found.refuted[3])
    model.rows = 0
    told = certified_at(model, x, 0.5, options, labels=torch.tensor([1, 1, 1, 1]), batch_size=512)
    assert model.rows == int(told.draws.sum())
    assert told.prediction.tolist() == [1, -1, -1, -1]
    assert told.refuted[2]
    assert int(told.draws[2]) < 20
    assert "1 certified" in repr(told)


def test_a_radius_that_the_noise_cannot_reach_costs_nothing():
    model = Halfspace([1.0, 0.0])
    found = certified_at(model, torch.ones(3, 2, dtype=F64), 0.8, Smoothing(Uniform(0.8)))
    assert model.rows == 0
    assert not bool((found.certified | found.refuted).any())
    assert found.prediction.tolist() == [-1] * 3
    assert found.draws.tolist() == [0] * 3


def test_the_sequential_answer_is_that_of_the_fixed_size():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, generator=generator, dtype=F64)
    model = Halfspace([1.0, -1.0, 0.5], 0.2)
    options = Smoothing(Gaussian(0.4), draws=4000, alpha=0.01)
    fixed, early = certified(model, x, options, batch_size=8192), certified_at(model, x, 0.2, options, batch_size=8192)
    distance = (x @ model.w.detach() - 0.2).abs() / 1.5
    assert bool((early.certified <= (distance > 0.2)).all())
    assert bool((early.refuted <= (distance < 0.2)).all())
    assert bool((early.certified <= (fixed.radius >= 0.18)).all())
    assert int(early.certified.sum()) >= int((fixed.radius >= 0.2).sum()) - 2
    assert float(early.draws.double().mean()) < 1500


# -- noise --------------------------------------------------------------------------------------------------------------


def test_the_noise_is_what_it_says():
    key = rng.keys(torch.arange(500), 3)
    gauss, flat = Gaussian(0.3).draw(key, torch.Size([400])), Uniform(0.3).draw(key, torch.Size([400]))
    assert kstest(gauss.flatten().numpy() / 0.3, norm.cdf).pvalue > 0.001
    assert kstest(gauss.view(500, 40, 10).sum(2).flatten().numpy() / 0.3 / math.sqrt(10), norm.cdf).pvalue > 0.001
    assert kstest(flat.flatten().numpy(), uniform(-0.3, 0.6).cdf).pvalue > 0.001
    assert abs(float(torch.corrcoef(gauss.T)[0, 1:].mean())) < 0.01
    assert abs(float(torch.corrcoef(gauss)[0, 1:].mean())) < 0.01
    assert gauss.unique().numel() == gauss.numel()  # of 23 bits some would be equal
    assert Gaussian(1.0).draw(key, torch.Size([2, 3])).shape == (500, 2, 3)


def test_the_noise_is_neither_clipped_nor_rounded_twice():
    seen = []

    def model(z):
        seen.append(z)
        return torch.zeros(len(z), 3).index_fill(1, torch.tensor([1]), 1.0)

    x = torch.full((1, 50), 0.5)
    found = certified(model, x, Smoothing(Gaussian(0.5), selection=5, draws=100))
    assert found.prediction.tolist() == [1]
    z = torch.cat(seen)
    assert z.dtype == torch.float32
    assert float(z.min()) < -0.5
    assert float(z.max()) > 1.5
    with Sampler(model, x, Smoothing(Gaussian(0.5)), 0, None, None, None) as sampler:
        key = rng.keys(sampler.ids, 0, smoothing.ESTIMATE, torch.tensor([7]))
        noise = Gaussian(0.5).draw(key, torch.Size([50]))
        assert torch.equal(
            sampler._noisy(torch.tensor([0]), torch.tensor([7]), smoothing.ESTIMATE), (0.5 + noise).float()
        )


@pytest.mark.parametrize("shape", [(6,), (2, 5), (1, 4, 4)])
def test_neither_batch_size_nor_order_matters(shape):
    torch.manual_seed(0)
    model = Net(shape, 3).double()
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    options = Smoothing(Gaussian(0.7), selection=13, draws=150, alpha=0.05)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    whole = certified(model, x, options, batch_size=1000)
    assert 0.05 < float(whole.p_low.min()) < 1
    early, answers = certified_at(model, x, 0.1, options, batch_size=1000), predicted(model, x, options, 50)
    for size in (1, 7, 64) if shape == (6,) else (7,):
        again = certified(model, x[order], options, batch_size=size)
        assert torch.equal(again.p_low, whole.p_low[order])
        assert torch.equal(again.radius, whole.radius[order])
        decided = certified_at(model, x[order], 0.1, options, batch_size=size)
        assert torch.equal(decided.draws, early.draws[order])
        assert torch.equal(decided.prediction, early.prediction[order])
        assert torch.equal(predicted(model, x[order], options, 50, batch_size=size), answers[order])
    alone = certified(model, x[2:3], options, batch_size=64)
    assert torch.equal(alone.p_low, whole.p_low[2:3])
    other = certified(model, x, options, seed=1)
    assert not torch.equal(other.p_low, whole.p_low)


def test_noise_belongs_to_the_ids():
    model, x, ids = on_the_plane(4)
    options = Smoothing(Gaussian(1.0), draws=500)
    apart = certified(model, x, options, ids=ids)
    assert apart.p_low.unique().numel() > 1
    assert certified(model, x, options).p_low.unique().numel() == 1
    assert torch.equal(certified(model, x[:2], options, ids=ids[2:]).p_low, apart.p_low[2:])


def test_batches_are_as_large_as_asked_and_progress_counts_passes():
    sizes, told = [], []

    def model(z):
        sizes.append(len(z))
        return torch.stack([z.sum(1), -z.sum(1)], 1)

    certified(
        model, torch.ones(3, 2), Smoothing(Gaussian(0.1), 10, 90), batch_size=64, progress=lambda *at: told.append(at)
    )
    assert sum(sizes) == 300
    assert max(sizes) <= 64
    assert told[-1] == (300, 300)
    assert [at for at, _ in told] == list(np.cumsum(sizes))
    told.clear()
    certified_at(
        model, torch.ones(3, 2), 0.1, Smoothing(Gaussian(0.1), 10, 900), batch_size=64,
        progress=lambda *at: told.append(at),
    )  # fmt: skip
    assert all(passes <= most <= 3 * 910 for passes, most in told[1:])


# -- answers ------------------------------------------------------------------------------------------------------------


def test_it_abstains_where_nothing_is_certain():
    model, x, _ = on_the_plane(1)
    options = Smoothing(Gaussian(1.0), draws=1000, alpha=0.001)
    found = certified(model, x, options)
    assert found.prediction.tolist() == [-1]
    assert found.radius.tolist() == [0.0]
    assert 0.3 < float(found.p_low) < 0.5
    assert predicted(model, x, options).tolist() == [-1]
    assert "1 abstained" in repr(found)


def test_an_answer_is_given_on_a_tie_with_probability_alpha_at_most():
    model, x, ids = on_the_plane(RUNS)
    answers = predicted(model, x, Smoothing(Gaussian(1.0), alpha=ALPHA), 50, ids=ids, batch_size=50_000)
    assert ALPHA / 4 < float((answers >= 0).double().mean()) <= MOST
    clear = predicted(Halfspace([1.0], classes=4), x[:5] + 2, Smoothing(Gaussian(1.0)), 50, ids=ids[:5])
    assert clear.tolist() == [1] * 5


def test_the_curve():
    found = curve(
        torch.tensor([0.0, 0.2, 0.5, 0.5, 0.9]), torch.tensor([False, True, True, False, True]), (0, 0.2, 0.5, 1)
    )
    assert [share.value for share in found.y] == [0.6, 0.6, 0.4, 0.0]
    assert found.x == [0, 0.2, 0.5, 1]
    assert found.y[0].low < 0.6 < found.y[0].high
    assert found.y[0].n == 5
    with pytest.raises(ParameterError, match="bools, one for each radius"):
        curve(torch.ones(3), torch.ones(3), (0,))


# -- the caller's model and numbers -------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Batch statistics and dropout in training mode, and NaN for the images above 2."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2)
        self.modes = set()

    def forward(self, x):
        self.modes.add(self.training)
        out = self.head(self.drop(self.norm(x)))
        return out.masked_fill((x > 10).any(1, keepdim=True), math.nan)


def snapshot(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()], [part.training for part in model.modules()]
    return state, flags, torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def assert_as_before(model, before):
    state, flags, torch_state, numpy_state, python_state = before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert flags == snapshot(model)[1]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert random.getstate() == python_state


@pytest.mark.parametrize("verb", ["certified", "certified_at", "predicted"])
def test_the_model_and_the_callers_numbers_are_left_as_they_were(verb):
    torch.manual_seed(0)
    model = Odd()
    model.drop.eval()
    model.head.weight.requires_grad_(False)
    options = Smoothing(Gaussian(0.1), draws=50)
    calls = {
        "certified": lambda x: certified(model, x, options),
        "certified_at": lambda x: certified_at(model, x, 0.1, options),
        "predicted": lambda x: predicted(model, x, options, 50),
    }
    before = snapshot(model)
    calls[verb](torch.rand(4, 2))
    before = (*before[:2], torch.get_rng_state(), *before[3:])  # torch.rand drew
    calls[verb](torch.ones(4, 2))
    assert_as_before(model, before)
    assert model.modes == {False}
    x = torch.ones(4, 2)
    x[2] = 20
    with pytest.raises(NotFinite, match="logits for example 2 are not finite") as raised:
        calls[verb](x)
    assert raised.value.examples == (2,)
    assert_as_before(model, before)


def test_a_random_model_draws_from_forked_generators():
    def model(z):
        return torch.stack([z.sum(1), torch.rand(len(z))], 1)

    before = torch.get_rng_state()
    certified(model, torch.ones(2, 3), Smoothing(Gaussian(0.1), draws=50))
    assert torch.equal(before, torch.get_rng_state())


def test_memory_does_not_grow_with_the_draws():
    x = torch.full((2, 2), 20.0)
    with pytest.raises(NotFinite):  # at the first batch of them, which indices of all draws would never reach
        certified(Odd(), x, Smoothing(Gaussian(0.1), selection=10**13), batch_size=10)


def test_the_errors_name_the_image_by_its_id():
    x = torch.ones(3, 2)
    x[1] = 20
    with pytest.raises(NotFinite, match="example 8 "):
        certified(Odd(), x, Smoothing(Gaussian(0.1), draws=50), ids=torch.tensor([7, 8, 9]))


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Gaussian(0), ParameterError, "'sigma' parameter of Gaussian must be a finite float > 0"),
        (lambda: Gaussian(True), ParameterError, "'sigma'"),
        (lambda: Uniform(math.inf), ParameterError, "'half_width'"),
        (lambda: Smoothing(0.25), ParameterError, "'noise' parameter of Smoothing must be a Noise"),
        (lambda: Smoothing(Gaussian(1.0), draws=0), ParameterError, "'draws' parameter of Smoothing"),
        (lambda: Smoothing(Gaussian(1.0), selection=1.5), ParameterError, "'selection'"),
        (lambda: Smoothing(Gaussian(1.0), alpha=0.3), ParameterError, "'alpha'"),
        (lambda: certified(Odd(), torch.ones(2, 2), Gaussian(1.0)), ParameterError, "must be a Smoothing"),
        (lambda: certified(Odd(), torch.ones(2, 2), Smoothing(Gaussian(1.0)), seed=-1), ParameterError, "'seed'"),
        (
            lambda: certified(Odd(), torch.ones(2, 2), Smoothing(Gaussian(1.0)), batch_size=0),
            ParameterError,
            "'batch_size'",
        ),
        (lambda: certified(Odd(), torch.ones(2), Smoothing(Gaussian(1.0))), DataError, "a batch of them"),
        (lambda: certified(Odd(), torch.ones(2, 2).long(), Smoothing(Gaussian(1.0))), DataError, "floats"),
        (
            lambda: certified(Odd(), torch.ones(2, 2) / 0, Smoothing(Gaussian(1.0))),
            DataError,
            "Image 0 holds NaN or inf",
        ),
        (lambda: certified(Odd(), torch.ones(2, 3), Smoothing(Gaussian(1.0))), ModelError, "The model failed"),
        (lambda: certified_at(Odd(), torch.ones(2, 2), 0, Smoothing(Gaussian(1.0))), ParameterError, "'eps'"),
        (lambda: predicted(Odd(), torch.ones(2, 2), Smoothing(Gaussian(1.0)), 0), ParameterError, "'draws'"),
        (
            lambda: certified_at(Odd(), torch.ones(2, 2), 0.1, Smoothing(Gaussian(1.0)), labels=torch.tensor([0, 2])),
            DataError,
            "must be below 2",
        ),
        (
            lambda: certified_at(Odd(), torch.ones(2, 2), 0.1, Smoothing(Gaussian(1.0)), labels=torch.tensor([0])),
            DataError,
            "one for each image",
        ),
    ],
)
def test_errors(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def test_the_modules_name_what_they_offer():
    assert all(hasattr(smoothing, name) for name in smoothing.__all__)
    assert sequential.FIRST > 0
