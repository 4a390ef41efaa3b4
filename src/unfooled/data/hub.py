"""Data sets of Hugging Face's `datasets`: by name, from a folder, or as the caller holds them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfooled.data.base import Dataset
from unfooled.data.columns import IMAGES, LABELS, Chosen, choose_split, first, labelled, listed, pick
from unfooled.data.pictures import Files, load_pictures
from unfooled.data.sizes import Size
from unfooled.data.spec import Spec
from unfooled.errors import DataError, MissingData, MissingExtra, ParameterError

PREFIX = "hf:"
_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves in a folder


def is_hub_folder(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`, or holds parquet files as the hub's do."""
    return any((path / name).is_file() for name in _SAVED) or any(
        next(folder.glob("*.parquet"), None) is not None for folder in (path, path / "data")
    )


def load_hub(
    spec: Spec, resize: Size | None, crop: Size | None, classes: Mapping[str, int] | None, chosen: Chosen
) -> Dataset:
    """Images and labels of a data set.

    Args:
        spec: ``NAME``, ``ORG/NAME``, ``ORG/NAME/CONFIG``, a folder or a parquet file; the split and the range. Where no
            split is named, the test split is taken, else a validation split, else the only one.
        resize, crop: as `unfooled.data.load`.
        classes: the index of each name of a class; by default the data set's own.
        chosen: the columns, where their types and names do not say what they are.

    Raises `DataError`, `MissingData`, `MissingExtra`, `ParameterError`.
    """
    where = PREFIX + spec.name
    held = _opened(spec.name, where)
    if hasattr(held, "keys"):
        split = choose_split(where, spec.split, list(held.keys()))
        held, where = held[split], f"{where}:{split}"
    elif spec.split is not None:
        raise ParameterError(f"{where} is one split by itself. Leave {spec.split!r} out.")
    rows = spec.rows(len(held), where)
    return _read(held, where, rows, resize, crop, classes, chosen)


def wrapped(data: Any) -> Dataset:
    """A data set of `datasets` that a caller holds. Raises `DataError` where it is several splits, or a stream."""
    if hasattr(data, "keys"):
        splits = list(data.keys())
        raise DataError(f"'data' holds the splits {listed(splits)}. Give one of them, such as data[{splits[0]!r}].")
    if not hasattr(data, "__len__"):
        raise DataError("'data' is a stream, whose rows cannot be asked for. Load it without streaming=True.")
    if not len(data):
        raise DataError("There are no images to work on.")
    name = getattr(data.info, "dataset_name", None) or type(data).__name__
    where = f"{name}:{data.split}" if getattr(data, "split", None) else str(name)
    return _read(data, where, slice(0, len(data)), None, None, None, Chosen())


def _opened(name: str, where: str) -> Any:
    """The data set, or its splits by name."""
    library = _library(where)
    path = Path(name).expanduser()
    with _quiet(library):
        try:
            if path.is_dir() and any((path / mark).is_file() for mark in _SAVED):
                return library.load_from_disk(str(path))
            if path.is_file():
                return library.load_dataset("parquet", data_files={"data": str(path)})["data"]
            if path.is_dir():
                return library.load_dataset(str(path))
            source, config = _config(name, where)
            return library.load_dataset(source, config)
        except (MissingData, MissingExtra, ParameterError):
            raise
        except Exception as error:  # the library and those under it raise many kinds
            kind = DataError if path.exists() else MissingData
            raise kind(f"{where} cannot be had: {_first_line(error)}{_cure(path)}") from error


def _config(name: str, where: str) -> tuple[str, str | None]:
    parts = name.split("/")
    if not all(parts) or len(parts) > 3 or name.startswith((".", "~")):
        raise MissingData(f"There is no folder {name}, and no data set of the hub can be called so: {where}.")
    return ("/".join(parts[:2]), parts[2]) if len(parts) == 3 else (name, None)


def _cure(path: Path) -> str:
    if path.exists():
        return ""
    return " Without a network, give a folder that save_to_disk wrote, or one of parquet files."


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    return said if said.endswith(".") else f"{said}."


def _library(where: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtra(f'{where} needs the package datasets: pip install "unfooled[hub]".') from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without the library's own progress bars: those are the caller's."""
    loud = not library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if loud:
            library.enable_progress_bars()


def _read(
    held: Any, where: str, rows: slice, resize: Size | None, crop: Size | None, classes: Mapping[str, int] | None,
    chosen: Chosen,
) -> Dataset:  # fmt: skip
    image, label = _image_column(held, where, chosen.image), _label_column(held, where, chosen.label)
    labels, names = _labels(held, where, label, classes)
    if (rows.start, rows.stop) != (0, len(held)):
        name, held = f"{where}[{rows.start}:{rows.stop}]", held.select(range(rows.start, rows.stop))
    else:
        name = where
    files = InColumn(where, held, image, rows.start)
    source = f"Hugging Face data set {where}, columns {image} and {label}"
    return Dataset(load_pictures(files, resize, crop), labels[rows], names, name, source)


class InColumn(Files):
    """Encoded images in a column of a data set, which lies in a file that the system maps into memory.

    start:  the number of the first row, for messages.
    """

    def __init__(self, where: str, held: Any, column: str, start: int) -> None:
        library = _library(where)
        self.where, self.column, self.start = where, column, start
        self.held = held.with_format(None).select_columns([column]).cast_column(column, library.Image(decode=False))

    def __len__(self) -> int:
        return len(self.held)

    def name(self, row: int) -> str:
        """The number of the row in the split, from 0."""
        return f"row {self.start + row}"

    def content(self, row: int) -> bytes | Path:
        """The bytes in the column, or the file that it names."""
        value = self.held[row][self.column] or {}
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        if not value.get("path"):
            raise DataError(f"{self.full(row)} holds no image under {self.column!r}.")
        return Path(value["path"])


def _kinds(held: Any) -> dict[str, str]:
    """The kind of each column: image, class, several (of a list), or what `datasets` calls its type."""
    library = _library("it")
    found = {}
    for name, feature in held.features.items():
        bare = isinstance(feature, dict) and "bytes" in feature  # images, written without the library's own notes
        if bare or isinstance(feature, library.Image):
            found[name] = "image"
        elif isinstance(feature, library.ClassLabel):
            found[name] = "class"
        else:
            found[name] = str(getattr(feature, "dtype", None) or "several")
    return found


def _image_column(held: Any, where: str, wanted: str | None) -> str:
    kinds = _kinds(held)
    if wanted is not None:
        name = pick(where, "image", wanted, IMAGES, list(kinds))
        if kinds[name] not in ("image", "string", "binary", "large_string", "large_binary"):
            raise DataError(f"{where} has no images in its column {name!r}, but {kinds[name]}.")
        return name
    pictures = [name for name, kind in kinds.items() if kind == "image"]
    pictures = pictures or [name for name, kind in kinds.items() if kind in ("binary", "large_binary")]
    found = pictures[0] if len(pictures) == 1 else first(IMAGES, pictures)
    if found is not None:
        return found
    if pictures:
        raise DataError(f"{where} has images in its columns {listed(pictures)}. Say which: columns=image=NAME.")
    there = listed([f"{name} ({kind})" for name, kind in kinds.items()])
    raise DataError(
        f"{where} has no column of images: its columns are {there}. Say which holds them: columns=image=NAME."
    )


def _label_column(held: Any, where: str, wanted: str | None) -> str:
    kinds = _kinds(held)
    grouped = [name for name, kind in kinds.items() if kind == "class"]
    if wanted is None and grouped:
        found = grouped[0] if len(grouped) == 1 else first(LABELS, grouped)
        if found is None:
            raise DataError(f"{where} has classes in its columns {listed(grouped)}. Say which: columns=label=NAME.")
        return found
    name = pick(where, "label", wanted, LABELS, list(kinds))
    if kinds[name] in ("several", "list"):
        raise DataError(f"{where} has several labels for one image in its column {name!r}: one each is needed.")
    return name


def _labels(held: Any, where: str, column: str, classes: Mapping[str, int] | None) -> tuple[Tensor, tuple[str, ...]]:
    """All labels of the split, and the names of the classes."""
    values = held.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    names = tuple(getattr(held.features[column], "names", ()) or ())
    if not names or classes is not None:
        words = [names[value] if names and value is not None and value >= 0 else value for value in values]
        return labelled(where, words, range(len(values)), classes)
    for row, value in enumerate(values):
        if value is None or value < 0:
            raise DataError(
                f"{where}, row {row}: there is no label ({value}). This split may have been published without."
            )
    return torch.tensor(values, dtype=torch.int64), names
