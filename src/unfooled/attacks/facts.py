"""What is known of an attack, read from its class: the same facts for the docs pages and for `unfooled list`.

The docstring of an attack class has one form: a paragraph *name: idea. reference*; paragraphs of how it works, with
formulae indented; its options as ``name:  meaning. Source of the default.``; a paragraph ``Fails: …``.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from dataclasses import dataclass
from typing import Any

from ..models.access import Access
from .base import Attack

_ACCESS = {
    Access.DECISION: "decisions (the class alone)",
    Access.SCORE: "scores (logits)",
    Access.GRADIENT: "gradients",
}


@dataclass(frozen=True)
class Option:
    """An option of an attack: its name, its default as text, what it means and where the default comes from."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Facts:
    """Everything that a page about an attack says."""

    name: str
    title: str
    idea: str
    reference: str
    body: tuple[str, ...]  # paragraphs and formulae; a formula keeps its indentation
    options: tuple[Option, ...]
    norms: tuple[str, ...]
    access: str
    cost: str
    fails: str


def facts(kind: type[Attack]) -> Facts:
    """The facts of an attack class."""
    summary, *rest = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    title, _, told = _line(summary).partition(": ")
    idea, reference = _split(told)
    options, fails, body = _options(kind, rest), "", []
    for block in rest:
        if block.startswith("Fails:"):
            fails = _line(block.removeprefix("Fails:"))
        elif not _entries(block):
            body.append(block if block.startswith(" ") else _line(block))
    norms = tuple(norm.__name__ for norm in kind.norms)
    return Facts(
        kind.name, title, idea, reference, tuple(body), options, norms, _ACCESS[kind.access], _cost(kind()), fails
    )


def _cost(attack: Attack) -> str:
    size = "the smallest change" if attack.minimal else "any change within eps"
    return f"{attack.steps} steps of at most {attack.passes} passes, for {size}"


def _line(block: str) -> str:
    return " ".join(block.split())


def _split(told: str) -> tuple[str, str]:
    """An idea and its reference: the reference begins with the first sentence that holds a year."""
    sentences = re.split(r"(?<=[.)]) (?=[A-Z])", told)
    for at, sentence in enumerate(sentences):
        if re.search(r"\b(19|20)\d\d\b", sentence):
            begin = at - 1 if at and re.search(r"et al\.$", sentences[at - 1]) else at
            return " ".join(sentences[:begin]), " ".join(sentences[begin:])
    return told, ""


def _entries(block: str) -> dict[str, str]:
    """``name:  meaning`` lines of a block with what follows indented, or nothing if it is not such a block."""
    if not re.match(r"[a-z_]+:  ", block):
        return {}
    parts = re.split(r"^([a-z_]+):  +", block, flags=re.MULTILINE)[1:]
    return {name: _line(meaning) for name, meaning in zip(parts[::2], parts[1::2], strict=True)}


def _options(kind: type[Attack], blocks: list[str]) -> tuple[Option, ...]:
    told = {name: meaning for block in blocks for name, meaning in _entries(block).items()}
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(kind)  # type: ignore[arg-type]
    found = [field for field in fields if field.init]
    return tuple(Option(field.name, _shown(field.default), told.get(field.name, "")) for field in found)


def _shown(default: object) -> str:
    return f"{default:.4g}" if isinstance(default, float) else str(default)
