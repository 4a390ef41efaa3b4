"""A model with the same answers and another backward: what gradients are taken from when its own are of no use.

Every `Part` changes one thing while a forward pass runs and leaves the model as it was; a `Rewired` model is a model with
some parts, in order. The verdict stays with the model itself.
"""

from __future__ import annotations

from abc import ABC
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..defenses.base import straight
from ..models.classifier import Model, logits_of
from ..models.inside import hookable, uncompiled
from .through import through

Module = Callable[[Tensor], Tensor]


class Part(ABC):
    """One change of the backward."""

    name: str

    def applied(self, model: Model, images: Tensor) -> AbstractContextManager[Any]:
        """In force while the model runs on these images."""
        return nullcontext()


@dataclass(frozen=True)
class Rewired:
    """A model with parts in force; `output` (None: as it is) turns its output into logits to attack."""

    model: Model
    parts: tuple[Part, ...]
    output: Output | None = None

    def __call__(self, images: Tensor) -> Any:
        """The model's output on images (N, *shape)."""
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            seen = None if self.output is None else stack.enter_context(self.output.watching(len(images)))
            for part in self.parts:
                stack.enter_context(part.applied(self.model, images))
            answer = self.model(images)
        return answer if self.output is None or seen is None else self.output.of(answer, seen)

    @property
    def name(self) -> str:
        """What is done, in words."""
        said = [part.name for part in (*self.parts, *([] if self.output is None else [self.output]))]
        return ", ".join(said) or "the model's own gradients"


@dataclass(frozen=True)
class Operations(Part):
    """A smooth backward for every operation without one, wherever it occurs; see `through`."""

    finite: bool = False
    name: str = "smooth backward for operations that have none"

    @contextmanager
    def applied(self, model: Model, images: Tensor) -> Iterator[None]:
        """Let gradients through whatever runs."""
        with without_hooks(model), through(self.finite):
            yield


@dataclass(frozen=True)
class Unrolled(Part):
    """The same for a model that takes gradients itself: these are differentiated too, step by step."""

    finite: bool = False
    name: str = "gradients through those that the model takes itself"

    @contextmanager
    def applied(self, model: Model, images: Tensor) -> Iterator[None]:
        """Let gradients through, inner ones as well."""
        with without_hooks(model), through(self.finite, unrolled=True):
            yield


@dataclass(frozen=True)
class Front(Part):
    """Everything before the first layer with weights is passed over on the way back, or stood in for.

    stand_in:  from images to the first layer's input; None: the identity.
    """

    stand_in: Module | None = None
    name: str = "identity backward through all before the first layer"

    @contextmanager
    def applied(self, model: Model, images: Tensor) -> Iterator[None]:
        """Hook whichever layer runs first."""
        with first_input(model, lambda value: _replaced(value, images, self.stand_in)):
            yield


@dataclass(frozen=True)
class Past(Part):
    """A module (by path) is passed over on the way back, or stood in for."""

    path: str
    kind: str
    stand_in: Module | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """What is done."""
        how = "identity" if self.stand_in is None else "fitted"
        return f"{how} backward through {self.path or 'the model'} ({self.kind})"

    @contextmanager
    def applied(self, model: Model, images: Tensor) -> Iterator[None]:
        """Hook the module."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], value: Any) -> Any:
            given = next((item for item in inputs if isinstance(item, Tensor)), None)
            return value if given is None or not isinstance(value, Tensor) else _replaced(value, given, self.stand_in)

        module = dict(hookable(model)).get(self.path)
        handle = None if module is None else module.register_forward_hook(hook)
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()


def _replaced(value: Tensor, source: Tensor, stand_in: Module | None) -> Tensor:
    with torch.enable_grad():
        smooth = source if stand_in is None else stand_in(source)
        if smooth.shape != value.shape or not value.is_floating_point():
            return value
        return straight(smooth.to(value.dtype), value.detach())


@contextmanager
def without_hooks(model: Model) -> Iterator[None]:
    """Modules run without the hooks that may change gradients on their way back."""
    with ExitStack() as stack:
        for _, module in hookable(model):
            for name in ("_backward_hooks", "_backward_pre_hooks"):
                if getattr(module, name, None):
                    stack.enter_context(patch.object(module, name, OrderedDict()))
        yield


@contextmanager
def first_input(model: Model, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what the first layer with weights gets, in every forward pass that runs inside."""
    layers = [module for _, module in hookable(model) if any(p is not None for p in module._parameters.values())]
    running = {"done": False}

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        if running["done"] or not inputs or not isinstance(inputs[0], Tensor):
            return None
        running["done"] = True
        return (change(inputs[0]), *inputs[1:])

    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def front_of(model: Model, images: Tensor) -> Tensor | None:
    """What the first layer with weights gets of these images; None where no such layer is found."""
    got: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        got.append(value.detach())
        raise _Reached

    with uncompiled(), torch.no_grad(), suppress(_Reached), first_input(model, keep):
        model(images)
    return got[0] if got else None


class _Reached(BaseException):
    """Ends a forward pass where no more of it is wanted; no error, so that no model takes it for one of its own."""


@dataclass(frozen=True)
class Bare:
    """A model without what stands before its first layer with weights: the network alone."""

    model: Model

    def __call__(self, images: Tensor) -> Any:
        """The model's output when its first layer gets the images themselves."""
        with (
            uncompiled(),
            first_input(self.model, lambda value: images.to(value.dtype) if images.shape == value.shape else value),
        ):
            return self.model(images)


class Watch(TorchFunctionMode):
    """Collects every float result of shape (rows, classes)."""

    def __init__(self, rows: int, classes: int) -> None:
        super().__init__()
        self.shape = (rows, classes)
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Called by torch for every call of its API."""
        value = func(*args, **(kwargs or {}))
        if isinstance(value, Tensor) and tuple(value.shape) == self.shape and value.is_floating_point():
            self.found.append(value)
        return value


@dataclass(frozen=True)
class Output(Part):
    """The logits as they stand before what flattens them, and on a scale on which losses do not saturate.

    classes:  how many there are.
    at:       which of the results of shape (rows, classes) to take, counted from the first; None: the output itself.
    scale:    divide by this.
    """

    classes: int
    at: int | None
    scale: float = 1.0

    @property
    def name(self) -> str:  # type: ignore[override]
        """What is done."""
        tapped = "" if self.at is None else "logits taken from before the output's last operations"
        scaled = "" if self.scale == 1 else f"logits divided by {self.scale:.3g}"
        return ", ".join(word for word in (tapped, scaled) if word)

    def watching(self, rows: int) -> AbstractContextManager[Watch]:
        """Collect the results that may be taken."""
        return Watch(rows, self.classes)

    def of(self, answer: Any, seen: Watch) -> Tensor:
        """The logits (N, C)."""
        taken = None if self.at is None or self.at >= len(seen.found) else seen.found[self.at]
        logits = logits_of(answer, seen.shape[0]) if taken is None else taken
        return logits if self.scale == 1 else logits / self.scale


@dataclass(frozen=True)
class Smoothed:
    """The mean of a model's logits over Gaussian noise on the images, always the same noise.

    Where gradients are shattered, their mean over a neighbourhood still points somewhere.
    """

    model: Model
    sigma: float
    draws: int = 8
    seed: int = 0
    name: str = field(default="gradients averaged over noise")

    @property
    def passes(self) -> tuple[int, int]:
        """A pass takes as many of the model as there are draws."""
        return self.draws, self.draws

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        generator = torch.Generator().manual_seed(self.seed)
        total: Tensor | None = None
        for _ in range(self.draws):
            noise = torch.randn(images.shape[1:], generator=generator, dtype=images.dtype).to(images.device)
            logits = logits_of(self.model(images + self.sigma * noise), len(images))
            total = logits if total is None else total + logits
        assert total is not None
        return total / self.draws
