"""The idx format of MNIST and Fashion-MNIST, plain or gzipped.

Source: "The IDX file format", Y. LeCun, http://yann.lecun.com/exdb/mnist/ : two zero bytes, a type
(8 is unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer, the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from unfooled.data.checks import describe, refuse

_UNSIGNED_BYTE = 8


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array of unsigned bytes of exactly this shape.

    Args:
        path: the file; that it is gzipped is seen from its bytes, not its name.
        shape: what the file must hold. Never more is read, whatever a damaged file claims.

    Raises:
        DataError: it is not an idx file, holds another shape, is truncated or damaged.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _read(raw, path, shape)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _read(unzipped, path, shape)  # type: ignore[arg-type]  # a GzipFile reads like any file
    except (EOFError, zlib.error, OSError) as error:
        raise refuse(path, f"is damaged or cannot be read: {error}") from error


def _read(stream: BinaryIO, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise refuse(path, f"is not an idx file: it {describe(head)}")
    if head[2] != _UNSIGNED_BYTE or head[3] != len(shape):
        raise refuse(
            path,
            f"holds {head[3]} dimensions of idx type {head[2]}; "
            f"{len(shape)} of type {_UNSIGNED_BYTE} (unsigned byte) are needed",
        )
    sizes = stream.read(4 * len(shape))
    if len(sizes) < 4 * len(shape):
        raise refuse(path, "is truncated within its header")
    found = struct.unpack(f">{len(shape)}I", sizes)
    if found != shape:
        raise refuse(path, f"says that its shape is {found}; {shape} is needed")
    count = int(np.prod(shape))
    values = stream.read(count + 1)  # one more: past the end a gzip's checksum is verified
    if len(values) != count:
        what = "is truncated: it holds" if len(values) < count else "has bytes after its end: it holds more than"
        raise refuse(path, f"{what} {min(len(values), count)} values where its header promises {count}")
    return np.frombuffer(bytearray(values), np.uint8).reshape(shape)
