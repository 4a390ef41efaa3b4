"""Maxima over windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..operations import Maximum
from .calls import Built, Call, each, rule


@rule("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices")
def _max_pool(call: Call) -> Built:
    (wire,) = call.wires
    if call.item:
        raise call.unknown("the places of the maxima are used")
    dims = len(wire.shape) - 1
    kernel = each(call.arg(1, "kernel_size"), dims, [])
    stride, padding = each(call.arg(2, "stride"), dims, kernel), each(call.arg(3, "padding"), dims, [0])
    dilation = each(call.arg(4, "dilation"), dims, [1])
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
