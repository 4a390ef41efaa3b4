"""A caller's model as the rest sees it: float images in, logits (N, C) out, and nothing of it changed afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, UnfooledError
from .generators import generators, restore, state_of

Model = Callable[[Tensor], Any]


@dataclass
class Passes:
    """Passes of single images through models, counted while `counting` is in force."""

    forward: int = 0
    backward: int = 0


_COUNTING: list[Passes] = []


@contextmanager
def counting(passes: Passes | None) -> Iterator[None]:
    """Count what goes through any `Classifier`; None: what is inside is not counted."""
    before = list(_COUNTING)
    _COUNTING[:] = [] if passes is None else [*before, passes]
    try:
        yield
    finally:
        _COUNTING[:] = before


class Classifier:
    """A model with its dtype and device, answering logits in float32 or its own wider dtype.

    The model may return logits (N, C), one logit (N,) or (N, 1) of a binary classifier, or a tuple or mapping that
    holds them (see `logits_of`).

    cost:  how many passes of a network a forward and a backward pass of the model take; a model that takes several says so
           by an attribute `passes`.
    """

    def __init__(self, model: Model) -> None:
        if not callable(model):
            raise ModelError(
                f"A model must be an nn.Module or a callable from images to logits. Got {type(model).__name__}."
            )
        self.model = model
        self.cost: tuple[int, int] = getattr(model, "passes", (1, 1))
        self.module = module_of(model)
        self.generators = () if self.module is None else generators(self.module)
        first = next(
            (t for t in (*self.module.parameters(), *self.module.buffers()) if t.is_floating_point())
            if self.module is not None
            else iter(()),
            None,
        )
        self.dtype: torch.dtype | None = None if first is None else first.dtype
        self.device: torch.device | None = None if first is None else first.device

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, *shape)."""
        given = images.to(self.dtype) if self.dtype else images
        version = None if given.is_inference() else given._version
        try:
            output = self.model(given)
        except (UnfooledError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise _failed(error, given) from error
        logits = logits_of(output, len(images))
        if version is not None and given._version != version:
            raise ModelError("The model changes its input in place. Let it work on a copy: x = x.clone().")
        self._counted(logits)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _counted(self, logits: Tensor) -> None:
        for passes in _COUNTING:
            passes.forward += self.cost[0] * len(logits)
            if logits.requires_grad:

                def back(gradient: Tensor, passes: Passes = passes) -> None:
                    passes.backward += self.cost[1] * len(gradient)

                logits.register_hook(back)


def _failed(error: Exception, z: Tensor) -> ModelError:
    """What to say of a model that raised an error of its own on points z."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = (
        lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    )  # which begins with where, and ends with what
    return ModelError(f"The model failed on images of shape {tuple(z.shape[1:])}: {reason}{_cure(z)}")


def _cure(z: Tensor) -> str:
    """What is probably wrong with images that a model refuses."""
    if z.dim() == 4 and z.shape[-1] in (1, 3, 4) and z.shape[1] not in (1, 3, 4):
        return ". The images look channels-last (N, H, W, C): give images.permute(0, 3, 1, 2)."
    return ""


def logits_of(output: Any, rows: int) -> Tensor:
    """The logits in a model's output, by rule.

    A tensor is the logits; of a mapping (or a dataclass), the entry `logits`, else its only float tensor; of a tuple,
    its first float tensor with a row per image. One logit z per image means two classes with logits (0, z). Use
    `unfooled.models.Output` to name another one.
    """
    found = _find(output, rows)
    if found.dim() == 1 or (found.dim() == 2 and found.shape[1] == 1):
        found = torch.stack([torch.zeros_like(found.flatten()), found.flatten()], dim=1)
    if found.dim() != 2 or len(found) != rows or not found.is_floating_point():
        raise ModelError(
            f"The model must return logits of shape ({rows}, classes) for {rows} images. "
            f"It returned {found.dtype} of shape {tuple(found.shape)}."
        )
    return found


def _find(output: Any, rows: int) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if dataclasses.is_dataclass(output) and not isinstance(output, Mapping):
        output = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    if isinstance(output, Mapping):
        if isinstance(output.get("logits"), Tensor):
            return output["logits"]  # type: ignore[no-any-return]
        tensors = [v for v in output.values() if _fits(v, rows)]
        if len(tensors) == 1:
            return tensors[0]  # type: ignore[no-any-return]
        raise ModelError(
            f"The model returned a mapping with the entries {sorted(map(str, output))}, none of them named 'logits'. "
            "Name the right one: unfooled.models.Output(model, 'name')."
        )
    if isinstance(output, Sequence):
        for item in output:
            if _fits(item, rows):
                return item  # type: ignore[no-any-return]
    kind = type(output).__name__
    cure = " Wrap it: unfooled.models.BlackBox(function, 'logits', arrays=True)." if kind in ("ndarray", "list") else ""
    raise ModelError(
        f"The model must return a tensor of logits, or a tuple or mapping with one. It returned {kind}.{cure}"
    )


def _fits(item: Any, rows: int) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point() and item.dim() <= 2 and len(item) == rows


@contextmanager
def untouched(*models: Model) -> Iterator[None]:
    """Run modules in eval mode with frozen parameters; restore modes, `requires_grad` and buffers afterwards."""
    with ExitStack() as stack:
        for model in models:
            module = module_of(model)
            if module is not None:
                stack.enter_context(_untouched(module))
        yield


def module_of(model: Model) -> nn.Module | None:
    """The module that a model is, or whose method it is. What a function or lambda holds inside cannot be seen."""
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    learning = [p for p in module.parameters() if p.requires_grad and not p.is_inference()]
    buffers = [
        (part, name, held, held.detach().clone())
        for part in module.modules()
        for name, held in part._buffers.items()
        if held is not None
    ]
    draws = [(held, state_of(held)) for held in generators(module)]
    try:
        if any(mode for _, mode in modes):
            with suppress(NotImplementedError):  # an exported program has no modes
                module.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for part, name, held, value in buffers:
            part._buffers[name] = held  # a forward pass may have put another tensor in its place
            if not torch.equal(held, value):
                with torch.no_grad():
                    held.copy_(value)
        for generator, state in draws:
            restore(generator, state)
        if any(part.training != mode for part, mode in modes):
            with suppress(NotImplementedError):
                module.train(modes[0][1])
            for part, mode in modes:
                part.training = mode
