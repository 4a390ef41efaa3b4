"""Thermometer encoding: pixels as rows of bits, for a network that is trained on them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..errors import DataError, must_be
from .base import Backward, Defense

WIDTH = 2.0  # levels: of 1, 2, 4, 8 and 16, the ramp that the strongest attack came from


class Thermometer(Defense):
    """Every pixel of [0, 1] as a row of bits: as a thermometer, on as far as the pixel is bright.

        bit k, of 0 … levels - 1, is 1 where the pixel is at least k / levels

    levels:    bits for each pixel; 16 by default. Buckman et al. 2018, ICLR (openreview S18Su--CW). The bits of
               channel c are channels c · levels …: (N, C, H, W) becomes (N, C · levels, H, W). The network behind it has
               that many input channels, and is trained behind the defense.
    backward:  `smooth` by default: each bit is a ramp round its threshold, as Athalye et al. 2018, arXiv:1802.00420,
               section 5.2.1, broke it, but centred and wider. Steps have no derivative, and no image looks like its bits.

    The first bit is always on, as in the authors' code.
    """

    name: ClassVar[str] = "thermometer"
    backwards: ClassVar[tuple[str, ...]] = ("smooth",)

    def __init__(self, levels: int = 16, backward: Backward = "smooth") -> None:
        super().__init__(backward)
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
            raise must_be("Thermometer", "levels", "an int of at least 2", levels)
        self.levels = levels

    @property
    def reshapes(self) -> bool:
        """Always: there are `levels` times as many channels."""
        return True

    def transform(self, images: Tensor) -> Tensor:
        """Encode (N, C, H, W)."""
        above = _channels(images)[:, :, None] - self._thresholds(images)
        return (above >= 0).to(images.dtype).flatten(1, 2)

    def smooth(self, images: Tensor) -> Tensor:
        """The bits as ramps, `WIDTH` levels long."""
        above = _channels(images)[:, :, None] - self._thresholds(images)
        return (above * (self.levels / WIDTH) + 0.5).clamp(0, 1).flatten(1, 2)

    def _thresholds(self, images: Tensor) -> Tensor:
        """(levels, 1, 1)."""
        levels = torch.arange(self.levels, device=images.device, dtype=images.dtype)
        return (levels / self.levels).view(-1, 1, 1)

    def extra_repr(self) -> str:
        """For printing."""
        return f"levels={self.levels}"


def _channels(images: Tensor) -> Tensor:
    """Images (N, C, H, W), or a `DataError`."""
    if images.dim() != 4:
        raise DataError(f"A thermometer encodes images (N, C, H, W). Got shape {tuple(images.shape)}.")
    return images
