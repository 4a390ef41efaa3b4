"""A forward pass that gradients get through: the same values, with a backward for operations that have none or a useless one.

Athalye et al. 2018 (arXiv:1802.00420, section 4) call it backward pass differentiable approximation. Here it is applied to
single operations wherever they occur, also between modules: a `TorchFunctionMode` sees every call of the torch API.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ..defenses.base import straight

SOFT = 0.1  # below which |x| is rounded off where a model differentiates it itself
STEEP = 10.0  # slope of the sigmoid that stands in for a comparison, in units of the compared numbers

_FLAT = {  # derivative zero nearly everywhere; the identity stands in
    "round", "round_", "floor", "floor_", "ceil", "ceil_", "trunc", "trunc_", "fix", "fix_",
    "clamp", "clamp_", "clip", "clip_", "nan_to_num",
}  # fmt: skip
_COMPARED = {"gt": 1.0, "ge": 1.0, "lt": -1.0, "le": -1.0, "__gt__": 1.0, "__ge__": 1.0, "__lt__": -1.0, "__le__": -1.0}
_SIGNS = {"sign", "sgn", "sign_"}
_SIZES = {"abs", "absolute", "__abs__"}
_DIVIDED = {"__floordiv__", "floor_divide", "floor_divide_"}
_CONVERTED = {"tensor", "as_tensor", "from_numpy", "asarray"}


class Through(TorchFunctionMode):
    """Calls of the torch API, with gradients that get through.

    Rounding, clamping, signs and comparisons get the backward of a smooth function; `detach`, `.data`, `no_grad` and
    hooks on gradients do nothing; what goes through integers or NumPy comes back with the gradient of what went in,
    where the shapes allow.

    finite:    replace NaN and inf in gradients by 0, at every operation.
    unrolled:  gradients that the model takes itself are differentiated in their turn, with |x| rounded off so that its
               derivative has one.
    """

    def __init__(self, finite: bool = False, unrolled: bool = False) -> None:
        super().__init__()
        self.finite = finite
        self.unrolled = unrolled
        self.shadows: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by id: a tensor without gradient, and what stands in for it
        self.exported: list[Tensor] = []  # live tensors whose values went to NumPy
        self.inside = False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Called by torch for every call of its API."""
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        self.inside = True
        try:
            name = getattr(func, "__name__", "").split(".")[0]  # "round.default" in an exported program
            return self._call(func, name, args, kwargs)
        finally:
            self.inside = False

    def _call(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "_set_grad_enabled":
            return None
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None:
            if name == "register_hook":
                return RemovableHandle(OrderedDict())
            if name == "detach" or getattr(func, "__self__", None) is _DATA:
                return first.view_as(first)
            if name in ("numpy", "__array__", "tolist", "item"):
                self.exported.append(self._live(first))
                return func(first.detach(), *args[1:], **kwargs)
        if self.unrolled and func is torch.autograd.grad:
            return func(*args, **{**kwargs, "create_graph": True})
        if name in _CONVERTED:
            return self.back(func(*args, **kwargs))
        smooth = self._smooth(name, args)
        smooth = self._chosen(name, args) if smooth is None else smooth
        shadowed = any(isinstance(x, Tensor) and id(x) in self.shadows for x in _flat(args))
        value = func(*args, **kwargs)
        if not isinstance(value, Tensor):
            return value
        if smooth is None and shadowed:
            smooth = self._redone(func, args, kwargs, value)
        if smooth is not None and smooth.shape == value.shape:
            value = self._joined(value, smooth)
        elif not value.is_floating_point() and first is not None and first.is_floating_point():
            self._cast(name, value, first)
        if self.finite and value.requires_grad and value.is_floating_point():
            value.register_hook(lambda g: torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0))
        return value

    def _live(self, value: Tensor) -> Tensor:
        return self.shadows[id(value)][1] if id(value) in self.shadows else value

    def _smooth(self, name: str, args: tuple[Any, ...]) -> Tensor | None:
        """What stands in on the way back for a call whose own derivative is zero or missing."""
        if not args or not isinstance(args[0], Tensor):
            return None
        first = self._live(args[0])
        if not first.is_floating_point():
            return None
        if name in _FLAT:
            return first * 1
        if name in _SIGNS:
            return torch.tanh(first)
        if self.unrolled and name in _SIZES:
            return (first.square() + SOFT**2).sqrt()
        other = (
            self._live(args[1]) if len(args) > 1 and isinstance(args[1], Tensor) else args[1] if len(args) > 1 else 0
        )
        if name in _COMPARED and isinstance(other, Tensor | int | float):
            return torch.sigmoid(_COMPARED[name] * STEEP * (first - other))
        if name in _DIVIDED:
            return first / other
        return None

    def _chosen(self, name: str, args: tuple[Any, ...]) -> Tensor | None:
        """`where`, with the mask's own gradient: s a + (1 - s) b."""
        if name == "where" and len(args) == 3 and isinstance(args[0], Tensor) and id(args[0]) in self.shadows:
            mask = self._live(args[0])
            chosen: Tensor = mask * args[1] + (1 - mask) * args[2]
            return chosen
        return None

    def _redone(self, func: Any, args: Any, kwargs: Any, value: Tensor) -> Tensor | None:
        """The same call on what stands in for its integer or boolean arguments."""
        try:
            again = func(*_replaced(args, self._live), **kwargs)
        except (RuntimeError, TypeError, IndexError):
            return None
        if isinstance(again, Tensor) and again.shape == value.shape:
            return (
                again
                if again.is_floating_point()
                else self._live(args[0]) * 1
                if args[0].shape == value.shape
                else None
            )
        return None

    def _joined(self, value: Tensor, smooth: Tensor) -> Tensor:
        if value.is_floating_point():
            return straight(smooth.to(value.dtype), value.detach())
        self.shadows[id(value)] = (value, smooth)
        return value

    def _cast(self, name: str, value: Tensor, source: Tensor) -> None:
        """Remember what an integer or boolean copy was made of."""
        if name in ("byte", "int", "long", "short", "char", "to", "type", "bool") and value.shape == source.shape:
            self.shadows[id(value)] = (value, source)

    def back(self, value: Tensor) -> Tensor:
        """A tensor that comes from NumPy, with the gradient of the first exported one that it may be made of."""
        for at, source in enumerate(self.exported):
            stand_in = _fitted(source, value)
            if stand_in is not None:
                del self.exported[at]
                if value.is_floating_point():
                    return straight(stand_in.to(value.dtype), value)
                self.shadows[id(value)] = (value, stand_in)
                return value
        return value


_DATA = Tensor.__dict__.get("data") or torch._C.TensorBase.__dict__["data"]


def _fitted(source: Tensor, value: Tensor) -> Tensor | None:
    """The source in the value's shape: as it is, or with axes that NumPy or PIL moved or dropped; None if it cannot be."""
    if source.shape == value.shape:
        return source
    if source.numel() != value.numel():
        return None
    if [n for n in source.shape if n != 1] == [n for n in value.shape if n != 1]:
        return source.reshape(value.shape)
    for order in ((1, 2, 0), (2, 0, 1), (0, 2, 3, 1), (0, 3, 1, 2)):
        if source.dim() == len(order) and source.permute(order).shape == value.shape:
            return source.permute(order)
    return None


def _flat(args: Any) -> Iterator[Any]:
    for item in args:
        if isinstance(item, tuple | list):
            yield from _flat(item)
        else:
            yield item


def _replaced(args: Any, live: Callable[[Tensor], Tensor]) -> Any:
    return tuple(
        live(item) if isinstance(item, Tensor) else list(_replaced(item, live)) if isinstance(item, list) else item
        for item in args
    )


@contextmanager
def through(finite: bool = False, functions: bool = True, unrolled: bool = False) -> Iterator[Through]:
    """Let gradients through whatever runs inside.

    functions:  also give custom autograd Functions the identity as backward, where an input has the output's shape.
    """
    mode = Through(finite, unrolled)
    apply = torch.autograd.Function.__dict__["apply"].__func__
    convert = torch.from_numpy

    def applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
        value = apply(cls, *args, **kwargs)
        if mode.inside or cls.__module__.startswith("unfooled.") or not isinstance(value, Tensor):
            return value
        for item in args:
            if (
                isinstance(item, Tensor)
                and item.shape == value.shape
                and item.is_floating_point()
                and item.requires_grad
            ):
                mode.inside = True
                try:
                    return straight(item, value.detach())
                finally:
                    mode.inside = False
        return value

    with (
        patch.object(torch, "from_numpy", lambda array: mode.back(convert(array))),
        patch.object(torch._C, "_InferenceMode", lambda mode=True: nullcontext()),
        patch.object(torch.autograd.Function, "apply", classmethod(applied)) if functions else nullcontext(),
        torch.enable_grad(),
        mode,
    ):
        yield mode
