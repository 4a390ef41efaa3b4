"""The ways of taking gradients that are worth a try for what was found, the plainest first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import rng
from ..checks.preflight import Preflight
from ..checks.probing import Probe, each
from ..models.classifier import Classifier, Model, logits_of, untouched
from ..models.inside import hookable, uncompiled
from .estimated import Estimated
from .fitted import fit
from .rewired import Bare, Front, Operations, Output, Part, Past, Rewired, Smoothed, Unrolled, Watch, front_of
from .scripted import unscripted

AGREE = 0.95  # share of examples on which tapped logits must answer what the model answers
MOST_PAST = 6  # modules that are passed over one by one
MARGIN = 10.0  # the median margin that logits are scaled to
USUAL = (0.2, 60.0)  # median margins that need no scaling
WORKS = 0.5  # of the examples that the model gets right, what the network alone must get right
SIGMA = 0.25  # of eps, per component: the noise that gradients are averaged over

Surrogate = Rewired | Smoothed | Estimated

FLOW = ("no-gradient", "zero-gradients", "nonfinite-gradients", "not-differentiable", "dynamic-forward")
ROUGH = ("misleading-gradients", "unbounded-survivors", "random-model")
OUTPUTS = ("probabilities", "squashed-outputs", "saturated-loss", "flat-outputs")


def needed(found: Preflight) -> list[str]:
    """The codes among the findings that call for another backward."""
    return [f.code for f in found.findings if f.code in (*FLOW, *ROUGH, *OUTPUTS)]


def candidates(model: Model, found: Preflight) -> Iterator[Surrogate]:
    """Models with another backward, each as it stands with its output tapped and scaled where that helps."""
    for parts in _parts(model, found):
        with suppress(Exception):  # a way that fails on this model is no way
            yield with_output(Rewired(model, parts), found)
    if found.has("dynamic-forward"):  # what a model makes of an image first may be all that it answers
        with suppress(Exception):
            yield with_output(Rewired(model, (Unrolled(found.has("nonfinite-gradients")),)), found, first=True)


def last_resorts(model: Model, found: Preflight) -> Iterator[Surrogate]:
    """Dear ways, for models on which no other points anywhere; the draws of a random model smooth it already."""
    if not found.has(*FLOW, *ROUGH):
        return
    if found.has(*ROUGH) and found.probe.draws == 1:
        with suppress(Exception):
            yield Smoothed(with_output(Rewired(model, ()), found), _sigma(found.probe))
    stand_in = fit(lambda x: front_of(model, x), found.probe)
    if stand_in is not None:
        front = Front(stand_in, name="fitted backward through all before the first layer")
        with suppress(Exception):
            yield with_output(Rewired(model, (front,)), found)
    if found.probe.draws == 1:
        with suppress(Exception):
            yield Estimated(with_output(Rewired(model, ()), found), found.probe.threat)


def _parts(model: Model, found: Preflight) -> Iterator[tuple[Part, ...]]:
    finite = found.has("nonfinite-gradients")
    yield ()
    if found.has(*FLOW, *ROUGH):
        yield (Operations(finite),)
    if found.has("dynamic-forward"):
        yield (Unrolled(finite),)
    if _has_front(model, found.probe):
        yield (Front(),)
        yield (Operations(finite), Front())
    past = [Past(path, type(module).__name__) for path, module in passable(model, found.probe)]
    if len(past) > 1:
        yield tuple(past)
    for one in past[:MOST_PAST]:
        yield (one,)
    scripted = unscripted(model)
    if scripted is not None:
        yield (scripted,)
        yield (Operations(finite), scripted)


def _has_front(model: Model, probe: Probe) -> bool:
    """Whether something of the images' shape happens before the first layer with weights."""
    x = probe.images[:4]
    with untouched(model), suppress(Exception):
        got = front_of(model, x)
        return got is not None and got.shape == x.shape and not torch.equal(got.to(x.dtype), x)
    return False


def has_custom_steps(model: Model, probe: Probe) -> bool:
    """Whether the model has steps without weights of somebody's own, which may hide gradients without a sign of it."""
    return bool(passable(model, probe)) or undefended(model, probe) is not None


def undefended(model: Model, probe: Probe) -> Bare | None:
    """The network without what stands before its first layer, where that is more than a change of scale.

    None where nothing stands there, or where the network alone does not work.
    """
    if not len(probe.images) or not _has_front(model, probe):
        return None
    x = probe.images
    with untouched(model), rng.forked(0), torch.no_grad(), suppress(Exception):
        front = front_of(model, x)
        if front is None or _is_scale(x, front):
            return None
        bare = Bare(model)
        right = (Classifier(bare)(x).argmax(1) == probe.labels).double().mean()
        return bare if float(right) >= WORKS else None
    return None


def _is_scale(x: Tensor, front: Tensor) -> bool:
    """Whether each channel is only scaled and shifted: normalisation is no defense."""
    a, b = (
        t.double().flatten(2).transpose(0, 1).flatten(1) if t.dim() > 2 else t.double().flatten()[None]
        for t in (x, front)
    )
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    slope = (a * b).sum(1, keepdim=True) / a.square().sum(1, keepdim=True).clamp_min(1e-30)
    return bool((b - slope * a).square().sum() <= 1e-6 * b.square().sum())


def passable(model: Model, probe: Probe) -> list[tuple[str, nn.Module]]:
    """Modules without weights, not of torch itself, whose output has the shape of their input."""
    seen: dict[int, bool] = {}

    def hook(module: nn.Module, inputs: tuple[object, ...], value: object) -> None:
        same = bool(inputs) and isinstance(inputs[0], Tensor) and isinstance(value, Tensor)
        seen[id(module)] = same and inputs[0].shape == value.shape  # type: ignore[attr-defined]

    modules = [(path, m) for path, m in hookable(model) if not any(True for _ in m.parameters())]
    modules = [(path, m) for path, m in modules if type(m).__module__.split(".")[0] != "torch"]
    handles = [module.register_forward_hook(hook) for _, module in modules]
    try:
        with uncompiled(), torch.no_grad(), untouched(model), suppress(Exception):
            Classifier(model)(probe.images[:2])
    finally:
        for handle in handles:
            handle.remove()
    return [(path, module) for path, module in modules if seen.get(id(module))]


def _sigma(probe: Probe) -> float:
    """Noise of that much in every component."""
    return SIGMA * each(probe.images, probe.threat)


# --- outputs -------------------------------------------------------------------------------------------


def with_output(way: Rewired, found: Preflight, first: bool = False) -> Rewired:
    """The way with its logits taken from before what flattens them, and scaled, where either is called for.

    first:  take the earliest logits with the model's answers in any case.
    """
    probe = found.probe.first(32)
    with untouched(way.model), torch.no_grad():
        plain = logits_of(way(probe.images), len(probe.images))
    flat = first or found.has(*OUTPUTS, "no-gradient", "zero-gradients")
    at = _tap(way, probe, found.classes) if flat else None
    tapped = replace(way, output=Output(found.classes, at))
    with untouched(way.model), torch.no_grad():
        logits = plain if at is None else logits_of(tapped(probe.images), len(probe.images))
    top = logits.detach().double().topk(2, dim=1).values
    middle = float((top[:, 0] - top[:, 1]).median())
    scale = 1.0 if not middle > 0 or USUAL[0] <= middle <= USUAL[1] else middle / MARGIN
    return way if at is None and scale == 1 else replace(way, output=Output(found.classes, at, scale))


def _tap(way: Rewired, probe: Probe, classes: int) -> int | None:
    """The earliest result of shape (rows, classes) that answers as the model does, if it is not the output itself."""
    watching = replace(way, output=None)
    with untouched(way.model), Watch(len(probe.images), classes) as seen:
        answer = logits_of(watching(probe.images.clone().requires_grad_(True)), len(probe.images)).detach()
    said = answer.argmax(1)
    for at, logits in enumerate(seen.found):
        agrees = float((logits.detach().argmax(1) == said).double().mean()) >= AGREE
        if agrees and bool(torch.isfinite(logits).all()):
            return None if torch.equal(logits.detach(), answer) else at
    return None
