"""Arrays that stay in their file: members of an ``.npz`` that are stored as they are, and numpy's memory maps."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from unfooled.data.lazy import Source

_LOCAL = struct.Struct(
    "<4s22xHH"
)  # of a zip's local header: its signature, the lengths of the name and of the extra field


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file, and in which form."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def map(self) -> NDArray[Any]:
        """The array; the system reads of it what is touched."""
        found: NDArray[Any] = np.memmap(
            self.path, self.dtype, "r", self.offset, self.shape, "F" if self.fortran else "C"
        )
        return found


def place(path: Path, member: str) -> Place | None:
    """Where a member of an ``.npz`` lies; None where it is compressed, or holds no plain numbers."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        file.seek(info.header_offset)
        signature, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        if signature != b"PK\3\4":
            raise zipfile.BadZipFile(f"{member} has no header where the directory says")
        start = info.header_offset + _LOCAL.size + name + extra
        file.seek(start)
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if dtype.hasobject or file.tell() - start + size > info.file_size:
            return None
        return Place(path, file.tell(), shape, dtype, fortran)


class Mapped(Source):
    """Images (N, …) of an array in a file, brought into the form of a `Dataset`'s as they are read.

    last:  whether their channels come last.
    """

    def __init__(self, where: Place, last: bool) -> None:
        self.where, self.last = where, last
        example = self._formed(np.empty((1, *where.shape[1:]), where.dtype))
        self.shape, self.dtype = (where.shape[0], *example.shape[1:]), example.dtype

    def read(self, rows: Tensor) -> Tensor:
        """Copy some rows out of the file."""
        return self._formed(self.where.map()[rows.numpy()])

    def _formed(self, images: NDArray[Any]) -> Tensor:
        return formed(images, self.last)


def formed(images: NDArray[Any], last: bool) -> Tensor:
    """Images (N, H, W), (N, H, W, C), (N, C, H, W) or (N, D) as a tensor (N, C, H, W) or (N, D)."""
    if images.ndim == 3:
        images = images[:, None]
    elif last:
        images = images.transpose(0, 3, 1, 2)
    if not images.dtype.isnative or images.dtype.itemsize > 8:
        images = images.astype(np.float64 if images.dtype.itemsize >= 8 else np.float32)
    return torch.from_numpy(np.ascontiguousarray(images))


class Array(Source):
    """Images (N, *shape) of an array that numpy maps from a file."""

    def __init__(self, images: NDArray[Any]) -> None:
        self.images = images
        self.shape, self.dtype = tuple(images.shape), torch.from_numpy(np.empty(0, images.dtype)).dtype

    def read(self, rows: Tensor) -> Tensor:
        """Copy some rows out of the file."""
        return torch.from_numpy(np.ascontiguousarray(self.images[rows.numpy()]))
