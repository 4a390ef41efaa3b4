"""What an adapter has understood of a model, for whoever wants to check it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from .access import Access, access_of


@dataclass(frozen=True)
class Facts:
    """What is known of a model from its own files.

    format:         what was read, such as "ONNX, through onnx2torch".
    source:         the file, folder, name or address.
    size:           (C, H, W) or (D,) of what the network itself takes; None: not known, or any.
    preprocessing:  what the adapter does to images in [0, 1] before the network, in words; "" for nothing.
    classes:        the names of the classes in the order of the logits; empty where they are not known.
    """

    format: str = "PyTorch"
    source: str = ""
    size: tuple[int, ...] | None = None
    preprocessing: str = ""
    classes: tuple[str, ...] = ()


def facts_of(model: Any) -> tuple[Facts, Access]:
    """The facts that a model carries as an attribute `facts`, and the access that it gives."""
    found = getattr(model, "facts", None)
    kind = type(model).__name__
    plain = Facts(format=f"PyTorch, {kind}" if isinstance(model, nn.Module) else kind)
    return (found if isinstance(found, Facts) else plain), access_of(model)
