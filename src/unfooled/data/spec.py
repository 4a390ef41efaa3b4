"""The text that names data: ``NAME[:split][range]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from unfooled.errors import ParameterError, must_be

# At least two characters before the colon, so that a Windows drive is not taken for a name.
_SPEC = re.compile(
    r"(?P<name>.{2,}?|.)"
    r"(?::(?P<split>[A-Za-z]\w*))?"
    r"(?:\[(?P<first>\d*):(?P<last>\d*)\]|:(?P<from>\d+)-(?P<to>\d+))?",
    re.DOTALL,
)
_FORM = "NAME, NAME:split, NAME:split[0:100] or NAME:split:0-100 (a data set's name or a path)"


@dataclass(frozen=True)
class Spec:
    """A parsed spec. `first` and `last` are None where the text leaves them open; the range is half-open."""

    name: str
    split: str | None = None
    first: int | None = None
    last: int | None = None

    def rows(self, count: int, name: str) -> slice:
        """The range as a slice of `count` images.

        Raises:
            ParameterError: it is empty, reversed or leaves the data set.
        """
        first = 0 if self.first is None else self.first
        last = count if self.last is None else self.last
        if first < last <= count:
            return slice(first, last)
        reason = "it must lie within" if first < last else "it holds nothing; it must go up, within"
        raise ParameterError(f"{name} has {count} images. Its range is [{first}:{last}]: {reason} [0:{count}].")


def parse(text: str) -> Spec:
    """Take a spec apart. A file or folder of exactly that name is a path as a whole.

    Raises:
        ParameterError: the text is empty, or its range cannot be read.
    """
    if text and _exists(text):
        return Spec(text)
    found = _SPEC.fullmatch(text)
    if found is None or not found["name"].strip():
        raise must_be("load", "spec", _FORM, text)
    name, split = found["name"], found["split"]
    if re.search(r"\[[^/\\]*\]$|:[\d-]*$", name) and not _exists(name):
        raise must_be("load", "spec", _FORM, text)
    return Spec(name, split, _number(found["first"] or found["from"]), _number(found["last"] or found["to"]))


def as_path(text: str) -> Path:
    """The text as a path; ``~`` is the home folder.

    Raises:
        ParameterError: no path can be so.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, no such home
        raise must_be("load", "spec", f"{_FORM}; no path can be so ({error})", text) from error
    return path


def _exists(text: str) -> bool:
    return as_path(text).exists()


def _number(digits: str | None) -> int | None:
    return int(digits) if digits else None
