"""Checks of a model's gradients, on a few images that it gets right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..errors import NotFinite, UnfooledError
from ..losses import cross_entropy
from ..models.classifier import Classifier, Model, untouched
from ..models.inside import hookable, uncompiled
from ..results import Finding
from .catalog import KINDS, finding
from .probing import Probe, astray, margins, slope, unbounded

FEWER = 32  # images for attacks without a bound
DRAWS = (4, 8, 16)  # passes to average gradients of a random model over
STABLE = 0.5  # cosine between two such means
NOISES = 20

_NAMED = {
    "round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "argmax", "one_hot", "numpy", "tolist",
    "detach", "floor_divide", "__floordiv__", "byte", "searchsorted", "bucketize",
}  # fmt: skip


def check(model: Model, probe: Probe, seed: int = 0) -> list[Finding]:
    """What is wrong with the gradients at these images."""
    found: list[Finding] = []
    whole = slope(model, probe)
    few = probe.first(FEWER)
    if whole.failure:
        found.append(finding("no-gradient", 1.0, f"No gradient reaches the input: {whole.failure}."))
    else:
        if whole.broken > 0:
            text = f"{100 * whole.broken:.0f} % of the examples have a gradient of NaN or inf."
            found.append(finding("nonfinite-gradients", whole.broken, text))
        if whole.zero > 0:
            text = f"{100 * whole.zero:.0f} % of the examples have a gradient of exactly zero."
            found.append(finding("zero-gradients", whole.zero, text))
        else:
            found += _saturated(model, probe)
    usable = not (whole.failure or whole.broken or whole.zero == 1)
    lost = astray(model, model, probe, whole.gradient if usable else None) if usable else 1.0
    if usable and probe.draws == 1 and lost > KINDS["misleading-gradients"].threshold:  # type: ignore[operator]
        text = f"On {100 * lost:.0f} % of the examples a step along the gradient does no better than a random one."
        found.append(finding("misleading-gradients", lost, text))
    if usable:
        found += _without_bound(model, few, seed)
    names = broken_modules(model, few) + (_operations(model, few) if found else [])
    if names:
        text = f"Without a gradient of use: {', '.join(names[:6])}{' …' if len(names) > 6 else ''}."
        found.append(finding("not-differentiable", len(names), text))
    found += _rough(model, few)
    return found


def _saturated(model: Model, probe: Probe) -> list[Finding]:
    loss = slope(model, probe, cross_entropy)
    if loss.failure or loss.zero <= KINDS["saturated-loss"].threshold:  # type: ignore[operator]
        return []
    text = f"The cross-entropy of {100 * loss.zero:.0f} % of the examples is flat in float32, although their margin is not."
    return [finding("saturated-loss", loss.zero, text)]


def _without_bound(model: Model, probe: Probe, seed: int) -> list[Finding]:
    if probe.threat.mask is not None:  # what may change may well not suffice
        return []
    try:
        left = unbounded(model, model, probe, seed)
    except NotFinite as error:
        if error.gradients:
            share = len(error.examples) / len(probe.images)
            return [finding("nonfinite-gradients", share, "An attack without a bound meets gradients of NaN or inf.")]
        left = 1.0
    except UnfooledError:
        left = 1.0
    if left <= KINDS["unbounded-survivors"].threshold:  # type: ignore[operator]
        return []
    text = f"{100 * left:.0f} % of the examples survive an attack by gradient that may change everything."
    return [finding("unbounded-survivors", left, text)]


def _rough(model: Model, probe: Probe) -> list[Finding]:
    """Indicator 2 of Pintor et al.: 20 of its 100 draws, on the margin, which does not saturate."""
    threat, x = probe.threat, probe.images
    before = margins(model, x, probe.labels)
    total = torch.zeros_like(before)
    generator = torch.Generator().manual_seed(0)
    for _ in range(NOISES):
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device) * 2 - 1
        z = threat.project(x + noise * threat.eps / 2, x, radius=threat.eps / 2)
        change = (margins(model, z, probe.labels) - before).abs() / before.abs().clamp_min(1e-12)
        total += change.nan_to_num(1.0).clamp(max=1.0)
    mean = float((total / NOISES).mean())
    if mean <= KINDS["unstable-predictions"].threshold:  # type: ignore[operator]
        return []
    return [
        finding(
            "unstable-predictions", mean, f"Noise of half of eps changes the margin by {100 * mean:.0f} % on average."
        )
    ]


# --- who does it ---------------------------------------------------------------------------------------


class _Calls(TorchFunctionMode):
    """The names of the calls of the torch API that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").split(".")[0]
        if name == "_set_grad_enabled" and args and args[0] is False:
            name = "no_grad"
        self.names.append(name)
        return func(*args, **(kwargs or {}))


def dynamic(model: Model, images: Tensor) -> list[Finding]:
    """Whether a forward pass calls autograd."""
    with uncompiled(), torch.enable_grad(), untouched(model), _Calls() as calls:
        try:
            Classifier(model)(images)
        except UnfooledError:
            return []
    count = sum(name in ("grad", "backward") for name in calls.names)
    if not count:
        return []
    return [
        finding("dynamic-forward", count, "The forward pass itself calls autograd: the model adapts to each image.")
    ]


def _operations(model: Model, probe: Probe) -> list[str]:
    """Calls of the torch API in a forward pass that may break a gradient, by name."""
    with uncompiled(), torch.enable_grad(), untouched(model), _Calls() as calls:
        x = probe.images[:1].clone().requires_grad_(True)
        try:
            Classifier(model)(x)
        except UnfooledError:
            return []
    return [f"torch's {name}" for name in dict.fromkeys(calls.names) if name in _NAMED or name == "no_grad"]


def broken_modules(model: Model, probe: Probe) -> list[str]:
    """The innermost modules whose gradient to their own input is missing, zero or not finite."""
    seen: dict[str, tuple[nn.Module, Tensor]] = {}
    with uncompiled(), untouched(model), torch.no_grad(), _recorded(model, seen):
        try:
            Classifier(model)(probe.images)
        except UnfooledError:
            return []
        bad = [path for path, (module, given) in seen.items() if _is_broken(module, given)]
    inner = [
        path for path in bad if not any(other != path and other.startswith(f"{path}." if path else "") for other in bad)
    ]
    return [f"'{path or 'the model'}' ({type(seen[path][0]).__name__})" for path in inner]


def _is_broken(module: nn.Module, given: Tensor) -> bool:
    with torch.enable_grad():
        z = given.detach().clone().requires_grad_(True)
        try:
            value = module(z)
            if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
                return False
            if not value.requires_grad:
                return True
            weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype, device=value.device).view_as(value)
            (gradient,) = torch.autograd.grad((value * weights).sum(), z, allow_unused=True)
        except Exception:  # whatever a user's backward pass may raise
            return True
    return gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(gradient.any())


@contextmanager
def _recorded(model: Model, seen: dict[str, tuple[nn.Module, Tensor]]) -> Iterator[None]:
    """Keep the first input of every module that is called with one float tensor."""
    handles = []
    for path, module in hookable(model):

        def hook(module: nn.Module, inputs: tuple[Any, ...], path: str = path) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].is_floating_point():
                seen.setdefault(path, (module, inputs[0].detach().clone()))

        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# --- random models -------------------------------------------------------------------------------------


def draws_needed(model: Model, probe: Probe) -> int:
    """So many passes that two means of gradients over them agree in direction, 16 at most."""
    few = probe.first(8)
    for draws in DRAWS:
        pair = [slope(model, Probe(few.images, few.labels, few.threat, draws)).gradient.flatten(1) for _ in range(2)]
        if float(F.cosine_similarity(pair[0], pair[1]).mean()) >= STABLE:
            return draws
    return DRAWS[-1]
