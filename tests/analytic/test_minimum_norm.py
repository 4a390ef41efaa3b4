"""DDN, FMN, sigma-zero and PDPGD on linear models, whose smallest change is known."""

import itertools
import math

import pytest
import torch
from torch import nn

from helpers import Linear, own_size, problem
from unfooled.attacks import DDN, FMN, PDPGD, Restarts, SigmaZero
from unfooled.engine import attack
from unfooled.errors import ParameterError
from unfooled.threats import L0, L1, L2, Linf

F64 = torch.float64
WIDE = (-50.0, 50.0)
CASES = [
    (L2, DDN(steps=200), 1.02),
    (L2, FMN(steps=200), 1.02),
    (Linf, FMN(steps=200), 1.02),
    (L1, FMN(steps=300), 1.10),
    (L1, PDPGD(steps=500), 1.05),
    (L2, PDPGD(steps=500), 1.05),
    (Linf, PDPGD(steps=500), 1.10),
]
ALL = [(kind, type(m)) for kind, m, _ in CASES] + [(L0, FMN), (L0, SigmaZero)]


def linear(classes=2, size=20, count=30, bounds=(0.0, 1.0), seed=0):
    draw = torch.Generator().manual_seed(seed)
    w = torch.randn((classes, size), generator=draw, dtype=F64)
    low, high = (max(bounds[0], -1.0), min(bounds[1], 2.0)) if bounds == WIDE else bounds
    middle, width = (low + high) / 2, high - low
    x = middle + width * 0.1 * (2 * torch.rand((count, size), generator=draw, dtype=F64) - 1)
    model = Linear(w, -(x @ w.T).mean(0))
    logits = model(x).detach()
    return model, x, logits.argmax(1), logits, w


def needed(kind, logits, w):
    d, margin = (w[0] - w[1]).abs(), (logits[:, 0] - logits[:, 1]).abs()
    return margin / {Linf: d.sum(), L2: d.norm(), L1: d.max()}[kind]


@pytest.mark.parametrize(("kind", "method", "slack"), CASES, ids=str)
def test_the_optimum_of_a_linear_model(kind, method, slack):
    """Never below it, and close to it; |x - x0| is measured, not |x| (FB #619)."""
    model, x, y, logits, w = linear(bounds=WIDE)
    best = needed(kind, logits, w)
    found = attack(model, x, y, kind(math.inf, bounds=WIDE), method)
    assert bool(found.success.all())
    torch.testing.assert_close(found.distance, own_size(kind, found.adversarial - x))
    ratio = found.distance / best
    assert bool((ratio >= 1 - 1e-9).all())
    assert float(ratio.median()) <= slack
    assert float(ratio.quantile(0.9)) <= 1 + 4 * (slack - 1)


@pytest.mark.parametrize(("method", "slack"), [(FMN(steps=200), 1), (SigmaZero(steps=500), 1)], ids=str)
def test_l0_needs_as_many_components_as_greed_does(method, slack):
    """In a box, the best is to move the components of largest gain to the wall."""
    model, x, y, logits, w = linear()
    margin, toward = logits[:, 0] - logits[:, 1], w[0] - w[1]
    direction = -margin.sign()[:, None] * toward
    gain = torch.where(direction > 0, 1 - x, x) * direction.abs()
    count = (gain.sort(dim=1, descending=True).values.cumsum(1) <= margin.abs()[:, None]).sum(1) + 1
    found = attack(model, x, y, L0(math.inf), method)
    assert bool(found.success.all())
    assert bool((found.distance >= count).all())
    assert float((found.distance <= count + slack).double().mean()) >= 0.9
    unchanged = (found.adversarial == x).sum(1)
    assert torch.equal(unchanged, x.shape[1] - found.distance.long())


@pytest.mark.parametrize(("kind", "make"), ALL)
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0)], ids=str)
def test_the_box_is_only_a_scale(kind, make, bounds):
    """The same problem in another box has the same answer, in its units."""
    model, x, y, *_ = linear()
    low, high = bounds
    scaled = Linear(
        model.weight.detach() / (high - low), model.bias.detach() - (model.weight.detach() * low / (high - low)).sum(1)
    )
    method = make(steps=120)
    here = attack(model, x, y, kind(math.inf), method)
    there = attack(scaled, low + (high - low) * x, y, kind(math.inf, bounds=bounds), method)
    unit = 1 if kind is L0 else high - low
    assert bool(there.success.all())
    near = float((there.distance / unit / here.distance).median())
    assert 0.8 <= near <= 1.25


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_targets_masks_and_pixels_at_the_walls(kind, make):
    model, x, y, *_ = linear(classes=4, size=24)
    x = torch.where(torch.arange(24) % 3 == 0, x.round(), x)  # a third of the pixels at exactly 0 or 1
    y = model(x).argmax(1)
    targets, mask = (y + 1) % 4, torch.arange(24) % 4 != 1
    found = attack(model, x, y, kind(math.inf, mask=mask), make(steps=150), targets=targets)
    assert bool((model(found.adversarial).argmax(1) == targets)[found.success].all())
    assert float(found.success.double().mean()) > 0.8
    assert torch.equal(found.adversarial[:, ~mask], x[:, ~mask])
    walls = (x == 0) | (x == 1)
    assert bool((found.adversarial != x)[walls & mask].any()), "pixels at the walls cannot move"


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_a_constant_model_is_no_trouble(kind, make):
    flat = Linear(torch.zeros((3, 10), dtype=F64), torch.tensor([1.0, 0.0, 0.5], dtype=F64))
    x = torch.rand((5, 10), dtype=F64)
    found = attack(flat, x, torch.zeros(5, dtype=torch.int64), kind(math.inf), make(steps=10))
    assert bool(torch.isfinite(found.adversarial).all())
    assert not bool(found.success.any())


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_more_steps_are_not_worse_on_a_network(kind, make):
    p = problem((2, 4, 4), dtype=F64, count=16)
    few, many = (attack(p.model, p.x, p.y, kind(math.inf), make(steps=n)) for n in (15, 200))
    right = p.correct
    assert bool(many.success[right].all())
    assert float(many.distance[right].mean()) <= float(few.distance[right].nan_to_num(posinf=99.0).mean()) + 1e-9


class Plateau(nn.Module):
    """No slope where the first component is within 0.1 of the middle of [0, 1]; beyond, the distance to it decides."""

    def forward(self, x):
        far = ((x[:, 0] - 0.5).abs() - 0.1).clamp(min=0)
        return torch.stack([0.01 + 0 * far, 10 * far], 1)


@pytest.mark.parametrize(("kind", "make"), ALL)
def test_a_flat_spot_is_left_by_chance(kind, make):
    x = torch.full((8, 3), 0.5, dtype=F64) + 1e-3 * torch.arange(8)[:, None]
    found = attack(Plateau(), x, torch.zeros(8, dtype=torch.int64), kind(math.inf), make(steps=200))
    assert int(found.success.sum()) >= 6


@pytest.mark.parametrize(("kind", "make"), [pair for pair in ALL if pair != (L0, FMN)])
def test_restarts_look_elsewhere(kind, make):
    """From the same image the same point again would be a waste: restarts find other points, and the best counts.

    FMN's L0 ball holds one component at first, mostly the same one: there restarts gain little.
    """
    p = problem((2, 4, 4), dtype=F64, count=12)
    seen = []
    original = make.step

    def spy(self, q, s):
        seen.extend(zip(q.restart.tolist(), s.k.tolist(), s.x.clone(), strict=True))
        return original(self, q, s)

    make.step = spy
    try:
        again = attack(p.model, p.x, p.y, kind(math.inf), Restarts(make(steps=30), 3), batch_size=64)
    finally:
        make.step = original
    once = attack(p.model, p.x, p.y, kind(math.inf), make(steps=30))
    assert bool((again.distance <= once.distance).all())
    points = [{tuple(z.flatten().tolist()) for restart, k, z in seen if (restart, k) == (n, 12)} for n in range(3)]
    assert all(len(there) >= int(p.correct.sum()) for there in points)
    assert all(len(one & other) < 0.4 * len(one) for one, other in itertools.pairwise(points))


def test_sigma_zero_counts_pixels_where_the_threat_does():
    """Three channels: the pixels of the largest sum are the best, not those of the largest component."""
    draw = torch.Generator().manual_seed(0)
    w = torch.rand((1, 3, 20), generator=draw, dtype=F64).expand(2, 3, 20) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
    x = torch.full((6, 3, 20), 0.5, dtype=F64)
    model = nn.Sequential(nn.Flatten(), Linear(w.flatten(1), torch.tensor([-10.0, 10.0], dtype=F64)))
    y = model(x).argmax(1)
    per_pixel = w[0].sum(0).sort(descending=True).values  # a move from 0.5 to 0 changes the margin by twice half of it
    best = int((per_pixel.cumsum(0) <= float(model(x)[0, 0] - model(x)[0, 1])).sum()) + 1
    pixels = attack(model, x, y, L0(math.inf, pixels=True), SigmaZero(steps=500))
    assert bool(pixels.success.all())
    assert int(pixels.distance.min()) >= best
    assert float(pixels.distance.median()) <= best + 1
    components = attack(model, x, y, L0(math.inf), SigmaZero(steps=500))
    touched = (components.adversarial != x).any(1).sum(1)
    assert float(touched.double().median()) > best + 1, "counting components spreads them over more pixels"


def test_fmns_projection_does_something_in_l2():
    """FB 3.3.4: a factor norms/norms left the change as long as the step had made it."""
    model, x, y, *_ = linear(bounds=WIDE)
    sizes = []
    original = FMN.step

    def spy(self, q, s):
        out = original(self, q, s)
        sizes.append(((out.x - q.x).norm(dim=1), out.radius))
        return out

    FMN.step = spy
    try:
        attack(model, x, y, L2(math.inf, bounds=WIDE), FMN(steps=60))
    finally:
        FMN.step = original
    assert all(bool((size <= radius * (1 + 1e-9)).all()) for size, radius in sizes)
    assert any(bool((size >= radius * (1 - 1e-6)).any()) for size, radius in sizes[20:])


def test_the_published_defaults():
    assert (DDN().steps, DDN().gamma, DDN().radius) == (100, 0.05, 1.0)
    assert (FMN().steps, FMN().gamma) == (100, 0.05)
    sz = SigmaZero()
    assert (sz.steps, sz.rate, sz.sigma, sz.threshold, sz.change) == (1000, 1.0, 1e-3, 0.3, 0.01)
    assert (PDPGD().rate, PDPGD().ratio) == (0.1, 0.01)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DDN(gamma=1.0), "'gamma' parameter of DDN"),
        (lambda: DDN(radius=0), "'radius' parameter of DDN"),
        (lambda: FMN(alpha=-1), "'alpha' parameter of FMN"),
        (lambda: SigmaZero(sigma=0), "'sigma' parameter of SigmaZero"),
        (lambda: PDPGD(ratio=1), "'ratio' parameter of PDPGD"),
    ],
)
def test_bad_options_are_one_line(make, words):
    with pytest.raises(ParameterError, match=words):
        make()
