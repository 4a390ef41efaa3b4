"""CIFAR-10's two formats: the binary batches and the Python (pickle) batches.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and
https://www.cs.toronto.edu/~kriz/cifar.html . A record is a label and 3 × 32 × 32 bytes, channel by channel.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unfooled.data.checks import describe, refuse

_PIXELS = 3 * 32 * 32
_RECORD = 1 + _PIXELS

# numpy's own entry for unpickling arrays; its module's name changed between numpy 1 and 2.
_RECONSTRUCT = np.empty(0).__reduce__()[0]


def read_binary(path: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One binary batch: images (count, 3, 32, 32) and labels (count,).

    Raises:
        DataError: the file has another length.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            content = file.read(count * _RECORD)
    except OSError as error:
        raise refuse(path, f"cannot be read: {error}") from error
    if size != count * _RECORD:
        looks = describe(content[:64])
        raise refuse(path, f"has {size} bytes; {count} images need {count * _RECORD} (it {looks})")
    records = np.frombuffer(bytearray(content), np.uint8).reshape(count, _RECORD)
    return records[:, 1:].reshape(count, 3, 32, 32), records[:, 0].copy()


def read_pickled(path: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One Python batch: images (count, 3, 32, 32) and labels (count,).

    A pickle is code. Only what these files need is let through; anything else refuses the file unexecuted.

    Raises:
        DataError: the file asks for anything but arrays, is damaged, or holds other shapes.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            batch = _ArraysOnly(file, encoding="bytes").load()
        images, labels = batch[b"data"], np.asarray(batch[b"labels"])
    except _Forbidden as error:
        raise refuse(path, f"is refused: this pickle wants {error}, which no array of bytes needs") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise refuse(path, f"is not a CIFAR-10 Python batch: it {describe(head)}") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (count, _PIXELS):
        raise refuse(path, f"holds images that are not uint8 of shape {(count, _PIXELS)}")
    if labels.dtype.kind not in "iu" or labels.shape != (count,) or not _bytes_only(labels):
        raise refuse(path, f"holds labels that are not {count} small integers")
    return images.reshape(count, 3, 32, 32).copy(), labels.astype(np.uint8)


def _bytes_only(labels: NDArray[np.integer]) -> bool:
    return bool(((labels >= 0) & (labels <= 255)).all())


class _Forbidden(Exception):
    """A pickle asked for something that an array does not need."""


class _ArraysOnly(pickle.Unpickler):
    """Admits numpy arrays of bytes beside the pickle's own dicts, lists, bytes and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return _RECONSTRUCT
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _byte_dtype
            case "_codecs", "encode":
                return _latin1
        raise _Forbidden(f"{module}.{name}")


def _byte_dtype(code: str | bytes, *_: object) -> np.dtype[np.uint8]:
    """Only bytes: an array of objects could hold anything."""
    if code not in ("u1", b"u1", "|u1", b"|u1"):
        raise _Forbidden(f"an array of dtype {code!r}")
    return np.dtype(np.uint8, copy=True)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into the older pickle formats."""
    if encoding != "latin1":
        raise _Forbidden(f"the codec {encoding!r}")
    return text.encode("latin1")
