"""Which columns of a table hold the images and their labels, and what the labels mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unfooled.errors import DataError, ParameterError, must_be, unknown

IMAGES = (
    "image", "path", "file", "filename", "file_name", "image_path", "filepath", "file_path", "img", "img_path",
    "image_file", "image_name",
)  # fmt: skip
LABELS = ("label", "labels", "class", "target", "category", "fine_label", "class_id", "class_name", "label_name", "y")
SPLITS = ("split", "subset", "partition")
TESTED = ("test", "val", "valid", "validation", "train")  # the order in which a split is taken where none was asked for

Columns = str | Mapping[str, str]


@dataclass(frozen=True)
class Chosen:
    """The names of columns that the user has given, by role; None where they are to be found."""

    image: str | None = None
    label: str | None = None
    split: str | None = None

    @classmethod
    def of(cls, columns: Columns | None) -> Chosen:
        """From ``image=scan,label=diagnosis`` or a mapping. Raises `ParameterError`."""
        if columns is None:
            return cls()
        pairs = _pairs(columns) if isinstance(columns, str) else columns
        if not isinstance(pairs, Mapping) or not all(isinstance(v, str) and v for v in pairs.values()):
            raise must_be("load", "columns", "a mapping of roles to columns, or image=NAME,label=NAME", columns)
        for role in pairs:
            if role not in ("image", "label", "split"):
                raise unknown("role of a column", str(role), ("image", "label", "split"))
        return cls(**pairs)


def _pairs(text: str) -> Mapping[str, str]:
    parts = [part.partition("=") for part in text.split(",")]
    if not all(role.strip() and name.strip() for role, _, name in parts):
        raise must_be("load", "columns", "image=NAME,label=NAME", text)
    return {role.strip(): name.strip() for role, _, name in parts}


def pick(where: str, role: str, wanted: str | None, known: Sequence[str], there: Sequence[str]) -> str:
    """The column of a role: the one wanted, else the first known name that is there, whatever its case.

    Raises `DataError`, which says the columns that there are.
    """
    if wanted is not None:
        if wanted in there:
            return wanted
        raise DataError(f"{where} has no column {wanted!r}: its columns are {listed(there)}.")
    found = first(known, there)
    if found is None:
        raise DataError(
            f"{where} has no column of {role}s, such as {', '.join(known[:4])}: its columns are {listed(there)}. "
            f"Say which it is: columns={role}=NAME."
        )
    return found


def first(known: Sequence[str], there: Sequence[str]) -> str | None:
    """The first known name that is there."""
    plain = {name.strip().lower(): name for name in reversed(there)}
    return next((plain[name] for name in known if name in plain), None)


def listed(names: Sequence[Any]) -> str:
    """Some names, and how many there are besides."""
    shown = ", ".join(str(name) for name in names[:12])
    return (shown or "none") + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def choose_split(where: str, wanted: str | None, there: Sequence[str]) -> str:
    """The split wanted; where none was asked for, the test split, else a validation split, else the only one."""
    if wanted is not None:
        found = next((name for name in there if name.lower() == wanted.lower()), None)
        if found is None:
            raise ParameterError(f"{where} holds no split {wanted!r}: it holds {listed(there)}.")
        return found
    if len(there) == 1:
        return there[0]
    found = first(TESTED, there)
    if found is None:
        example = next((name for name in there if re.fullmatch(r"[A-Za-z]\w*", name)), None)
        cure = f"Say which: {where}:{example}." if example else "Keep the rows wanted in a file of their own."
        raise ParameterError(f"{where} holds the splits {listed(there)}. {cure}")
    return found


def labelled(
    where: str, column: Sequence[Any], rows: Sequence[int], classes: Mapping[str, int] | None, start: int = 0
) -> tuple[Tensor, tuple[str, ...]]:
    """The labels of some rows of a column, and the names of the classes.

    Numbers are the labels. Names are numbered in sorted order over the whole column, so that every split has the same,
    or as `classes` says. start: the number of the column's first row, in messages. Raises `DataError` for a label that
    is neither.
    """
    words = {row: "" if column[row] is None else str(column[row]).strip() for row in rows}
    numbers = {row: re.fullmatch(r"[+-]?\d+(\.0*)?", word) is not None for row, word in words.items()}
    some, all_ = any(numbers.values()), all(numbers.values())
    if classes is not None:
        check_indices(classes)
    for row, word in words.items():
        said = f"{where}, row {start + row}: "
        if not word:
            raise DataError(f"{said}there is no label.")
        if classes is not None and word not in classes:
            raise DataError(f"{said}the label {word!r} is no class: classes names {listed(list(classes))}.")
        if classes is None and some and not all_ and not numbers[row]:
            cure = "Where all of them are names, say the index of each: classes."
            raise DataError(f"{said}the label {word!r} is no number, as those of other rows are. {cure}")
        if classes is None and all_ and float(word) < 0:
            raise DataError(f"{said}the label is {word}; labels count from 0.")
    if classes is not None:
        return torch.tensor([classes[word] for word in words.values()]), named(classes)
    if all_:
        return torch.tensor([int(float(word)) for word in words.values()]), ()
    names = sorted({str(value).strip() for value in column if value is not None} - {""})
    index = {name: at for at, name in enumerate(names)}
    return torch.tensor([index[word] for word in words.values()]), tuple(names)


def check_indices(classes: Mapping[str, int]) -> None:
    """Raise `ParameterError` unless every class has an index."""
    wrong = [name for name, at in classes.items() if isinstance(at, bool) or not isinstance(at, int) or at < 0]
    if wrong or not classes:
        raise ParameterError(f"classes must give each class an int >= 0; it does not for {listed(wrong)}.")


def named(indices: Mapping[str, int]) -> tuple[str, ...]:
    """The class names by index; an index that no class has is named by its number."""
    found: dict[int, str] = {}
    for name, index in indices.items():
        found[index] = f"{found[index]} / {name}" if index in found else name
    return tuple(found.get(index, str(index)) for index in range(max(found) + 1))
