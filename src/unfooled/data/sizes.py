"""Resizing and cropping, of one Pillow image or of a batch."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unfooled.errors import DataError, must_be

Size = int | tuple[int, int]
_BATCH = 512


def check_size(name: str, size: Size | None) -> None:
    """Refuse what is not a positive int or (height, width).

    Raises:
        ParameterError: so it is; `name` is the parameter's.
    """
    sides = size if isinstance(size, tuple) else (size, size)
    right = len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
    if size is not None and (not right or isinstance(size, bool)):
        raise must_be("load", name, "an int > 0 or two of them (height, width)", size)


def target(height: int, width: int, resize: Size) -> tuple[int, int]:
    """The (height, width) after `resize`: exactly, or with the shorter side so long, as torchvision."""
    if isinstance(resize, tuple):
        return resize
    if height <= width:
        return resize, int(resize * width / height)
    return int(resize * height / width), resize


def corner(height: int, width: int, crop: tuple[int, int], what: str) -> tuple[int, int]:
    """(top, left) of a centre crop, rounded as torchvision does.

    Raises:
        DataError: the image is smaller than the crop.
    """
    if height < crop[0] or width < crop[1]:
        size = f"{height}×{width} (height × width)"
        raise DataError(f"{what} is {size}, smaller than the crop {crop[0]}×{crop[1]}. Set --resize as well.")
    return round((height - crop[0]) / 2), round((width - crop[1]) / 2)


def pair(crop: Size) -> tuple[int, int]:
    """A crop's (height, width)."""
    return crop if isinstance(crop, tuple) else (crop, crop)


def fitted(height: int, width: int, resize: Size | None, crop: Size | None, what: str) -> tuple[int, int]:
    """The (height, width) of an image of this size after `fit_image`, without the image.

    Raises:
        DataError: it is smaller than the crop.
    """
    if resize is not None:
        height, width = target(height, width, resize)
    if crop is not None:
        corner(height, width, pair(crop), what)
        height, width = pair(crop)
    return height, width


def fit_image(image: Image.Image, resize: Size | None, crop: Size | None, what: str) -> Image.Image:
    """One image resized (bilinear with antialias), then cropped at the centre. `what` names it in errors."""
    if resize is not None:
        height, width = target(image.height, image.width, resize)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if crop is not None:
        height, width = pair(crop)
        top, left = corner(image.height, image.width, (height, width), what)
        image = image.crop((left, top, left + width, top + height))
    return image


def fit_batch(images: Tensor, resize: Size | None, crop: Size | None, what: str) -> Tensor:
    """The same for a batch (N, C, H, W); uint8 stays uint8.

    Raises:
        DataError: these are not images, or are smaller than the crop.
    """
    if resize is None and crop is None:
        return images
    if images.ndim != 4:
        raise without_size(what, tuple(images.shape))
    if resize is not None:
        size = target(images.shape[2], images.shape[3], resize)
        images = torch.cat([_resized(images[k : k + _BATCH], size) for k in range(0, len(images), _BATCH)])
    if crop is not None:
        height, width = pair(crop)
        top, left = corner(images.shape[2], images.shape[3], (height, width), what)
        images = images[:, :, top : top + height, left : left + width].contiguous()
    return images


def without_size(what: str, shape: tuple[int, ...]) -> DataError:
    """The complaint about rows that can be neither resized nor cropped."""
    return DataError(f"{what} holds no images but rows of {shape[1]} numbers; they have no size.")


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    floats = images.to(torch.float64 if images.dtype == torch.float64 else torch.float32)
    big = torch.nn.functional.interpolate(floats, size, mode="bilinear", antialias=True)
    if images.dtype == torch.uint8:
        return big.round().clamp(0, 255).to(torch.uint8)
    return big.clamp(0, 1).to(images.dtype)


def as_bytes(image: Image.Image) -> Tensor:
    """A grey or RGB image as uint8 (C, H, W)."""
    pixels = np.array(image, dtype=np.uint8)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
