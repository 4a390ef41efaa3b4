"""JPEG compression as a defense: the real codec on the way there, a differentiable one on the way back."""

from __future__ import annotations

import io
import math
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError, must_be
from .base import Backward, Defense
from .filters import height_and_width

BLOCK = 8  # pixels a side: what is transformed and quantised as one
TALLEST = 65_000  # pixels of one file; the format ends at 65,535
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF 1.02, page 3


class JPEG(Defense):
    """Compression by JPEG and back, by the real codec (Pillow's libjpeg), each image by itself.

    quality:   0 … 100, libjpeg's; 0 is its 1. 75 by default: Guo et al. 2018, arXiv:1711.00117.
    backward:  `smooth` by default: a JPEG in torch with the codec's own tables (colour, halved chroma, DCT, quantisation),
               whose rounding has the slope of round(t) + (t - round(t))³, as Shin & Song 2017 (NIPS workshop on machine
               learning and computer security) give it. `identity` is what Athalye et al. 2018, arXiv:1802.00420, section
               5.2.2, broke it with. There is no `exact`: the codec leaves torch.

    Pixels in [0, 1] are rounded to 8 bits first. One channel is coded as grey; three as colour, with chroma of half the
    resolution, Pillow's default. As a defense also Das et al. 2018, arXiv:1802.06816 (Shield).
    """

    name: ClassVar[str] = "jpeg"
    backwards: ClassVar[tuple[str, ...]] = ("smooth", "identity")

    def __init__(self, quality: int = 75, backward: Backward = "smooth") -> None:
        super().__init__(backward)
        if isinstance(quality, bool) or not isinstance(quality, int) or not 0 <= quality <= 100:
            raise must_be("JPEG", "quality", "an int in [0, 100]", quality)
        self.quality = quality

    def transform(self, images: Tensor) -> Tensor:
        """Compress (N, 1 or 3, H, W), or grey ones (N, H, W)."""
        planes = _planes(images)
        pixels = (planes.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        coded = self._greys(pixels) if pixels.shape[1] == 1 else np.stack([self._colour(image) for image in pixels])
        return (torch.from_numpy(coded).to(images.device, images.dtype) / 255).view_as(images)

    def _colour(self, image: np.ndarray) -> np.ndarray:
        """One image (3, H, W), uint8."""
        return _coded(np.ascontiguousarray(image.transpose(1, 2, 0)), self.quality).transpose(2, 0, 1)

    def _greys(self, images: np.ndarray) -> np.ndarray:
        """Images (N, 1, H, W), uint8, many in one file.

        A grey block is coded without a look at its neighbours, and the codec repeats the last row and column to fill the
        outer ones; so below one another, filled like that, images are coded as each by itself, ten times faster.
        """
        height, width = images.shape[-2:]
        filled = np.pad(images[:, 0], ((0, 0), (0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
        several = max(1, TALLEST // filled.shape[1])
        parts = [
            _coded(filled[at : at + several].reshape(-1, filled.shape[2]), self.quality)
            for at in range(0, len(filled), several)
        ]
        coded = np.concatenate(parts) if parts else filled
        return coded.reshape(filled.shape)[:, None, :height, :width].copy()

    def smooth(self, images: Tensor) -> Tensor:
        """The codec in torch; pixels are not rounded or cut off at the ends, so that a change of them always tells."""
        planes = 255 * _planes(images)
        tables = [torch.tensor(table, dtype=images.dtype, device=images.device) for table in _tables(self.quality)]
        if planes.shape[1] == 1:
            return (_quantised(planes - 128, tables[0]) + 128).view_as(images) / 255
        matrix = planes.new_tensor(TO_YCC)
        luma, chroma = torch.einsum("ij,njhw->nihw", matrix, planes).split([1, 2], 1)
        small = _quantised(_halved(chroma), tables[1])
        wide = F.interpolate(small, scale_factor=2, mode="bilinear")[..., : luma.shape[-2], : luma.shape[-1]]
        both = torch.cat([_quantised(luma - 128, tables[0]) + 128, wide], 1)
        return torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), both) / 255

    def extra_repr(self) -> str:
        """For printing."""
        return f"quality={self.quality}"


def _planes(images: Tensor) -> Tensor:
    """Images as (N, 1 or 3, H, W); a `DataError` where they are neither grey nor colour."""
    height_and_width(images)
    planes = images.unsqueeze(1) if images.dim() == 3 else images
    if planes.dim() != 4 or planes.shape[1] not in (1, 3):
        raise DataError(
            f"JPEG takes images (N, 1, H, W) in grey, or (N, 3, H, W) in colour. Got shape {tuple(images.shape)}."
        )
    return planes


def _coded(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3), uint8, as they come back from a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as image:
        return np.array(image)


@cache
def _tables(quality: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The codec's quantisation tables, 8×8, of luma and of chroma: read from a file that it writes."""
    file = io.BytesIO()
    Image.new("RGB", (BLOCK, BLOCK)).save(file, format="JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as image:
        found: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
    return tuple(tuple(tuple(found[k][row : row + BLOCK]) for row in range(0, BLOCK**2, BLOCK)) for k in (0, 1))


@cache
def _cosines() -> np.ndarray:
    """The orthonormal DCT-II of 8 values as a matrix."""
    angle = np.outer(np.arange(BLOCK), 2 * np.arange(BLOCK) + 1) * math.pi / (2 * BLOCK)
    matrix: np.ndarray = np.cos(angle) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (N, C, H, W) with each 8×8 block's DCT in whole multiples of the table."""
    height, width = planes.shape[-2:]
    dct = torch.from_numpy(_cosines()).to(planes)
    filled = F.pad(planes, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    blocks = filled.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).transpose(3, 4)  # (N, C, rows, columns, 8, 8)
    levels = _rounded(dct @ blocks @ dct.T / table)
    back = dct.T @ (levels * table) @ dct
    return back.transpose(3, 4).flatten(4, 5).flatten(2, 3)[..., :height, :width]


def _halved(planes: Tensor) -> Tensor:
    """Planes at half their height and width, by means of 2×2; an odd side's last row or column is repeated."""
    height, width = planes.shape[-2:]
    return F.avg_pool2d(F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def _rounded(values: Tensor) -> Tensor:
    """Values with a rounding that has a slope: round(t) + (t - round(t))³."""
    whole = values.detach().round()
    return whole + (values - whole) ** 3
