"""Every finding by its code: what it means, how severe it is, from which measurement on, who asks for the check.

`docs/findings.md` is this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InternalError
from ..results import Finding

ATHALYE = "Athalye et al. 2018, arXiv:1802.00420"
AUTOATTACK = "AutoAttack's flags: Croce & Hein 2020, arXiv:2003.01690"
CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
PINTOR = "Pintor et al. 2022, arXiv:2106.09947"
PRACTICE = "practice: what users of attack libraries ask about most"


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    severity:   "note", "suspect" or "invalid", before adaptation.
    measures:   what its number is.
    threshold:  the number beyond which it is reported; None: whatever it is.
    when:       "before" the attacks, "after" them, or "thorough" (only under the protocol thorough).
    settles:    whether adaptation can settle it, which makes it a note.
    """

    severity: str
    measures: str
    threshold: float | None
    source: str
    remedy: str
    when: str = "before"
    settles: bool = False


KINDS: dict[str, Kind] = {
    # --- the set-up ---------------------------------------------------------------------------------
    "converted-input": Kind("note", "conversions made", None, PRACTICE, "None needed; check that it is what you meant."),
    "train-mode": Kind(
        "note", "modules in train mode", 0, PRACTICE,
        "It was run in eval mode and put back. Call model.eval() to say that you mean it.",
    ),
    "few-classes": Kind(
        "note", "classes", None, AUTOATTACK, "None needed: below 4 classes the margin loss stands in for DLR."
    ),
    "limited-access": Kind(
        "note", "1: labels only, 2: scores", None, PRACTICE,
        "None needed if attackers have no more; else load the model itself, or give surrogate= for its gradients.",
    ),
    "near-chance": Kind(
        "invalid", "lower end of clean accuracy, less the largest class's share (0 or less is reported)", 0.0, CARLINI,
        "A model that is no better than chance has no robustness to measure: check weights, labels and preprocessing.",
    ),
    "labels-permuted": Kind(
        "invalid", "clean accuracy gained by renaming the classes", 0.3, PRACTICE,
        "Map the data's class indices to the model's (--classes, or the labels given).",
    ),
    "classes-in-another-order": Kind(
        "invalid", "clean accuracy gained by going by the names of the classes", 0.0, PRACTICE,
        "Give the data the model's labels: --classes NAME=LABEL,…; unfooled doctor writes it out.",
    ),
    "one-probability": Kind(
        "invalid", "largest of the outputs, one for each image and none outside [0, 1]", None, PRACTICE,
        "One output is read as a logit, above 0 for class 1. Return the logit, or a column for each of the two classes.",
    ),
    "expects-0-255": Kind(
        "invalid", "clean accuracy gained by feeding pixels times 255", 0.15, PRACTICE,
        "It takes pixels from 0 to 255, and was given 0 to 1: --model-option scale=255 of a file, or scale within the model.",
    ),
    "missing-normalisation": Kind(
        "invalid", "clean accuracy gained by normalising the images", 0.15, PRACTICE,
        "Wrap the model: unfooled.models.Normalized(model, mean, std); of a file, --model-option mean=… and std=….",
    ),
    "double-normalisation": Kind(
        "invalid", "clean accuracy gained by undoing a normalisation; 1: seen in a layer", 0.15, PRACTICE,
        "Normalise once: leave out the wrapper, or the layer inside the model.",
    ),
    "channels-swapped": Kind(
        "invalid", "clean accuracy gained by turning the channels round", 0.15, PRACTICE,
        "Give the channels in the order that it was trained on: --model-option bgr=true of a file, or within the model.",
    ),
    "eps-beyond-range": Kind(
        "suspect", "eps, relative to the distance of the images furthest apart", 1.0, PRACTICE,
        "Give eps in the units of the images, e.g. 8/255 for images in [0, 1].",
    ),
    "eps-below-8-bit-step": Kind(
        "note", "eps, relative to one step of 8-bit pixels (less than 1 is reported)", 1.0, PRACTICE,
        "Give eps in the units of the images; if they are in [0, 255], 8 and not 8/255.",
    ),
    "batch-dependent": Kind(
        "invalid", "largest relative change of logits between batches", 1e-3, AUTOATTACK,
        "What a model says of an image must not depend on the other images: BatchNorm in eval mode, no batch statistics.",
    ),
    "float32-unstable": Kind(
        "suspect", "largest change of the answers' margins against float64, relative to the logits' spread", 0.01, PRACTICE,
        "Run the model in float64, or find where it loses precision (half precision, large sums).",
    ),
    "nonfinite-logits": Kind(
        "invalid", "examples without finite logits", 0, PRACTICE,
        "Find where the model overflows or divides by zero; the examples are listed and count as wrong.",
    ),
    # --- gradients ----------------------------------------------------------------------------------
    "random-model": Kind(
        "suspect", "largest relative change of logits between passes", 1e-4, ATHALYE + ", section 4.2 (EOT)",
        "Average gradients over enough draws and judge by the majority of draws (--draws).", settles=True,
    ),
    "probabilities": Kind(
        "suspect", "share of examples whose outputs are probabilities", 0, AUTOATTACK,
        "Return what goes into the softmax: losses saturate on probabilities.", settles=True,
    ),
    "squashed-outputs": Kind(
        "suspect",
        "width of the range that all outputs lie in: [0, 1], or [-1, 1] to its ends",
        None,
        CARLINI,
        "Attack what stands before the squashing.",
        settles=True,
    ),
    "saturated-loss": Kind(
        "suspect", "share of examples with a cross-entropy gradient of zero but a margin", 0.0, CARLINI,
        "Rescale the logits for the attack, or use a margin loss.", settles=True,
    ),
    "flat-outputs": Kind(
        "suspect", "share of the outputs that lie on a coarse lattice, or are one of two values", 0.5, PINTOR,
        "Attack what stands before the rounding or the hard label.", settles=True,
    ),
    "dynamic-forward": Kind(
        "suspect", "calls of autograd within one forward pass", 0, AUTOATTACK,
        "Attack through a backward that passes over the inner optimisation.", settles=True,
    ),
    "not-differentiable": Kind(
        "suspect", "operations or modules whose gradient is missing or zero", 0, ATHALYE + ", section 4.1 (BPDA)",
        "Declare a backward for them (a Defense with backward='identity'), or give surrogate=.", settles=True,
    ),
    "no-gradient": Kind(
        "suspect", "share of examples whose gradient does not reach the input", 0, PINTOR + ", indicator 1",
        "Find what leaves torch, detaches or raises in the backward pass, and replace its backward.", settles=True,
    ),
    "zero-gradients": Kind(
        "suspect", "share of examples with a gradient of zero", 0, AUTOATTACK + "; " + PINTOR + ", indicator 1",
        "Replace the backward of the operation that is flat.", settles=True,
    ),
    "nonfinite-gradients": Kind(
        "suspect", "share of examples with a gradient that is not finite", 0, PINTOR + ", indicator 1",
        "Replace the backward of the operation that overflows.", settles=True,
    ),
    "misleading-gradients": Kind(
        "suspect", "share of examples on which a step along the gradient does no better than a random one", 0.1,
        CARLINI, "Take gradients from a smooth stand-in for what shatters them.", settles=True,
    ),
    "stand-in-better": Kind(
        "suspect", "share of the probe that only gradients of a stand-in fooled", 0.0, ATHALYE + ", section 4.1 (BPDA)",
        "Take gradients through a stand-in for the custom step that hides them.", settles=True,
    ),
    "unbounded-survivors": Kind(
        "suspect", "share of examples that survive gradient attacks without a bound", 0.05,
        PINTOR + ", indicator 6; " + CARLINI,
        "Without a bound every image can be changed into another: the attack fails, not the adversary.", settles=True,
    ),
    # --- the attacks --------------------------------------------------------------------------------
    "black-box-better": Kind(
        "suspect", "accuracy lost to gradient-free attacks after those by gradient (lower end of 95 %)", 0.002, AUTOATTACK,
        "Gradients mislead here: adapt the attack to the model.", when="after", settles=True,
    ),
    "single-step-better": Kind(
        "suspect", "accuracy lost to one step after iterative attacks (lower end of 95 %)", 0.002, CARLINI,
        "Iterative attacks should contain the single step: adapt the attack to the model.", when="after", settles=True,
    ),
    "noise-fools": Kind(
        "suspect", "accuracy lost to random noise after the attacks (lower end of 95 %)", 0.002, CARLINI,
        "The attack does worse than noise: adapt it to the model.", when="after", settles=True,
    ),
    "unmoved-points": Kind(
        "suspect", "share of images left whose attacked point is the image itself", 0.05, CARLINI,
        "The attack did not move: its gradients are zero, or the mask leaves nothing to change.", when="after", settles=True,
    ),
    "transfer-failure": Kind(
        "suspect", "share of points that fool the surrogate and not the model", 0.5, PINTOR + ", indicator 5",
        "Use a surrogate that is nearer to the model.", when="after",
    ),
    "incomplete-optimisation": Kind(
        "note", "mean rise of the scaled loss in the last 10 looks, of images left", 0.05, PINTOR + ", indicator 4",
        "Take more steps: --protocol thorough.", when="after",
    ),
    "unstable-predictions": Kind(
        "note", "mean relative change of the loss under noise of eps/2, at most 1", 0.1, PINTOR + ", indicator 2",
        "The loss is rough: smooth it (average over noise) if attacks look weak.",
    ),
    "more-steps-help": Kind(
        "suspect", "accuracy lost to twice the steps (lower end of 95 %)", 0.002, CARLINI,
        "Take more steps and restarts.", when="thorough",
    ),
    "hard-label-better": Kind(
        "suspect", "accuracy lost to a decision-based attack (lower end of 95 %)", 0.002, CARLINI,
        "Gradients and scores mislead here: adapt the attack to the model.", when="thorough", settles=True,
    ),
    "large-eps-survivors": Kind(
        "suspect", "accuracy at Linf 0.5 (of the images' range) above chance", 0.1, CARLINI,
        "At that size an image can be grey: the attack fails, not the adversary.", when="thorough", settles=True,
    ),
    # --- the run ------------------------------------------------------------------------------------
    "quick-protocol": Kind(
        "suspect", "1", None, "this project's rule", "Use --protocol fast: quick is for development.", when="after"
    ),
    "attack-broken": Kind(
        "invalid", "points outside the threat's set", 0, "this project's rule", "Report it: the attack left its set.",
        when="after",
    ),
    "few-images": Kind(
        "note", "images judged (fewer are reported)", 100, "this project's rule", "Judge more: the interval is wide.",
        when="after",
    ),
}  # fmt: skip


def finding(code: str, measurement: float, message: str) -> Finding:
    """A finding of that kind."""
    kind = KINDS.get(code)
    if kind is None:
        raise InternalError(f"There is no finding {code!r} in the catalog.")
    return Finding(
        code=code, severity=kind.severity, message=message, measurement=float(measurement), threshold=kind.threshold,
        source=kind.source, remedy=kind.remedy,
    )  # fmt: skip
