"""Spec files: an evaluation written down as TOML, checked key by key.

    model = "model.py:make"            # or a bundled one, such as "fashion-mnist/plain"
    weights = "best.safetensors"
    data = "./photos:val[0:1000]"      # or a named one, such as "cifar10:test"
    threat = "linf:8/255"
    protocol = "fast"
    assert = ["attacked>=0.4"]

    [classes]
    cat = 3

Paths are relative to the file. In `data` and `model` a text with a slash, and one that ends in .npz or .py:NAME, is a
path, as is one that ends in another form's suffix, such as .onnx or .csv; any other is a name.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import text
from .assertions import Assertion
from .errors import MissingData, ParameterError, UnknownName, unknown

_SIZE = re.compile(r"\d+(x\d+)?", re.IGNORECASE)
_MODEL = re.compile(r"\.(py:\w+|onnx|keras|pt2|pth?|ts|torchscript|joblib|pkl|pickle|skops)$", re.IGNORECASE)
_DATA = re.compile(r"[/\\]|\.(npz|csv|tsv|parquet)(:|\[|$)", re.IGNORECASE)
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_ENTRY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def read(path: str | Path) -> dict[str, Any]:
    """The entries of a spec file, by key; paths made whole, `assert` as a list of texts, sizes as texts.

    Raises `MissingData` if there is no such file, and `ParameterError`, with file, line and key, if it is not TOML, has
    a key that there is none of (`UnknownName`), or a value that its key cannot have.
    """
    place = Path(path)
    if not place.is_file():
        raise MissingData(f"There is no spec file {place}.")
    try:
        words = place.read_text(encoding="utf-8")
        found = tomllib.loads(words)
    except UnicodeDecodeError as error:
        line = place.read_bytes()[: error.start].count(b"\n") + 1
        raise ParameterError(f"{place}, line {line}: this is not UTF-8 text, as TOML must be.") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else words.count("\n") + 1
        raise ParameterError(f"{place}, line {line}: this is not TOML: {error}.") from None
    return {key: _checked(place, words, key, value) for key, value in found.items()}


def _checked(place: Path, words: str, key: str, value: Any) -> Any:
    if key not in KEYS:
        raise UnknownName(f"{place}, line {_line(words, key)}: {unknown('key', key, KEYS)}")
    what, check = KEYS[key]
    good = check(value)
    if good is None:
        inner = next((name for name, item in value.items() if not _index(item)), "") if isinstance(value, dict) else ""
        name, got = (f"{key}.{inner}", value[inner]) if inner else (key, value)
        line = _line(words, key, *([inner] if inner else []))
        raise ParameterError(f"{place}, line {line}: '{name}' must be {what}. Got {got!r} instead.")
    return _from(place.parent, key, good)


def _from(folder: Path, key: str, value: Any) -> Any:
    """The value with what is a path in it made relative to where the spec file lies."""
    if key in ("weights", "out") or (key in ("model", "data") and _is_path(key, value)):
        lead, rest = (value, "")
        if key == "model" and ".py:" in value:
            lead, _, rest = value.rpartition(":")
            rest = f":{rest}"
        return str(folder / Path(lead).expanduser()) + rest  # an absolute path stays as it is
    return value


def _is_path(key: str, value: str) -> bool:
    if re.match(r"(hf|timm|https?):", value):
        return False
    return (_MODEL if key == "model" else _DATA).search(value) is not None


# --- what a key may hold: each check gives the value, or None if it is not right ----------------------


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _call(value: Any) -> str | None:
    """A text in the grammar of names with options."""
    try:
        return value if isinstance(value, str) and text.parse(value) else None
    except ParameterError:
        return None


def _whole(least: int) -> Callable[[Any], int | None]:
    return lambda value: value if type(value) is int and value >= least else None


def _share(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and 0 < value < 0.5 else None


def _assertions(value: Any) -> list[str] | None:
    given = [value] if isinstance(value, str) else value
    try:
        return [Assertion.parse(one).text for one in given] or None
    except (ParameterError, TypeError):
        return None


def _size(value: Any) -> str | None:
    if type(value) is int and value > 0:
        return str(value)
    return value if isinstance(value, str) and _SIZE.fullmatch(value) else None


def _index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _classes(value: Any) -> dict[str, int] | None:
    return value if isinstance(value, dict) and value and all(map(_index, value.values())) else None


def _options(value: Any) -> list[str] | None:
    plain = isinstance(value, dict) and value and all(isinstance(v, str | int | float) for v in value.values())
    return [f"{name}={str(v).lower() if isinstance(v, bool) else v}" for name, v in value.items()] if plain else None


_SIZES = "a side such as 32, or a text such as '32x48'"
_CALL = "a name with options, such as"
KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "model": ("a text such as 'fashion-mnist/plain' or 'model.py:factory'", _text),
    "weights": ("the path of a weights file", _text),
    "model_options": ("a table of options of the model's form, such as rate = 5", _options),
    "allow_code": ("true or false", lambda value: value if isinstance(value, bool) else None),
    "data": ("a text such as 'mnist:test[0:1000]' or './photos'", _text),
    "threat": (f"{_CALL} 'linf:8/255'", _call),
    "protocol": (f"{_CALL} 'fast'", _call),
    "defense": (f"{_CALL} 'blur:sigma=1'", _call),
    "seed": ("an int of at least 0", _whole(0)),
    "certify": ("'auto', or a name with options, such as 'crown'", _call),
    "precision": ("a half-width: a float between 0 and 0.5, such as 0.03", _share),
    "assert": ("a text such as 'attacked>=0.4', or a list of such", _assertions),
    "out": ("the path of a folder", _text),
    "batch_size": ("an int of at least 1", _whole(1)),
    "budget": ("an int of at least 1", _whole(1)),
    "draws": ("an int of at least 1", _whole(1)),
    "resize": (_SIZES, _size),
    "crop": (_SIZES, _size),
    "ray": ("'local', 'auto' or HOST:PORT of a Ray cluster", _text),
    "ray_cores": ("an int of at least 1", _whole(1)),
    "columns": ("columns of a table, such as 'image=scan,label=diagnosis'", _text),
    "classes": ("a class index, an int of at least 0, for each class folder, such as cat = 3", _classes),
}


# --- where a key stands --------------------------------------------------------------------------


def _line(words: str, *path: str) -> int:
    """The line that a key is written on; where it stands inside a value, that of the key it belongs to."""
    while path:
        for number, name in _names(words):
            if name[: len(path)] == path:
                return number
        path = path[:-1]
    return 1


def _names(words: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    section: tuple[str, ...] = ()
    for number, line in enumerate(words.splitlines(), 1):
        if header := _HEADER.match(line):
            section = _parts(header[1])
            yield number, section
        elif entry := _ENTRY.match(line):
            yield number, (*section, *_parts(entry[1]))


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", dotted))
