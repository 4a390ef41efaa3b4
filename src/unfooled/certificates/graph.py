"""A model as a graph of affine maps, curves and maxima: traced by torch.fx, one row per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import ModelError, UnfooledError
from ..models.classifier import Model, logits_of, untouched
from ..models.inside import hookable, uncompiled
from . import lowering
from .operations import Affine, Elementwise, Maximum, Operation

ROWS = 97  # images in the trace; what each tensor's first dimension must be
LAYER = "nn_module_stack"  # what torch.fx copies to each node from the meta data in force
LIKE = (
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
)  # of an image they take the shape only


@dataclass(frozen=True)
class Step:
    """One operation of a network: on the outcomes of which steps, the shape of one row that comes out, and its name."""

    operation: Operation
    inputs: tuple[int, ...]
    shape: torch.Size
    name: str


@dataclass(frozen=True)
class Network:
    """Steps in order. Number 0 is the image itself, number i the outcome of step i - 1; the last ones are the logits."""

    shape: torch.Size
    steps: tuple[Step, ...]

    def shape_of(self, number: int) -> torch.Size:
        """The shape of one row of an outcome."""
        return self.steps[number - 1].shape if number else self.shape

    def values(self, images: Tensor) -> list[Tensor]:
        """Every outcome on images (N, *shape)."""
        found = [images]
        for step in self.steps:
            inputs = [found[at] for at in step.inputs]
            match step.operation:
                case Affine(function=function):
                    found.append(function(*inputs))
                case Elementwise(curve=curve):
                    found.append(curve.function(inputs[0]))
                case Maximum() as maximum:
                    found.append(maximum.windows(inputs[0]).amax(1))
        return found


class Traced:
    """A model's graph for images of one shape. `network` makes it computable in some dtype, from the weights as they are.

    Raises `ModelError` for a model whose operations the bounds do not know, or that decides by the values of its input.
    """

    def __init__(self, model: Model, image: Tensor) -> None:
        """`image` (*shape): one image, for its shape and dtype."""
        self.shape = image.shape
        self.nodes, self.held = _trace(model, torch.zeros((ROWS, *image.shape), dtype=image.dtype, device=image.device))

    def network(self, dtype: torch.dtype = torch.float64) -> Network:
        """The operations, with constants of that dtype. Gradients flow to the weights where gradients are on."""
        known: dict[fx.Node, Any] = {}  # constants, and the numbers of what depends on the image
        steps: list[Step] = []
        for node in self.nodes:
            if node.op == "placeholder":
                known[node] = Wire(0, self.shape)
            elif node.op == "get_attr":
                known[node] = self.held[str(node.target)]
            elif node.op == "output":
                break
            elif not _depends(node, known):
                known[node] = _constant(node, known)
            elif lowering.name_of(node) in LIKE:
                known[node] = _like(node, known)
            elif lowering.several(node):
                known[node] = Wire(-1, torch.Size())
            else:
                known[node] = self._step(node, known, steps, dtype)
        return Network(self.shape, tuple(steps))

    def _step(self, node: fx.Node, known: dict[fx.Node, Any], steps: list[Step], dtype: torch.dtype) -> Wire:
        source, item = lowering.part(node)
        args, kwargs = fx.node.map_arg((source.args, dict(source.kwargs)), lambda one: _cast(known[one], dtype))
        shape = _row_shape(node)
        built = lowering.lowered(source, args, kwargs, shape, item, _where(source))
        if isinstance(built, Wire):  # the same numbers
            return built
        operation, wires = built
        steps.append(Step(operation, tuple(wire.number for wire in wires), shape, _where(source)))
        return Wire(len(steps), shape)


Wire = lowering.Wire


def _trace(model: Model, images: Tensor) -> tuple[list[fx.Node], dict[str, Tensor]]:
    def logits(x: Tensor) -> Tensor:
        return logits_of(model(x), ROWS)

    try:
        with untouched(model), torch.no_grad():
            model(images[:1])  # so that constants which it keeps from its first call on are no tensors of the trace
        with untouched(model), uncompiled(), _named(model), torch.no_grad():
            found = make_fx(logits, tracing_mode="fake", _allow_non_fake_inputs=True, pre_dispatch=True)(images)
    except UnfooledError:
        raise
    except Exception as error:
        if "ata-dependent" in str(error) or "DataDependent" in type(error).__name__:
            raise ModelError(
                "The model decides by the values of its input (an if, a loop or an index that depends on them), so no "
                "bound covers it. Compute both sides, or give the part of it that always runs."
            ) from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The model cannot be traced, so no bound covers it: {first}") from error
    found.graph.eliminate_dead_code()
    held = {str(node.target): getattr(found, str(node.target)) for node in found.graph.nodes if node.op == "get_attr"}
    return list(found.graph.nodes), held


@contextmanager
def _named(model: Model) -> Iterator[None]:
    """While this is in force, each operation that is traced notes the module that it is in."""
    inside: list[str] = []
    hooks = []

    def enter(label: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            inside.append(label)
            traceback.current_meta[LAYER] = {"layer": label}

        return note

    def leave(*_: Any) -> None:
        inside.pop()
        traceback.current_meta[LAYER] = {"layer": inside[-1] if inside else ""}

    before = dict(traceback.current_meta)
    try:
        for path, module in hookable(model):
            label = f"{path} ({type(module).__name__})" if path else type(module).__name__
            hooks += [module.register_forward_pre_hook(enter(label)), module.register_forward_hook(leave)]
        with traceback.preserve_node_meta():
            yield
    finally:
        traceback.current_meta.clear()
        traceback.current_meta.update(before)
        for hook in hooks:
            hook.remove()


def _where(node: fx.Node) -> str:
    return str(node.meta.get(LAYER, {}).get("layer", ""))


def _depends(node: fx.Node, known: dict[fx.Node, Any]) -> bool:
    return any(isinstance(known.get(one), Wire) for one in node.all_input_nodes)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _constant(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """What does not depend on the image, computed as the model computes it; if it has a row for each image, one of them."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags:
        raise ModelError(f"The model draws random numbers{lowering.at(_where(node))}: use randomized smoothing for it.")
    assert callable(node.target)
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda one: known[one])
    value = node.target(*args, **kwargs)
    if isinstance(value, Tensor) and value.dim() and len(value) == ROWS and bool((value == value[:1]).all()):
        return value[:1]
    return value


def _like(node: fx.Node, known: dict[fx.Node, Any]) -> Tensor:
    """A constant with the shape of something that depends on the image: one row of it."""
    shape = (1, *_row_shape(node))
    name = lowering.name_of(node)
    value = 0.0 if "zeros" in name else 1.0 if "ones" in name else node.args[-1]
    return torch.full(shape, value)  # type: ignore[arg-type]


def _row_shape(node: fx.Node) -> torch.Size:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] != ROWS:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ModelError(
            f"The model mixes images, or moves them out of the first dimension{lowering.at(_where(node))}: "
            f"{lowering.name_of(node)} makes {got} of {ROWS} images. Keep the first dimension for the images."
        )
    return torch.Size(value.shape[1:])
