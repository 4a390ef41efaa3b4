"""A Keras 3 model on its torch backend, as a module of images (N, C, H, W)."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MissingExtra, ModelError, must_be
from ..access import Access
from ..facts import Facts
from . import keras_graph

Numbers = float | str | Sequence[float] | None
Sides = int | str | Sequence[int] | None
LEAST = 1e-7  # of a probability that is turned into a logit: what float32 tells from 1
_EACH = "a float, or one for each channel, such as 0.485,0.456,0.406,"


class KerasModel(nn.Module):
    """A Keras model of images (N, C, H, W), or of rows (N, D), that answers logits.

    A softmax or sigmoid at its end is cut off; of a subclassed model, whose graph is not seen, one probability is turned
    into its logit. What is done to images before it, in this order: resized (bilinear, half
    pixels, no antialias, as Keras' own resizing), turned to BGR, (x - mean) / std, times scale.

    network:    a built Keras model of one input.
    scale:      255 for a network that was trained on pixels from 0 to 255.
    mean, std:  one float, or one for each channel, in units of the images' own range.
    size:       (height, width), or one number for both, that the network takes.
    bgr:        whether it was trained on BGR, as the ResNet and VGG of keras.applications were.
    """

    access = Access.GRADIENT
    shift: Tensor
    spread: Tensor

    def __init__(
        self,
        network: Any,
        *,
        scale: float = 1.0,
        mean: Numbers = None,
        std: Numbers = None,
        size: Sides = None,
        bgr: bool = False,
        source: str = "",
    ) -> None:
        super().__init__()
        keras = imported()
        _usable(network, keras)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
            raise must_be("KerasModel", "scale", "a float above 0, such as 255", scale)
        self.held = (network, {"scale": scale, "mean": mean, "std": std, "size": size, "bgr": bgr, "source": source})
        found = keras_graph.cut(network, keras)
        self.one_probability = not found.squashing and keras_graph.one_probability(network, keras)
        self.least = 0.5 if found.squashing == "sigmoid" or self.one_probability else 0.0  # one answer above is class 1
        self.steps = nn.ModuleList(found.steps)
        self.layers = nn.ModuleDict(
            _named(found.steps)
        )  # Keras hides them; so that they can be watched and passed over
        self.inside = _input_shape(network)  # of the network, without the batch; None: any
        self.first = keras_graph.channels_first(network, keras)
        self.scale, self.bgr, self.size = float(scale), bool(bgr), _pair(size)
        self.register_buffer("shift", torch.tensor(_numbers("mean", mean, 0.0)).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(_numbers("std", std, 1.0)).reshape(-1, 1, 1), persistent=False)
        for name, given in (("mean", self.shift), ("std", self.spread)):
            if len(given) not in (1, (self._size() or (len(given),))[0]):
                raise must_be("KerasModel", name, _EACH.rstrip(","), given.flatten().tolist())
        self._seeds = self._hold_state(network)
        self.drawn = torch.Generator()
        self.__name__ = str(network.name)
        self.facts = Facts("Keras 3, on torch", source, self._size(), self._words(network, found.squashing))

    def _hold_state(self, network: Any) -> tuple[Tensor, ...]:
        """What a pass may change besides the weights, as buffers, which are put back; returns the states of its draws."""
        fixed = [variable for variable in network.variables if not variable.trainable]
        for at, variable in enumerate(fixed):
            self.register_buffer(f"state_{at}", variable.value, persistent=False)
        return tuple(v.value for v in fixed if v.path.endswith("seed_generator_state"))

    def __reduce__(self) -> Any:
        network, options = self.held
        return _again, (pickle.dumps(network), options)

    def forward(self, images: Tensor) -> Any:
        """Logits (N, C) of images (N, C, H, W) or rows (N, D)."""
        before = [state.clone() for state in self._seeds]
        found: Any = self._inward(images)
        for step in self.steps:
            found = step(found, training=False)
        if any(not torch.equal(a, b) for a, b in zip(before, self._seeds, strict=True)):
            torch.rand(1, generator=self.drawn)  # Keras draws by states of its own: so it is seen that it has drawn
        one = self.one_probability and found.dim() <= 2 and found.shape[1:].numel() == 1
        return torch.logit(found, LEAST) if one else found

    def raw(self, images: Tensor) -> Tensor:
        """The labels (N,) that Keras' own `predict_on_batch` answers."""
        network, _ = self.held
        answers = torch.as_tensor(network.predict_on_batch(self._inward(images).detach().cpu().numpy()))
        return (answers.flatten() > self.least).long() if answers.shape[1:].numel() == 1 else answers.argmax(1)

    def _inward(self, images: Tensor) -> Tensor:
        """Images as the network takes them."""
        x = images
        if x.dim() == 4:
            if self.size is not None and tuple(x.shape[2:]) != self.size:
                x = nn.functional.interpolate(x, self.size, mode="bilinear", align_corners=False)
            x = x.flip(1) if self.bgr else x
        mean, std = (t.to(x.dtype) if x.dim() == 4 else t.to(x.dtype).flatten() for t in (self.shift, self.spread))
        x = (x - mean) / std * self.scale
        self._judge(x, images)
        if x.dim() != 4:
            return x
        rank = 3 if self.inside is None else len(self.inside)
        if rank == 2:
            return x[:, 0]
        x = x if self.first else x.permute(0, 2, 3, 1)
        return x.flatten(1) if rank == 1 else x

    def _size(self) -> tuple[int, ...] | None:
        """(C, H, W) or (D,) of what the network takes, where all of it is known."""
        known = [side for side in self.inside or () if side is not None]
        if self.inside is None or len(known) < len(self.inside):
            return None
        shape = tuple(known)
        if len(shape) == 3 and not self.first:
            shape = (shape[2], *shape[:2])
        return (1, *shape) if len(shape) == 2 else shape

    def _judge(self, x: Tensor, images: Tensor) -> None:
        """Say what is wrong with images that the network cannot take."""
        wanted, got = self._size(), tuple(x.shape[1:])
        if wanted is None or got == wanted or (len(wanted) != 1 and len(got) != 3 and got == self.inside):
            return
        if len(wanted) == 1 and x[:1].numel() == wanted[0]:
            return
        cure = ""
        if (got[1:] + got[:1] == wanted or got[-1:] + got[:-1] == wanted) and len(got) == 3:
            cure = " The images look channels-last (N, H, W, C): give images.permute(0, 3, 1, 2)."
        elif wanted[0] == 1 and got == wanted[1:]:
            cure = " Give them one channel: images[:, None]."
        elif len(got) == len(wanted) == 3 and got[0] == wanted[0]:
            cure = f" Have them resized within the model, by the option size={wanted[1]}x{wanted[2]}, or beforehand."
        raise ModelError(f"The Keras model takes images of shape {wanted}. Got {tuple(images.shape[1:])}.{cure}")

    def _words(self, network: Any, squashing: str) -> str:
        """What is done to images before the network, and what was cut off after it."""
        words = [f"resized to {self.size[0]}×{self.size[1]} (bilinear)"] if self.size else []
        words += ["turned to BGR"] if self.bgr else []
        mean, std = (", ".join(f"{n:g}" for n in t.flatten().tolist()) for t in (self.shift, self.spread))
        words += [f"less {mean}, divided by {std}"] if (mean, std) != ("0", "1") else []
        words += [f"times {self.scale:g}"] if self.scale != 1.0 else []
        words += keras_graph.scaling(network)
        if keras_graph.expects_bytes(network) and self.scale == 1.0:
            words.append("so it expects pixels from 0 to 255: give the option scale=255 for images in [0, 1]")
        words += [f"the {squashing} at its end is cut off"] if squashing else []
        words += ["its one probability is turned into a logit"] if self.one_probability else []
        return "; ".join(words)


def imported() -> Any:
    """Keras 3, on torch. Raises `MissingExtra` where it is not there, `ModelError` where it runs on something else."""
    before = os.environ.get("KERAS_BACKEND")
    known = "keras" in sys.modules
    try:
        os.environ["KERAS_BACKEND"] = "torch"  # read once, at the import
        keras = importlib.import_module("keras")
    except ImportError as error:
        there = importlib.util.find_spec("keras") is not None
        what = f"Keras cannot be imported ({error})" if there else "Keras 3 is not installed"
        raise MissingExtra(f'{what}. Install it: pip install "unfooled[keras]"') from error
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before
    if int(keras.__version__.split(".")[0]) < 3:
        raise MissingExtra(f'Keras 3 is needed; this is {keras.__version__}. Install it: pip install "unfooled[keras]"')
    backend = keras.config.backend()
    if backend != "torch":
        when = "Keras was imported before, and" if known else "Keras"
        raise ModelError(
            f"{when} runs on {backend}, where torch gets no gradients: set KERAS_BACKEND=torch before keras is imported. "
            "For scores only: BlackBox(model.predict_on_batch, 'probabilities', arrays=True, last=True)."
        )
    return keras


def _again(pickled: bytes, options: Mapping[str, Any]) -> KerasModel:
    """A copy, also in another process: Keras is put on torch before anything of it is read."""
    imported()
    return KerasModel(pickle.loads(pickled), **options)


def _named(steps: Sequence[Any]) -> dict[str, Any]:
    """The layers of the steps that compute something, each once, by names that a module may have."""
    found: dict[str, Any] = {}
    for layer in (one for step in steps for one in keras_graph.leaves(step)):
        if all(layer is not other for other in found.values()):
            name = layer.name.replace(".", "_")
            found[name if name not in found else f"{name}_{len(found)}"] = layer
    return found


def _usable(network: Any, keras: Any) -> None:
    if not isinstance(network, keras.layers.Layer):
        raise ModelError(f"A Keras model is needed. Got {type(network).__name__}.")
    if not network.built:
        raise ModelError(f"The Keras model {network.name!r} has no weights yet: build it, or fit it, first.")
    inputs = getattr(network, "inputs", None)
    if isinstance(inputs, list) and len(inputs) != 1:
        raise ModelError(
            f"The Keras model {network.name!r} takes {len(inputs)} inputs: fix all but the images in a model of one input."
        )


def _input_shape(network: Any) -> tuple[int | None, ...] | None:
    inputs = getattr(network, "inputs", None)
    return tuple(inputs[0].shape[1:]) if isinstance(inputs, list) else None


def _numbers(name: str, given: Numbers, usual: float) -> list[float]:
    """One float for each channel, from a float, several, or their text."""
    if given is None:
        return [usual]
    try:
        parts: Any = given.split(",") if isinstance(given, str) else given
        found = [float(part) for part in parts] if hasattr(parts, "__iter__") else [float(parts)]
    except (TypeError, ValueError):
        found = []
    if not found or (name == "std" and min(found) <= 0):
        raise must_be("KerasModel", name, _EACH + (" above 0" if name == "std" else ""), given)
    return found


def _pair(size: Sides) -> tuple[int, int] | None:
    """Height and width from 224, (224, 160) or "224x160"."""
    if size is None:
        return None
    try:
        parts = size.lower().split("x") if isinstance(size, str) else [size] if isinstance(size, int) else list(size)
        found = [int(part) for part in parts]
    except (TypeError, ValueError):
        found = []
    if len(found) not in (1, 2) or min(found) < 1:
        raise must_be("KerasModel", "size", "one side, or height and width, such as 224 or 224x160", size)
    return found[0], found[-1]
