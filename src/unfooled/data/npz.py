"""Images and labels from an ``.npz`` file."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfooled.data.checks import describe, refuse
from unfooled.data.lazy import CHUNK, Lazy, is_large
from unfooled.data.mapped import Mapped, Place, formed, place
from unfooled.data.medical import classes_of
from unfooled.errors import Note, ParameterError

_IMAGES = ("images", "image", "x", "data", "inputs", "imgs")
_LABELS = ("labels", "label", "y", "targets", "target")
_CLASSES = ("classes", "class_names")
_SPLITS = ("test", "val", "valid", "validation", "train")
_CHANNELS = {1, 3, 4}


@dataclass(frozen=True)
class Arrays:
    """What one split of a file holds: images as in `Dataset`, labels (N,) int64, class names or ()."""

    images: Tensor | Lazy
    labels: Tensor
    classes: tuple[str, ...]
    split: str | None


def read_npz(path: Path, split: str | None) -> Arrays:
    """One split of a file.

    Images may be (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats in [0, 1], or (N, D) floats. Those that are
    many and stored uncompressed (`numpy.savez`) stay in the file.
    Channels are last where the last size is 1, 3 or 4 and the second is not. Labels are (N,) or (N, 1)
    integers.

    Args:
        path: the file.
        split: which split, where the file holds several (``x_test``, ``test_images`` ...); None takes the
            unnamed arrays, else the test split.

    Raises:
        DataError: the file is damaged, or its arrays are none of the above; says which and why.
        ParameterError: it does not hold that split.
    """
    with _opened(path) as archive:
        try:
            names = {name.lower(): name for name in archive.files}
            split, image_key, label_key = _choose(path, names, split)
            there = _mapped(path, archive, names[image_key])
            images = archive[names[image_key]] if there is None else there.map()
            labels = archive[names[label_key]]
            classes = next((archive[names[key]] for key in _CLASSES if key in names), None)
        except (
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            EOFError,
            OSError,
            KeyError,
            SyntaxError,
            MemoryError,
        ) as error:
            raise refuse(path, f"is damaged: {error}") from error
        except ValueError as error:
            if isinstance(error, ParameterError):
                raise
            raise refuse(path, f"cannot be read safely: {error}".rstrip(".")) from error
    last = _check_images(path, image_key, images)
    if there is not None and (images.dtype == np.uint8 or images.dtype.kind == "f"):
        pixels: Tensor | Lazy = Lazy.of(Mapped(there, last))
    else:
        pixels = formed(_bytes(path, images), last)
    whole = _labels(path, label_key, labels)
    return Arrays(pixels, whole, _names(classes) or classes_of(path, int(whole.max()) + 1), split)


def _mapped(path: Path, archive: Any, key: str) -> Place | None:
    """Where the images lie, if they are too large to be read and lie there uncompressed."""
    found = place(path, key if key in archive.zip.namelist() else f"{key}.npy")
    if found is not None and is_large(found.dtype.itemsize * int(np.prod(found.shape, dtype=np.int64))):
        return found
    return None


def _opened(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if not head.startswith(b"PK"):
            raise refuse(path, f"is not an npz file: it {describe(head)}")
        return np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise refuse(path, f"is damaged or cannot be read: {error}") from error


def _choose(path: Path, names: Mapping[str, str], split: str | None) -> tuple[str | None, str, str]:
    """The split and its two keys."""
    for wanted in [None, *_SPLITS] if split is None else [split.lower()]:
        images, labels = _key(names, _IMAGES, wanted), _key(names, _LABELS, wanted)
        if images and labels:
            return wanted, images, labels
    held = [known for known in _SPLITS if _key(names, _IMAGES, known) and _key(names, _LABELS, known)]
    if split is not None:
        has = f"it holds {', '.join(held)}" if held else "it has no splits; leave it out"
        raise ParameterError(f"{path} holds no split {split!r}: {has}.")
    keys = ", ".join(sorted(names.values())) or "nothing"
    raise refuse(path, f"holds {keys}; arrays named images and labels are needed (or x_test and y_test)")


def _key(names: Mapping[str, str], stems: tuple[str, ...], split: str | None) -> str | None:
    for stem in stems:
        for key in (f"{stem}_{split}", f"{split}_{stem}") if split else (stem,):
            if key in names:
                return key
    return None


def _check_images(path: Path, key: str, images: NDArray[Any]) -> bool:
    """Refuse what are no images; whether their channels come last."""
    if not len(images.shape) or not len(images):
        raise refuse(path, f"holds no images under {key!r}")
    if images.dtype.kind == "f":
        _check_floats(path, key, images)
    elif images.dtype != np.uint8:
        _check_bytes(path, key, images)
    if "mnist3d" in path.stem.lower():
        raise refuse(
            path, f"holds volumes of shape {images.shape[1:]} under {key!r}; images of two dimensions are needed"
        )
    if images.ndim == 4:
        return _channels_last(path, key, images.shape)
    if images.ndim != 3 and not (images.ndim == 2 and images.dtype.kind == "f"):
        what = "(N, H, W), (N, H, W, C), (N, C, H, W), or floats of shape (N, D), are needed"
        raise refuse(path, f"holds {images.dtype} of shape {images.shape} under {key!r}; {what}")
    return False


def _channels_last(path: Path, key: str, shape: tuple[int, ...]) -> bool:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and last:
        why = "where channels could be first or last; use an image folder for images this small"
        raise refuse(path, f"holds shape {shape} under {key!r}, {why}")
    return last


def _check_floats(path: Path, key: str, images: NDArray[Any]) -> None:
    low, high = np.inf, -np.inf
    for at in range(0, len(images), CHUNK):
        some = images[at : at + CHUNK]
        if not np.isfinite(some).all():
            row = at + int(np.flatnonzero(~np.isfinite(some).reshape(len(some), -1).all(1))[0])
            raise refuse(path, f"holds NaN or infinity in image {row} of {key!r}")
        low, high = min(low, float(some.min())), max(high, float(some.max()))
    if images.ndim == 2 or 0 <= low <= high <= 1:
        return
    cure = "divide them by 255" if low >= 0 and high <= 255 else "undo the normalisation"
    raise refuse(
        path,
        f"holds floats from {low:g} to {high:g} under {key!r}; images lie in [0, 1]: {cure} before saving",
    )


def _check_bytes(path: Path, key: str, images: NDArray[Any]) -> None:
    """Other integers may be bytes in truth."""
    if images.dtype.kind not in "iu" or images.min() < 0 or images.max() > 255:
        raise refuse(path, f"holds {images.dtype} under {key!r}; uint8 or floats in [0, 1] are needed")


def _bytes(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    """Other integers as the bytes that they are; the rest as it is."""
    if images.dtype.kind == "f" or images.dtype == np.uint8:
        return images
    warnings.warn(f"{path}: the images were {images.dtype} and were read as uint8.", Note, stacklevel=2)
    return images.astype(np.uint8)


def _labels(path: Path, key: str, labels: NDArray[Any]) -> Tensor:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "iub" and not (labels.sum(1) == 1).all():
        what = "several labels for one image are not what this package measures; train and save a set with one each"
        raise refuse(path, f"is a multi-label set (as ChestMNIST is): {key!r} has shape {labels.shape}; {what}")
    if labels.ndim == 2:
        raise refuse(path, f"holds labels of shape {labels.shape} under {key!r}; store labels.argmax(1) instead")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise refuse(path, f"holds {labels.dtype} of shape {labels.shape} under {key!r}; labels are (N,) integers")
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise refuse(path, f"holds the label {labels[row]} at position {row}; labels count from 0")
    return torch.from_numpy(labels.astype(np.int64))


def _names(classes: NDArray[Any] | None) -> tuple[str, ...]:
    return () if classes is None else tuple(str(name) for name in classes.ravel())
