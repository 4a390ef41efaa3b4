"""Ways of taking gradients, on models small enough to know what they should find."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unfooled as uf
from unfooled import adapt
from unfooled.adapt.rewired import Operations, Rewired, Unrolled
from unfooled.checks.preflight import preflight

pytestmark = pytest.mark.usefixtures("one_thread")


class Descent(nn.Module):
    """Every image is moved along a gradient of its own before it is read: z = x - 0.1 d/dx sum(x^3) = x - 0.3 x^2."""

    def forward(self, x: Tensor) -> Tensor:
        z = x.detach().clone()
        with torch.enable_grad():
            z.requires_grad_(True)
            (slope,) = torch.autograd.grad(z.pow(3).sum(), z)
        return (z - 0.1 * slope).detach().flatten(1) * torch.ones(())


def test_gradients_that_a_model_takes_itself_are_differentiated():
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (found,) = torch.autograd.grad(Rewired(Descent(), (Unrolled(),))(x).sum(), x)
    torch.testing.assert_close(found, 1 - 0.6 * x.detach())
    (passed_over,) = torch.autograd.grad(Rewired(Descent(), (Operations(),))(x).sum(), x)
    torch.testing.assert_close(passed_over, torch.ones_like(x))  # the inner gradient counts as a constant


def test_what_differentiates_a_size_gets_a_derivative_of_it():
    class Smoother(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                z = x.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(z.abs().sum(), z)
            return x - 0.1 * slope

    x = torch.tensor([[0.05, 0.5, -0.5]], requires_grad=True)
    (found,) = torch.autograd.grad(Rewired(Smoother(), (Unrolled(),))(x).sum(), x)
    assert found[0, 0] < 0.5  # near its kink |x| bends most
    torch.testing.assert_close(found[0, 1:], torch.ones(2), rtol=0, atol=0.02)


class Reassured(nn.Module):
    """Moves every image towards what the network says of it already, by far more than eps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        move = torch.zeros_like(x)
        for _ in range(2):
            with torch.enable_grad():
                z = (x + move).detach().requires_grad_(True)
                out = self.net(z)
                (slope,) = torch.autograd.grad(F.cross_entropy(out, out.argmax(1), reduction="sum"), z)
            move = move - 0.2 * slope.sign()
        return self.net(x + move)


def test_what_a_model_says_first_is_attacked_where_that_is_all_it_says():
    some = uf.data.load("fashion-mnist-sample[0:16]")
    model, images = Reassured(uf.models.load("fashion-mnist/plain")), some.floats()
    found = preflight(model, images, some.labels, uf.Linf(0.1))
    assert found.has("dynamic-forward")
    strategy = adapt.plan(model, found)
    assert "logits taken from before" in strategy.ways[0].name
    assert "dynamic-forward" in dict(strategy.settled)
    result = uf.attack(model, images, some.labels, uf.Linf(0.1), "apgd:steps=40", surrogate=strategy.ways[0].surrogate)
    assert result.robust_accuracy == 0
