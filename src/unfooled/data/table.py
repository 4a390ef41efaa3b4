"""Tables of paths and labels: CSV, TSV and parquet."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfooled.data.base import Dataset
from unfooled.data.columns import IMAGES, LABELS, SPLITS, Chosen, choose_split, first, labelled, pick
from unfooled.data.pictures import OnDisk, load_pictures
from unfooled.data.sizes import Size
from unfooled.data.spec import Spec
from unfooled.errors import DataError, MissingData, MissingExtra, ParameterError

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
SHOWN = 200  # letters of a path in a message


@dataclass(frozen=True)
class Table:
    """Columns by name, each with one value per row; rows are called 1, 2, 3 … below the header."""

    where: str
    columns: Mapping[str, Sequence[Any]]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns)


def load_table(
    spec: Spec, resize: Size | None, crop: Size | None, classes: Mapping[str, int] | None, chosen: Chosen
) -> Dataset:
    """The images whose paths a table lists, with their labels.

    Args:
        spec: the file, a split (a value of its column `split`) and the range; files outside it are not opened.
        resize, crop: as `unfooled.data.load`.
        classes: the index of each name of a class; by default their place in sorted order.
        chosen: the columns, where their names do not say what they are.

    Paths are relative to the table. Raises `DataError`, `MissingData`, `MissingExtra`, `ParameterError`.
    """
    path = Path(spec.name).expanduser()
    table = (_parquet if path.suffix.lower() in (".parquet", ".pq") else _text)(path, spec.name)
    image = pick(table.where, "image", chosen.image, IMAGES, table.names)
    label = pick(table.where, "label", chosen.label, LABELS, table.names)
    if image == label:
        raise ParameterError(f"{table.where}: the column {image!r} cannot hold both the images and their labels.")
    rows, name = _rows(table, spec, chosen)
    part = spec.rows(len(rows), name)
    labels, names = labelled(table.where, table.columns[label], rows, classes, start=1)
    if (part.start, part.stop) != (0, len(rows)):
        name = f"{name}[{part.start}:{part.stop}]"
    kept = rows[part]
    words = [str(table.columns[image][row] or "").strip() for row in kept]
    files = OnDisk(table.where, _found(path, table.where, words, kept), tuple(words))
    source = f"table {path}, {len(rows)} images"
    return Dataset(load_pictures(files, resize, crop), labels[part], names, name, source, tuple(words))


def _rows(table: Table, spec: Spec, chosen: Chosen) -> tuple[list[int], str]:
    """The rows of the split, and the name of what they are."""
    count = len(next(iter(table.columns.values())))
    if not count:
        raise DataError(f"{table.where} is empty: it has a header but no rows.")
    column = chosen.split or first(SPLITS, table.names)
    if chosen.split is not None:
        pick(table.where, "split", chosen.split, SPLITS, table.names)
    if column is None:
        if spec.split is not None:
            raise ParameterError(f"{table.where} has no column named split, so it holds no split {spec.split!r}.")
        return list(range(count)), table.where
    values = [str(value).strip() for value in table.columns[column]]
    wanted = choose_split(table.where, spec.split, list(dict.fromkeys(values)))
    return [row for row, value in enumerate(values) if value == wanted], f"{table.where}:{wanted}"


def _found(table: Path, where: str, words: list[str], rows: list[int]) -> tuple[Path, ...]:
    """The files that a table names. Raises `MissingData` for the first that is not there."""
    paths = tuple(table.parent / word for word in words)
    for path, word, row in zip(paths, words, rows, strict=True):
        if not word:
            raise DataError(f"{where}, row {row + 1}: there is no path of an image.")
        if not _there(path):
            shown = word if len(word) <= SHOWN else f"{word[:SHOWN]}…"
            raise MissingData(
                f"{where}, row {row + 1}: there is no file {shown}; paths are relative to {table.parent}."
            )
    return paths


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # what no path can be: too long, a NUL in it
        return False


def _text(path: Path, where: str) -> Table:
    """CSV, or TSV by its suffix; a CSV's delimiter is the one of comma, semicolon and tab that its header has most of."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            between = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
            lines = [line for line in csv.reader(file, delimiter=between) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as a table in UTF-8: {error}.") from error
    if not lines:
        raise DataError(f"{where} is empty. The first line names the columns, such as path,label.")
    names = [name.strip() for name in lines[0]]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{where} has two columns named {twice[0]!r}.")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(names):
            raise DataError(f"{where}, row {number}: it has {len(line)} values, the header names {len(names)} columns.")
    return Table(where, {name: [line[at] for line in lines[1:]] for at, name in enumerate(names)})


def _parquet(path: Path, where: str) -> Table:
    arrow, parquet = _pyarrow(where)
    try:
        held = parquet.ParquetFile(path)
        flat = [field.name for field in held.schema_arrow if not arrow.types.is_nested(field.type)]
        read = held.read(columns=flat)
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{where} cannot be read as parquet: {str(error).splitlines()[0]}.") from error
    return Table(where, {name: read.column(name).to_pylist() for name in flat})


def holds_pictures(path: Path) -> bool:
    """Whether a parquet file holds encoded images themselves, as the hub's do, instead of their paths."""
    arrow, parquet = _pyarrow(str(path))
    try:
        schema = parquet.read_schema(path)
    except (OSError, arrow.ArrowException):  # what is wrong is said when it is read
        return False
    kinds = [field.type for field in schema]
    bare = any(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind) for kind in kinds)
    return bare or any(arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 for kind in kinds)


def _pyarrow(where: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtra(
            f'{where} is parquet, which needs the package pyarrow: pip install "unfooled[hub]".'
        ) from error
