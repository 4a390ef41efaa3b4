"""What a model and data are recognised by, so that a run folder never mixes two."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from . import rng
from .data.lazy import Rows
from .inputs import Streamed
from .models.access import Access, access_of
from .models.classifier import Classifier, Model, untouched
from .models.facts import Facts
from .models.inside import modules_within

SAMPLE = 8  # images whose clean logits stand for a model without a state
LABELS = 32  # the same, of a model that gives nothing but labels
PART = 512  # images hashed at a time, so that no copy of all is made


def state_hash(model: nn.Module) -> str:
    """A hash of a module's type, parameters and buffers, and of what adapters within do to images."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for part in model.modules():
        facts = getattr(part, "facts", None)
        if isinstance(facts, Facts):
            digest.update(facts.preprocessing.encode())
    held = dict(model.named_buffers())  # those that are not saved too, such as the mean of a normalisation
    for name, value in sorted((held | model.state_dict()).items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)  # strides of channels last are in the way of views
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def of_model(model: Model, images: Rows) -> str:
    """The hash of the state of all modules within; of a model without any, that of its clean logits on some images."""
    outer = [module for _, module in modules_within(model)]
    if any(True for module in outer for _ in module.parameters()):
        inner = {id(part) for module in outer for part in module.modules() if part is not module}
        roots = [module for module in outer if id(module) not in inner]
        return hashlib.sha256("".join(state_hash(root) for root in roots).encode()).hexdigest()[:16]
    with torch.no_grad(), untouched(model), rng.forked(0):
        logits = Classifier(model)(images[: LABELS if access_of(model) is Access.DECISION else SAMPLE])
    coarse = (logits.double() / logits.double().abs().max().clamp_min(1e-30) * 1000).round()
    return "logits-" + hashlib.sha256(coarse.cpu().numpy().tobytes()).hexdigest()[:16]


def of_data(images: Tensor | Streamed, labels: Tensor, names: Tensor) -> str:
    """The hash of the content of images (N, *shape), labels (N,) and what the examples are called (N,)."""
    content = hashlib.sha256()
    if isinstance(images, Streamed):
        content.update(images.digest())
    else:
        for some in images.split(PART):
            content.update(some.cpu().numpy())
    content.update(labels.cpu().numpy().tobytes())
    return hashlib.sha256(content.digest() + names.cpu().numpy().tobytes()).hexdigest()[:16]
