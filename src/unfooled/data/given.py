"""Whatever a caller hands over as data: a name, a folder, tensors, a data set or a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unfooled.data.base import Dataset
from unfooled.data.columns import IMAGES, LABELS, first
from unfooled.data.hub import wrapped
from unfooled.data.lazy import Held, Lazy, Source, is_large
from unfooled.data.mapped import Array
from unfooled.data.pictures import is_grey, plain
from unfooled.data.sizes import as_bytes
from unfooled.errors import DataError

COLLECTED = 2 << 30  # bytes of images at most that are collected from what cannot be asked for some of them again
AGAIN = 4  # images that are read twice, to see whether a data set gives the same each time


@dataclass(frozen=True, eq=False)
class Given:
    """Images and labels as they came, the names of the classes where they are known, and what to call the data."""

    images: Any
    labels: Any
    classes: tuple[str, ...]
    name: str


def given(data: Any) -> Given:
    """Read data: the name, folder or file of a set; (images, labels); a `Dataset`, of torch or Hugging Face too; a loader.

    A torch data set gives (image, label) for each index, a DataLoader batches of both. A data set that is large is read
    as its images are asked for; a loader is read whole, so it must not be. Raises `DataError`.
    """
    if isinstance(data, str | Path):
        from unfooled.data import load

        data = load(data)
    if type(data).__module__.partition(".")[0] == "datasets":
        data = wrapped(data)
    if isinstance(data, Dataset):
        return Given(data.floats(), data.labels, data.classes, data.name)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Given(_held(data[0]), data[1], (), f"{_length(data[1])} images given")
    if isinstance(data, torch.utils.data.DataLoader):
        return _collected(data, f"{type(data.dataset).__name__} by a DataLoader", data.dataset)
    if isinstance(data, torch.utils.data.IterableDataset):
        return _collected(map(_batch_of_one, data), type(data).__name__, data)
    listed = (
        hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Tensor | np.ndarray | dict)
    )
    if isinstance(data, torch.utils.data.Dataset) or listed:
        return _listed(data)
    raise DataError(
        "'data' must be (images, labels), a Dataset, a torch Dataset or DataLoader, or a name such as 'mnist:test'. "
        f"Got {type(data).__name__} instead."
    )


def _length(labels: Any) -> int:
    return len(labels) if hasattr(labels, "__len__") else 0


def _held(images: Any) -> Any:
    """Large images of bytes, and what numpy maps from a file, are made floats as they are asked for."""
    if isinstance(images, np.memmap) and images.ndim > 1 and images.dtype.isnative and is_large(images.nbytes):
        return Lazy.of(Array(images))
    if isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim > 1 and is_large(images.nbytes):
        return Lazy.of(Held(images))
    return images


class Listed(Source):
    """A data set that gives (image, label) for each index, asked for the images again when their rows are.

    content:  the digest of all its images, taken when they were gone through first.
    """

    def __init__(self, data: Any, first: Tensor, count: int, content: bytes) -> None:
        self.data, self.content = data, content
        self.shape, self.dtype = (count, *first.shape), first.dtype

    def read(self, rows: Tensor) -> Tensor:
        """Ask for some of them."""
        return torch.stack([_item(self.data, row, self.shape[1:])[0] for row in rows.tolist()])

    def digest(self, rows: Tensor) -> bytes:
        """Of all images, and which of them these are."""
        return hashlib.sha256(self.content + rows.numpy().tobytes()).digest()


def _listed(data: Any) -> Given:
    """Go through a data set once, for its labels; keep the images unless they are many."""
    count, classes = len(data), _classes(data)
    if not count:
        raise DataError("There are no images to work on.")
    kept: list[Tensor] | None = []
    labels, content, first_image = [], hashlib.sha256(), _item(data, 0, None)[0]
    for row in range(count):
        image, label = _item(data, row, tuple(first_image.shape))
        labels.append(label)
        content.update(image.contiguous().numpy().data)
        if kept is not None:
            kept.append(image)
            kept = None if is_large(len(kept) * image.nbytes) else kept
    name = f"{type(data).__name__}, {count} images"
    if kept is not None:
        return Given(torch.stack(kept), torch.tensor(labels), classes, name)
    images = Lazy.of(Listed(data, first_image, count, content.digest()))
    if not torch.equal(images[:AGAIN], images[:AGAIN]):
        raise DataError(
            f"{type(data).__name__} gives other images each time that it is asked (a random transform?). Give it the "
            "transform of an evaluation: without random crops, flips or colours."
        )
    return Given(images, torch.tensor(labels), classes, name)


def _item(data: Any, row: int, shape: tuple[int, ...] | None) -> tuple[Tensor, int]:
    """The image and the label at an index; `shape` is that of the first image."""
    image, label = _pair(data[row])
    pixels = _pixels(image, f"Image {row} of the data set")
    if shape is not None and tuple(pixels.shape) != shape:
        raise DataError(
            f"The images of the data set have different shapes: image 0 has {shape}, image {row} has "
            f"{tuple(pixels.shape)}. Resize or crop them to one."
        )
    value = np.asarray(label).reshape(-1)
    if len(value) != 1 or value.dtype.kind not in "iub":
        raise DataError(f"The label of image {row} of the data set must be one integer. Got {label!r}.")
    return pixels, int(value[0])


def _pixels(image: Any, what: str) -> Tensor:
    """A tensor or an array as it is; a Pillow image as uint8 (C, H, W)."""
    if isinstance(image, Image.Image):
        return as_bytes(plain(image, "L" if is_grey(image) else "RGB", what))
    try:
        return image.detach().cpu() if isinstance(image, Tensor) else torch.as_tensor(np.asarray(image))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be a tensor, an array or a Pillow image. Got {type(image).__name__}.") from error


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        names = [str(name) for name in item]
        image, label = first(("pixel_values", *IMAGES), names), first(LABELS, names)
        if image is not None and label is not None:
            return item[image], item[label]
        raise DataError(f"The data set must give (image, label) pairs. It gave a mapping with {', '.join(names)}.")
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise DataError(f"The data set must give (image, label) pairs. It gave {type(item).__name__}.")


def _batch_of_one(item: Any) -> tuple[Tensor, Tensor]:
    image, label = _pair(item)
    return _pixels(image, "An image of the data set")[None], torch.as_tensor(label).reshape(1)


def _classes(source: Any) -> tuple[str, ...]:
    classes = getattr(source, "classes", ()) or ()
    return tuple(map(str, classes)) if isinstance(classes, Sequence) else ()


def _collected(batches: Iterable[Any], name: str, source: Any) -> Given:
    """Everything that an iterable gives, up to a size."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    size = 0
    for batch in batches:
        some, those = _pair(batch)
        images.append(torch.as_tensor(some))
        labels.append(torch.as_tensor(those).reshape(len(images[-1]), -1).squeeze(1))
        size += images[-1].nbytes
        if size > COLLECTED:
            raise DataError(
                f"{name} gives more than {COLLECTED / 2**30:g} GiB of images, and it cannot be asked for some of them "
                "again. Give the data set itself, one with data[i] and len(data): its images are read as they are needed."
            )
    if not images:
        raise DataError("There are no images to work on.")
    if len({part.shape[1:] for part in images}) > 1:
        raise DataError("The images of the data set have different shapes. Resize or crop them to one.")
    return Given(torch.cat(images), torch.cat(labels), _classes(source), f"{name}, {sum(map(len, labels))} images")
