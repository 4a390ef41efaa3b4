"""What a Keras model's graph says of it: where its logits are, what it does to pixels itself, which axis has the channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SQUASHING = ("softmax", "sigmoid")


@dataclass(frozen=True)
class Cut:
    """A model as steps that are called one after the other and end at its logits.

    steps:      layers and models that share the model's variables.
    squashing:  what came after the logits, such as "softmax"; "" where nothing was cut off.
    """

    steps: tuple[Any, ...]
    squashing: str = ""


def cut(model: Any, keras: Any) -> Cut:
    """The model without a softmax or sigmoid at its end; as it is where there is none, or where it cannot be seen.

    It is sought in the graph of a functional or sequential model, also in a model that is its last layer. A subclassed
    model has no graph.
    """
    outputs = getattr(model, "outputs", None)
    if not isinstance(outputs, list) or len(outputs) != 1 or len(outputs[0].shape) != 2:
        return Cut((model,))
    last, at, _ = outputs[0]._keras_history
    fed = last._inbound_nodes[at].input_tensors if last._inbound_nodes else []
    if len(fed) != 1:
        return Cut((model,))
    inner = _end(last, keras)
    if not inner.squashing:
        return Cut((model,))
    before = () if fed[0] is model.inputs[0] else (keras.Model(model.inputs, fed[0]),)
    return Cut((*before, *inner.steps), inner.squashing)


def _end(last: Any, keras: Any) -> Cut:
    """The steps that stand for the last operation."""
    if isinstance(last, keras.Model):
        return cut(last, keras)
    if not type(last).__module__.startswith("keras."):
        return Cut((last,))  # what a class of the user's own does with its activation is not known
    kind = type(last).__name__.lower()
    if kind in SQUASHING and getattr(last, "axis", -1) in (-1, 1):
        return Cut((), kind)
    name = next((s for s in SQUASHING if getattr(last, "activation", None) is getattr(keras.activations, s)), "")
    if not name:
        return Cut((last,))
    if isinstance(last, keras.layers.Activation):
        return Cut((), name)
    return Cut((_linear(last, keras),), name)


def _linear(layer: Any, keras: Any) -> Any:
    """The same layer, with the same variables, without its activation; the layer itself stays as it is."""
    twin = object.__new__(type(layer))
    vars(twin).update(vars(layer))
    vars(twin)["activation"] = keras.activations.linear
    return twin


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer within, in order, models among them opened."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from layers_of(layer)


def leaves(step: Any) -> Iterator[Any]:
    """The layers within that hold no others and are no inputs; of a single layer, itself."""
    several = list(layers_of(step))
    if not several:
        yield step
    yield from (one for one in several if not hasattr(one, "layers") and type(one).__name__ != "InputLayer")


def channels_first(model: Any, keras: Any) -> bool:
    """Whether the first layer that has a layout takes (N, C, H, W)."""
    layouts = (getattr(layer, "data_format", None) for layer in layers_of(model))
    return bool(next((found for found in layouts if found), keras.config.image_data_format()) == "channels_first")


def scaling(model: Any) -> tuple[str, ...]:
    """What layers within do to the pixels, in words."""
    words = []
    for layer in layers_of(model):
        kind = type(layer).__name__
        if kind == "Rescaling":
            words.append(
                f"its own layer Rescaling multiplies by {_number(layer.scale)} and adds {_number(layer.offset)}"
            )
        elif kind == "Normalization":
            words.append("its own layer Normalization takes off a mean and divides")
        elif kind == "Resizing":
            words.append(f"its own layer Resizing makes them {layer.height}×{layer.width}")
    return tuple(words)


def expects_bytes(model: Any) -> bool:
    """Whether a Rescaling layer within brings pixels from 0 to 255 to about 1."""
    found = (layer.scale for layer in layers_of(model) if type(layer).__name__ == "Rescaling")
    return any(0 < scale < 0.02 for scale in found if isinstance(scale, int | float))


def one_probability(model: Any, keras: Any) -> bool:
    """Whether a subclassed model, whose graph is not seen, seems to answer one probability: by the last of its layers."""
    if isinstance(getattr(model, "outputs", None), list):
        return False
    last = [*leaves(model)][-1]
    return getattr(last, "activation", None) is keras.activations.sigmoid and getattr(last, "units", 1) == 1


def _number(value: Any) -> str:
    if isinstance(value, int | float):
        parts = round(1 / value, 6) if 0 < abs(value) < 1 else 0.0
        return f"1/{parts:g}" if parts and parts == round(parts * 2) / 2 else f"{value:g}"
    return str(list(value)) if hasattr(value, "__iter__") else str(value)
