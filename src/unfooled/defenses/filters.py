"""Image filters as defenses, with SciPy's semantics: Gaussian blur, percentile and median."""

from __future__ import annotations

import math
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, must_be
from .base import Backward, Defense, straight


def is_number(value: object) -> bool:
    """Whether it is a number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_size(owner: str, size: object) -> None:
    """Raise unless a window's side is a whole number of at least 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise must_be(owner, "size", "an int of at least 1", size)


def reflected(before: int, after: int, length: int) -> np.ndarray:
    """The indices of an axis extended by half-sample reflection (d c b a | a b c d | d c b a), SciPy's default."""
    index = np.arange(-before, length + after) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def extended(images: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Images with an axis extended by reflection. The middle is not copied by index: its gradient is cheap."""
    length = images.shape[axis]
    index = torch.from_numpy(reflected(before, after, length)).to(images.device)
    ends = index[:before], index[before + length :]
    first, last = (images.index_select(axis, end) for end in ends)
    return torch.cat([first, images, last], axis)


def height_and_width(images: Tensor) -> tuple[int, int]:
    """Height and width of images (N, …, H, W); a `DataError` where there are none."""
    if images.dim() < 3:
        raise DataError(f"An image filter needs images with height and width. Got shape {tuple(images.shape)}.")
    return images.shape[-2], images.shape[-1]


class GaussianBlur(Defense):
    """Gaussian blur of height and width, as `scipy.ndimage.gaussian_filter` does it.

    sigma:     in pixels; 0 changes nothing.
    truncate:  the kernel ends at this many sigmas. 4, SciPy's default.
    backward:  see `Defense`. The blur is linear, so `exact` is its transpose.

    Each axis is one matrix, the reflection at the edges folded in. Blurring as a defense: Xu et al. 2018,
    arXiv:1704.01155 (feature squeezing), there by medians and means.
    """

    name: ClassVar[str] = "blur"

    def __init__(self, sigma: float = 1.0, truncate: float = 4.0, backward: Backward = "exact") -> None:
        super().__init__(backward)
        if not is_number(sigma) or not 0 <= sigma < math.inf:
            raise must_be("GaussianBlur", "sigma", "a float of at least 0", sigma)
        if not is_number(truncate) or not 0 < truncate < math.inf:
            raise must_be("GaussianBlur", "truncate", "a float above 0", truncate)
        self.sigma, self.truncate = float(sigma), float(truncate)
        self._matrices: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def transform(self, images: Tensor) -> Tensor:
        """Blur (…, H, W)."""
        height, width = height_and_width(images)
        if self.sigma == 0:
            return images
        return self._matrix(height, images) @ images @ self._matrix(width, images).T

    def _matrix(self, length: int, images: Tensor) -> Tensor:
        key = (length, images.dtype, images.device)
        if key not in self._matrices:
            with torch.inference_mode(False):
                self._matrices[key] = torch.from_numpy(self.kernel_matrix(length)).to(images.device, images.dtype)
        return self._matrices[key]

    def kernel_matrix(self, length: int) -> np.ndarray:
        """The blur of an axis as a (length, length) matrix in float64."""
        radius = int(self.truncate * self.sigma + 0.5)
        offset = np.arange(-radius, radius + 1)
        kernel = np.exp(-0.5 * (offset / self.sigma) ** 2)
        source = reflected(radius, radius, length)
        matrix = np.zeros((length, length))
        for at in range(length):
            np.add.at(matrix[at], source[at : at + len(kernel)], kernel / kernel.sum())
        return matrix

    def extra_repr(self) -> str:
        """For printing."""
        return f"sigma={self.sigma:g}"


def ranked(planes: list[Tensor], rank: int) -> Tensor:
    """The value of that rank (0: the smallest) at every place of equally shaped planes.

    Bubble sort of whole planes, from the nearer end and no further than the rank: for windows this small it is many
    times faster than torch's sort of short rows.
    """
    planes = list(planes)
    from_top = rank > len(planes) // 2
    first, second = (torch.maximum, torch.minimum) if from_top else (torch.minimum, torch.maximum)
    rounds = len(planes) - rank if from_top else rank + 1
    for done in range(rounds):
        for i in range(len(planes) - 1, done, -1):
            planes[i - 1], planes[i] = first(planes[i - 1], planes[i]), second(planes[i - 1], planes[i])
    return planes[rounds - 1]


def copied(planes: list[Tensor], rank: int) -> Tensor:
    """The same, differentiated as a copy of the planes that have that value; equals share.

    The sort itself is not recorded: its many minima and maxima would cost twenty times their values on the way back.
    """
    with torch.no_grad():
        value = ranked(planes, rank)
    if not (torch.is_grad_enabled() and planes[0].requires_grad):
        return value
    same = [(plane == value).to(value.dtype) for plane in planes]
    share = 1 / torch.stack(same).sum(0)
    return straight(sum((plane * (one * share) for plane, one in zip(planes, same, strict=True)), value * 0), value)


class PercentileFilter(Defense):
    """The percentile of a window round every pixel, as `scipy.ndimage.percentile_filter(image, percentile, size)`.

    percentile:  0 … 100; SciPy's rank, int(size² · percentile / 100), 100 meaning the largest.
    size:        the window's side. For an even side the window reaches one further to the left and up, as in SciPy.
    backward:    see `Defense`. `exact` sends a pixel's gradient to the pixel that it was copied from; equals share.
    """

    name: ClassVar[str] = "percentile"

    def __init__(self, percentile: float = 50.0, size: int = 2, backward: Backward = "exact") -> None:
        super().__init__(backward)
        if not is_number(percentile) or not 0 <= percentile <= 100:
            raise must_be("PercentileFilter", "percentile", "a float in [0, 100]", percentile)
        check_size("PercentileFilter", size)
        self.percentile, self.size = float(percentile), size

    @property
    def rank(self) -> int:
        """Which value of the sorted window is taken, from 0. Filters of one rank and size are the same filter."""
        count = self.size**2
        return count - 1 if self.percentile == 100 else int(count * self.percentile / 100)

    def transform(self, images: Tensor) -> Tensor:
        """Filter (…, H, W)."""
        height, width = height_and_width(images)
        before = self.size // 2
        wide = extended(extended(images, -2, before, self.size - 1 - before), -1, before, self.size - 1 - before)
        window = [wide[..., i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)]
        return copied(window, self.rank)

    def extra_repr(self) -> str:
        """For printing."""
        return f"percentile={self.percentile:g}, size={self.size}"


class MedianFilter(Defense):
    """The median of a window round every pixel, as `scipy.ndimage.median_filter(image, size)`.

    size:      the window's side; 3 by default. Of an even number of values SciPy takes the upper median.
    backward:  see `Defense`. Median filters as a defense: Xu et al. 2018, arXiv:1704.01155.
    """

    name: ClassVar[str] = "median"

    def __init__(self, size: int = 3, backward: Backward = "exact") -> None:
        super().__init__(backward)
        check_size("MedianFilter", size)
        self.filter = PercentileFilter(50.0, size)
        self.size = size

    def transform(self, images: Tensor) -> Tensor:
        """Filter (…, H, W)."""
        return self.filter.transform(images)

    def extra_repr(self) -> str:
        """For printing."""
        return f"size={self.size}"
