"""The engine's minimum-norm half, with an attack written as a user would write one (and as the design shows it)."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import unfooled as uf
from helpers import problem
from unfooled.attacks import Attack, State
from unfooled.norms import column
from unfooled.oracle import Access


@dataclass(frozen=True, kw_only=True)
class DDNState(State):
    radius: torch.Tensor


@dataclass(frozen=True)
class DDN(Attack):
    """Decoupled direction and norm. Rony et al. 2019, arXiv:1811.09600, Algorithm 1."""

    name, access, norms, minimal = "ddn", Access.GRADIENT, (uf.L2,), True
    steps: int = 100
    gamma: float = 0.05

    def init(self, q, x):
        return DDNState(x=x, radius=x.new_ones(len(x)))

    def step(self, q, s):
        seen = q.look(s.x)
        rate = 0.01 + 0.99 * (1 + torch.cos(math.pi * s.k / self.steps)) / 2
        radius = s.radius * torch.where(seen.fooled, 1 - self.gamma, 1 + self.gamma)
        g = seen.gradient.flatten(1)
        step = column(rate) * g / g.norm(dim=1, keepdim=True)
        delta = (s.x - q.x).flatten(1) + step
        delta = column(radius) * delta / delta.norm(dim=1, keepdim=True)
        return replace(s, x=q.threat.project(q.x + delta.view_as(q.x), q.x), radius=radius)


@pytest.fixture
def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.rand(40, 3, 2, 2, dtype=torch.float64)
    y = model(x).argmax(1)
    y[:3] = 1 - y[:3]
    w = model[1].weight[0] - model[1].weight[1]
    logits = model(x)
    best = (logits[:, 0] - logits[:, 1]).abs() / w.norm()
    return model, x, y, best.detach()


def test_it_finds_nearly_the_smallest_change_and_keeps_the_best_point(task):
    model, x, y, best = task
    found = uf.attack(model, x, y, uf.L2(torch.inf, bounds=(-10.0, 10.0)), DDN())
    right = found.clean_correct
    assert right.sum() == 37
    assert found.success[right].all()
    ratio = found.distance[right] / best[right]
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.median() < 1.02
    torch.testing.assert_close(found.distance[right], (found.adversarial - x).flatten(1).norm(dim=1)[right])
    assert (model(found.adversarial).argmax(1) != y)[right].all()
    assert (found.forward[right] == 101).all()  # a look a step, the first of which screens, and one at the end
    assert (found.forward[~right] == 1).all()


def test_with_a_finite_eps_and_early_stop_a_trial_ends_inside_it(task):
    model, x, y, best = task
    eps = float(best.median())
    bounds = (-10.0, 10.0)
    early = uf.attack(model, x, y, uf.L2(eps, bounds=bounds), DDN())
    late = uf.attack(model, x, y, uf.L2(eps, bounds=bounds), DDN(), early_stop=False)
    for found in (early, late):
        assert (found.success == (found.clean_correct & (found.distance <= eps))).all()
        assert not found.success[best > eps].any()
        assert found.success[found.clean_correct & (best < 0.95 * eps)].all()
    assert (early.forward[early.success] < 101).all()
    assert (late.forward[late.success] == 101).all()
    assert (late.distance[late.success] <= early.distance[late.success] + 1e-12).all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_does_not_matter(task, batch):
    model, x, y, _ = task
    threat = uf.L2(torch.inf, bounds=(-10.0, 10.0))
    whole = uf.attack(model, x, y, threat, uf.Restarts(DDN(steps=20), 2), batch_size=40)
    again = uf.attack(model, x, y, threat, uf.Restarts(DDN(steps=20), 2), batch_size=batch)
    torch.testing.assert_close(again.adversarial, whole.adversarial, rtol=0, atol=1e-9)


def test_a_surrogate_may_be_fooled_before_the_victim_is(task):
    """Points that fool only the surrogate are not kept, and the search goes on."""
    model, x, y, best = task

    class Shifted(nn.Module):
        def forward(self, z):
            logits = model(z)
            return logits + 0.2 * torch.nn.functional.one_hot(1 - y_of(z), 2)  # fooled too early

    def y_of(z):
        return model(z).argmax(1)

    found = uf.attack(model, x, y, uf.L2(torch.inf, bounds=(-10.0, 10.0)), DDN(), surrogate=Shifted())
    right = found.success
    assert right.sum() > 20
    assert (model(found.adversarial).argmax(1) != y)[right].all()
    assert (found.distance[right] >= best[right] - 1e-9).all()


@pytest.mark.parametrize("method", ["fab:steps=40", "superdeepfool", "ddn", "fmn"], ids=str)
def test_what_has_fooled_does_so_again_in_another_batch_and_precision(method):
    """Points on the boundary itself are judged one way by one pass and another way by the next: they do not count."""
    p = problem((1, 8, 8), dtype=torch.float32, count=64)
    found = uf.attack(p.model, p.x, p.y, uf.L2(torch.inf), method)
    assert bool(found.success[p.correct].all())
    points, labels = found.adversarial[found.success], p.y[found.success]
    with torch.no_grad():
        one = torch.cat([p.model(z[None]) for z in points])
        double = copy.deepcopy(p.model).double()(points.double())
    assert bool((one.argmax(1) != labels).all())
    assert bool((double.argmax(1) != labels).all())
