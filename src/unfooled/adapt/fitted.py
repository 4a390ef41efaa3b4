"""A small network that is fitted to a step of a model, so that gradients go through the network instead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import rng
from ..checks.probing import Probe

STEPS, BATCH, WIDTH = 200, 32, 16
LARGEST = 4_000_000  # weights of a linear stand-in


class Residual(nn.Module):
    """A few convolutions round the identity, for steps that keep height and width."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 5, padding=2), nn.GELU(), nn.Conv2d(WIDTH, WIDTH, 5, padding=2), nn.GELU(),
            nn.Conv2d(WIDTH, outputs, 5, padding=2),
        )  # fmt: skip
        self.same = channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, K, H, W)."""
        change: Tensor = self.layers(x)
        return x + change if self.same else change


class Flat(nn.Module):
    """A linear map between any two shapes."""

    def __init__(self, given: torch.Size, wanted: torch.Size) -> None:
        super().__init__()
        self.wanted = wanted
        self.layer = nn.Linear(given.numel(), wanted.numel())

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, *given) to (N, *wanted)."""
        answer: Tensor = self.layer(x.flatten(1))
        return answer.reshape(len(x), *self.wanted)


def fit(step: Callable[[Tensor], Tensor | None], probe: Probe, seed: int = 0) -> nn.Module | None:
    """A network fitted to a step on the probe's images and points of the threat's set round them.

    None where the step has no output to fit, is the identity, or would need too large a network.
    """
    with torch.no_grad():
        try:
            value = step(probe.images[:2])
        except Exception:  # whatever a user's model may raise
            return None
        if value is None or not value.is_floating_point() or len(value) != 2:
            return None
        if value.shape == probe.images[:2].shape and torch.equal(value.to(probe.images.dtype), probe.images[:2]):
            return None
    given, wanted = probe.images.shape[1:], value.shape[1:]
    with rng.forked(seed):
        if len(given) == 3 and len(wanted) == 3 and given[1:] == wanted[1:]:
            network: nn.Module = Residual(given[0], wanted[0])
        elif given.numel() * wanted.numel() <= LARGEST:
            network = Flat(given, wanted)
        else:
            return None
        network.to(probe.images.device, probe.images.dtype)
        return _trained(network, step, probe)


def _trained(network: nn.Module, step: Callable[[Tensor], Tensor | None], probe: Probe) -> nn.Module:
    x, threat = probe.images, probe.threat
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(STEPS):
        some = x[torch.randint(len(x), (min(BATCH, len(x)),), device=x.device)]
        noise = torch.randn_like(some)
        z = threat.project(
            some + 2 * threat.eps * torch.rand(1, dtype=x.dtype).to(x.device) * threat.steepest(noise, some), some
        )
        with torch.no_grad():
            wanted = step(z)
        with torch.enable_grad():
            assert wanted is not None
            loss = F.mse_loss(network(z), wanted.to(x.dtype))
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)
