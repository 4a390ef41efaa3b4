"""From ATen operations to affine maps, curves and maxima: the table of what the bounds know.

A rule gets the operation's arguments, with a `Wire` wherever a tensor depends on the image, and answers with an operation
and the wires that it works on, or with a wire if nothing happens to the numbers.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from . import activations, affine, moves, pooling
from .calls import RULES, Built, Call, Wire, at


def name_of(node: fx.Node) -> str:
    """The name of the operation, without namespace, overload, and the underscore of what works in place."""
    target = node.target
    name = target.name().split("::")[-1].split(".")[0] if isinstance(target, torch._ops.OpOverload) else str(target)
    return name.rstrip("_")


def several(node: fx.Node) -> bool:
    """Whether it gives several tensors, of which later nodes take one."""
    return (
        bool(node.users)
        and all(user.target is operator.getitem for user in node.users)
        and not isinstance(node.meta.get("val"), Tensor)
    )


def part(node: fx.Node) -> tuple[fx.Node, int | None]:
    """The node that computes, and which of its outcomes this is."""
    source = node.args[0] if node.target is operator.getitem else None
    return (source, int(node.args[1])) if isinstance(source, fx.Node) else (node, None)  # type: ignore[arg-type]


def lowered(
    node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], shape: torch.Size, item: int | None, where: str
) -> Built:
    """The operation of a node. Raises `ModelError` where there is none."""
    call = Call(name_of(node), node.target, args, dict(kwargs), shape, item, where)  # type: ignore[arg-type]
    if call.name not in RULES:
        raise call.unknown()
    return RULES[call.name](call)


__all__ = ["Wire", "activations", "affine", "at", "lowered", "moves", "name_of", "part", "pooling", "several"]
