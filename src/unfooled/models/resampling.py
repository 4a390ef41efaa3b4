"""Pillow's resampling as products with matrices: differentiable, on any device, and equal but for the rounding to 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import unknown

Array = NDArray[np.float64]


def _cubic(x: Array) -> Array:
    """The cubic kernel of Keys 1981 with a = -0.5."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    kernel: Array = np.where(x < 1, near, np.where(x < 2, far, 0))
    return kernel


def _lanczos(x: Array) -> Array:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _hamming(x: Array) -> Array:
    return np.where(x < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


KERNELS: dict[str, Callable[[Array], Array]] = {  # of the distance, in pixels of the coarser of the two grids
    "bilinear": lambda x: np.clip(1 - x, 0, None),
    "bicubic": _cubic,
    "lanczos": _lanczos,
    "hamming": _hamming,
}
FILTERS = ("nearest", "box", *KERNELS)


def resize(images: Tensor, height: int, width: int, how: str) -> Tensor:
    """Images (N, C, H, W) in [0, 1] as (N, C, height, width) in [0, 1].

    how:  the filter, one of `FILTERS`; where the image shrinks it widens by as much, as Pillow's do.

    Rows first, then columns. Each pass is clipped to [0, 1], as one on bytes is: kernels with negative parts overshoot.
    """
    if how not in FILTERS:
        raise unknown("filter", how, FILTERS)
    for axis, after in ((-1, width), (-2, height)):
        before = images.shape[axis]
        if before == after:
            continue
        matrix = _matrix(before, after, how, images.dtype, images.device)
        images = images @ matrix.T if axis == -1 else matrix @ images
        if how not in ("nearest", "box", "bilinear"):
            images = images.clamp(0, 1)
    return images


@lru_cache(maxsize=64)
def _matrix(before: int, after: int, how: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The weights (after, before) of one pass; each row sums to 1."""
    with torch.inference_mode(False):  # kept for later, when gradients may be wanted
        return torch.from_numpy(weights(before, after, how)).to(device, dtype)


def weights(before: int, after: int, how: str) -> Array:
    """The same in float64."""
    scale = before / after
    if how == "nearest":  # Pillow adds up, and so decides ties by rounding
        sums = np.add.accumulate(np.r_[scale / 2, np.full(after - 1, scale)])
        return np.eye(before)[np.minimum(sums.astype(np.int64), before - 1)]
    centres, wide = (np.arange(after)[:, None] + 0.5) * scale, max(scale, 1)
    offsets = (np.arange(before) - centres + 0.5) * (1 / wide)
    if how == "box":
        first, last = (np.floor(centres + side * wide / 2 + 0.5) for side in (-1, 1))
        within = (np.arange(before) >= first) & (np.arange(before) < last)
        found = (within & (offsets > -0.5) & (offsets <= 0.5)).astype(np.float64)
    else:
        found = KERNELS[how](np.abs(offsets))
    rows: Array = found / found.sum(1, keepdims=True)
    return rows
