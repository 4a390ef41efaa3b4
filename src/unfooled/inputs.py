"""What a caller hands to a verb, checked once and brought into one form.

Shape and dtype are judged here, with the cure in the message; the model's own opinion (number of classes, channels)
comes with its first pass.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .data.lazy import Lazy
from .errors import DataError, Note
from .norms import clip
from .threats import Threat


@dataclass
class Notes:
    """What was converted or is doubtful: collected for the result, and raised as warnings."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Say a thing once."""
        if text not in self.texts:
            self.texts.append(text)
            warnings.warn(text, Note, stacklevel=4)


def tensor(value: Any, name: str) -> Tensor:
    """A tensor from a tensor, an array or nested lists."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Lazy):
        return value.whole()
    try:
        return torch.from_numpy(np.ascontiguousarray(np.asarray(value)))
    except (TypeError, ValueError) as error:
        raise DataError(f"The {name} must be a tensor or an array of numbers. Got {type(value).__name__}.") from error


def checked_images(
    value: Any, threat: Threat, dtype: torch.dtype | None, notes: Notes, index: Tensor | None = None
) -> Tensor:
    """Float images (N, *shape) inside the threat's bounds; `index` (N,) says which image each is, None: its place.

    uint8 becomes float in [0, 1] where those are the bounds, with a note; half precision becomes float32, because
    rounding would hide small changes; `dtype` float64 (a model's) widens. Raises `DataError`.
    """
    images = tensor(value, "images")
    if images.dim() < 2:
        raise DataError(f"Images must be (N, *shape), a batch of them. Got shape {tuple(images.shape)}.")
    if not len(images):
        raise DataError("There are no images to work on.")
    if images.dtype == torch.uint8 and threat.unit_range:
        notes.add("uint8 images were divided by 255, since the threat's bounds are (0, 1).")
        images = images.float() / 255
    elif not images.is_floating_point():
        raise DataError(
            f"Images must be floats inside the threat's bounds. Got {images.dtype}: convert with images.float(), "
            "divided by 255 for bounds (0, 1)."
        )
    if images.dtype in (torch.float16, torch.bfloat16):
        notes.add(f"{images.dtype} images were converted to float32.")
        images = images.float()
    _judge(images, threat, torch.arange(len(images)) if index is None else index)
    if dtype == torch.float64 and images.dtype != dtype:
        notes.add("float32 images were converted to float64, the model's dtype.")
        images = images.double()
        images = clip(images.flatten(1), threat.with_mask(None).box(images)).view_as(images)
    return images.contiguous().clone() if images.is_inference() else images.contiguous()


class Streamed:
    """What `checked_images` makes of images that are too many to lie in memory: of some rows, when they are asked for."""

    def __init__(self, images: Lazy, threat: Threat, dtype: torch.dtype | None, notes: Notes) -> None:
        self.images, self.threat, self.wanted, self.notes = images, threat, dtype, notes
        if images.ndim < 2 or not len(images):
            checked_images(images.whole(), threat, dtype, notes)  # which says what is wrong
        self.shape = images.shape
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        index = torch.arange(len(self))[rows]
        return checked_images(self.images[index], self.threat, self.wanted, self.notes, index)

    def digest(self) -> bytes:
        """What the content of all of them is recognised by."""
        return self.images.digest()


def prepared(value: Any, threat: Threat, dtype: torch.dtype | None, notes: Notes) -> Tensor | Streamed:
    """Images as `checked_images` gives them; a `Lazy` stays unread."""
    if isinstance(value, Lazy):
        return Streamed(value, threat, dtype, notes)
    return checked_images(value, threat, dtype, notes)


def _judge(images: Tensor, threat: Threat, index: Tensor) -> None:
    bad = ~torch.isfinite(images).flatten(1).all(1)
    if bool(bad.any()):
        raise DataError(f"Image {int(index[bad.cpu()][0])} holds NaN or inf ({int(bad.sum())} such images in all).")
    low, high = threat.with_mask(None).box(images)
    flat = images.flatten(1)
    outside = ((flat < low) | (flat > high)).any(1)
    if bool(outside.any()):
        got = f"[{float(images.min()):g}, {float(images.max()):g}]"
        allowed = f"[{float(low.min()):g}, {float(high.max()):g}]"
        cure = f"give the threat their true range, e.g. {type(threat).__name__}(eps, bounds=(low, high))"
        if threat.unit_range and float(images.min()) >= 0 and float(images.max()) <= 255:
            cure = "divide them by 255"
        elif threat.unit_range:
            cure = (
                "attack before normalisation: put it into the model with unfooled.models.Normalized(model, mean, std)"
            )
        raise DataError(
            f"Image {int(index[outside.cpu()][0])} lies outside the threat's bounds {allowed}: the images span {got}. "
            f"Cure: {cure}."
        )


def checked_labels(value: Any, count: int, name: str = "labels", least: int | None = 0) -> Tensor:
    """Labels (N,) int64, not below `least`. Raises `DataError`."""
    labels = tensor(value, name)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(f"The {name} must be integers. Got {labels.dtype}.")
    if labels.shape != (count,):
        raise DataError(f"The {name} must have shape ({count},), one for each image. Got {tuple(labels.shape)}.")
    labels = labels.to(torch.int64)
    if least is not None and count and int(labels.min()) < least:
        at = int((labels < 0).nonzero()[0])
        raise DataError(f"The {name} must be class indices from 0. Got {int(labels[at])} at example {at}.")
    return labels


def check_classes(labels: Tensor, classes: int, example: Tensor, name: str = "labels") -> None:
    """Raise `DataError` if a label is beyond the model's classes; `example` (N,) says what each is called."""
    beyond = (labels >= classes).nonzero()
    if len(beyond):
        at = int(beyond[0])
        raise DataError(
            f"The {name} must be below {classes}, the number of the model's classes. "
            f"Got {int(labels[at])} at example {int(example[at])}."
        )
