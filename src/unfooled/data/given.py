"""Whatever a caller hands over as data: a name, a folder, tensors, a data set or a loader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfooled.data.base import Dataset
from unfooled.errors import DataError


@dataclass(frozen=True, eq=False)
class Given:
    """Images and labels as they came, the names of the classes where they are known, and what to call the data."""

    images: Any
    labels: Any
    classes: tuple[str, ...]
    name: str


def given(data: Any) -> Given:
    """Read data: the name, folder or file of a set; (images, labels); a `Dataset`; a torch Dataset or DataLoader.

    A torch Dataset gives (image, label) for each index, a DataLoader batches of both. Raises `DataError`.
    """
    if isinstance(data, str | Path):
        from unfooled.data import load

        data = load(data)
    if isinstance(data, Dataset):
        return Given(data.floats(), data.labels, data.classes, data.name)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Given(data[0], data[1], (), f"{_length(data[1])} images given")
    if isinstance(data, torch.utils.data.DataLoader):
        return _collected(data, f"{type(data.dataset).__name__} by a DataLoader", data.dataset)
    listed = (
        hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Tensor | np.ndarray | dict)
    )
    if isinstance(data, torch.utils.data.Dataset) or listed:
        return _collected(_pairs(data), type(data).__name__, data)
    raise DataError(
        "'data' must be (images, labels), a Dataset, a torch Dataset or DataLoader, or a name such as 'mnist:test'. "
        f"Got {type(data).__name__} instead."
    )


def _length(labels: Any) -> int:
    return len(labels) if hasattr(labels, "__len__") else 0


def _pairs(data: Any) -> Iterable[tuple[Tensor, Tensor]]:
    for at in range(len(data)):
        image, label = _pair(data[at])
        yield (
            torch.as_tensor(np.asarray(image) if not isinstance(image, Tensor) else image)[None],
            torch.as_tensor([int(label)]),
        )


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise DataError(f"The data set must give (image, label) pairs. It gave {type(item).__name__}.")


def _collected(batches: Iterable[Any], name: str, source: Any) -> Given:
    images, labels = [], []
    for batch in batches:
        some, those = _pair(batch)
        images.append(torch.as_tensor(some))
        labels.append(torch.as_tensor(those))
    if not images:
        raise DataError("There are no images to work on.")
    if len({part.shape[1:] for part in images}) > 1:
        raise DataError("The images of the data set have different shapes. Resize or crop them to one.")
    classes = getattr(source, "classes", ()) or ()
    return Given(
        torch.cat(images), torch.cat(labels), tuple(map(str, classes)), f"{name}, {sum(map(len, labels))} images"
    )
