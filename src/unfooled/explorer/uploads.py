"""An uploaded file as a picture of the model's size, or why not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import DataError

BYTES = 10 << 20
PIXELS = 40_000_000  # a picture of a good camera; more, and unpacking it is the attack
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def read(path: Path, shape: tuple[int, int, int], invert: bool = False) -> Tensor:
    """A picture file as (C, H, W) floats in [0, 1]: upright, on white, its middle cut to the shape's proportions.

    invert:  light for dark, as data sets of white things on black need it.

    Raises `DataError` in words for whoever sent the file.
    """
    if path.stat().st_size > BYTES:
        raise DataError(
            f"The file is too large: {path.stat().st_size / 2**20:.1f} MB, and {BYTES >> 20} MB is the most."
        )
    channels, height, width = shape
    picture = ImageOps.fit(
        _opened(path).convert("L" if channels == 1 else "RGB"), (width, height), Image.Resampling.BILINEAR
    )
    array = np.asarray(picture, dtype=np.float32) / 255
    image = torch.from_numpy(array).reshape(height, width, channels).permute(2, 0, 1).contiguous()
    return 1 - image if invert else image


def _opened(path: Path) -> Image.Image:
    """The picture upright on white, as RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged here, before anything is unpacked
            with Image.open(path, formats=FORMATS) as found:
                wide, high = found.size
                if wide * high > PIXELS:
                    raise DataError(
                        f"The picture is too large: {wide} × {high} pixels, and {PIXELS // 10**6} million is the most."
                    )
                upright = ImageOps.exif_transpose(_eight_bits(found)).convert("RGBA")
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"The picture is too large: {PIXELS // 10**6} million pixels is the most.") from None
    except UnidentifiedImageError:
        raise DataError(f"This is no picture that can be read. Send one of {', '.join(FORMATS)}.") from None
    except Exception:  # decoders raise whatever a broken file leads them to
        raise DataError(
            "The picture is broken: it ends too early, or is damaged. Save it again, and send that."
        ) from None
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits a pixel in 8; any other as it is."""
    if not picture.mode.startswith("I;16") and picture.mode != "I":
        return picture
    return Image.fromarray((np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
