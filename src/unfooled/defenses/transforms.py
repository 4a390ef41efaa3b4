"""Transforms that hide gradients or scatter them: fewer levels for each pixel, and a random shift."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..errors import must_be
from .base import Backward, Defense
from .filters import height_and_width


class BitDepth(Defense):
    """Every pixel of [0, 1] rounded to the nearest of 2^bits levels from 0 to 1.

    bits:      1 … 16; 8 leaves 8-bit images as they are.
    backward:  see `Defense`. `identity` by default, since the exact derivative of rounding is zero: `exact` hides every
               gradient. Xu et al. 2018, arXiv:1704.01155, section III-B; passed over by Athalye et al. 2018.
    """

    name: ClassVar[str] = "bit-depth"

    def __init__(self, bits: int = 3, backward: Backward = "identity") -> None:
        super().__init__(backward)
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
            raise must_be("BitDepth", "bits", "an int in [1, 16]", bits)
        self.bits = bits

    def transform(self, images: Tensor) -> Tensor:
        """Round pixels, whatever the shape."""
        steps = 2**self.bits - 1
        rounded: Tensor = torch.round(images * steps) / steps
        return rounded

    def extra_repr(self) -> str:
        """For printing."""
        return f"bits={self.bits}"


class RandomShift(Defense):
    """Every image moved by its own random offset in each pass: whole pixels, drawn evenly from -pixels … pixels per axis.

    pixels:    how far at most; 0 changes nothing, and draws nothing.
    padding:   what fills the edge: "zero", or "edge" (the outermost pixels again).
    backward:  see `Defense`. `exact` is the derivative of the shift that was drawn: average it over draws (EOT).

    Offsets come from torch's global generator of the images' device. Randomised padding as a defense: Xie et al. 2018,
    arXiv:1711.01991; averaged over by Athalye et al. 2018, arXiv:1802.00420, section 4.2.
    """

    name: ClassVar[str] = "random-shift"

    def __init__(self, pixels: int = 2, padding: str = "zero", backward: Backward = "exact") -> None:
        super().__init__(backward)
        if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
            raise must_be("RandomShift", "pixels", "an int of at least 0", pixels)
        if padding not in ("zero", "edge"):
            raise must_be("RandomShift", "padding", "'zero' or 'edge'", padding)
        self.pixels, self.padding = pixels, padding

    def transform(self, images: Tensor) -> Tensor:
        """Shift (N, …, H, W)."""
        height_and_width(images)
        if self.pixels == 0:
            return images
        offsets = torch.randint(-self.pixels, self.pixels + 1, (2, len(images)), device=images.device)
        for axis, offset in zip((-2, -1), offsets, strict=True):
            images = self._moved(images, axis, offset)
        return images

    def _moved(self, images: Tensor, axis: int, offset: Tensor) -> Tensor:
        """Images moved along one axis by an offset (N,) each."""
        length = images.shape[axis]
        source = torch.arange(length, device=images.device) - offset[:, None]
        shape = [len(images)] + [1] * (images.dim() - 1)
        shape[axis] = length
        index = source.clamp(0, length - 1).view(shape)
        moved = images.gather(axis, index.expand_as(images))
        if self.padding == "edge":
            return moved
        return moved * ((source >= 0) & (source < length)).view(shape)

    def extra_repr(self) -> str:
        """For printing."""
        return f"pixels={self.pixels}, padding={self.padding}"
