"""From ATen operations to affine maps, curves and maxima: the table of what the bounds know.

A rule gets the operation's arguments, with a `Wire` wherever a tensor depends on the image, and answers with an operation
and the wires that it works on, or with a wire if nothing happens to the numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from ..errors import ModelError
from . import curves
from .curves import Curve
from .operations import Affine, Elementwise, Kernel, Maximum, Operation

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


# --- nothing happens to the numbers, or they are only moved --------------------------------------------------------


@rule(
    "clone",
    "detach",
    "alias",
    "contiguous",
    "lift_fresh",
    "to",
    "_to_copy",
    "type_as",
    "positive",
    "view_as",
    "identity",
)
def _same(call: Call) -> Built:
    return call.wires[0]


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(call: Call) -> Built:
    if call.arg(2, "train", False) and call.arg(1, "p", 0.0):
        raise call.unknown("it is in training mode; call model.eval()")
    return call.wires[0]


@rule("view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshaped(call: Call) -> Built:
    def move(x: Tensor) -> Tensor:
        return x.reshape(len(x), *call.shape)

    (wire,) = call.wires
    return Affine(move, move, adjoint=lambda g: g.reshape(len(g), *wire.shape)), (wire,)


MOVED = (
    "permute", "transpose", "movedim", "swapaxes", "swapdims", "select", "slice", "narrow", "flip", "roll",
    "index_select", "diagonal", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "cat", "concat", "stack",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "tile", "repeat", "reflection_pad1d", "reflection_pad2d",
    "replication_pad1d", "replication_pad2d", "upsample_nearest1d", "upsample_nearest2d",
)  # fmt: skip


@rule(*MOVED)
def _moved(call: Call) -> Built:
    if call.name in ("slice", "narrow") and call.shape == call.wires[0].shape and call.arg(1, "dim", 0) == 0:
        return call.wires[0]
    return Affine(call.again, call.again), call.wires


@rule("expand")
def _expanded(call: Call) -> Built:
    def move(x: Tensor) -> Tensor:
        return x.expand(len(x), *call.shape)

    return Affine(move, move), call.wires


@rule("constant_pad_nd", "pad")
def _padded(call: Call) -> Built:
    (wire,) = call.wires
    sides = call.args[1]
    if call.name == "pad" and call.arg(2, "mode", "constant") != "constant":
        return Affine(call.again, call.again), (wire,)
    value = float(call.arg(3 if call.name == "pad" else 2, "value", 0.0) or 0.0)
    return Affine(lambda x: F.pad(x, sides, value=value), lambda x: F.pad(x, sides)), (wire,)


# --- affine maps ---------------------------------------------------------------------------------------------------


@rule("linear", "addmm", "mm", "matmul")
def _linear(call: Call) -> Built:
    if call.name == "linear":
        weight, bias = call.arg(1, "weight"), call.arg(2, "bias")
        wire = call.arg(0, "input")
    elif call.name == "addmm" and not call.kwargs:
        bias, wire, weight = call.args[0], call.args[1], call.args[2]
        weight = weight.T if isinstance(weight, Tensor) else weight
    else:
        wire, weight, bias = call.args[0], call.args[1], None
        weight = weight.T if isinstance(weight, Tensor) and weight.dim() == 2 else None
    if not isinstance(wire, Wire) or not isinstance(weight, Tensor) or isinstance(bias, Wire):
        raise call.unknown("both factors depend on the image, or a constant comes first")
    return Affine(
        lambda x: F.linear(x, weight, bias), lambda x: F.linear(x, weight.abs()), weight.shape[-1], True,
        lambda g: F.linear(g, weight.T), matrix=weight if len(wire.shape) == 1 and weight.dim() == 2 else None,
    ), (wire,)  # fmt: skip


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _convolution(call: Call) -> Built:
    wire, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    if not isinstance(wire, Wire) or isinstance(weight, Wire) or isinstance(bias, Wire):
        raise call.unknown("its weights depend on the image")
    rest, names = (
        call.args[3:],
        {name: value for name, value in call.kwargs.items() if name not in ("weight", "bias", "input")},
    )
    transposed = "transpose" in call.name or (call.name == "convolution" and bool(call.arg(6, "transposed")))

    def function(x: Tensor) -> Tensor:
        found: Tensor = call.target(x, weight, bias, *rest, **names)
        return found

    def absolute(x: Tensor) -> Tensor:
        found: Tensor = call.target(x, weight.abs(), None, *rest, **names)
        return found

    terms = weight[:, 0].numel() if transposed else weight[0].numel()
    if call.name not in ("conv1d", "conv2d", "conv3d") or isinstance(call.arg(4, "padding", 0), str):
        return Affine(function, absolute, terms, True), (wire,)
    dims = weight.dim() - 2
    stride, padding = _each(call.arg(3, "stride"), dims, [1]), _each(call.arg(4, "padding"), dims, [0])
    dilation, groups = _each(call.arg(5, "dilation"), dims, [1]), int(call.arg(6, "groups", 1))
    plain = dims == 2 and groups == 1 and set(dilation) == {1}
    kernel = Kernel(weight, bias, tuple(stride), tuple(padding)) if plain else None
    adjoint = _convolution_back(weight, wire.shape, stride, padding, dilation, groups)
    return Affine(function, absolute, terms, True, adjoint, kernel), (wire,)


def _convolution_back(
    weight: Tensor, shape: torch.Size, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Callable[[Tensor], Tensor]:
    """The transposed convolution, without the forward pass that torch's own gradient would make."""
    dims = len(stride)

    def back(g: Tensor) -> Tensor:
        empty = g.new_empty(1).expand(len(g), *shape)
        found: Tensor = torch.ops.aten.convolution_backward(
            g, empty, weight, None, stride, padding, dilation, False, [0] * dims, groups, [True, False, False]
        )[0]
        return found

    return back


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def _batch_norm(call: Call) -> Built:
    wire, weight, bias, mean, var = call.args[:5]
    legit = call.name == "_native_batch_norm_legit_no_training"
    if not legit and call.arg(5, "training", False):
        raise call.unknown("it is in training mode, so images are mixed; call model.eval()")
    epsilon = call.args[6] if legit else call.args[7]
    if isinstance(mean, Wire) or mean is None:
        raise call.unknown("it has no running statistics, so images are mixed")
    scale = (var + epsilon).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    column = (-1, *[1] * (len(wire.shape) - 1))
    moved = (mean * scale).abs() + (
        0.0 if bias is None else bias.abs()
    )  # where mean and bias cancel, rounding does not
    scale, shift, beside = (one.view(column) for one in (scale, shift, moved))
    return Affine(lambda x: x * scale + shift, lambda x: x * scale.abs(), 4, apart=True, beside=beside), (wire,)


@rule("add", "sub", "rsub", "subtract", "neg", "negative")
def _sum(call: Call) -> Built:
    if call.name in ("neg", "negative"):
        return Affine(lambda x: -x, lambda x: x, apart=True), call.wires
    first, second = call.args[0], call.args[1]
    alpha = call.kwargs.get("alpha", 1)
    signs = {"add": (1, alpha), "rsub": (-alpha, 1)}.get(call.name, (1, -alpha))

    def sized(x: Tensor) -> Tensor:
        return x.expand(len(x), *call.shape)

    if isinstance(first, Wire) and isinstance(second, Wire):
        if first.number == second.number:
            total = signs[0] + signs[1]
            return Affine(lambda x: x * total, lambda x: x * abs(total), 1), (first,)
        return Affine(
            lambda x, y: sized(signs[0] * x + signs[1] * y),
            lambda x, y: sized(abs(signs[0]) * x + abs(signs[1]) * y),
            2,
        ), (first, second)
    wire, constant = (first, second) if isinstance(first, Wire) else (second, first)
    own, other = signs if isinstance(first, Wire) else signs[::-1]
    return Affine(
        lambda x: sized(own * x + other * constant), lambda x: sized(abs(own) * x), 1, apart=wire.shape == call.shape
    ), (wire,)


@rule("mul", "multiply", "div", "divide", "true_divide")
def _product(call: Call) -> Built:
    first, second = call.args[0], call.args[1]
    if isinstance(first, Wire) and isinstance(second, Wire):
        raise call.unknown("both factors depend on the image")
    if call.name in ("div", "divide", "true_divide"):
        if isinstance(second, Wire) or call.kwargs.get("rounding_mode"):
            raise call.unknown("the divisor depends on the image, or the quotient is rounded")
        wire, factor = first, 1 / second
    else:
        wire, factor = (first, second) if isinstance(first, Wire) else (second, first)
    size = factor.abs() if isinstance(factor, Tensor) else abs(factor)
    return Affine(
        lambda x: (x * factor).expand(len(x), *call.shape), lambda x: (x * size).expand(len(x), *call.shape), 2,
        apart=wire.shape == call.shape,
    ), (wire,)  # fmt: skip


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
      "_adaptive_avg_pool2d", "mean", "sum", "upsample_bilinear2d", "upsample_linear1d")  # fmt: skip
def _average(call: Call) -> Built:
    (wire,) = call.wires
    if call.name.startswith("avg_pool"):
        dims = len(wire.shape) - 1
        terms = math.prod(_each(call.arg(1, "kernel_size"), dims, [])) + 1
    elif "adaptive" in call.name:
        terms = math.prod(math.ceil(a / b) + 1 for a, b in zip(wire.shape[1:], call.shape[1:], strict=True)) + 1
    elif call.name in ("mean", "sum"):
        terms = wire.shape.numel() // max(1, call.shape.numel()) + 1
    else:
        terms = 4  # two neighbours in each direction
    return Affine(call.again, call.again, terms, True), (wire,)


# --- curves --------------------------------------------------------------------------------------------------------


def _curve(call: Call, curve: Curve) -> Built:
    return Elementwise(curve), call.wires


CURVES: dict[str, Callable[[Call], Curve]] = {
    "relu": lambda call: curves.relu(),
    "leaky_relu": lambda call: curves.leaky_relu(float(call.arg(1, "negative_slope", 0.01))),
    "relu6": lambda call: curves.clamp(0.0, 6.0),
    "hardtanh": lambda call: curves.clamp(float(call.arg(1, "min_val", -1.0)), float(call.arg(2, "max_val", 1.0))),
    "clamp_min": lambda call: curves.clamp(float(call.arg(1, "min")), math.inf),
    "clamp_max": lambda call: curves.clamp(-math.inf, float(call.arg(1, "max"))),
    "abs": lambda call: curves.absolute(),
    "absolute": lambda call: curves.absolute(),
    "tanh": lambda call: curves.tanh(),
    "sigmoid": lambda call: curves.sigmoid(),
    "gelu": lambda call: curves.gelu() if call.kwargs.get("approximate", "none") == "none" else curves.gelu_by_tanh(),
    "silu": lambda call: curves.silu(),
    "softplus": lambda call: curves.softplus(float(call.arg(1, "beta", 1.0)), float(call.arg(2, "threshold", 20.0))),
    "elu": lambda call: curves.elu(float(call.arg(1, "alpha", 1.0)), float(call.arg(2, "scale", 1.0))),
    "selu": lambda call: curves.elu(1.6732632423543772, 1.0507009873554805),
    "celu": lambda call: curves.elu(1.0, 1.0),
}


@rule(*CURVES)
def _activated(call: Call) -> Built:
    if call.name == "celu" and call.arg(1, "alpha", 1.0) != 1.0:
        raise call.unknown("only with alpha 1")
    return _curve(call, CURVES[call.name](call))


@rule("clamp", "clip")
def _clamped(call: Call) -> Built:
    least, most = call.arg(1, "min"), call.arg(2, "max")
    if isinstance(least, Tensor) or isinstance(most, Tensor):
        raise call.unknown("only with numbers as limits")
    return _curve(
        call, curves.clamp(-math.inf if least is None else float(least), math.inf if most is None else float(most))
    )


@rule("prelu", "_prelu_kernel")
def _prelu(call: Call) -> Built:
    """A slope for each channel; with one for all of them it is a leaky ReLU."""
    slope = call.arg(1, "weight")
    if slope.numel() != 1:
        raise call.unknown("only with one slope for all channels")
    return _curve(call, curves.leaky_relu(float(slope)))


# --- maxima --------------------------------------------------------------------------------------------------------


@rule("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices")
def _max_pool(call: Call) -> Built:
    (wire,) = call.wires
    if call.item:
        raise call.unknown("the places of the maxima are used")
    dims = len(wire.shape) - 1
    kernel = _each(call.arg(1, "kernel_size"), dims, [])
    stride, padding = _each(call.arg(2, "stride"), dims, kernel), _each(call.arg(3, "padding"), dims, [0])
    dilation = _each(call.arg(4, "dilation"), dims, [1])
    return Maximum(_windows(wire.shape, call.shape, kernel, stride, padding, dilation)), (wire,)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(call: Call) -> Built:
    (wire,) = call.wires
    sides = [(a, b) for a, b in zip(wire.shape[1:], call.shape[1:], strict=True)]
    if call.item or any(a % b for a, b in sides):
        raise call.unknown("only where all windows are of one size")
    kernel = [a // b for a, b in sides]
    return Maximum(_windows(wire.shape, call.shape, kernel, kernel, [0] * len(kernel), [1] * len(kernel))), (wire,)


@rule("amax")
def _largest(call: Call) -> Built:
    (wire,) = call.wires
    given = call.arg(1, "dim", [])
    dims = sorted({d % (len(wire.shape) + 1) for d in ([given] if isinstance(given, int) else given)})
    if not dims or 0 in dims:
        raise call.unknown("it mixes images")
    place = torch.arange(wire.shape.numel()).view(wire.shape)
    kept = [d for d in range(len(wire.shape)) if d + 1 not in dims]
    index = place.permute(*[d - 1 for d in dims], *kept).reshape(-1, *call.shape)
    return Maximum(index), (wire,)


def _each(value: Any, dims: int, default: list[int]) -> list[int]:
    """A number for each dimension; the default where there is none."""
    given = list(value) if isinstance(value, Sequence) else default if value is None else [int(value)]
    given = given or default
    return given * dims if len(given) == 1 else given


def _windows(
    shape: torch.Size, out: torch.Size, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The places (k, *out) of the numbers in each window of (channels, *sides); missing ones repeat one that is there."""
    sides = shape[1:]
    places = torch.zeros(tuple(kernel) + tuple(out[1:]), dtype=torch.int64)
    there = torch.ones_like(places, dtype=torch.bool)
    dims = len(sides)
    for axis in range(dims):
        inner = torch.arange(kernel[axis]).view(-1, *[1] * (2 * dims - axis - 1))
        outer = torch.arange(out[1 + axis]).view(-1, *[1] * (dims - axis - 1))
        at_axis = outer * stride[axis] - padding[axis] + inner * dilation[axis]
        there &= (at_axis >= 0) & (at_axis < sides[axis])
        places = places * sides[axis] + at_axis
    flat = torch.where(there, places, -1).flatten(0, dims - 1)
    flat = torch.where(flat < 0, flat.amax(0), flat)
    channel = torch.arange(shape[0]).view(1, -1, *[1] * dims) * math.prod(sides)
    return channel + flat.unsqueeze(1)
