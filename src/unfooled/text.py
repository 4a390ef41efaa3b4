"""The one grammar of names with options: ``pgd:steps=40,step_size=0.1``, ``linf:8/255``, ``blur:sigma=1``.

    call   = name [":" option {"," option}] ["(" call {";" call} ")"]
    option = value | key "=" value

Values are numbers (also fractions such as 8/255), ``true``/``false``/``none`` or words. Nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import ParameterError, unknown

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_FRACTION = re.compile(r"([^/]+)/([^/]+)")


@dataclass(frozen=True)
class Call:
    """A parsed text: its name, positional values, keyword values, and inner calls."""

    name: str
    values: tuple[Any, ...]
    options: dict[str, Any]
    inner: tuple[Call, ...]


def parse(text: str) -> Call:
    """Read a text in the grammar above; raise `ParameterError` that shows where it went wrong."""
    text = text.strip()
    match = _NAME.match(text)
    if not match:
        raise ParameterError(f"{text!r} should begin with a name, as in 'pgd:steps=40' or 'linf:8/255'.")
    name, rest = match.group().lower(), text[match.end() :]
    inner: tuple[Call, ...] = ()
    if rest.endswith(")") and "(" in rest:
        at = rest.index("(")
        inner = tuple(parse(part) for part in _split(rest[at + 1 : -1], ";"))
        rest = rest[:at]
    if rest and not rest.startswith(":"):
        raise ParameterError(f"{text!r}: expected ':' and options after {name!r}, found {rest!r}.")
    values: list[Any] = []
    options: dict[str, Any] = {}
    for part in rest[1:].split(",") if len(rest) > 1 else ():
        key, equals, word = part.partition("=")
        if not equals:
            values.append(value(key))
        elif key.strip() in options:
            raise ParameterError(f"{text!r} gives {key.strip()!r} twice.")
        else:
            options[key.strip()] = value(word)
    return Call(name, tuple(values), options, inner)


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside parentheses."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    if depth:
        raise ParameterError(f"The parentheses of {text!r} do not match.")
    return [*parts, text[start:]]


def value(word: str) -> Any:
    """A number, a fraction, a truth value, None, or the word itself."""
    word = word.strip()
    named = {"true": True, "false": False, "none": None}
    if word.lower() in named:
        return named[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    if match := _FRACTION.fullmatch(word):
        try:
            return float(match[1]) / float(match[2])
        except (ValueError, ZeroDivisionError):
            raise ParameterError(f"{word!r} is not a fraction of two numbers, such as 8/255.") from None
    return word


def build(kind: str, call: Call, classes: Mapping[str, Callable[..., T]], **more: Any) -> T:
    """Make the dataclass that a call names; options that it lacks are errors that name the nearest."""
    maker = classes.get(call.name)
    if maker is None:
        raise unknown(kind, call.name, classes)
    fields = dataclasses.fields(maker) if dataclasses.is_dataclass(maker) else ()
    names = [field.name for field in fields if field.init]
    return maker(**options(kind, call, names), **more)


def options(kind: str, call: Call, names: Sequence[str]) -> dict[str, Any]:
    """A call's values and options by name, positional values in the order of the names; errors name the nearest."""
    if len(call.values) > len(names):
        raise ParameterError(f"{kind} {call.name!r} takes at most {len(names)} values. Got {call.values!r}.")
    found = dict(zip(names, call.values, strict=False))
    for key, item in call.options.items():
        if key not in names:
            raise unknown(f"option of {kind} {call.name!r}", key, names)
        if key in found:
            raise ParameterError(f"{kind} {call.name!r} is given {key!r} twice.")
        found[key] = item
    return found


def show(item: Any) -> str:
    """A value as `value` reads it back."""
    if isinstance(item, bool) or item is None:
        return str(item).lower()
    if isinstance(item, float):
        n = item * 255
        if 0 < abs(n) < 255 and math.isfinite(n) and round(n) / 255 == item and round(item, 4) != item:
            return f"{round(n)}/255"
        return repr(item)
    return str(item)


def write(name: str, item: Any, positional: tuple[str, ...] = ()) -> str:
    """The text of a dataclass: its name and the options that differ from their defaults."""
    parts = []
    for field in dataclasses.fields(item):
        got = getattr(item, field.name)
        if field.name in positional:
            parts.append(show(got))
        elif field.init and not (isinstance(got, type(field.default)) and got == field.default):
            parts.append(f"{field.name}={show(got)}")
    return name + (":" + ",".join(parts) if parts else "")
