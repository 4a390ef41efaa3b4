"""A defense that hides gradients: the bundled network behind pixels rounded to eight levels.

    unfooled evaluate examples/quantised.py:make "fashion-mnist-sample[0:200]" --threat linf:0.1

Rounding has a derivative of zero, so attacks by gradient stand still and robust accuracy looks high; docs/trust.md shows
what `unfooled` makes of it.
"""

import torch
from torch import Tensor, nn

import unfooled as uf

LEVELS = 8


class Quantise(nn.Module):
    """Every pixel to the nearest of `LEVELS` shades of grey."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.round(images * (LEVELS - 1)) / (LEVELS - 1)


def make() -> nn.Module:
    """The network behind the rounding."""
    return nn.Sequential(Quantise(), uf.models.load("fashion-mnist/plain"))
