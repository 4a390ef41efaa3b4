"""The way back that writes down few coefficients gives what the one that writes down all of them gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import unfooled as uf
from unfooled.certificates import local
from unfooled.certificates.bounds import Bounds
from unfooled.certificates.graph import Traced
from unfooled.certificates.linear import back, crown
from unfooled.certificates.patches import Columns, Patches
from unfooled.certificates.reach import Reach


class Sum(nn.Module):
    """A body and a shortcut, each times a factor."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, factors: tuple[float, float] = (1, 1)) -> None:
        super().__init__()
        self.body, self.shortcut, self.factors = body, shortcut, factors

    def forward(self, x: Tensor) -> Tensor:
        match self.factors:
            case (1, 1):
                return self.body(x) + self.shortcut(x)
            case (1, -1):
                return self.body(x) - self.shortcut(x)
            case (1, other):
                return torch.add(self.body(x), self.shortcut(x), alpha=other)
            case _:
                raise ValueError(self.factors)


def three(channels: int, stride: int = 1, before: int | None = None) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before or channels, channels, 3, stride, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1)
    )


def images(*blocks: nn.Module) -> nn.Module:
    """On images (1, 12, 12)."""
    return nn.Sequential(nn.Conv2d(1, 3, 3, 1, 1), nn.ReLU(), *blocks, nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


def vectors(*blocks: nn.Module) -> nn.Module:
    """The same on vectors."""
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 10), nn.ReLU(), *blocks, nn.ReLU(), nn.Linear(10, 4))


SAME = nn.Identity
NETWORKS = {
    "identity": lambda: images(Sum(three(3), SAME())),
    "difference": lambda: images(Sum(three(3), SAME(), (1, -1))),
    "factor": lambda: images(Sum(three(3), SAME(), (1, 0.5))),
    "two blocks": lambda: images(Sum(three(3), SAME()), nn.ReLU(), Sum(three(3), SAME())),
    "block in a block": lambda: images(Sum(nn.Sequential(nn.ReLU(), Sum(three(3), SAME())), SAME())),
    "stride": lambda: images(Sum(three(5, 2, 3), nn.Conv2d(3, 5, 1, 2))),
    "normed": lambda: images(Sum(nn.Sequential(three(3), nn.BatchNorm2d(3)), nn.BatchNorm2d(3))),
    "strides apart": lambda: images(Sum(nn.Conv2d(3, 2, 3, 2), nn.Conv2d(3, 2, 8, 1))),
    "vector": lambda: vectors(Sum(nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10)), SAME())),
    "vector of two matrices": lambda: vectors(Sum(nn.Linear(10, 10), nn.Linear(10, 10), (1, -1))),
}


def found(name: str) -> Bounds:
    """Bounds of a network of random weights round two images."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    with torch.no_grad():
        x = torch.rand(2, 1, 12, 12)
        model(x)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.5, 0.5)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(-1, 1)
                layer.bias.uniform_(-1, 1)
        model.eval().requires_grad_(False)
        return crown(Traced(model, x[0]).network(), Reach.of(x, uf.Linf(0.05)), 2.0**-24)


@pytest.mark.parametrize("name", NETWORKS)
def test_few_coefficients_say_what_all_of_them_say(name):
    bounds = found(name)
    kept: local.Kept = {}
    for number, step in enumerate(bounds.network.steps, 1):
        size = step.shape.numel()
        for chosen in torch.arange(size).split(max(1, size // 2)):
            signs = torch.ones(len(chosen), dtype=torch.float64)
            signs[::3] = -1
            starts, offset = local.locally(bounds, number, chosen, signs, 1, kept)
            rows = torch.zeros(len(chosen), size, dtype=torch.float64)
            rows[torch.arange(len(chosen)), chosen] = signs
            whole = back(bounds, {number: rows.view(1, len(chosen), *step.shape)}, slice(1, 2))
            least = back(bounds, starts, slice(1, 2)) + offset
            torch.testing.assert_close(least, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "ends"), [("identity", 0), ("two blocks", 2), ("stride", 0), ("normed", 0), ("vector", 1)]
)
def test_it_goes_through_sums(name, ends):
    """To the image, or to where windows of 9×9 are too much for a map of 12×12; past the flattening of vectors nothing goes."""
    bounds = found(name)
    number = max(at for at, step in enumerate(bounds.network.steps, 1) if getattr(step.operation, "factors", ()))
    starts, _ = local.locally(bounds, number, torch.tensor([3]), torch.ones(1, dtype=torch.float64), 0, {})
    assert set(starts) == {ends}


def test_what_is_chosen_twice_stands_there_twice():
    chosen, signs = torch.tensor([2, 0, 2]), torch.tensor([-1.0, 1.0, 1.0])
    expected = torch.tensor([[0.0, 0, -1], [1, 0, 0], [0, 0, 1]])
    assert torch.equal(Columns.units(chosen, torch.Size([3]), signs).dense(), expected)
    assert torch.equal(Patches.units(chosen, torch.Size([1, 1, 3]), signs).dense().flatten(1), expected)


def test_sum_of_windows_that_lie_apart():
    shape = torch.Size([2, 6, 6])
    make = torch.Generator().manual_seed(0)
    one = Patches(torch.rand(2, 2, 2, 2, generator=make), torch.tensor([[0, 0], [2, 1]]), shape)
    for shift in ([[3, 1], [3, 1]], [[3, 1], [0, 2]]):  # alike in both rows, and not
        other = Patches(torch.rand(2, 2, 1, 3, generator=make), one.origin + torch.tensor(shift), shape)
        torch.testing.assert_close(one.plus(other).dense(), one.dense() + other.dense())
