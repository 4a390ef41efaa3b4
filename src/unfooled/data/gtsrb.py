"""German traffic signs: the benchmark's own folders, or one .npz file of images that are 32×32 already.

Source: J. Stallkamp et al., "Man vs. computer: benchmarking machine learning algorithms for traffic sign recognition",
Neural Networks 32, 2012. A photograph shows one sign with a margin round it; the sides are from 15 to 250 pixels.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unfooled.data.catalog import NamedSet
from unfooled.data.checks import check_labels, refuse
from unfooled.data.npz import read_npz
from unfooled.errors import DataError

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Layout = tuple[tuple[str, ...], Callable[[NamedSet, str, Sequence[Path]], Arrays]]

_TABLES = {  # the table that says that a folder is there, and an image beside it
    "train": (
        ("Final_Training/Images/00000/GT-00000.csv",),
        ("GTSRB/Final_Training/Images/00000/GT-00000.csv",),
        ("Training/00000/GT-00000.csv",),
        ("GTSRB/Training/00000/GT-00000.csv",),
    ),
    "test": (
        ("GT-final_test.csv", "Final_Test/Images/00000.ppm"),
        ("GT-final_test.csv", "GTSRB/Final_Test/Images/00000.ppm"),
    ),
}


def layouts(split: str) -> list[Layout]:
    """The ways in which a folder may hold a split of the photographs."""
    read = _training if split == "train" else _test
    return [(files, read) for files in _TABLES[split]]


def archives() -> list[Layout]:
    """The set as one .npz file with x_train, y_train, x_test and y_test; how many there are is the file's affair."""
    return [((name,), _from_npz) for name in ("gtsrb32.npz", "gtsrb.npz")]


def _from_npz(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    held = read_npz(paths[0], split)
    images = torch.as_tensor(held.images)
    if tuple(images.shape[1:]) != case.shape or images.dtype != torch.uint8:
        raise refuse(paths[0], f"holds {images.dtype} of shape {tuple(images.shape)}; uint8 (N, 3, 32, 32) are needed")
    check_labels(paths[0], held.labels.numpy(), len(case.classes))
    return images.numpy(), held.labels.numpy().astype(np.uint8)


def _training(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    root = paths[0].parents[1]
    rows = [row for k in range(len(case.classes)) for row in _rows(root / f"{k:05d}" / f"GT-{k:05d}.csv")]
    return _read(case, rows, paths[0])


def _test(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    return _read(case, [(paths[1].parent / path.name, label) for path, label in _rows(paths[0])], paths[0])


def _rows(table: Path) -> Iterator[tuple[Path, int]]:
    """Image and class of each line."""
    try:
        with table.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter=";"), 2):
                try:
                    yield table.parent / row["Filename"], int(row["ClassId"])
                except (KeyError, TypeError, ValueError):
                    raise refuse(table, f"has no Filename and ClassId in line {number}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(table, f"cannot be read: {error}".rstrip(".")) from error


def _read(case: NamedSet, rows: Sequence[tuple[Path, int]], table: Path) -> Arrays:
    """The images as (N, 3, 32, 32): the whole photograph, not the sign's own box, shrunk with antialias."""
    labels = np.array([label for _, label in rows], dtype=np.int64)
    check_labels(table, labels, len(case.classes))
    _, height, width = case.shape
    images = np.empty((len(rows), *case.shape), dtype=np.uint8)
    for at, (path, _) in enumerate(rows):
        try:
            with Image.open(path) as image:
                small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        except FileNotFoundError:
            raise DataError(f"{table} names {path.name}, which is not there. Unpack the whole archive.") from None
        except Exception as error:  # Pillow's decoders raise many kinds on damaged files
            raise refuse(path, f"is damaged: {error}".rstrip(".")) from error
        images[at] = np.asarray(small).transpose(2, 0, 1)
    return images, labels.astype(np.uint8)
