"""Images varied at random while training, each by random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import rng, text
from ..errors import ParameterError, must_be

Augment = Callable[[Tensor, Tensor], Tensor]
"""Images (B, C, H, W) and a key for each (B,), from `rng.keys`, to varied images of the same shape."""


def shift(images: Tensor, key: Tensor, pixels: int = 4, mirror: bool = False) -> Tensor:
    """Each image shifted by up to so many whole pixels along both axes (the edge is repeated), and mirrored by chance."""
    n, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    draws = rng.uniform(key, torch.Size([3]), torch.float64)
    top, left = (draws[:, :2] * (2 * pixels + 1)).long().T[:, :, None]
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    if mirror:
        columns = torch.where(draws[:, 2:] < 0.5, columns, columns.flip(1))
    at = torch.arange(n, device=images.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


def parse(words: str) -> Augment:
    """Read ``shift:2`` or ``shift:4,mirror=true``."""
    call = text.parse(words)
    if call.name != "shift":
        raise ParameterError(f"The augmentation must be such as 'shift:2' or 'shift:4,mirror=true'. Got {words!r}.")
    given = text.options("the augmentation", call, ("pixels", "mirror"))
    pixels = given.get("pixels", 4)
    if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1:
        raise must_be("shift", "pixels", "an int of at least 1", pixels)
    return partial(shift, **given)
