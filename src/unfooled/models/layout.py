"""Faster forms of a model for gradients: channels-last where a quick measurement says so, compiled, in mixed precision."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import must_be
from .classifier import Classifier, logits_of

Forward = Callable[[Tensor], object]
LONG = 50_000  # looks
_LAYOUTS = ("auto", "same", "channels-last")
_measured: dict[tuple[object, ...], bool] = {}  # so that two runs in a process choose alike


@dataclass(frozen=True)
class Compute:
    """How gradients and scores are computed. The verdict always comes from the model as it was handed in.

    layout:  "same" as the model; "channels-last"; or "auto": whichever is faster, measured once for a model's
             architecture and batch shape where a run is long enough to gain from it; the same under a budget of
             passes, since what another form fools must be confirmed by a pass of the model.
    compile:   let `torch.compile` make what gradients come from. It takes its time at first, and pays on accelerators.
    autocast:  compute gradients, not scores, in bfloat16 where torch holds that safe.
    """

    layout: Literal["auto", "same", "channels-last"] = "auto"
    compile: bool = False
    autocast: bool = False

    def __post_init__(self) -> None:
        if self.layout not in _LAYOUTS:
            raise must_be("Compute", "layout", f"one of {', '.join(map(repr, _LAYOUTS))}", self.layout)
        for name in ("compile", "autocast"):
            if not isinstance(getattr(self, name), bool):
                raise must_be("Compute", name, "true or false", getattr(self, name))


def preferred(victim: Classifier, images: Tensor, looks: int) -> Literal["same", "channels-last"]:
    """What "auto" would choose for a run of so many looks, once and for all of it."""
    return "same" if fast_twin(victim, images, Compute(), looks) is None else "channels-last"


def fast_twin(
    victim: Classifier, images: Tensor, compute: Compute, looks: int, backward: bool = True
) -> Classifier | None:
    """The victim's weights in the form that `compute` asks for; None: the victim as it is.

    looks:     how many looks the run will take; "auto" measures only where they are enough to pay for it, 16 batches.
    backward:  to take gradients from; else scores, whose arithmetic stays the victim's: only the layout may change.
    """
    if not backward:
        compute = Compute(compute.layout)
    forward = _channels_last(victim, images, compute, looks, backward)
    if forward is None and not (compute.compile or compute.autocast):
        return None
    forward = forward or victim.model
    if compute.compile:
        forward = torch.compile(forward)
    if compute.autocast:
        forward = _autocast(forward, (victim.device or images.device).type)
    twin = Classifier(forward)
    twin.dtype, twin.device, twin.generators = victim.dtype, victim.device, victim.generators
    return twin


def _channels_last(victim: Classifier, images: Tensor, compute: Compute, looks: int, backward: bool) -> Forward | None:
    """The module with channels-last weights, or None where that is not asked for or gains nothing."""
    module = victim.module
    if module is None or isinstance(module, torch.jit.ScriptModule) or images.dim() != 4:
        return None
    weights = {n: p for n, p in module.named_parameters() if p.dim() == 4}
    if not weights or compute.layout == "same" or victim.dtype != torch.float32:
        return None
    if compute.layout == "channels-last" or (looks >= LONG and _is_faster(module, images, backward)):
        return _twin(module, weights)
    return None


def _autocast(forward: Forward, device: str) -> Forward:
    def reduced(images: Tensor) -> object:
        with torch.autocast(device, torch.bfloat16):
            return forward(images)

    return reduced


def _twin(module: nn.Module, weights: Mapping[str, Tensor]) -> Forward:
    changed = {n: p.detach().to(memory_format=torch.channels_last) for n, p in weights.items()}

    def forward(images: Tensor) -> object:
        return functional_call(module, changed, (images.to(memory_format=torch.channels_last),))

    return forward


def _is_faster(module: nn.Module, images: Tensor, backward: bool) -> bool:
    """Time passes of a copy of the module in both layouts, in turns; the copy's hooks and counts are its own."""
    key = (str(module), tuple(images.shape), images.device.type, backward)
    if key not in _measured:
        try:
            trial = copy.deepcopy(module)
        except (RuntimeError, TypeError, AttributeError):
            return False
        for part in trial.modules():
            for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks):
                hooks.clear()
        twin = _twin(trial, {n: p for n, p in trial.named_parameters() if p.dim() == 4})
        forwards: tuple[Forward, ...] = (trial, twin)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(8):
            for forward, log in zip(forwards, times, strict=True):
                start = time.perf_counter()
                with torch.set_grad_enabled(backward):
                    x = images.detach().requires_grad_(backward)
                    found = logits_of(forward(x), len(x)).logsumexp(1)
                    if backward:
                        try:
                            (found,) = torch.autograd.grad(found.sum(), x)
                        except RuntimeError:  # no gradient arrives: there is nothing to be faster at
                            return False
                float(found.flatten()[0])  # waits for an accelerator
                if turn:
                    log.append(time.perf_counter() - start)
        _measured[key] = median(times[1]) < 0.9 * median(times[0])
    return _measured[key]
