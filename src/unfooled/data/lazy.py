"""Images that are read when their rows are asked for, so that a large data set never lies in memory whole."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unfooled.data.sizes import Size, fit_batch, fitted, without_size

LIMIT = 256 << 20  # bytes as stored: what is larger is left where it is
CHUNK = 256  # images that are read at a time where all are gone through


def is_large(size: int) -> bool:
    """Whether images of so many bytes are to stay where they are."""
    return size > LIMIT


class Rows(Protocol):
    """What a tensor of images and a `Lazy` have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Tensor: ...


class Source(ABC):
    """Where images come from, each by its number. Abstract; sources are final.

    shape:  (N, *shape) of all of them.
    dtype:  uint8, or floating.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def read(self, rows: Tensor) -> Tensor:
        """The images (M, *shape) of some rows (M,), in their order. Raises `DataError`, which names the image."""

    def digest(self, rows: Tensor) -> bytes:
        """What the content of these rows is recognised by: of the images as stored, where that is cheaper."""
        content = hashlib.sha256()
        for some in rows.split(CHUNK):
            content.update(self.read(some).contiguous().numpy().data)
        return content.digest()


@dataclass(frozen=True, eq=False)
class Lazy:
    """Images (N, *shape) of a source. Asked for rows, it reads them and gives a tensor; it keeps none.

    rows:    (N,) the numbers of the images in the source, in this order.
    floats:  the floating dtype that they are given in: uint8 divided by 255; None: as they are stored.
    """

    source: Source
    rows: Tensor
    floats: torch.dtype | None = None

    @classmethod
    def of(cls, source: Source) -> Lazy:
        """All images of a source."""
        return cls(source, torch.arange(source.shape[0]))

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape)."""
        return (len(self.rows), *self.source.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """What the rows come as."""
        return self.floats or self.source.dtype

    @property
    def ndim(self) -> int:
        """The number of sizes in `shape`."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """Whether the rows come as floats."""
        return self.dtype.is_floating_point

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Tensor:
        """Read: one image by an int, several by a slice or by a tensor of numbers or bools."""
        rows = self.rows[index]
        if rows.dim() == 0:
            return self._read(rows[None])[0]
        return self._read(rows)

    def _read(self, rows: Tensor) -> Tensor:
        images = self.source.read(rows) if len(rows) else torch.empty((0, *self.shape[1:]), dtype=self.source.dtype)
        return images if self.floats is None else as_floats(images, self.floats)

    def take(self, index: slice | Tensor) -> Lazy:
        """Some of them, still unread."""
        return Lazy(self.source, self.rows[index], self.floats)

    def to_floats(self, dtype: torch.dtype) -> Lazy:
        """The same as floats: uint8 divided by 255."""
        return Lazy(self.source, self.rows, dtype)

    def chunks(self) -> Iterator[Tensor]:
        """All of them, some at a time."""
        return (self._read(some) for some in self.rows.split(CHUNK) if len(some))

    def whole(self) -> Tensor:
        """All of them, in memory."""
        images = torch.empty(self.shape, dtype=self.dtype)
        for at, some in zip(range(0, len(self), CHUNK), self.chunks(), strict=True):
            images[at : at + len(some)] = some
        return images

    def digest(self) -> bytes:
        """What their content is recognised by."""
        return hashlib.sha256(self.source.digest(self.rows) + repr((self.shape, self.dtype)).encode()).digest()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.whole().numpy(), dtype)


def as_floats(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images as floats: uint8 divided by 255, floats as they are."""
    return images.to(dtype).div_(255) if images.dtype == torch.uint8 else images.to(dtype)


class Held(Source):
    """Images in memory, or in a file that the system maps into it: a tensor (N, *shape).

    Large images of bytes are handed on as floats in this way, since all of them as floats need four times as much.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.shape, self.dtype = tuple(images.shape), images.dtype

    def read(self, rows: Tensor) -> Tensor:
        """A copy of some rows."""
        return self.images[rows.to(self.images.device)]


class Fitted(Source):
    """The images of another source, resized and cropped as they are read; `what` names them in errors."""

    def __init__(self, inner: Lazy, resize: Size | None, crop: Size | None, what: str) -> None:
        self.inner, self.resize, self.crop, self.what = inner, resize, crop, what
        if len(inner.shape) != 4:
            raise without_size(what, inner.shape)
        n, channels, height, width = inner.shape
        self.shape = (n, channels, *fitted(height, width, resize, crop, what))
        self.dtype = inner.dtype

    def read(self, rows: Tensor) -> Tensor:
        """Some rows, of the size wanted."""
        return fit_batch(self.inner[rows], self.resize, self.crop, self.what)

    def digest(self, rows: Tensor) -> bytes:
        """Of the inner content and of the sizes."""
        return self.inner.take(rows).digest() + repr((self.resize, self.crop)).encode()
