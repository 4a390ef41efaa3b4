"""Curves that are applied to each number."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .. import curves
from ..curves import Curve
from ..operations import Elementwise
from .calls import Built, Call, rule


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
