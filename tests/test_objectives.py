"""Objectives: each against its formula, worked out again here."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from unfooled.goals import Goal
from unfooled.training import NFGSM, Batch, NearPGD, objectives, perturbations
from unfooled.training.awp import worst_weights

EPS = 0.1


def network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).to(dtype)


def batch(attack=None, model=None, threat=None, **more):
    make = torch.Generator().manual_seed(1)
    model = model or network()
    images = torch.rand(6, 1, 4, 4, generator=make, dtype=torch.float64) * 0.6 + 0.2
    labels = torch.randint(0, 4, (6,), generator=make)
    threat = threat or uf.Linf(EPS)
    return Batch(model.train(), model, images, Goal(labels), torch.arange(6), 5, threat, attack, **more)


PGD = uf.attacks.PGD(steps=3, step_size=0.5)


def shares(model, images):
    return model(images).softmax(1)


def test_standard_is_cross_entropy_with_smoothed_labels():
    one = batch(smoothing=0.1)
    value, logits = objectives.standard(one)()
    wanted = F.one_hot(one.goal.label, 4).double() * 0.9 + 0.1 / 4
    assert value.item() == pytest.approx(-(wanted * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-12)


def test_adversarial_is_cross_entropy_at_the_attacks_points():
    one = batch(PGD)
    points = uf.perturb(one.bare, one.images, one.goal.label, one.threat, PGD, seed=5, ids=one.ids)
    value, logits = objectives.adversarial(one)()
    assert torch.equal(logits, one.model(points))
    assert value.item() == pytest.approx(F.cross_entropy(one.model(points), one.goal.label).item(), rel=1e-12)
    assert value > F.cross_entropy(one.model(one.images), one.goal.label)


def divergence(p, q):
    return (p * (p / q).log()).sum(1)


def test_trades_is_its_formula_and_its_points_maximise_the_divergence():
    one = batch(NearPGD(steps=10))
    seen = []
    model = one.model
    watched = Batch(
        lambda x: seen.append(x.detach()) or model(x),
        model,
        *[getattr(one, n) for n in ("images", "goal", "ids", "seed", "threat", "attack")],
    )
    value, _ = objectives.trades(watched, beta=3.0)()
    clean, points = seen
    assert torch.equal(clean, one.images)
    assert (points - clean).abs().max() <= EPS + 1e-12
    p, q = shares(model, clean), shares(model, points)
    expected = F.cross_entropy(model(clean), one.goal.label) + 3 * divergence(p, q).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    plain = uf.perturb(model, one.images, one.goal.label, one.threat, NearPGD(steps=10), seed=5, ids=one.ids)
    assert divergence(p, q).mean() > divergence(p, shares(model, plain)).mean()
    noise = one.images + EPS * torch.sign(torch.randn(6, 1, 4, 4, dtype=torch.float64))
    assert divergence(p, q).mean() > 2 * divergence(p, shares(model, noise)).mean()


def test_mart_is_its_formula():
    one = batch(PGD)
    points = uf.perturb(one.bare, one.images, one.goal.label, one.threat, PGD, seed=5, ids=one.ids)
    value, _ = objectives.mart(one, beta=5.0)()
    p, q, y = shares(one.model, one.images), shares(one.model, points), one.goal.label
    at = torch.arange(6)
    others = q.clone()
    others[at, y] = -1
    boosted = -q[at, y].log() - (1.0001 - others.amax(1)).log()
    expected = (boosted + 5 * divergence(p, q) * (1 - p[at, y])).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_grad_align_adds_one_minus_the_cosine_and_its_slope_reaches_the_weights():
    one = batch(uf.attacks.PGD(steps=1, step_size=1.25))
    base, _ = objectives.adversarial(one)()
    value, _ = objectives.grad_align(one, weight=0.5)()
    assert 0 < (value - base).item() / 0.5 <= 2
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    flat = batch(uf.attacks.PGD(steps=1), model=linear)
    flat = Batch(linear, linear, flat.images, Goal(flat.goal.label % 2), flat.ids, 5, flat.threat, flat.attack)
    base, _ = objectives.adversarial(flat)()
    value, _ = objectives.grad_align(flat, weight=0.5)()
    assert (value - base).item() == pytest.approx(0, abs=1e-9)  # two classes, one direction everywhere
    weight = one.bare[1].weight
    only = objectives.grad_align(one, weight=1e6)()[0]
    assert torch.autograd.grad(only, weight)[0].abs().max() > 0


def test_noise_is_gaussian_its_own_for_each_image_and_step():
    one = batch()
    first, again = one.noise(0.5), one.noise(0.5)
    assert torch.equal(first, again)
    assert not torch.equal(first, one.noise(0.5, draw=1))
    many = Batch(
        one.model,
        one.bare,
        torch.zeros(2000, 1, 4, 4),
        Goal(torch.zeros(2000, dtype=torch.long)),
        torch.arange(2000),
        9,
    )
    assert many.noise(0.5).std().item() == pytest.approx(0.5, rel=0.02)
    value, logits = objectives.noise(one, sigma=0.3)()
    assert torch.equal(logits, one.model(one.images + one.noise(0.3)))
    assert value.item() == pytest.approx(F.cross_entropy(logits, one.goal.label).item())


def test_smooth_adv_learns_from_the_draws_that_it_attacked():
    one = batch(uf.attacks.PGD(steps=4, step_size=0.5), threat=uf.L2(0.5))
    _, logits = objectives.smooth_adv(one, sigma=0.2, draws=3)()
    assert logits.shape == (18, 4)
    copies = torch.stack([one.noise(0.2, draw) for draw in range(3)])

    def smoothed(z):
        return torch.stack([shares(one.bare, z + c) for c in copies]).mean(0).log()

    points = uf.perturb(smoothed, one.images, one.goal.label, one.threat, one.attack, seed=5, ids=one.ids)
    assert torch.allclose(logits, one.model((points + copies).flatten(0, 1)), rtol=1e-9, atol=1e-12)
    before = F.nll_loss(smoothed(one.images), one.goal.label)
    assert F.nll_loss(smoothed(points), one.goal.label) > before + 0.01


def test_attacks_look_in_eval_mode_and_losses_in_train_mode():
    modes = []

    class Watch(nn.Module):
        def forward(self, x):
            modes.append((self.training, model[1][1].weight.requires_grad))
            return x

    for objective, passes in ((objectives.adversarial, 1), (objectives.trades, 2), (objectives.mart, 2)):
        model = nn.Sequential(Watch(), network()).train()
        modes.clear()
        objective(batch(PGD, model=model))()
        assert modes[-passes:] == [(True, True)] * passes, objective
        assert set(modes[:-passes]) == {(False, False)}, objective
        assert model.training


def test_n_fgsm_is_its_formula_and_may_leave_the_ball():
    one = batch()
    attack = NFGSM()
    points = uf.perturb(one.bare, one.images, one.goal.label, one.threat, attack, seed=5, ids=one.ids)
    moved = points - one.images
    assert moved.abs().max() > EPS * 1.5
    assert moved.abs().max() <= 3 * EPS + 1e-12
    assert 0 <= points.min() <= points.max() <= 1
    begin = uf.perturb(one.bare, one.images, one.goal.label, one.threat, NFGSM(step_size=1e-9), seed=5, ids=one.ids)
    noise = begin - one.images
    assert noise.abs().max() <= 2 * EPS + 1e-9
    z = begin.requires_grad_(True)
    (g,) = torch.autograd.grad(F.cross_entropy(one.bare(z), one.goal.label, reduction="sum"), z)
    torch.testing.assert_close(points, (begin + EPS * g.sign()).clamp(0, 1).detach(), rtol=0, atol=1e-8)


def test_published_defaults():
    assert (NFGSM().noise, NFGSM().step_size) == (2.0, 1.0)
    assert NearPGD().noise == 0.001
    assert math.isclose(
        uf.RECIPES["fast-at"].attack and perturbations.parse(uf.RECIPES["fast-at"].attack).step_size, 1.25
    )
    assert uf.RECIPES["trades"].objective == "trades:beta=6"
    assert uf.RECIPES["mart"].objective == "mart:beta=5"


def test_awp_moves_each_matrix_by_gamma_times_its_norm_up_the_loss_and_back():
    model = network()
    x, y = torch.rand(8, 1, 4, 4, dtype=torch.float64), torch.randint(0, 4, (8,))
    before = [p.detach().clone() for p in model.parameters()]

    def loss():
        return F.cross_entropy(model(x), y)

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    base = loss().item()
    with worst_weights(model, loss, 0.01):
        for p, old, g in zip(model.parameters(), before, gradients, strict=True):
            expected = old + 0.01 * old.norm() * g / g.norm() if p.dim() > 1 else old
            torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-12)
            assert p.grad is None
        assert loss().item() > base
        loss().backward()
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
        assert p.grad is not None


def test_awp_leaves_the_weights_alone_after_an_error():
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    with (
        pytest.raises(KeyError),
        worst_weights(model, lambda: model(torch.rand(2, 1, 4, 4, dtype=torch.float64)).sum(), 0.1),
    ):
        raise KeyError
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_a_step_makes_no_more_passes_than_it_must():
    counts = {"forward": 0}

    class Count(nn.Module):
        def forward(self, x):
            counts["forward"] += 1
            return x

    expected = {"standard": 1, "adversarial": 4, "trades": 3 + 1 + 2, "mart": 3 + 2, "noise": 1}
    for name, passes in expected.items():
        model = nn.Sequential(Count(), network())
        counts["forward"] = 0
        objectives.OBJECTIVES[name](batch(PGD, model=model))()
        assert counts["forward"] == passes, name


def test_texts_are_read():
    assert objectives.parse("trades:beta=2").keywords == {"beta": 2}
    with pytest.raises(uf.errors.ParameterError, match="'beta' parameter of trades must be a float above 0"):
        objectives.parse("trades:beta=-1")
    with pytest.raises(uf.errors.UnknownName):
        objectives.parse("trade")
    assert perturbations.parse("n-fgsm:noise=1") == NFGSM(noise=1)
    np.testing.assert_equal(perturbations.parse("near-pgd").steps, 10)
