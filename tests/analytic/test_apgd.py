"""APGD against the paper: its schedule, a plain loop written from Algorithm 1, and what it finds."""

import math

import pytest
import torch
from torch.nn import functional as F

from helpers import Linear, problem
from unfooled.attacks import APGD, APGDL1, MD, MIFGSM, Targeted
from unfooled.attacks.apgd import phases, windows
from unfooled.engine import attack
from unfooled.errors import ParameterError
from unfooled.oracle import Query
from unfooled.threats import L1, L2, Linf

F64 = torch.float64


def test_the_checkpoints_are_the_papers():
    """p_1 = .22, then p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06), times 100 steps. Section 3.2."""
    assert windows(100).nonzero().squeeze(1).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert windows(100)[[22, 41, 57, 70, 80, 87, 93]].tolist() == [22, 19, 16, 13, 10, 7, 6]
    assert len(windows(1)) == 1


def test_the_published_defaults():
    assert (APGD().steps, APGD().rho) == (100, 0.75)
    assert APGDL1().steps == 100
    assert (MIFGSM().steps, MIFGSM().decay) == (10, 1.0)
    assert Targeted(APGD()).k == 9
    table = phases(100)
    assert [int((table[:, 0] == f).sum()) for f in (3, 2, 1)] == [30, 30, 40]
    assert table[:, 2].nonzero().squeeze(1).tolist() == [29, 59]
    assert table[[29, 59], 2].tolist() == [2, 1]


def straight(model, x, y, eps, steps, start, size):
    """Algorithm 1 for one image and Linf, as a person would write it. Returns the last point."""

    def look(z):
        z = z.clone().requires_grad_(True)
        loss = F.cross_entropy(model(z[None]), y[None])
        return loss.item(), torch.autograd.grad(loss, z)[0]

    def back(z):
        return z.clamp(x - eps, x + eps).clamp(0, 1)

    marks, p = [0, 0.22], [0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    marks = [math.ceil(round(part * steps, 9)) for part in p]
    z, before, eta = start, start, 2 * eps
    losses, best, halved, best_at_mark = [], (-math.inf, None, None), True, None
    for k in range(steps):
        value, g = look(z)
        losses.append(value)
        if value > best[0]:
            best = (value, z, g)
        best_at_mark = best[0] if k == 0 else best_at_mark
        if k in marks[1:]:
            since = marks[marks.index(k) - 1]
            rises = sum(losses[i + 1] > losses[i] for i in range(since, k))
            stuck = rises <= 0.75 * (k - since) or (not halved and best[0] <= best_at_mark)
            halved, best_at_mark = stuck, best[0]
            if stuck:
                eta, z, g = eta / 2, best[1], best[2]
        u = back(z + eta * g.sign())
        a = 1.0 if k == 0 else 0.75
        z, before = back(z + a * (u - z) + (1 - a) * (z - before)), z
    return z


def test_it_is_the_papers_loop_point_for_point():
    p = problem((8,), dtype=F64, count=12)
    eps = 0.4 * p.eps(Linf)
    method = APGD(steps=50)
    drawn, kept = [], Query.uniform

    def spy(self, *args, **more):
        drawn.append((self.example, kept(self, *args, **more)))
        return drawn[-1][1]

    Query.uniform = spy
    try:
        found = attack(p.model, p.x, p.y, Linf(eps), method, early_stop=False, batch_size=5)
    finally:
        Query.uniform = kept
    draws = {int(e): 2 * row - 1 for examples, rows in drawn[1:] for e, row in zip(examples, rows, strict=True)}
    right = p.correct.nonzero().squeeze(1).tolist()
    assert len(right) > 5
    for at in right:
        t = draws[at]
        start = (p.x[at] + eps * t / t.abs().max()).clamp(p.x[at] - eps, p.x[at] + eps).clamp(0, 1)
        wanted = straight(p.model, p.x[at], p.y[at], eps, 50, start, 2 * eps)
        torch.testing.assert_close(found.adversarial[at], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "method"), [(Linf, APGD()), (L2, APGD()), (L1, APGDL1()), (Linf, MD()), (L2, MD())])
def test_on_a_linear_model_it_reaches_the_optimum(kind, method):
    draw = torch.Generator().manual_seed(1)
    w = torch.randn((2, 20), generator=draw, dtype=F64)
    x = 0.4 + 0.2 * torch.rand((30, 20), generator=draw, dtype=F64)
    model = Linear(w, -(x @ w.T).mean(0))
    logits = model(x).detach()
    y, margin = logits.argmax(1), (logits[:, 0] - logits[:, 1]).abs()
    d = (w[0] - w[1]).abs()
    dual = {Linf: d.sum(), L2: d.norm(), L1: d.max()}[kind]
    needed = margin / dual
    eps = float(needed[needed < 0.3].median())
    result = attack(model, x, y, kind(eps), method)
    small = needed < 0.3  # the box does not matter there
    assert torch.equal(
        result.success[small & ((needed - eps).abs() > 1e-6)], (needed < eps)[small & ((needed - eps).abs() > 1e-6)]
    )
    assert 5 < int(result.success.sum()) < 30


def test_l1_ends_inside_although_it_wanders():
    p = problem((3, 6, 6), dtype=F64)
    threat = p.threat(L1, 0.5)
    result = attack(p.model, p.x, p.y, threat, APGDL1(steps=20), early_stop=False)
    assert bool(threat.contains(result.adversarial, p.x).all())
    assert not result.notes


def test_a_row_without_a_slope_moves_on():
    """TA MI-FGSM: a zero gradient made NaN, and the row stalled in silence."""
    x, y = torch.rand((6, 10), dtype=F64), torch.zeros(6, dtype=torch.int64)
    flat = Linear(torch.zeros((3, 10), dtype=F64), torch.tensor([1.0, 0.0, 0.0], dtype=F64))
    for method in (APGD(steps=5), MIFGSM(steps=5), MD(steps=5)):
        result = attack(flat, x, y, Linf(0.1), method)
        assert bool(torch.isfinite(result.adversarial).all())
        assert not bool(result.success.any())
    l1 = attack(flat, x, y, L1(1.0), APGDL1(steps=5))
    assert bool(torch.isfinite(l1.adversarial).all())
    moved = attack(flat, x, y, Linf(0.1), APGD(steps=2), early_stop=False).adversarial
    later = attack(flat, x, y, Linf(0.1), APGD(steps=4), early_stop=False).adversarial
    assert not torch.equal(moved, later)


def test_momentum_is_per_example():
    """TA #12, FB #439: a mean over the batch in the momentum made rows depend on their neighbours."""
    p = problem((8,), dtype=F64)
    big = p.x.clone()
    alone = attack(p.model, p.x[1:2], p.y[1:2], Linf(0.2), MIFGSM(), early_stop=False)
    together = attack(p.model, big, p.y, Linf(0.2), MIFGSM(), early_stop=False)
    torch.testing.assert_close(alone.adversarial[0], together.adversarial[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: APGD(steps=0), "'steps' parameter of APGD"),
        (lambda: APGD(rho=1.0), "'rho' parameter of APGD"),
        (lambda: APGD(loss="dlrr"), "dlr"),
        (lambda: MD(loss="dlr"), "'loss' parameter of MD"),
        (lambda: MIFGSM(decay=-1), "'decay' parameter of MIFGSM"),
    ],
)
def test_bad_options_are_one_line(make, words):
    with pytest.raises(ParameterError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
