"""What a rule gets and gives, and the table of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ...errors import ModelError
from ..operations import Operation

KNOWN = (
    "linear, conv, batch norm, ReLU, LeakyReLU, PReLU, ReLU6, ELU, GELU, SiLU, softplus, tanh, sigmoid, max and average "
    "pooling, sums, differences, products with constants, concatenation, reshaping"
)


@dataclass(frozen=True)
class Wire:
    """A tensor that depends on the image: the number of the outcome, and the shape of one row."""

    number: int
    shape: torch.Size


@dataclass(frozen=True)
class Call:
    """What is called: its name, its arguments, the row shape of what comes out, which of several outcomes, and where."""

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: torch.Size
    item: int | None
    where: str

    def arg(self, at: int, name: str, default: Any = None) -> Any:
        """An argument by its place or its name."""
        return self.args[at] if len(self.args) > at else self.kwargs.get(name, default)

    @property
    def wires(self) -> tuple[Wire, ...]:
        """What depends on the image, in order."""
        found: list[Wire] = []
        fx.node.map_aggregate(
            (self.args, self.kwargs), lambda one: found.append(one) if isinstance(one, Wire) else None
        )
        return tuple(found)

    def again(self, *inputs: Tensor) -> Tensor:
        """The operation itself, with tensors for the wires."""
        left, rows = iter(inputs), len(inputs[0])

        def given(one: Any) -> Any:
            if isinstance(one, Wire):
                return next(left)
            joined = isinstance(one, Tensor) and self.name in ("cat", "concat", "stack")  # rows of a constant
            return one.expand(rows, *one.shape[1:]) if joined else one

        args, kwargs = fx.node.map_aggregate((self.args, self.kwargs), given)
        found = self.target(*args, **kwargs)
        one: Tensor = found if self.item is None else found[self.item]
        return one

    def unknown(self, why: str = "") -> ModelError:
        """The error that says what has no bounds."""
        return ModelError(
            f"There are no bounds for {self.name}{at(self.where)}{': ' + why if why else ''}. What has bounds: {KNOWN}. For "
            "any other network: randomized smoothing, unfooled.certificates.smoothing."
        )


Built = tuple[Operation, tuple[Wire, ...]] | Wire
Rule = Callable[[Call], Built]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the names of ATen operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def at(where: str) -> str:
    """Where in the model, for a sentence."""
    return f" in {where}" if where else ""


def each(value: Any, dims: int, default: list[int]) -> list[int]:
    """A number for each dimension; the default where there is none."""
    given = list(value) if isinstance(value, Sequence) else default if value is None else [int(value)]
    given = given or default
    return given * dims if len(given) == 1 else given
