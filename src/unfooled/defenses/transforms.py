"""Transforms that hide gradients or scatter them: fewer levels for each pixel, random shifts and sizes, noise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import must_be
from .base import Backward, Defense
from .filters import height_and_width, is_number


class BitDepth(Defense):
    """Every pixel of [0, 1] rounded to the nearest of 2^bits levels from 0 to 1.

    bits:      1 … 16; 8 leaves 8-bit images as they are.
    backward:  see `Defense`. `identity` by default, since the exact derivative of rounding is zero: `exact` hides every
               gradient. Xu et al. 2018, arXiv:1704.01155; passed over by Athalye et al. 2018.
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
    random: ClassVar[bool] = True

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
            source = torch.arange(images.shape[axis], device=images.device) - offset[:, None]
            images = _picked(images, axis, source, 0.0 if self.padding == "zero" else None)
        return images

    def extra_repr(self) -> str:
        """For printing."""
        return f"pixels={self.pixels}, padding={self.padding}"


class ResizePad(Defense):
    """Every image resized to a random size in each pass, and padded to a fixed one at a random place.

    scale:     the smallest size, as a share of the padded side; sizes are drawn evenly from there to the whole side.
               Xie et al. 2018, arXiv:1711.01991: 299 of 331.
    grow:      the padded side by the image's. 1 by default, since most networks take one size; theirs took 331 pixels where
               images had 299.
    mode:      "nearest", as in their code, or "bilinear".
    fill:      the pixels round the image: 0. (Theirs were grey, the 0 of their network's inputs.)
    backward:  see `Defense`. `exact` is the derivative for the size and place that were drawn: average it over draws
               (Athalye et al. 2018, arXiv:1802.00420, section 5.3.2).

    Height and width are scaled alike, each image by its own size.
    """

    name: ClassVar[str] = "resize-pad"
    random: ClassVar[bool] = True

    def __init__(
        self, scale: float = 0.9, grow: float = 1.0, mode: str = "nearest", fill: float = 0.0,
        backward: Backward = "exact",
    ) -> None:  # fmt: skip
        super().__init__(backward)
        if not is_number(scale) or not 0 < scale <= 1:
            raise must_be("ResizePad", "scale", "a float in (0, 1]", scale)
        if not is_number(grow) or not 0 < grow < math.inf:
            raise must_be("ResizePad", "grow", "a float above 0", grow)
        if mode not in ("nearest", "bilinear"):
            raise must_be("ResizePad", "mode", "'nearest' or 'bilinear'", mode)
        if not is_number(fill) or not 0 <= fill <= 1:
            raise must_be("ResizePad", "fill", "a float in [0, 1]", fill)
        self.scale, self.grow, self.mode, self.fill = float(scale), float(grow), mode, float(fill)

    @property
    def reshapes(self) -> bool:
        """Whether the padded side is another than the image's."""
        return self.grow != 1

    def transform(self, images: Tensor) -> Tensor:
        """Resize and pad (N, …, H, W)."""
        sides = height_and_width(images)
        padded = [max(1, round(self.grow * side)) for side in sides]
        choices = padded[0] - max(1, round(self.scale * padded[0])) + 1
        less = torch.randint(choices, (len(images),), device=images.device)  # pixels of the height
        places = torch.rand(2, len(images), device=images.device)
        for axis, side, whole, place in zip((-2, -1), sides, padded, places, strict=True):
            size = (whole - (less * whole / padded[0]).round().long()).clamp_min(1)
            first = (place * (whole - size + 1)).long()
            images = self._resized(images, axis, side, whole, size[:, None], first[:, None])
        return images

    def _resized(self, images: Tensor, axis: int, side: int, whole: int, size: Tensor, first: Tensor) -> Tensor:
        """One axis of a side at sizes (N, 1), put at the pixel `first` (N, 1) of the whole.

        The pixels are those of `torch.nn.functional.interpolate`.
        """
        at = torch.arange(whole, device=images.device) - first
        inside = (at >= 0) & (at < size)
        if self.mode == "nearest":
            return _picked(images, axis, torch.where(inside, at * side // size, -1), self.fill)
        place = ((at + 0.5) * (side / size.to(images.dtype)) - 0.5).clamp(0, side - 1)
        low = place.long()
        share = _along(images, axis, (place - low).to(images.dtype))
        ends = (torch.where(inside, index, -1) for index in (low, (low + 1).clamp_max(side - 1)))
        before, after = (_picked(images, axis, index, self.fill) for index in ends)
        return torch.lerp(before, after, share.expand_as(before))

    def extra_repr(self) -> str:
        """For printing."""
        return f"scale={self.scale:g}, grow={self.grow:g}, mode={self.mode}, fill={self.fill:g}"


class Noise(Defense):
    """Gaussian noise on every pixel, anew in each pass.

    sigma:     its standard deviation, in units of pixels; 0 changes nothing, and draws nothing.
    clip:      whether pixels are cut off at 0 and 1 afterwards.
    backward:  see `Defense`. `exact` is the derivative for the noise that was drawn: average it over draws.

    Noise at the input as a defense: Liu et al. 2018, arXiv:1712.00673 (there also between layers, and trained with); what
    it can be proved to be worth, by the majority of many draws: Cohen et al. 2019, arXiv:1902.02918.
    """

    name: ClassVar[str] = "noise"
    random: ClassVar[bool] = True

    def __init__(self, sigma: float = 0.1, clip: bool = True, backward: Backward = "exact") -> None:
        super().__init__(backward)
        if not is_number(sigma) or not 0 <= sigma < math.inf:
            raise must_be("Noise", "sigma", "a float of at least 0", sigma)
        if not isinstance(clip, bool):
            raise must_be("Noise", "clip", "true or false", clip)
        self.sigma, self.clip = float(sigma), clip

    def transform(self, images: Tensor) -> Tensor:
        """Add noise, whatever the shape."""
        if self.sigma == 0:
            return images
        noisy = images + self.sigma * torch.randn_like(images)
        return noisy.clamp(0, 1) if self.clip else noisy

    def extra_repr(self) -> str:
        """For printing."""
        return f"sigma={self.sigma:g}, clip={self.clip}"


def _along(images: Tensor, axis: int, values: Tensor) -> Tensor:
    """Values (N, L) of each image as a tensor that lies along one of its axes."""
    shape = [len(images)] + [1] * (images.dim() - 1)
    shape[axis] = values.shape[1]
    return values.view(shape)


def _picked(images: Tensor, axis: int, source: Tensor, fill: float | None) -> Tensor:
    """Images (N, …) whose places along an axis are copied from the indices source (N, L), each image by its own.

    An index beyond the ends gives `fill`; None: the outermost pixel.
    """
    length = images.shape[axis]
    shape = list(images.shape)
    shape[axis] = source.shape[1]
    picked = images.gather(axis, _along(images, axis, source.clamp(0, length - 1)).expand(shape))
    if fill is None:
        return picked
    inside = _along(images, axis, (source >= 0) & (source < length))
    return picked * inside if fill == 0 else torch.where(inside, picked, fill)
