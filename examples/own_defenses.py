"""Four defenses as one would write them oneself: plain modules that say nothing of their gradients.

    unfooled evaluate examples/own_defenses.py:median "fashion-mnist:test:0-200" --threat linf:0.1

A name that ends in `_hardened` stands before the hardened network. docs/studies/defenses.md has the numbers, beside those of
the same defenses with a declared backward.
"""

import scipy.ndimage
import torch
from torch import Tensor, nn

import unfooled as uf

PLAIN, HARDENED = "fashion-mnist/plain", "fashion-mnist/hardened"


class Blur(nn.Module):
    """A Gaussian of sigma 1, as two convolutions: torch differentiates it by itself."""

    def forward(self, images: Tensor) -> Tensor:
        kernel = torch.exp(-0.5 * torch.arange(-4, 5, dtype=images.dtype) ** 2)
        kernel = kernel / kernel.sum()
        padded = nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
        rows = nn.functional.conv2d(padded, kernel.view(1, 1, 1, 9))
        return nn.functional.conv2d(rows, kernel.view(1, 1, 9, 1))


class Median(nn.Module):
    """SciPy's median of 3x3 pixels: the forward pass leaves torch, and no gradient comes back."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(scipy.ndimage.median_filter(images.detach().numpy(), size=(1, 1, 3, 3)))


class Bits(nn.Module):
    """Eight shades of grey: the derivative of rounding is zero."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.round(images * 7) / 7


class Shift(nn.Module):
    """Every image rolled by up to two pixels, anew at every pass."""

    def forward(self, images: Tensor) -> Tensor:
        steps = torch.randint(-2, 3, (len(images), 2)).tolist()
        return torch.stack([image.roll(step, (1, 2)) for image, step in zip(images, steps, strict=True)])


def _before(wall: nn.Module, network: str) -> nn.Module:
    return nn.Sequential(wall, uf.models.load(network)).eval()


def blur() -> nn.Module:
    return _before(Blur(), PLAIN)


def median() -> nn.Module:
    return _before(Median(), PLAIN)


def bits() -> nn.Module:
    return _before(Bits(), PLAIN)


def shift() -> nn.Module:
    return _before(Shift(), PLAIN)


def blur_hardened() -> nn.Module:
    return _before(Blur(), HARDENED)


def median_hardened() -> nn.Module:
    return _before(Median(), HARDENED)


def bits_hardened() -> nn.Module:
    return _before(Bits(), HARDENED)


def shift_hardened() -> nn.Module:
    return _before(Shift(), HARDENED)
