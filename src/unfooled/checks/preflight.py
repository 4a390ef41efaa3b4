"""Checks before the first attack: of the set-up, by clean accuracy and repeated passes, and of the gradients.

What they read is a sample of the images; all of it takes a few dozen passes for each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from .. import rng
from ..errors import UnfooledError
from ..inputs import check_classes
from ..intervals import clopper_pearson
from ..models.access import Access, access_of
from ..models.classifier import Classifier, Model, untouched
from ..models.facts import facts_of
from ..models.inside import hookable, modules_within, uncompiled
from ..results import Finding
from ..threats import L0, Threat
from . import gradients, naming
from .catalog import KINDS, finding
from .probing import Probe, across

SAMPLE = 256  # images for accuracies
FEW = 64  # images for gradients
ASKED = 64  # images for all of it, of a model that only answers questions
PASSES = 5  # that show randomness
LEAST_GAIN = KINDS["expects-0-255"].threshold or 0.0  # of clean accuracy, by a change of the images
LEAST = 16  # images below which an accuracy says nothing

STATISTICS = (  # channel means and standard deviations that models are trained with
    ((0.1307,), (0.3081,)),
    ((0.2860,), (0.3530,)),
    ((0.449,), (0.226,)),  # ImageNet, in grey
    ((0.485,), (0.229,)),
    ((0.5,), (0.5,)),
    ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)


@dataclass(frozen=True)
class Preflight:
    """What was found before the attacks.

    draws:  passes that gradients are to be averaged over; more than one for a random model.
    probe:  images that the model gets right, for whoever measures on; may be empty.
    """

    findings: tuple[Finding, ...]
    draws: int
    probe: Probe
    classes: int

    def has(self, *codes: str) -> bool:
        """Whether one of these was found."""
        return any(found.code in codes for found in self.findings)


def preflight(
    model: Model, images: Tensor, labels: Tensor, threat: Threat, seed: int = 0, names: Tensor | None = None,
    classes: Sequence[str] = (),
) -> Preflight:  # fmt: skip
    """Check a model on images (N, *shape), labels (N,), called by names (N,); the first ones are the sample.

    classes:  what the data call their classes, by label; may be empty.
    """
    names = torch.arange(len(images)) if names is None else names
    found: list[Finding] = [*_modes(model)]
    with torch.inference_mode(False), uncompiled(), untouched(model), rng.forked(seed, 0x9F11):
        classifier = Classifier(model)
        device = classifier.device or images.device
        access = access_of(model)
        sample = SAMPLE if access is Access.GRADIENT else ASKED
        x, y = images[:sample].to(device), labels[:sample].to(device)
        with torch.no_grad():
            logits = torch.cat([classifier(part) for part in x.split(128)])
            check_classes(y, logits.shape[1], names[: len(y)])
            finite = torch.isfinite(logits).all(1)
            x, y, logits = x[finite], y[finite], logits[finite]
            if not len(x):
                return Preflight(tuple(found), 1, Probe(x, y, threat), logits.shape[1])
            random = _random(classifier, x[:FEW])
            moving = gradients.dynamic(model, x[:2]) if access is Access.GRADIENT else []
            found += moving
            found += [random] if random else _batches(classifier, x[:FEW])
            found += [] if random or moving or access < Access.GRADIENT else _precision(model, x[:FEW])
            found += _outputs(logits) if access > Access.DECISION else _few(logits)
            found += _sizes(x, threat)
            renamed = naming.check(classes, _named(model), logits.argmax(1), y)
            found += renamed
            found += _accuracy(classifier, x, y, logits, threat, not renamed)
            found += _normalisers(model, x[:1], threat)
        right = (logits.argmax(1) == y).nonzero().squeeze(1)[:FEW]
        probe = Probe(x[right], y[right], threat)
        draws = gradients.draws_needed(model, probe) if random and len(right) and access is Access.GRADIENT else 1
        probe = Probe(x[right], y[right], threat, draws)
    if access < Access.GRADIENT:
        text = f"The model gives {access.words}: who has its gradients may fool more. The number holds for who has not."
        found.append(finding("limited-access", access, text))
    elif len(right):
        found += gradients.check(model, probe, seed)
    return Preflight(tuple(found), draws, probe, logits.shape[1])


# --- the model ---------------------------------------------------------------------------------------


def _modes(model: Model) -> Iterator[Finding]:
    training = [path for path, module in modules_within(model) if module.training and _minds(module)]
    if training:
        yield finding(
            "train-mode", len(training),
            f"The model was in train mode ({training[0] or 'the model'} and others: {len(training)} that mind)."
            if len(training) > 1 else f"The model was in train mode ({training[0] or 'the model'}).",
        )  # fmt: skip


def _minds(module: nn.Module) -> bool:
    """Whether train mode changes what a module itself computes."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm)
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    own = type(module).__module__.split(".")[0] != "torch"
    return isinstance(module, kinds) or (own and code is not None and "training" in code.co_names)


def _spread(logits: Tensor) -> float:
    """The scale that changes of logits are measured on."""
    return max(float((logits - logits.mean(1, keepdim=True)).abs().mean()), 1e-12)


def _random(classifier: Classifier, x: Tensor) -> Finding | None:
    passes = torch.stack([classifier(x) for _ in range(PASSES)])
    change = float((passes - passes[0]).abs().max()) / _spread(passes[0])
    if change <= KINDS["random-model"].threshold:  # type: ignore[operator]
        return None
    return finding("random-model", change, "The same images get other logits in each pass: the model is random.")


def _batches(classifier: Classifier, x: Tensor) -> list[Finding]:
    together = classifier(x)
    alone = torch.cat([classifier(x[at : at + 1]) for at in range(min(8, len(x)))])
    half = classifier(x[: max(1, len(x) // 2)].flip(0)).flip(0)
    scale = _spread(together)
    change = max(float((together[: len(part)] - part).abs().max()) / scale for part in (alone, half))
    if change <= KINDS["batch-dependent"].threshold:  # type: ignore[operator]
        return []
    return [finding("batch-dependent", change, "The logits of an image depend on which others are in its batch.")]


def _precision(model: Model, x: Tensor) -> list[Finding]:
    """Against float64, and whether logits have the few digits of half precision."""
    logits = Classifier(model)(x)
    coarse = next(
        (d for d in (torch.float16, torch.bfloat16) if bool((logits.to(d).to(logits.dtype) == logits).all())), None
    )
    change = 0.0
    if coarse is not None and not _on_lattice(logits) > 0.5:
        change = 16 * torch.finfo(coarse).eps
    elif isinstance(model, nn.Module) and logits.dtype == torch.float32:
        try:
            wide = Classifier(copy.deepcopy(model).double().eval())(x.double())
            change = float((wide - logits).abs().max()) / _spread(logits)
        except Exception:  # a model that cannot be copied or widened cannot be compared
            return []
    if change <= KINDS["float32-unstable"].threshold:  # type: ignore[operator]
        return []
    what = f"computed in {coarse}" if coarse is not None else "not those of float64"
    return [
        finding("float32-unstable", change, f"The logits are {what}: small changes of an image are lost in rounding.")
    ]


def _sizes(x: Tensor, threat: Threat) -> list[Finding]:
    """An eps that means something else than was meant."""
    span = across(x, threat)
    whole = float(threat.size(span)[0])
    if threat.eps >= whole:
        text = f"eps is {threat.eps:g}, and no two images are further apart than {whole:g}: everything is allowed."
        return [finding("eps-beyond-range", threat.eps / whole, text)]
    step = float(threat.size(span / 255)[0])
    if x.dim() > 2 and threat.eps < step and not isinstance(threat, L0):  # a table's rows are no pixels
        text = f"eps is {threat.eps:g}, less than one step of 8-bit pixels ({step:g})."
        return [finding("eps-below-8-bit-step", threat.eps / step, text)]
    return []


def _on_lattice(logits: Tensor) -> float:
    """The share of logits that are multiples of a step which is coarse beside the dtype's own."""
    best, values = 0.0, logits.double()
    fine = torch.finfo(logits.dtype).eps * values.abs().clamp_min(1e-30)
    for parts in (1, 2, 4, 5, 10, 20, 50, 100):
        gap = (values * parts - (values * parts).round()).abs() / parts
        best = max(best, float(((gap <= 4 * fine) & (1 / parts > 256 * fine)).double().mean()))
    return best


def _outputs(logits: Tensor) -> list[Finding]:
    found = []
    if bool(((logits >= 0) & (logits <= 1)).all()) and bool(((logits.sum(1) - 1).abs() < 1e-5).all()):
        found.append(finding("probabilities", 1.0, "The model returns probabilities, not logits."))
    ends = float(logits.min()), float(logits.max())
    if not found and _one_probability(logits):
        text = (
            f"The model returns one number in [0, 1] for each image, up to {ends[1]:.3g}: a probability, not a logit."
        )
        found.append(finding("one-probability", ends[1], text))
    if not found and ((ends[0] >= 0 and ends[1] <= 1) or (-1 <= ends[0] < -0.99 and 0.99 < ends[1] <= 1)):
        text = f"All outputs lie in [{ends[0]:.3g}, {ends[1]:.3g}]: they have been squashed."
        found.append(finding("squashed-outputs", ends[1] - ends[0], text))
    flat = _on_lattice(logits)
    if flat > KINDS["flat-outputs"].threshold and len(logits) >= 2:  # type: ignore[operator]
        found.append(finding("flat-outputs", flat, f"{100 * flat:.0f} % of the outputs are rounded, or a hard label."))
    return found + _few(logits)


def _one_probability(logits: Tensor) -> bool:
    """Whether a model's only output, which stands beside a zero, looks like a sigmoid's."""
    if logits.shape[1] != 2 or bool((logits[:, 0] != 0).any()):
        return False
    one = logits[:, 1]
    return bool(((one >= 0) & (one <= 1)).all()) and bool((one != one.round()).any())


def _few(logits: Tensor) -> list[Finding]:
    classes = logits.shape[1]
    return [finding("few-classes", classes, f"The model has {classes} classes.")] if classes < 4 else []


# --- the data as the model wants them ------------------------------------------------------------------


def _named(model: Model) -> tuple[str, ...]:
    """What a model, or the one behind a defense, calls its classes."""
    return facts_of(getattr(model, "undefended", model))[0].classes


def _accuracy(
    classifier: Classifier, x: Tensor, y: Tensor, logits: Tensor, threat: Threat, unnamed: bool
) -> list[Finding]:
    """Clean accuracy near chance, and what would raise it; unnamed: no names have told that labels mean other classes."""
    answer = logits.argmax(1)
    n, right = len(y), int((answer == y).sum())
    if n < LEAST:
        return []
    counts = torch.bincount(y, minlength=logits.shape[1])
    most = float(counts.max()) / n
    found = []
    if clopper_pearson(right, n).low <= most and most < 0.9:
        text = f"Clean accuracy is {100 * right / n:.1f} %, and answering one class always gets {100 * most:.1f} %."
        found.append(finding("near-chance", clopper_pearson(right, n).low - most, text))
    renamed = _permuted(answer, y, logits.shape[1], right / n) if unnamed and 2 * logits.shape[1] <= n else []
    least = max(LEAST_GAIN, 4 / n)
    if not (unnamed and threat.unit_range and x.dim() == 4 and 1 - right / n >= least):  # else nothing can gain so much
        return found + renamed

    def gain(change: Callable[[Tensor], Tensor]) -> float:
        with torch.no_grad():
            got = torch.cat([classifier(change(part)).argmax(1) for part in x.split(128)])
        return (int((got == y).sum()) - right) / n

    changed = [f for f in _changes(gain, x) if f.measurement >= least][:1]
    return (
        found + sorted(renamed + changed, key=lambda f: -f.measurement)[:1]
    )  # red for blue may look like other labels


def _changes(gain: Callable[[Callable[[Tensor], Tensor]], float], x: Tensor) -> list[Finding]:
    """What the images might lack, the largest gain first."""
    found = [finding("expects-0-255", gain(lambda z: 255 * z), "The model does much better on pixels from 0 to 255.")]
    if x.shape[1] == 3:
        found.append(finding("channels-swapped", gain(lambda z: z.flip(1)), "The model does much better on BGR."))
    own = (tuple(x.mean((0, 2, 3)).tolist()), tuple(x.std((0, 2, 3)).tolist()))
    for means, stds in (own, *STATISTICS):
        if len(means) not in (1, x.shape[1]) or min(stds) <= 0:
            continue
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).reshape(-1, 1, 1) for v in (means, stds))
        said = f"mean {', '.join(f'{m:.3g}' for m in means)} and std {', '.join(f'{s:.3g}' for s in stds)}"
        once = gain(lambda z, mean=mean, std=std: (z - mean) / std)  # type: ignore[misc]
        found.append(
            finding("missing-normalisation", once, f"The model does much better on images normalised by {said}.")
        )
        back = gain(lambda z, mean=mean, std=std: z * std + mean)  # type: ignore[misc]
        found.append(
            finding(
                "double-normalisation", back, f"The model does much better when a normalisation by {said} is undone."
            )
        )
    return sorted(found, key=lambda f: -f.measurement)


def _permuted(answer: Tensor, y: Tensor, classes: int, accuracy: float) -> list[Finding]:
    table = np.zeros((classes, classes))
    np.add.at(table, (y.cpu().numpy(), answer.cpu().numpy()), 1)
    rows, columns = linear_sum_assignment(-table)
    best = float(table[rows, columns].sum()) / len(y)
    moved = [f"{a}→{b}" for a, b in zip(rows, columns, strict=True) if a != b and table[a].sum()]
    if best - accuracy < KINDS["labels-permuted"].threshold or best < 0.4:  # type: ignore[operator]
        return []
    names = ", ".join(moved[:5]) + (" …" if len(moved) > 5 else "")
    text = f"Renaming the classes ({names}) would raise clean accuracy to {100 * best:.1f} %."
    return [finding("labels-permuted", best - accuracy, text)]


def _normalisers(model: Model, x: Tensor, threat: Threat) -> list[Finding]:
    """Visible layers that normalise what has been normalised already."""
    late: list[str] = []
    layers = [(path, m) for path, m in hookable(model) if _normalises(m)]
    with _inputs_seen(layers, lambda path, z: late.append(path) if float(z.min()) < -0.01 else None):
        try:
            Classifier(model)(x)
        except UnfooledError:
            return []
    if not late:
        return []
    text = f"'{late[0]}' normalises what has been normalised already: it gets negative pixels."
    return [finding("double-normalisation", 1.0, text)]


def _normalises(module: nn.Module) -> bool:
    own = type(module).__module__.split(".")[0] != "torch"
    held = {**vars(module), **module._buffers, **module._parameters}
    return own and {"mean", "std"} <= {name.strip("_").lower() for name in held}


@contextmanager
def _inputs_seen(layers: list[tuple[str, nn.Module]], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    def hook(path: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def seen(module: nn.Module, inputs: tuple[object, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                see(path, inputs[0])

        return seen

    handles = [module.register_forward_pre_hook(hook(path)) for path, module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
