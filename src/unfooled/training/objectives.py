"""What a step of training minimises.

An objective is a function from a `Batch` to a loss, and the loss a function without arguments: it can be taken at the
weights as they are, or, under `awp`, at the worst ones nearby. Points are searched for once, when the objective is called;
the loss then only makes passes in train mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import rng, text
from ..errors import ParameterError, must_be, unknown
from ..goals import Goal, pick, rival
from ..models.classifier import logits_of
from .batch import Batch, Objective, Scored
from .certified import crown_ibp, ibp, mtl_ibp, sabr


def standard(batch: Batch) -> Callable[[], Scored]:
    """Cross-entropy on the images."""
    return _cross_entropy_at(batch, batch.images)


def adversarial(batch: Batch) -> Callable[[], Scored]:
    """Cross-entropy on the attack's images. Madry et al. 2018, arXiv:1706.06083, equation 2.1.

    With one step from a random start it is fast adversarial training (Wong et al. 2020, arXiv:2001.03994), with the attack
    `n-fgsm` N-FGSM (de Jorge et al. 2022, arXiv:2202.01181).
    """
    return _cross_entropy_at(batch, batch.attacked())


def trades(batch: Batch, beta: float = 6.0) -> Callable[[], Scored]:
    """CE(f(x)) + beta · KL(f(x) ‖ f(x')), the attack maximising the second. Zhang et al. 2019, arXiv:1901.08573, equation 5.

    beta:  6, as in their CIFAR-10 experiments (section 5.3); on MNIST their code has 1.
    """
    reference = batch.quiet()
    points = batch.attacked(lambda logits, goal: _divergence(reference, logits))

    def loss() -> Scored:
        clean, moved = batch.logits(batch.images), batch.logits(points)
        return batch.cross_entropy(clean) + beta * _divergence(clean, moved).mean(), moved

    return loss


def mart(batch: Batch, beta: float = 5.0) -> Callable[[], Scored]:
    """BCE(f(x')) + beta · KL(f(x) ‖ f(x')) · (1 - p_y(x)). Wang et al. 2020, ICLR (rkl0g6EFwS), equation 11.

    BCE is -log p_y(x') - log(1 - max over k ≠ y of p_k(x')): images that are wrong without an attack weigh more.

    beta:  5, their section 4.1.
    """
    points = batch.attacked()

    def loss() -> Scored:
        clean, moved = batch.logits(batch.images), batch.logits(points)
        label = batch.goal.label
        boosted = batch.cross_entropy(moved) - torch.log(1.0001 - rival(moved.softmax(1), label)).mean()
        doubt = 1 - pick(clean.softmax(1), label)
        return boosted + beta * (_divergence(clean, moved) * doubt).mean(), moved

    return loss


def grad_align(batch: Batch, weight: float = 0.2) -> Callable[[], Scored]:
    """Adversarial training with + weight · (1 - cos(∇x J(x), ∇x J(x + u))), u uniform in the set. Andriushchenko &
    Flammarion 2020, arXiv:2007.02617, equation 5: where the gradient turns within eps, one step overfits.

    weight:  0.2, theirs for CIFAR-10 at 8/255 (appendix D).
    """
    points = batch.attacked()
    if batch.threat is None:
        raise ParameterError("grad-align needs a threat, such as linf:8/255.")
    key = rng.keys(batch.ids, batch.seed, 0x6A)
    shape, dtype = batch.images.shape[1:], batch.images.dtype

    def uniform(k: int = 0, salt: int = 0) -> Tensor:
        return rng.uniform(rng.further(key, k, 2 * salt), shape, dtype)

    def normal(k: int = 0, salt: int = 0) -> Tensor:
        return rng.normal(rng.further(key, k, 2 * salt + 1), shape, dtype)

    near = batch.threat.sample(batch.images, uniform, normal)

    def slope(images: Tensor) -> Tensor:
        images = images.detach().requires_grad_(True)
        value = F.cross_entropy(batch.logits(images), batch.goal.label, reduction="sum")
        return torch.autograd.grad(value, images, create_graph=True)[0].flatten(1)

    def loss() -> Scored:
        logits = batch.logits(points)
        cosine = F.cosine_similarity(slope(batch.images), slope(near), dim=1, eps=1e-12)
        return batch.cross_entropy(logits) + weight * (1 - cosine).mean(), logits

    return loss


def noise(batch: Batch, sigma: float = 0.25) -> Callable[[], Scored]:
    """Cross-entropy on images with Gaussian noise, for randomized smoothing.

    Cohen et al. 2019, arXiv:1902.02918, section 3.3.

    sigma:  in the images' units; smooth with the same one. 0.25, their smallest on CIFAR-10. The noise is not clipped.
    """
    check_positive("noise", "sigma", sigma)
    return _cross_entropy_at(batch, batch.images + batch.noise(sigma))


def smooth_adv(batch: Batch, sigma: float = 0.25, draws: int = 2) -> Callable[[], Scored]:
    """Cross-entropy on noisy copies of points that fool the smoothed classifier. Salman et al. 2019, arXiv:1906.04584.

    The attack maximises -log of the mean probability over the noise draws (their equation 6), each step with the same
    draws, and these are what is learned from (their algorithm 1).

    sigma:  in the images' units.  draws: copies of each image, m in the paper.
    """
    check_positive("smooth-adv", "sigma", sigma)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise must_be("smooth-adv", "draws", "an int of at least 1", draws)
    copies = torch.stack([batch.noise(sigma, draw) for draw in range(draws)])

    def smoothed(images: Tensor) -> Tensor:
        shares = torch.stack([logits_of(batch.bare(images + one), len(images)).softmax(1) for one in copies])
        return shares.mean(0).clamp_min(1e-12).log()

    points = batch.attacked(model=smoothed)
    wide = replace(batch, goal=Goal(batch.goal.label.repeat(draws)))
    return _cross_entropy_at(wide, (points + copies).flatten(0, 1))


def _cross_entropy_at(batch: Batch, points: Tensor) -> Callable[[], Scored]:
    def loss() -> Scored:
        logits = batch.logits(points)
        return batch.cross_entropy(logits), logits

    return loss


def _divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(reference) ‖ softmax(logits)) of each row: (N, C), (N, C) to (N,)."""
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)


def check_positive(owner: str, name: str, value: object) -> None:
    """Raise unless it is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise must_be(owner, name, "a float above 0", value)


def _check_option(owner: str, name: str, value: object) -> None:
    if name not in SPANS:
        check_positive(owner, name, value)
        return
    low, high = SPANS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise must_be(owner, name, f"a number in [{low:g}, {high:g}]", value)


SPANS = {  # of options that may be 0, or not be any number; all others are above 0
    "natural": (0.0, 1.0),
    "linear": (0.0, 1.0),
    "alpha": (0.0, 1.0),
    "share": (0.01, 0.99),
    "steady": (0.0, 1e3),
    "stretch": (0.01, 100.0),
}
OBJECTIVES: dict[str, Callable[..., Callable[[], Scored]]] = {
    "standard": standard,
    "adversarial": adversarial,
    "trades": trades,
    "mart": mart,
    "grad-align": grad_align,
    "noise": noise,
    "smooth-adv": smooth_adv,
    "ibp": ibp,
    "crown-ibp": crown_ibp,
    "sabr": sabr,
    "mtl-ibp": mtl_ibp,
}
ATTACKING = frozenset({"adversarial", "trades", "mart", "grad-align", "smooth-adv", "sabr", "mtl-ibp"})
CERTIFIED = frozenset({"ibp", "crown-ibp", "sabr", "mtl-ibp"})  # which make bounds small, and are judged by bounds


def parse(words: str) -> Objective:
    """Read ``adversarial``, ``trades:beta=6``, ``smooth-adv:sigma=0.5,draws=4``."""
    call = text.parse(words)
    if call.name not in OBJECTIVES:
        raise unknown("objective", call.name, OBJECTIVES)
    function = OBJECTIVES[call.name]
    names = list(inspect.signature(function).parameters)[1:]
    given = text.options("the objective", call, names)
    for name, value in given.items():
        _check_option(call.name, name, value)
    return partial(function, **given)


__all__ = [
    "ATTACKING",
    "CERTIFIED",
    "OBJECTIVES",
    "Batch",
    "Objective",
    "Scored",
    "adversarial",
    "check_positive",
    "crown_ibp",
    "grad_align",
    "ibp",
    "mart",
    "mtl_ibp",
    "noise",
    "parse",
    "sabr",
    "smooth_adv",
    "standard",
    "trades",
]
