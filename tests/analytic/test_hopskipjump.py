"""HopSkipJump: its walk retraced by the paper's formulas, known optima on linear models, and starts."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import helpers
from helpers import Linear, assert_inside, own_size, states
from unfooled.attacks import HopSkipJump, parse
from unfooled.attacks.hopskipjump import ESTIMATE, JUMP, SEARCH, START, start
from unfooled.engine import attack, perturb
from unfooled.errors import ParameterError
from unfooled.ledger import join, take
from unfooled.oracle import Access
from unfooled.threats import L2, Linf

F64 = torch.float64
WIDE = (-10.0, 10.0)
FREE = (-math.inf, math.inf)
NORMS = (L2, Linf)


def draws(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def query(x, threat, model, y=None, **goal):
    """A query on all rows of x, as a minimum-norm attack sees them, and the points that it is asked about."""
    return helpers.query(Access.DECISION, x, threat.within(math.inf), model, y, **goal)


def linear(size=20, count=12, classes=2, seed=3):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn((classes, size), generator=draw, dtype=F64)
    x = draws(count, size, seed=5)
    model = Linear(weight, -(x @ weight.T).mean(0))
    with torch.no_grad():
        z = model(x)
    return model, x, z.argmax(1), z, weight


class Curved(nn.Module):
    """Class 1 outside an ellipsoid, so that the normal differs from place to place."""

    def __init__(self, size):
        super().__init__()
        self.stretch = 0.5 + draws(size, seed=9)

    def forward(self, x):
        inside = 1.5 - (self.stretch * x.flatten(1)).square().sum(1).sqrt()
        return torch.stack([inside, torch.zeros_like(inside)], 1)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([2.0, 1.0, 0.0], dtype=x.dtype).expand(len(x), 3)


def test_defaults():
    """Chen et al. 2020: B_0 = 100, gamma = 1; 5,000 queries is the middle one of their budgets."""
    assert HopSkipJump() == HopSkipJump(steps=5000, samples=100, gamma=1.0)
    assert parse("hopskipjump:steps=70,samples=9,gamma=0.5") == HopSkipJump(70, 9, 0.5)


# ---- the walk -----------------------------------------------------------------------------------


def retrace(kind, x, points, fooled, samples, gamma):
    """Follow the paper's Algorithm 2 for one row, with the recorded points as its random draws; the turns it took.

    Every point that is not random must be the one that the paper's formulas ask for next.
    """
    d, at, t = x.numel(), 0, 0
    theta = min(gamma / (d * math.sqrt(d) if kind is L2 else d * d), 1e-3)

    def size(v):
        return float(v.norm() if kind is L2 else v.abs().max())

    def ask(wanted):
        nonlocal at
        torch.testing.assert_close(points[at], wanted, rtol=1e-6, atol=1e-7)
        at += 1
        return bool(fooled[at - 1])

    while not fooled[at]:
        at += 1
    far = points[at]
    at += 1
    reach, low, high = size(far - x), 0.0, 1.0

    def on_the_way(share):
        return x + share * (far - x) if kind is L2 else x + (far - x).clamp(-share * reach, share * reach)

    try:
        while True:
            while high - low > theta:
                middle = (low + high) / 2
                low, high = (low, middle) if ask(on_the_way(middle)) else (middle, high)
            edge, t = on_the_way(high), t + 1
            count = math.floor(samples * math.sqrt(t))
            u = (points[at : at + count] - edge) / (gamma * reach / d)
            phi = 2.0 * fooled[at : at + count].double() - 1
            assert bool(((u.norm(dim=1) - 1).abs() < 1e-6).all()), "directions have not the length δ"
            at += count
            centred = phi - phi.mean() if phi.mean().abs() < 1 else phi
            v = (centred[:, None] * u).mean(0)
            v = v / v.norm() if kind is L2 else v.sign()
            jump = size(edge - x) / math.sqrt(t)
            while jump >= theta * reach:  # a shorter jump is given up, not in the paper, and the edge estimated anew
                if ask(edge + jump * v):
                    far = points[at - 1]
                    reach, low, high = size(far - x), 0.0, 1.0
                    break
                jump /= 2
    except IndexError:
        return t


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(("samples", "gamma"), [(100, 1.0), (10, 0.5)])
def test_the_walk_is_the_papers(kind, samples, gamma):
    x = 0.2 * draws(4, 6)
    method = HopSkipJump(steps=700, samples=samples, gamma=gamma)
    q, seen = query(x, kind(1.0, bounds=WIDE), Curved(6))
    list(states(q, method, 600))
    for row in range(4):
        points, fooled = (torch.stack([getattr(v, name)[row] for v in seen]) for name in ("z", "fooled"))
        turns = retrace(kind, x[row], points, fooled, samples, gamma)
        assert turns >= (3 if samples == 100 else 6)


@pytest.mark.parametrize("kind", NORMS)
def test_one_query_for_each_row_and_step(kind):
    model, x, y, _, _ = linear()
    q, seen = query(x, kind(1.0, bounds=WIDE), model, y)
    phases = set()
    asked = []
    for n, s in enumerate(states(q, HopSkipJump(steps=200), 180)):
        assert len(seen) == n
        asked.append(s.x)
        phases |= set(s.phase.tolist())
    assert phases == {START, SEARCH, ESTIMATE, JUMP}
    for v, wanted in zip(seen, asked, strict=False):
        assert v.row is None
        assert torch.equal(v.z, wanted)
    result = attack(model, x, y, kind(math.inf, bounds=WIDE), HopSkipJump(steps=30))
    assert result.forward.tolist() == [1 + 30 + 1] * len(x)  # screening, steps, and a confirming pass at the end
    assert not bool(result.backward.any())


@pytest.mark.parametrize("kind", NORMS)
def test_rows_of_different_ages_do_not_disturb_each_other(kind):
    model, x, y, _, _ = linear(count=8)
    q, _ = query(x, kind(1.0, bounds=WIDE), model, y)
    every = list(states(q, HopSkipJump(), 150))
    ages = torch.tensor([0, 3, 14, 25, 112, 114, 120, 149])
    mixed = take(every[0], torch.tensor([0]))
    for row in range(1, 8):
        mixed = join(mixed, take(every[int(ages[row])], torch.tensor([row])))
    assert torch.equal(mixed.k, ages)
    assert len(mixed.phase.unique()) > 2
    got = HopSkipJump().step(q, mixed)
    for row in range(8):
        torch.testing.assert_close(got.x[row], every[int(ages[row]) + 1].x[row], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", NORMS)
def test_baseline_and_normal(kind):
    """Off the boundary most answers agree; with the mean answer as baseline the normal comes out all the same."""
    size = 40
    model, x, y, _, weight = linear(size=size, count=20)
    wanted = F.normalize((weight[1] - weight[0]) * (1 - 2 * y[:, None]), dim=1)
    q, _ = query(x, kind(1.0, bounds=WIDE), model, y)
    method = HopSkipJump(samples=400)
    ready = None
    for s in states(q, method, 460):
        if bool((s.phase == JUMP).any()):
            ready = s
            break
    at = ready.phase == JUMP
    assert int(at.sum()) > 10
    normal = F.normalize(ready.toward - (ready.votes / ready.asked)[:, None] * ready.drift, dim=1)
    cosine = (normal * wanted).sum(1)[at]
    assert float(cosine.min()) > 0.8
    assert ready.asked[at].tolist() == [400] * int(at.sum())


def test_the_sums_leave_the_drift_of_one_sided_draws_out():
    """Answers 1, 1, 1, -1 and directions with a common drift: by hand."""
    x = torch.zeros(1, 3, dtype=F64)
    q, _ = query(x, L2(1.0, bounds=WIDE), nn.Flatten())
    u = torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, -1, 0], [1, 0, -1]], dtype=F64)
    phi = torch.tensor([1.0, 1, 1, -1], dtype=F64)
    s = replace(
        HopSkipJump().init(q, x),
        k=torch.tensor([9]),
        votes=phi.sum()[None],
        asked=torch.tensor([4]),
        toward=(phi[:, None] * u).sum(0)[None],
        drift=u.sum(0)[None],
        size=torch.ones(1, dtype=F64),
    )
    wanted = F.normalize(((phi - phi.mean())[:, None] * u).sum(0), dim=0)
    torch.testing.assert_close(HopSkipJump().jumped(q, s)[0], wanted)
    agreed = replace(s, votes=-torch.full((1,), 4, dtype=F64), toward=-s.drift)  # all say no: minus their mean
    torch.testing.assert_close(HopSkipJump().jumped(q, agreed)[0], -F.normalize(u.sum(0), dim=0))


# ---- known optima -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "most"), [(L2, 1.05), (Linf, 1.4)])
def test_it_comes_near_the_optimum_of_linear_models(kind, most):
    model, x, y, z, weight = linear()
    gap = (weight[0] - weight[1]).norm() if kind is L2 else (weight[0] - weight[1]).abs().sum()
    needed = (z[:, 0] - z[:, 1]).abs() / gap
    result = attack(model, x, y, kind(math.inf, bounds=WIDE), HopSkipJump(steps=800))
    assert bool(result.success.all())
    ratio = result.distance / needed
    assert bool((ratio >= 1 - 1e-9).all())
    assert float(ratio.median()) < most, ratio
    torch.testing.assert_close(result.distance, own_size(kind, result.adversarial - x))
    curve = [result.trace.at(n, len(x)) for n in (60, 200, 500, 800)]
    for early, late in pairwise(curve):
        assert bool((late <= early).all())
        assert float(late.median()) < float(early.median())


def test_a_finite_eps_ends_a_row_early():
    model, x, y, z, weight = linear()
    needed = (z[:, 0] - z[:, 1]).abs() / (weight[0] - weight[1]).norm()
    eps = float(needed.max()) * 1.5
    result = attack(model, x, y, L2(eps, bounds=WIDE), HopSkipJump(steps=1500))
    assert bool(result.success.all())
    assert bool((result.distance <= eps).all())
    assert int(result.forward.max()) < 1000


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("bounds", [(0.0, 255.0), FREE, (0.0, math.inf), "by channel"])
def test_any_box(kind, bounds):
    x = 2 * draws(6, 2, 2, 3)
    if bounds == "by channel":
        x[:, 1] = 200 + 20 * x[:, 1]
        bounds = (torch.tensor([0.0, 180.0]).view(2, 1, 1), torch.tensor([2.0, 255.0]).view(2, 1, 1))
    weight = torch.randn((2, 12), generator=torch.Generator().manual_seed(0), dtype=F64)
    model = Linear(weight, -(x.flatten(1) @ weight.T).mean(0)).requires_grad_(False)
    y = model(x).argmax(1)
    threat = kind(math.inf, bounds=bounds)
    result = attack(model, x, y, threat, HopSkipJump(steps=250))
    assert bool(result.success.all())
    assert_inside(kind(1e9, bounds=bounds), result.adversarial, x)
    needed = (model(x)[:, 0] - model(x)[:, 1]).abs() / (weight[0] - weight[1]).norm()
    if kind is L2 and not isinstance(bounds[0], torch.Tensor):  # there the box is in the way
        assert float((result.distance / needed).median()) < 2


@pytest.mark.parametrize("kind", NORMS)
def test_masks(kind):
    """Masked components stay, and only free ones count as dimensions."""
    model, x, y, _, weight = linear(size=12)
    mask = torch.arange(12) % 3 > 0
    threat = kind(math.inf, bounds=WIDE, mask=mask)
    q, seen = query(x, threat, model, y)
    *_, s = states(q, HopSkipJump(), 150)
    for v in seen:
        assert torch.equal(v.z[:, ~mask], x[:, ~mask])
    estimating = s.phase == ESTIMATE
    assert int(estimating.sum()) > 3
    torch.testing.assert_close((s.x - s.anchor).norm(dim=1)[estimating], (s.reach / 8)[estimating])
    result = attack(model, x, y, threat, HopSkipJump(steps=500))
    gap = (weight[0] - weight[1])[mask]
    needed = (model(x)[:, 0] - model(x)[:, 1]).abs() / (gap.norm() if kind is L2 else gap.abs().sum())
    assert bool((result.distance >= needed - 1e-9).all())
    assert float((result.distance / needed).median()) < 1.6
    frozen = attack(model, x, y, kind(1.0, mask=torch.zeros_like(mask)), HopSkipJump(steps=20))
    assert torch.equal(frozen.adversarial, x)


# ---- trouble ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NORMS)
def test_a_model_of_constant_answer_gives_no_start_and_no_nan(kind):
    x, y = draws(4, 1, 3, 3), torch.zeros(4, dtype=torch.int64)
    q, seen = query(x, kind(1.0), Constant())
    *_, s = states(q, HopSkipJump(), 60)
    assert bool((s.phase == START).all())
    assert all(bool(torch.isfinite(v.z).all()) and bool(((v.z >= 0) & (v.z <= 1)).all()) for v in seen)
    assert len(torch.stack([v.z for v in seen]).flatten(1).unique(dim=0)) >= 55  # but few two-valued flat ones
    result = attack(Constant(), x, y, kind(math.inf), HopSkipJump(steps=60))
    assert not bool(result.success.any())
    assert bool(result.distance.isinf().all())


@pytest.mark.parametrize("kind", NORMS)
def test_where_every_point_fools_it_is_finite_and_ends(kind):
    """Misclassified images never come here by the engine; in the bare loop the search shrinks onto the image."""
    x = draws(4, 3, 4)
    y = torch.ones(4, dtype=torch.int64)
    q, seen = query(x, kind(1.0), Constant(), y)
    *_, s = states(q, HopSkipJump(steps=400), 400)
    assert all(bool(torch.isfinite(v.z).all()) for v in seen)
    assert float((s.x - x).abs().max()) < 1e-2
    black = torch.zeros_like(x)
    q, seen = query(black, kind(1.0), Constant(), y)
    *_, s = states(q, HopSkipJump(steps=400), 400)
    assert all(bool(torch.isfinite(v.z).all()) for v in seen)
    assert bool(torch.isfinite(s.toward).all())
    assert bool(torch.isfinite(perturb(Constant(), x, y, kind(1.0), HopSkipJump(steps=30))).all())
    result = attack(Constant(), x, y, kind(math.inf), HopSkipJump(steps=30))
    assert torch.equal(result.adversarial, x)
    assert result.forward.tolist() == [1] * 4


def test_answers_at_random_lead_to_no_nan_and_no_endless_halving():
    class Coin(nn.Module):
        def forward(self, x):
            side = (1e4 * x.flatten(1).sum(1)).sin()
            return torch.stack([side, -side], 1)

    q, seen = query(draws(20, 5), L2(1.0), Coin())
    halved, longest = torch.zeros(20, dtype=torch.int64), 0
    for s in states(q, HopSkipJump(samples=5), 500):
        halved = torch.where(s.phase == JUMP, halved + 1, 0)
        longest = max(longest, int(halved.max()))
    assert 3 < longest < 14  # 1e-3 of the way is ten halvings
    assert all(bool(torch.isfinite(v.z).all()) for v in seen)


def test_a_jump_that_never_fools_is_given_up_and_the_estimate_begun_anew():
    """A point that fools in a sea that does not: the anchor is kept."""
    x = torch.zeros(1, 4, dtype=F64)
    q, _ = query(x, L2(1.0, bounds=WIDE), Linear(torch.zeros(2, 4, dtype=F64), torch.tensor([1.0, 0], dtype=F64)))
    anchor = torch.ones_like(x)
    s = replace(
        HopSkipJump().init(q, x), k=torch.tensor([50]), x=anchor + 1, phase=torch.tensor([JUMP]),
        turn=torch.tensor([1]), anchor=anchor, reach=torch.tensor([2.0], dtype=F64), size=torch.tensor([2.0], dtype=F64),
        asked=torch.tensor([100]), drift=anchor, toward=anchor,
    )  # fmt: skip
    jumps = 0
    while int(s.phase[0]) == JUMP and jumps < 40:
        s = HopSkipJump().step(q, s)
        s, jumps = replace(s, k=s.k + 1), jumps + 1
    assert jumps == 10  # 2 / 2^10 is less than 1e-3 of the way of 2
    assert int(s.phase[0]) == ESTIMATE
    assert int(s.turn[0]) == 2
    assert int(s.asked[0]) == 0
    assert torch.equal(s.anchor, anchor)


@pytest.mark.parametrize(("size", "dtype", "most"), [(3 * 224 * 224, torch.float32, 21), (784, torch.float32, 15)])
def test_the_search_ends_within_what_the_numbers_can_tell(size, dtype, most):
    """θ is 1.7e-8 for ImageNet: float32 has no such shares, and a search for them would never end."""
    x = torch.zeros(1, size, dtype=dtype)
    model = Linear(torch.zeros(2, size), torch.tensor([1.0, 0.0]))
    model.weight.data[1] = 2 / size
    q, _ = query(x, L2(1.0, bounds=(0.0, 1.1)), model)
    searched = [int((s.phase == SEARCH).sum()) for s in states(q, HopSkipJump(), most + 2)]
    assert sum(searched) == most
    assert HopSkipJump().tolerance(q) == (4 * torch.finfo(dtype).eps if size > 1000 else size**-1.5)


# ---- starts -------------------------------------------------------------------------------------


def test_starts_are_noise_of_every_grain():
    """First uniform noise over the box; then blocks of 2, 4, 8, 16 pixels and flat colours; then two-valued."""
    x = draws(40, 3, 9, 12)
    q, _ = query(x, L2(1.0, bounds=(-1.0, 3.0)), Constant())
    none = torch.zeros(40, dtype=torch.int64)
    fine = start(q, none)
    assert float(fine.min()) > -1
    assert float(fine.max()) < 3
    assert abs(float(fine.mean()) - 1) < 0.03
    assert abs(float(fine.std()) - 4 / math.sqrt(12)) < 0.03
    assert len(fine.flatten().unique()) > 0.99 * fine.numel()
    for k in range(5):
        z, side = start(q, none + k), 2**k
        blocks = F.pad(z, (0, -12 % side, 0, -9 % side), mode="replicate")
        blocks = blocks.unfold(2, side, side).unfold(3, side, side).flatten(4)
        assert torch.equal(blocks.amax(4), blocks.amin(4))
        assert len(z[0].unique()) >= 0.99 * 3 * math.ceil(9 / side) * math.ceil(12 / side)
        assert set(start(q, none + 5 + k).unique().tolist()) == {-1.0, 3.0}
    assert not torch.equal(start(q, none), start(q, none + 10))


def test_starts_of_a_row_depend_on_its_own_age():
    x = draws(6, 1, 8, 8)
    q, _ = query(x, L2(1.0), Constant())
    ages = torch.tensor([0, 1, 2, 7, 30, 300])
    mixed = start(q, ages)
    for row, k in enumerate(ages.tolist()):
        assert torch.equal(mixed[row], start(q, torch.full((6,), k))[row])


@pytest.mark.parametrize("kind", NORMS)
def test_an_image_of_the_class_that_all_fine_noise_gets_is_fooled_too(kind):
    """Class 0 is whatever has much detail; only smooth images are of class 1."""

    class Rough(nn.Module):
        def forward(self, x):
            detail = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3)) + (x[..., 1:] - x[..., :-1]).abs().mean(
                (1, 2, 3)
            )
            return torch.stack([detail - 0.3, torch.zeros_like(detail)], 1)

    x = draws(8, 1, 8, 8)
    y = torch.zeros(8, dtype=torch.int64)
    assert bool((Rough()(draws(200, 1, 8, 8, seed=1)).argmax(1) == 0).all())
    result = attack(Rough(), x, y, kind(math.inf), HopSkipJump(steps=60))
    assert bool(result.success.all())


def test_targets():
    """The walk follows the boundary of the target; rows whose random starts never show it keep trying."""
    model, x, y, _, weight = linear(classes=4, size=10)
    targets = (y + 1) % 4
    result = attack(model, x, y, L2(math.inf, bounds=WIDE), HopSkipJump(steps=600), targets=targets)
    assert bool(result.success.all())
    assert torch.equal(model(result.adversarial).argmax(1), targets)
    never = Linear(
        torch.cat([weight[:3], torch.zeros(1, 10, dtype=F64)]), torch.cat([model.bias[:3], torch.full((1,), -1e6)])
    )
    stuck = attack(never, x, never(x).argmax(1), L2(math.inf), HopSkipJump(steps=40), targets=torch.full((12,), 3))
    assert not bool(stuck.success.any())
    assert stuck.forward.tolist() == [42] * 12


@pytest.mark.parametrize("kind", NORMS)
def test_a_row_that_ran_out_of_eps_ends_at_the_nearest_point_that_fools(kind):
    model, x, y, _, _ = linear()
    q, seen = query(x, kind(1.0, bounds=WIDE), model, y)
    for steps in (6, 12, 60, 130):
        seen.clear()
        *_, s = states(q, HopSkipJump(steps=steps), steps)
        begun = s.phase != START
        assert bool((model(s.x).argmax(1) != y)[begun].all())
        least = torch.stack([torch.where(v.fooled, q.threat.size(v.z - x), math.inf) for v in seen]).amin(0)
        assert bool((q.threat.size(s.x - x)[begun] <= 1.5 * least[begun]).all())


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"samples": 0}, {"samples": 2.5}, {"gamma": 0}, {"gamma": math.inf}, {"gamma": "a"}]
)
def test_options_are_checked(bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        HopSkipJump(**bad)


def test_directions_are_never_shorter_than_the_numbers_can_tell():
    """At d = 150,528 and values near 255, float32 would round δ = reach / d away; a reach of 0 divides nothing."""
    x = 200 + 50 * draws(2, 3 * 224 * 224).float()
    q, _ = query(x, L2(1.0, bounds=(0.0, 255.0)), nn.Flatten())
    s = replace(HopSkipJump().init(q, x), k=torch.ones(2, dtype=torch.int64), reach=torch.tensor([5.0, 0.0]))
    near = HopSkipJump().near(q, s)
    length = (near - x).norm(dim=1) / HopSkipJump().spread(q, s)
    assert float((length - 1).abs().max()) < 0.05
    far = replace(s, reach=torch.tensor([1e9, 1e9]))
    torch.testing.assert_close(HopSkipJump().spread(q, far), torch.full((2,), 1e9 / x[0].numel()))
    black = replace(s, anchor=torch.zeros_like(x), reach=torch.zeros(2))
    assert bool((HopSkipJump().spread(q, black) > 0).all())
