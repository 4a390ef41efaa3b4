"""Where nothing happens to the numbers, or they are only moved."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..operations import Affine
from .calls import Built, Call, rule


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
