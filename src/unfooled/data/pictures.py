"""Images as they lie in files: their headers are read first, their pixels when they are asked for."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unfooled.data.lazy import Lazy, Source, is_large
from unfooled.data.sizes import Size, as_bytes, fit_image, fitted
from unfooled.errors import DataError, Note

_GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I"}
_TURNED = {5, 6, 7, 8}  # values of EXIF's orientation that change height and width over
_ORIENTATION = 0x0112
_EARLY = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where a PNG's header may have it


class Files(ABC):
    """Encoded images by number. Abstract; kinds are final.

    where:  what all of them are called, for messages about several.
    """

    where: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, row: int) -> str:
        """What one image is called in messages about several."""

    @abstractmethod
    def content(self, row: int) -> bytes | Path:
        """Its encoded bytes, or the file of them."""

    def full(self, row: int) -> str:
        """What one image is called when nothing else is."""
        return f"{self.where}: {self.name(row)}"


@dataclass(frozen=True)
class OnDisk(Files):
    """Files of one folder: their paths, and what each is called."""

    where: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """Its path as the user gave it."""
        return self.names[row]

    def content(self, row: int) -> Path:
        """Its path."""
        return self.paths[row]


def load_pictures(files: Files, resize: Size | None, crop: Size | None) -> Tensor | Lazy:
    """Images (N, C, H, W) as uint8; a `Lazy` where they are many.

    RGB unless every image is grey; transparency lies on white; EXIF orientation is applied; of an animation the first
    frame is taken.

    Raises:
        DataError: an image cannot be read, or sizes differ; says which.
    """
    found = [_header(files, row, resize, crop) for row in range(len(files))]
    size = found[0].size
    for row, other in enumerate(found):
        if other.size != size:
            raise DataError(
                f"{files.where} holds images of different sizes: {files.name(0)} is {_said(size)}, {files.name(row)} is "
                f"{_said(other.size)} (height × width). Set --resize (or --crop) to give them one."
            )
    deep = sum(header.deep for header in found)
    if deep:
        warnings.warn(f"{files.where}: {deep} images of 16 bits were reduced to 8.", Note, stacklevel=4)
    source = Pictures(files, all(header.grey for header in found), size, resize, crop)
    images = Lazy.of(source)
    return images if is_large(math.prod(images.shape)) else images.whole()


class Pictures(Source):
    """Files that are opened when their rows are asked for.

    grey:          whether one channel is to be read of them, instead of three.
    size:          (height, width) of each, resized and cropped.
    resize, crop:  as `unfooled.data.load`.
    """

    def __init__(self, files: Files, grey: bool, size: tuple[int, int], resize: Size | None, crop: Size | None) -> None:
        self.files, self.mode, self.resize, self.crop = files, "L" if grey else "RGB", resize, crop
        self.shape = (len(files), 1 if grey else 3, *size)
        self.dtype = torch.uint8

    def read(self, rows: Tensor) -> Tensor:
        """Decode some of them."""
        images = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        for at, row in enumerate(rows.tolist()):
            what = self.files.full(row)
            pixels = as_bytes(fit_image(_decoded(self.files, row, self.mode), self.resize, self.crop, what))
            if pixels.shape != images.shape[1:]:
                raise DataError(
                    f"{what} is {_said(tuple(pixels.shape[1:]))}, where its header says {_said(self.shape[2:])} "
                    "(height × width). Save it anew."
                )
            images[at] = pixels
        return images

    def digest(self, rows: Tensor) -> bytes:
        """Of the files as they lie there, which is cheaper than of their pixels; and of what is made of them."""
        whole = hashlib.sha256(repr((self.mode, self.resize, self.crop)).encode())
        for row in rows.tolist():
            try:
                held = self.files.content(row)
                whole.update(hashlib.sha256(held.read_bytes() if isinstance(held, Path) else held).digest())
            except OSError as error:
                raise DataError(f"{self.files.full(row)} cannot be read: {error}.") from error
        return whole.digest()


@dataclass(frozen=True)
class _Header:
    grey: bool
    deep: bool
    size: tuple[int, int]


def _header(files: Files, row: int, resize: Size | None, crop: Size | None) -> _Header:
    """What a file says of its image before any pixel; the size is that after `resize` and `crop`."""
    what = files.full(row)
    with _opened(files, row) as image:
        width, height = image.size
        if _is_turned(image):
            width, height = height, width
        return _Header(image.mode in _GREY, image.mode.startswith("I"), fitted(height, width, resize, crop, what))


def _is_turned(image: Image.Image) -> bool:
    if image.format == "PNG" and not any(key in image.info for key in _EARLY):
        return False  # asking would decode it
    try:
        return image.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # Pillow's parsers raise many kinds on damaged data; decoding then says what is wrong
        return False


def _said(size: tuple[int, ...]) -> str:
    return f"{size[0]}×{size[1]}"


def _opened(files: Files, row: int) -> Image.Image:
    held, what = files.content(row), files.full(row)
    try:
        return Image.open(held if isinstance(held, Path) else io.BytesIO(held))
    except UnidentifiedImageError as error:
        raise DataError(f"{what} is not an image that can be read.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} cannot be read: {error}.") from error


def _decoded(files: Files, row: int, mode: str) -> Image.Image:
    """The image in `mode`, upright, opaque and of 8 bits."""
    what = files.full(row)
    with _opened(files, row) as image:
        try:
            image.load()
            return plain(image, mode, what)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds on damaged files
            raise DataError(f"{what} is damaged: {error}.") from error


def plain(image: Image.Image, mode: str, what: str) -> Image.Image:
    """An image that is open, upright, opaque, of 8 bits and in `mode` (L or RGB); `what` names it in errors."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _from_16_bits(image, what)
    return _opaque(image).convert(mode)


def is_grey(image: Image.Image) -> bool:
    """Whether one channel holds all of it."""
    return image.mode in _GREY


def _from_16_bits(image: Image.Image, what: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{what} has values beyond 16 bits; save it with 8 or 16 bits.")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))  # Pillow's own conversion would clip at 255


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image
