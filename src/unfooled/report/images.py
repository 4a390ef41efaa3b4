"""Arrays in [0, 1] as pictures: 8 bits, and a perturbation that can be seen."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from unfooled.errors import DataError
from unfooled.results import Evaluation, Picture

PIXELS = 128  # images up to this size are shown with their pixels as squares


class Shot(NamedTuple):
    """What is shown of one picture, (H, W, 3) uint8 each, and the largest change of a component."""

    clean: np.ndarray
    change: np.ndarray
    adversarial: np.ndarray
    largest: float

    @property
    def factor(self) -> float:
        """What the perturbation is multiplied by, so that its largest component spans half the range."""
        return 0.5 / self.largest if self.largest else 1.0

    @property
    def scale_words(self) -> str:
        """The scale of the perturbation in words."""
        if not self.largest:
            return "no change"
        return f"±{_short(self.largest)} shown as full range"

    @property
    def title(self) -> str:
        """The perturbation with its factor."""
        return f"perturbation ×{_short(self.factor)}" if self.largest else "perturbation"


def shot(picture: Picture, arrays: Mapping[str, np.ndarray]) -> Shot:
    """The three images of a picture. Its perturbation is scaled about mid-grey, which means no change."""
    return between(arrays["clean"][picture.row], arrays["adversarial"][picture.row])


def between(clean: np.ndarray, adversarial: np.ndarray) -> Shot:
    """The same of two images (C, H, W) in [0, 1]."""
    change = adversarial.astype(np.float64) - clean
    largest = float(np.abs(change).max(initial=0.0))
    shown = 0.5 + change * (0.5 / largest if largest else 0.0)
    return Shot(as_bytes(clean), as_bytes(shown), as_bytes(adversarial), largest)


def check(arrays: Mapping[str, np.ndarray], evaluation: Evaluation) -> None:
    """Refuse arrays that are not the pictures of this evaluation."""
    for name in ("clean", "adversarial"):
        if name not in arrays:
            raise DataError(f"pictures.safetensors holds no array {name!r}; it needs 'clean' and 'adversarial'.")
        if arrays[name].ndim != 4 or 0 in arrays[name].shape:
            raise DataError(
                f"The array {name!r} of pictures.safetensors has shape {arrays[name].shape}, not (K, C, H, W)."
            )
        if not np.isfinite(arrays[name]).all():
            raise DataError(f"The array {name!r} of pictures.safetensors holds values that are not finite.")
    clean, adversarial = arrays["clean"].shape, arrays["adversarial"].shape
    if clean != adversarial:
        raise DataError(
            f"The arrays of pictures.safetensors differ in shape: clean {clean}, adversarial {adversarial}."
        )
    for gallery in evaluation.galleries:
        for picture in gallery.pictures:
            if not 0 <= picture.row < clean[0]:
                raise DataError(
                    f"Gallery {gallery.id!r} shows row {picture.row} of pictures.safetensors, which has {clean[0]} rows."
                )


def uri(image: np.ndarray) -> str:
    """The image as a PNG inside its own address."""
    grey = bool((image == image[..., :1]).all())
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def small(image: np.ndarray) -> bool:
    """Whether its pixels are shown as squares."""
    return bool(max(image.shape[:2]) <= PIXELS)


def as_bytes(image: np.ndarray) -> np.ndarray:
    """(C, H, W) floats as (H, W, 3) bytes; other than 1 or 3 channels are shown by their mean."""
    if image.shape[0] not in (1, 3):
        image = image.mean(axis=0, keepdims=True)
    whole = np.rint(np.clip(image.astype(np.float64), 0, 1) * 255).astype(np.uint8)
    return np.repeat(whole.transpose(1, 2, 0), 3 // whole.shape[0], axis=2)


def _short(value: float) -> str:
    """Two or three digits that matter: 0.10, 0.0314, 3.1, 16, 128."""
    if value >= 100:
        return f"{value:.0f}"
    text = f"{value:#.2g}"
    return f"{value:.2g}" if "e" not in f"{value:.2g}" and value >= 10 else text.rstrip(".")
