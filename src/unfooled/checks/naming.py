"""Whether data and model mean the same classes by the same labels, as far as names can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..results import Finding
from .catalog import finding

SHOWN = 3  # classes in a message


def words(name: str) -> set[str]:
    """What a name may be matched by: itself, and the parts of "tench, Tinca tinca"."""
    plain = [re.sub(r"[\W_]+", " ", part).strip().casefold() for part in (name, *name.split(","))]
    return {part for part in plain if part}


def alike(one: str, other: str) -> bool:
    """Whether two names mean the same."""
    return bool(words(one) & words(other))


def moved(data: Sequence[str | None], model: Sequence[str | None]) -> dict[int, int]:
    """The model's label of each of the data's labels whose name stands elsewhere in the model, by names (None: none)."""
    theirs = {word: label for label in reversed(range(len(model))) for word in words(model[label] or "")}
    found = {}
    for label, name in enumerate(data):
        there = model[label] if label < len(model) else None
        if name is None or (there is not None and alike(name, there)):
            continue
        elsewhere = next((theirs[word] for word in sorted(words(name)) if word in theirs), None)
        if elsewhere is not None:
            found[label] = elsewhere
    return found


def check(data: Sequence[str], model: Sequence[str], answer: Tensor, labels: Tensor) -> list[Finding]:
    """A finding where the model, going by its answers (N,), means its names and not the labels (N,) of the data's names."""
    there = moved(data, model)
    if not there:
        return []
    renamed = torch.tensor([there.get(label, label) for label in labels.tolist()], device=labels.device)
    gain = (int((answer == renamed).sum()) - int((answer == labels).sum())) / max(1, len(labels))
    if gain <= 0:  # it is the names that are wrong
        return []
    shown = ", ".join(f"{data[a]!r} is {a} in the data, {b} in the model" for a, b in list(there.items())[:SHOWN])
    more = f", and so on: {len(there)} classes" if len(there) > SHOWN else ""
    text = f"Classes of the same name have other labels: {shown}{more}. Right answers would rise by {100 * gain:.1f} points."
    return [finding("classes-in-another-order", gain, text)]
