"""What every reader asks of a file's bytes and of its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unfooled.errors import DataError


def refuse(path: Path | str, why: str) -> DataError:
    """The one form of complaint about a file: its name and what is wrong."""
    return DataError(f"{path} {why}.")


def describe(head: bytes) -> str:
    """What a file's first bytes look like, for a message about a file that is not what it should be."""
    if not head:
        return "is empty"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "is a web page or XML, not data (a failed download?)"
    return f"begins with the bytes {head[:4].hex(' ')}"


def check_labels(path: Path | str, labels: NDArray[np.integer], classes: int) -> None:
    """Refuse labels outside 0..classes - 1, naming the first one."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        value, row = int(labels[wrong[0]]), int(wrong[0])
        raise refuse(path, f"has the label {value} at position {row}; labels go from 0 to {classes - 1}")
