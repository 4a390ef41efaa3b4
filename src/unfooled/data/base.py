"""`Dataset`: images, labels and where they came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unfooled.data.lazy import Held, Lazy, as_floats, is_large
from unfooled.errors import DataError, must_be

_RANGE = re.compile(r"\[(\d+):\d+\]$")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, kept as they were stored.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255 or floating in [0, 1]; or (N, D) floating, of any range. A large set's
            are a `Lazy`: rows asked for are read then, as a tensor, and nothing is kept.
        labels: (N,) int64.
        classes: the name of each class by its index; empty where the source does not say.
        name: the canonical text of what was loaded, e.g. ``mnist:test[0:1000]``.
        source: where it came from, for the report.
        files: for image folders, the path of each image relative to the folder.

    Raises:
        DataError: shapes or dtypes are not the above.
    """

    images: Tensor | Lazy
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    source: str
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 and not self.images.is_floating_point():
            raise DataError(f"The images of {self.name} are {self.images.dtype}; uint8 or floats are needed.")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DataError(
                f"The labels of {self.name} are {self.labels.dtype} of shape {tuple(self.labels.shape)}; "
                "int64 of shape (N,) are needed."
            )
        if len(self.images) != len(self.labels):
            raise DataError(f"{self.name} has {len(self.images)} images but {len(self.labels)} labels.")
        if self.files and len(self.files) != len(self.labels):
            raise DataError(f"{self.name} has {len(self.labels)} labels but {len(self.files)} file names.")

    def floats(self, dtype: torch.dtype | None = None) -> Tensor | Lazy:
        """The images as floats: uint8 divided by 255, floats as they are. Of a large set, still unread.

        Args:
            dtype: the floating dtype of the result; None: float32, or float64 for rows (N, D) of it, whose own range
                may end at a value that float32 rounds beyond it.
        """
        images = self.images
        rows = images.ndim == 2 and images.dtype == torch.float64
        dtype = dtype or (torch.float64 if rows else torch.float32)
        if isinstance(images, Tensor) and images.dtype == torch.uint8 and is_large(images.nbytes):
            images = Lazy.of(Held(images))
        return images.to_floats(dtype) if isinstance(images, Lazy) else as_floats(images, dtype)

    def whole(self, dtype: torch.dtype | None = None) -> Tensor:
        """The images as floats, all of them in memory: for what works on a tensor, such as `attack` and training.

        Args:
            dtype: the floating dtype of the result; None: float32, or float64 for rows (N, D) of it, whose own range
                may end at a value that float32 rounds beyond it.
        """
        images = self.floats(dtype)
        return images.whole() if isinstance(images, Lazy) else images

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Dataset:
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise must_be("Dataset[...]", "rows", "a slice without a step, such as [0:100]", rows)
        first, last, _ = rows.indices(len(self))
        last = max(first, last)
        if (first, last) == (0, len(self)):
            return self
        images = self.images
        return replace(
            self,
            images=images.take(slice(first, last)) if isinstance(images, Lazy) else images[first:last],
            labels=self.labels[first:last],
            files=self.files[first:last],
            name=_renamed(self.name, first, last),
        )


def _renamed(name: str, first: int, last: int) -> str:
    """The name of a part of what `name` names: a range of a range counts from the whole set's start."""
    known = _RANGE.search(name)
    if known is None:
        return f"{name}[{first}:{last}]"
    start = int(known[1])
    return f"{name[: known.start()]}[{start + first}:{start + last}]"
