"""What was understood of a model and of data, before anything is attacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from . import protocols, rng
from .checks.naming import alike, moved
from .checks.preflight import SAMPLE, preflight
from .data import given
from .errors import ModelError
from .inputs import Notes, checked_labels, prepared
from .intervals import clopper_pearson
from .judging import appraise
from .models.access import access_of
from .models.bring import brought
from .models.classifier import Classifier, Model, untouched
from .models.facts import facts_of
from .planning import planned
from .results import AttackCost, Estimate, Finding
from .threats import Threat


class Named(msgspec.Struct, frozen=True):
    """A class: what the data call it, and what the model does. None: it has no name there."""

    label: int
    data: str | None
    model: str | None

    @property
    def agrees(self) -> bool:
        """Whether both mean the same, as far as names can tell."""
        return self.data is None or self.model is None or alike(self.data, self.model)


class Diagnosis(msgspec.Struct, frozen=True):
    """What was understood.

    model, data:  measures in words, in the order in which they are shown.
    classes:      by label, with both names.
    clean:        clean accuracy on the sample, as the model is evaluated; raw: by the pipeline that the model's own
                  package has, where it has one.
    findings:     of the preflight;  notes: what was converted.
    renamed:      labels of the data's class names by the model's order, if that is another: what --classes takes.
    cost:         of the protocol on all images, at most.
    """

    model: dict[str, str]
    data: dict[str, str]
    classes: list[Named]
    clean: Estimate
    raw: Estimate | None
    findings: list[Finding]
    notes: list[str]
    renamed: dict[str, int]
    protocol: str
    cost: list[AttackCost]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that would make a number invalid."""
        return all(found.severity != "invalid" for found in self.findings)


@dataclass(frozen=True)
class _Sample:
    """The images that an evaluation of the same seed would begin with."""

    images: Tensor
    labels: Tensor
    names: Tensor


def diagnose(model: Any, data: Any, threat: Threat | str, protocol: str = "fast", seed: int = 0) -> Diagnosis:
    """Look at a model and data as `evaluate` would, and attack nothing.

    model, data, threat, protocol, seed:  those of `unfooled.evaluate`.

    Raises `DataError`, `ModelError`, `ParameterError`.
    """
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    model, source, notes = brought(model), given(data), Notes()
    plan = protocols.named(protocol, threat, access_of(model))
    images = prepared(source.images, threat, Classifier(model).dtype, notes)
    labels = checked_labels(source.labels, len(images)).cpu()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    sample = _Sample(images[order], labels[order], order)
    with rng.forked(seed, 0x9F11):
        found = preflight(model, sample.images, sample.labels, threat, seed, sample.names, source.classes)
    right = appraise(model, sample.images, sample.labels, seed).clean_correct
    facts, _ = facts_of(model)
    classes = [
        Named(label, _at(source.classes, label), _at(facts.classes, label))
        for label in range(max(found.classes, len(source.classes)))
    ]
    return Diagnosis(
        model=_of_model(model, found.classes),
        data=_of_data(source.name, images, labels, sample),
        classes=classes,
        clean=clopper_pearson(int(right.sum()), len(order)),
        raw=_raw(model, sample),
        findings=list(found.findings),
        notes=list(notes.texts),
        renamed=_renamed(classes),
        protocol=protocol,
        cost=planned(model, images, labels, threat, plan),
    )


def _of_model(model: Model, classes: int) -> dict[str, str]:
    classifier, (facts, access) = Classifier(model), facts_of(model)
    module = classifier.module
    size = "not known: whatever it takes" if facts.size is None else " × ".join(map(str, facts.size))
    told = {
        "format": facts.format,
        "from": facts.source,
        "access": access.words,
        "input": size,
        "preparation": facts.preprocessing or "none: it is given the images as they are",
        "classes": str(classes),
        "numbers": str(classifier.dtype or torch.float32).removeprefix("torch."),
        "device": str(classifier.device or "cpu"),
        "parameters": "" if module is None else f"{sum(p.numel() for p in module.parameters()):,}",
    }
    return {name: text for name, text in told.items() if text and text != "0"}


def _of_data(name: str, images: Any, labels: Tensor, sample: _Sample) -> dict[str, str]:
    low, high = float(sample.images.min()), float(sample.images.max())
    counts = torch.bincount(labels)
    return {
        "name": name,
        "images": f"{len(images):,} of shape {' × '.join(map(str, images.shape[1:]))}",
        "range": f"[{low:.3g}, {high:.3g}]",
        "numbers": str(sample.images.dtype).removeprefix("torch."),
        "labels": f"{int(labels.min())} to {int(labels.max())}, {int((counts > 0).sum())} different ones",
    }


def _raw(model: Model, sample: _Sample) -> Estimate | None:
    """Clean accuracy by the model's own pipeline, which an adapter has as `raw`: from images to labels (N,)."""
    pipeline = getattr(model, "raw", None)
    if pipeline is None:
        return None
    try:
        with torch.no_grad(), untouched(model):
            parts = [pipeline(x).cpu() for x in sample.images.split(64)]
    except Exception as error:  # whatever another package may raise
        raise ModelError(f"The model's own pipeline failed: {type(error).__name__}: {error}") from error
    return clopper_pearson(int((torch.cat(parts) == sample.labels).sum()), len(sample.labels))


# --- names ---------------------------------------------------------------------------------------------


def _at(names: tuple[str, ...], label: int) -> str | None:
    return names[label] if label < len(names) else None


def _renamed(classes: list[Named]) -> dict[str, int]:
    """The model's label of each of the data's class names; empty where they agree, or where one is not found."""
    there = moved([one.data for one in classes], [one.model for one in classes])
    found = {one.data: there.get(one.label, one.label) for one in classes if one.data is not None}
    lost = any(not one.agrees and one.label not in there for one in classes)
    return {} if lost or not there else found
