"""x_adv = x + eps · sign(∇x J(θ, x, y)), as the project's seed had it: to the bit in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import problem
from unfooled.attacks import FGSM
from unfooled.engine import attack, perturb
from unfooled.threats import Linf


class SeedNet(nn.Module):
    """The seed's shape in small: convolution, pooling, dropout, dense."""

    def __init__(self):
        super().__init__()
        self.conv, self.drop, self.dense = nn.Conv2d(1, 6, 3), nn.Dropout(0.5), nn.Linear(54, 5)

    def forward(self, x):
        return self.dense(self.drop(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1)))


def setting():
    torch.manual_seed(0)
    model, x = SeedNet().double(), torch.rand(24, 1, 8, 8, dtype=torch.float64)
    model.eval()
    x[:, :, 0] = 0.0
    x[:, :, 1] = 1.0  # walls, where the clip works
    y = model(x).argmax(1)
    y[::5] = (y[::5] + 1) % 5
    return model, x, y


def gradient(model, x, loss):
    z = x.clone().requires_grad_(True)
    return torch.autograd.grad(loss(model(z)).sum(), z)[0]


def cross_entropy(labels):
    return lambda logits: F.cross_entropy(logits, labels, reduction="none")


def mse(labels):
    return lambda logits: (logits.softmax(1) - F.one_hot(labels, 5)).square().mean(1)


@pytest.mark.parametrize("eps", [1 / 255, 0.05, 0.3])
@pytest.mark.parametrize(("name", "loss"), [("cross_entropy", cross_entropy), ("mse", mse)])
def test_fgsm_is_the_formula_to_the_bit(eps, name, loss):
    model, x, y = setting()
    want = (x + eps * gradient(model, x, loss(y)).sign()).clamp(0, 1)
    result = attack(model, x, y, Linf(eps), FGSM(loss=name), early_stop=False)
    right = model(x).argmax(1) == y
    assert 10 < int(right.sum()) < 24
    assert torch.equal(result.adversarial[right], want[right])
    assert torch.equal(result.adversarial[~right], x[~right])
    assert torch.equal(result.success, right & (model(want).argmax(1) != y))
    assert torch.equal(attack(model, x, y, Linf(eps), FGSM(loss=name)).adversarial, result.adversarial)
    assert torch.equal(perturb(model, x, y, Linf(eps), FGSM(loss=name)), want)


@pytest.mark.parametrize("eps", [0.05, 0.3])
@pytest.mark.parametrize(("name", "loss"), [("cross_entropy", cross_entropy), ("mse", mse)])
def test_targeted_fgsm_goes_down_the_loss_to_the_target(eps, name, loss):
    model, x, y = setting()
    targets = (y + 2) % 5
    want = (x - eps * gradient(model, x, loss(targets)).sign()).clamp(0, 1)
    result = attack(model, x, y, Linf(eps), FGSM(loss=name), targets=targets, early_stop=False)
    right = model(x).argmax(1) == y
    assert torch.equal(result.adversarial[right], want[right])
    assert torch.equal(result.success, right & (model(want).argmax(1) == targets))


def test_other_bounds_and_float32():
    p = problem((3, 4, 4), bounds=(-1.0, 1.0), dtype=torch.float64)
    eps = 0.1
    g = gradient(p.model, p.x, cross_entropy(p.y))
    want = (p.x + eps * g.sign()).clamp(-1, 1)
    got = attack(p.model, p.x, p.y, Linf(eps, bounds=(-1.0, 1.0)), FGSM(), early_stop=False)
    assert torch.equal(got.adversarial[p.correct], want[p.correct])
    p = problem((3, 4, 4))
    want = (p.x + eps * gradient(p.model, p.x, cross_entropy(p.y)).sign()).clamp(0, 1)
    got = attack(p.model, p.x, p.y, Linf(eps), FGSM(), early_stop=False)
    assert float((got.adversarial - want)[p.correct].abs().max()) <= 1e-7
