"""Boxes that go through a model in one pass, with gradients: what certified training minimises over.

Gowal et al. 2018, arXiv:1810.12715, section 3. `Boxes` stands in for a batch of images: a model that is called with it calls
the operations of torch as ever, and each of them finds here how it treats a box. This is for training: float32, no account
of rounding, so it proves nothing; `certify` does. Under autocast the products of layers alone are in bfloat16: what they
give is float32 again at once, as centres and radii kept in bfloat16 are too coarse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ParameterError


class _Unbounded(ParameterError, AttributeError):
    """So that `hasattr` answers, and who calls a method learns why there is none."""


Rule = Callable[..., "Boxes"]
RULES: dict[str, Rule] = {}
"""By the name of torch's function or method."""


@dataclass(frozen=True, eq=False)
class Made:
    """How boxes came about.

    function:  affine, of a tensor for each of the inputs; or None, and they went through max(x, slope · x).
    """

    inputs: tuple[Boxes, ...]
    function: Callable[..., Tensor] | None
    slope: float = 0.0


@dataclass(frozen=True, eq=False)
class Boxes:
    """A box round each row of a batch, and a point of its own: all (N, *shape).

    value:   what comes out for the images themselves; batch norm takes its statistics from it.
    centre, radius:  of the box.
    bent:    centres and radii of what went into activation functions, in order, of the whole pass.
    last:    (what went in, weight, bias), where the last operation was a linear layer.
    made:    what these came out of, and how; None: not known, or the input.
    """

    value: Tensor
    centre: Tensor
    radius: Tensor
    bent: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    last: tuple[Boxes, Tensor, Tensor | None] | None = None
    made: Made | None = None

    @classmethod
    def between(cls, value: Tensor, low: Tensor, high: Tensor) -> Boxes:
        """From corners."""
        return cls(value, (low + high) / 2, (high - low) / 2)

    @property
    def low(self) -> Tensor:
        """The lower corners."""
        return self.centre - self.radius

    @property
    def high(self) -> Tensor:
        """The upper corners."""
        return self.centre + self.radius

    def margins(self, label: Tensor) -> Tensor:
        """Of logits (N, classes): lower bounds of the label's less each, 0 at the label.

        A last linear layer is merged with the differences (section 3, "elision of the last layer").
        """
        if self.last is None:
            least = self.low.gather(1, label[:, None]) - self.high
        else:
            before, weight, bias = self.last
            rows = weight[label][:, None] - weight
            with torch.autocast(rows.device.type, enabled=False):  # margins are small differences of large sums
                centre = torch.einsum("ncd,nd->nc", rows, before.centre)
                least = centre - torch.einsum("ncd,nd->nc", rows.abs(), before.radius)
            if bias is not None:
                least = least + bias[label][:, None] - bias
        return least.scatter(1, label[:, None], 0.0)

    # --- what lets it pass for a tensor --------------------------------------------------------------------------

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, given: Any = (), named: Any = None) -> Boxes:
        return _rule(function.__name__.strip("_"))(*given, **(named or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("shape", "dtype", "device", "ndim"):
            return getattr(self.value, name)
        if name in ("size", "dim"):
            return getattr(self.value, name)
        try:
            return partial(_rule(name.removesuffix("_")), self)
        except ParameterError as error:
            raise _Unbounded(str(error)) from None

    def __getitem__(self, index: Any) -> Boxes:
        return self.each(lambda x: x[index])

    def __len__(self) -> int:
        return len(self.value)

    def __add__(self, other: Boxes | Tensor | float) -> Boxes:
        return _rule("add")(self, other)

    def __radd__(self, other: Tensor | float) -> Boxes:
        return _rule("add")(self, other)

    def __sub__(self, other: Boxes | Tensor | float) -> Boxes:
        return _rule("sub")(self, other)

    def __rsub__(self, other: Tensor | float) -> Boxes:
        return _rule("rsub")(self, other)

    def __mul__(self, other: Tensor | float) -> Boxes:
        return _rule("mul")(self, other)

    def __rmul__(self, other: Tensor | float) -> Boxes:
        return _rule("mul")(self, other)

    def __truediv__(self, other: Tensor | float) -> Boxes:
        return _rule("div")(self, other)

    def __neg__(self) -> Boxes:
        return _rule("neg")(self)

    # --- the ways through ----------------------------------------------------------------------------------------

    def next(self, value: Tensor, centre: Tensor, radius: Tensor, made: Made | None = None) -> Boxes:
        """The next ones of the same pass."""
        return Boxes(value, centre, radius, self.bent, None, made)

    def each(self, function: Callable[[Tensor], Tensor]) -> Boxes:
        """Through a linear function without negative coefficients or a constant."""
        made = Made((self,), function)
        return self.next(function(self.value), function(self.centre), function(self.radius), made)

    def rising(self, function: Callable[[Tensor], Tensor], slope: float | None = None) -> Boxes:
        """Through a function that never falls; `slope`: where it is max(x, slope · x)."""
        low, high = function(self.low), function(self.high)
        made, radius = None if slope is None else Made((self,), None, slope), (high - low) * 0.5
        return self.next(function(self.value), low + radius, radius, made)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how boxes go through torch's functions or methods of these names."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return add


def _rule(name: str) -> Rule:
    if name not in RULES:
        raise ParameterError(
            f"Certified training knows no bounds for {name}. What it knows: {', '.join(sorted(RULES))}."
        )
    return RULES[name]


@rule("linear")
def _linear(input: Boxes, weight: Tensor, bias: Tensor | None = None) -> Boxes:
    def function(x: Tensor) -> Tensor:
        return F.linear(x, weight, bias).to(x.dtype)

    radius, made = F.linear(input.radius, weight.abs()).to(input.radius.dtype), Made((input,), function)
    return Boxes(function(input.value), function(input.centre), radius, input.bent, (input, weight, bias), made)


def _convolution(function: Callable[..., Tensor]) -> Rule:
    def through(input: Boxes, weight: Tensor, bias: Tensor | None = None, *more: Any, **named: Any) -> Boxes:
        def whole(x: Tensor) -> Tensor:
            return function(x, weight, bias, *more, **named).to(x.dtype)

        radius = function(input.radius, weight.abs(), None, *more, **named).to(input.radius.dtype)
        return input.next(whole(input.value), whole(input.centre), radius, Made((input,), whole))

    return through


for _name in ("conv1d", "conv2d", "conv3d"):
    RULES[_name] = _convolution(getattr(F, _name))


@rule("batch_norm")
def _batch_norm(
    input: Boxes, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Boxes:  # fmt: skip
    """By the statistics of the images themselves, in which the running averages follow."""
    others = [axis for axis in range(input.value.ndim) if axis != 1]
    if training:
        var, mean = torch.var_mean(input.value, others, correction=0)
        count = input.value.numel() // input.value.shape[1]
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(var.detach() * count / max(1, count - 1), momentum)
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, var = running_mean, running_var
    scale = (var + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    column = (-1, *[1] * (input.value.ndim - 2))
    scale, shift = scale.view(column), shift.view(column)

    def function(x: Tensor) -> Tensor:
        return torch.addcmul(shift, x, scale)

    radius, made = input.radius * scale.abs(), Made((input,), function)
    return input.next(function(input.value), function(input.centre), radius, made)


@rule("relu")
def _relu(input: Boxes, inplace: bool = False) -> Boxes:
    return _bent(input).rising(F.relu, 0.0)


@rule("leaky_relu")
def _leaky_relu(input: Boxes, negative_slope: float = 0.01, inplace: bool = False) -> Boxes:
    if not 0 <= negative_slope <= 1:
        raise ParameterError(
            f"Certified training has bounds for leaky_relu with slopes in [0, 1]. Got {negative_slope}."
        )
    return _bent(input).rising(lambda x: F.leaky_relu(x, negative_slope), negative_slope)


def _activation(function: Callable[..., Tensor]) -> Rule:
    def through(input: Boxes, *more: Any, **named: Any) -> Boxes:
        if "inplace" in named:
            named["inplace"] = False
        return _bent(input).rising(lambda x: function(x, *more, **named))

    return through


def _bent(input: Boxes) -> Boxes:
    input.bent.append((input.centre, input.radius))
    return input


for _name in ("elu", "celu", "selu", "softplus", "hardtanh", "relu6", "tanh", "sigmoid"):
    RULES[_name] = _activation(getattr(F, _name))


def _pooling(function: Callable[..., Tensor]) -> Rule:
    return lambda input, *more, **named: input.rising(lambda x: function(x, *more, **named))


def _averaging(function: Callable[..., Tensor]) -> Rule:
    return lambda input, *more, **named: input.each(lambda x: function(x, *more, **named))


for _name in ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d"):
    RULES[_name] = _pooling(getattr(F, _name))
for _name in ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"):
    RULES[_name] = _averaging(getattr(F, _name))
for _name in ("flatten", "unflatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous",
              "mean", "sum", "to", "float", "clone"):  # fmt: skip
    RULES[_name] = _averaging(getattr(Tensor, _name))


def _dropping(function: Callable[..., Tensor]) -> Rule:
    """The same numbers are dropped from all three."""

    def through(input: Boxes, p: float = 0.5, training: bool = True, inplace: bool = False) -> Boxes:
        kept = function(torch.ones_like(input.value), p, training)
        return input.each(lambda x: x * kept)

    return through


for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d"):
    RULES[_name] = _dropping(getattr(F, _name))


@rule("add")
def _add(one: Boxes | Tensor | float, other: Boxes | Tensor | float) -> Boxes:
    if isinstance(one, Boxes) and isinstance(other, Boxes):
        made = Made((one, other), torch.add)
        return one.next(one.value + other.value, one.centre + other.centre, one.radius + other.radius, made)
    boxes, constant = _sides(one, other)
    value = boxes.value + constant
    made = Made((boxes,), lambda x: x + constant)
    return boxes.next(value, boxes.centre + constant, boxes.radius.expand_as(value), made)


@rule("neg", "negative")
def _neg(one: Boxes) -> Boxes:
    return one.next(-one.value, -one.centre, one.radius, Made((one,), torch.neg))


@rule("sub", "subtract")
def _sub(one: Boxes | Tensor | float, other: Boxes | Tensor | float) -> Boxes:
    return _add(one, -other)


@rule("rsub")
def _rsub(one: Boxes, other: Tensor | float) -> Boxes:
    return _add(other, -one)


@rule("mul", "multiply")
def _mul(one: Boxes | Tensor | float, other: Boxes | Tensor | float) -> Boxes:
    boxes, factor = _sides(one, other)
    made = Made((boxes,), lambda x: x * factor)
    return boxes.next(boxes.value * factor, boxes.centre * factor, boxes.radius * abs(factor), made)


@rule("div", "divide", "true_divide")
def _div(one: Any, other: Any) -> Boxes:
    if not isinstance(one, Boxes) or isinstance(other, Boxes):
        raise ParameterError("Certified training knows no bounds for a quotient by what moves.")
    return _mul(one, 1 / other)


def _sides(one: Any, other: Any) -> tuple[Boxes, Any]:
    """The one that moves, and the one that does not."""
    if isinstance(one, Boxes) and isinstance(other, Boxes):
        raise ParameterError("Certified training knows no bounds for a product of two things that both move.")
    return (one, other) if isinstance(one, Boxes) else (other, one)


@rule("cat", "concat")
def _cat(tensors: list[Boxes], dim: int = 0) -> Boxes:
    first = next(one for one in tensors if isinstance(one, Boxes))
    whole = [one if isinstance(one, Boxes) else first.next(one, one, torch.zeros_like(one)) for one in tensors]
    columns = zip(*((one.value, one.centre, one.radius) for one in whole), strict=True)
    value, centre, radius = (torch.cat(column, dim) for column in columns)
    return first.next(value, centre, radius, Made(tuple(whole), lambda *inputs: torch.cat(inputs, dim)))


__all__ = ["RULES", "Boxes", "Made"]
