"""Affine maps: products with constants, sums, means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..operations import Affine, Kernel
from .calls import Built, Call, Wire, each, rule


@rule("linear", "addmm", "mm", "matmul")
def _linear(call: Call) -> Built:
    if call.name == "linear":
        weight, bias = call.arg(1, "weight"), call.arg(2, "bias")
        wire = call.arg(0, "input")
    elif call.name == "addmm" and not call.kwargs:
        bias, wire, weight = call.args[0], call.args[1], call.args[2]
        weight = weight.T if isinstance(weight, Tensor) else weight
    elif call.name == "matmul" and isinstance(call.args[0], Tensor):
        return _from_the_left(call)
    else:
        wire, weight, bias = call.args[0], call.args[1], None
        weight = weight.T if isinstance(weight, Tensor) and weight.dim() == 2 else None
    if not isinstance(wire, Wire) or not isinstance(weight, Tensor) or isinstance(bias, Wire):
        raise call.unknown("both factors depend on the image, or a constant comes first")
    return Affine(
        lambda x: F.linear(x, weight, bias), lambda x: F.linear(x, weight.abs()), weight.shape[-1], True,
        lambda g: F.linear(g, weight.T), matrix=weight if len(wire.shape) == 1 and weight.dim() == 2 else None,
    ), (wire,)  # fmt: skip


def _from_the_left(call: Call) -> Built:
    """A constant matrix times the last two dimensions of each row, as a blur of heights is."""
    matrix, wire = call.args
    if matrix.dim() != 2 or len(wire.shape) < 2:
        raise call.unknown("a constant that comes first must be one matrix, and each image's part as well")
    return Affine(
        lambda x: matrix @ x, lambda x: matrix.abs() @ x, matrix.shape[-1], True, lambda g: matrix.T @ g
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
    stride, padding = each(call.arg(3, "stride"), dims, [1]), each(call.arg(4, "padding"), dims, [0])
    dilation, groups = each(call.arg(5, "dilation"), dims, [1]), int(call.arg(6, "groups", 1))
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
            factors=signs if first.shape == second.shape == call.shape else (),
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
        terms = math.prod(each(call.arg(1, "kernel_size"), dims, [])) + 1
    elif "adaptive" in call.name:
        terms = math.prod(math.ceil(a / b) + 1 for a, b in zip(wire.shape[1:], call.shape[1:], strict=True)) + 1
    elif call.name in ("mean", "sum"):
        terms = wire.shape.numel() // max(1, call.shape.numel()) + 1
    else:
        terms = 4  # two neighbours in each direction
    return Affine(call.again, call.again, terms, True), (wire,)
