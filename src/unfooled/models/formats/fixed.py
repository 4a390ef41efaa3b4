"""Networks that were exported for batches of one size, as networks of any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..classifier import logits_of

SAME = 1e-3  # of the logits' largest size: beyond the noise of sums in another order, below any real difference


def in_pieces(function: Callable[[Tensor], Tensor], images: Tensor, size: int | None) -> Tensor:
    """What a function of `size` rows answers to any number of them: the last piece is filled up with its last row."""
    if size is None:
        return function(images)
    found = []
    for part in images.split(size):
        short = size - len(part)
        full = torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part
        found.append(function(full)[: len(part)])
    return torch.cat(found)


class FixedBatch(nn.Module):
    """A network of batches of `size` rows, as one of any."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, *shape)."""
        return in_pieces(lambda part: logits_of(self.network(part), self.size), images, self.size)


def freed(network: nn.Module, size: int, shape: tuple[int, ...]) -> nn.Module:
    """The network itself where it takes batches of another size all the same; else in pieces of that size.

    Whether it does is tried on random images of the shape, against the pieces: many programs name a batch size
    that nothing in them depends on, and whole batches are many times faster.
    """
    pieces = FixedBatch(network, size)
    images = random_images(2 * size + 1, shape)
    with torch.no_grad():
        expected = pieces(images)
        try:
            found = logits_of(network(images), len(images))
        except Exception:  # whatever a program says to a shape that it was not made for
            return pieces
    return network if agree(found, expected) else pieces


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether two computations of the same logits differ by no more than rounding."""
    if found.shape != expected.shape:
        return False
    return bool(((found - expected).abs() <= SAME * expected.abs().max()).all())


def random_images(rows: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform in [0, 1], always the same, and without a trace in the generators of torch."""
    drawn: Any = torch.Generator().manual_seed(0)
    return torch.rand(rows, *shape, generator=drawn).to(dtype)
