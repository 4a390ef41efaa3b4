"""What a model says of given images, without an attack; and what is left of adversarial ones in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import rng
from .engine import default_batch
from .errors import NotFinite
from .goals import Goal
from .models.classifier import Classifier, Model, untouched
from .oracle import DRAWS, Oracle


@dataclass(frozen=True)
class Judgement:
    """What a model says of images: right on them, the class it answers, and its softmax share of that class.

    Of a random model by the majority of draws, and the class with the largest mean share.
    """

    clean_correct: Tensor
    prediction: Tensor
    confidence: Tensor


def judge(model: Model, images: Tensor, labels: Tensor, seed: int = 0) -> Judgement:
    """Classify images (N, *shape); a random model by the majority of draws. No attack.

    Raises `NotFinite` where logits are not finite; `appraise` goes on.
    """
    found = appraise(model, images, labels, seed)
    bad = (found.prediction < 0).nonzero().squeeze(1).tolist()
    if bad:
        raise NotFinite(
            f"The model's logits for example {bad[0]} are not finite. A model that answers NaN or inf cannot be judged: "
            "find where it overflows.",
            tuple(bad),
        )
    return found


def draws_from(model: Model, images: Tensor, seed: int = 0) -> bool:
    """Whether a forward pass of the model draws random numbers: images (N, *shape) to try it on."""
    victim = Classifier(model)
    oracle = Oracle(victim, None, torch.arange(len(images)))
    with torch.inference_mode(False), untouched(model), rng.forked(seed):
        oracle.answer(images.to(victim.device or images.device), torch.arange(len(images)))
    return oracle.random


def appraise(model: Model, images: Tensor, labels: Tensor, seed: int = 0) -> Judgement:
    """The same; an image on which the logits are not finite is not right, and answers -1."""
    victim = Classifier(model)
    device = victim.device or images.device
    oracle = Oracle(victim, None, torch.arange(len(images)))
    right, prediction, confidence = [], [], []
    with torch.inference_mode(False), untouched(model), rng.forked(seed):
        for index in torch.arange(len(images)).split(default_batch(images[0].numel(), device)):
            x, goal = images[index].to(device), Goal(labels[index].to(device))
            logits, finite = _answer(oracle, x, index)
            wrong = ~finite | goal.fooled(logits)
            if oracle.random and bool(finite.any()):
                kept = finite.nonzero().squeeze(1)
                wrong[kept] = oracle.confirm(x[kept], goal.rows(kept), index[kept.cpu()])
            best = _shares(oracle, logits, x, index, finite).max(1)
            right.append(~wrong.cpu())
            prediction.append(torch.where(finite, best.indices, -1).cpu())
            confidence.append(best.values.cpu())
    return Judgement(torch.cat(right), torch.cat(prediction), torch.cat(confidence))


def _shares(oracle: Oracle, logits: Tensor, x: Tensor, index: Tensor, finite: Tensor) -> Tensor:
    """Softmax shares (N, C); a random model's are means over draws, so that no single draw speaks for it."""
    shares = logits.softmax(1)
    if not oracle.random or not bool(finite.any()):
        return shares
    kept = finite.nonzero().squeeze(1)
    for _ in range(DRAWS - 1):
        shares[kept] += oracle.answer(x[kept], index[kept.cpu()]).softmax(1)
    return shares / DRAWS


def _answer(oracle: Oracle, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C), zero where they are not finite, and where they are (N,)."""
    try:
        return oracle.answer(x, index), torch.ones(len(x), dtype=torch.bool, device=x.device)
    except NotFinite as error:
        finite = ~torch.isin(index, torch.tensor(error.examples)).to(x.device)
    if not bool(finite.any()):
        return torch.zeros(len(x), 2, device=x.device), finite
    some, found = _answer(oracle, x[finite], index[finite.cpu()])
    logits = torch.zeros(len(x), some.shape[1], dtype=some.dtype, device=x.device)
    logits[finite] = some
    finite[finite.clone()] = found
    return logits, finite


def eight_bits(adversarial: Tensor, images: Tensor) -> Tensor:
    """Adversarial images in [0, 1] on the lattice of 8-bit pixels, every pixel rounded towards its original.

    Where the images themselves came from 8 bits, no change grows, so the point stays in any set that it was in.
    """
    up = torch.floor(adversarial.double() * 255 + 1e-4)
    down = torch.ceil(adversarial.double() * 255 - 1e-4)
    return (torch.where(adversarial >= images, up, down).clamp(0, 255) / 255).to(images.dtype)
