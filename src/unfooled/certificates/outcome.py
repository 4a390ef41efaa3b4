"""What `certify` answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..intervals import clopper_pearson
from ..results import Estimate
from ..threats import Threat


@dataclass(frozen=True, repr=False)
class Certified:
    """What was proved of each image.

    certified:      (N,) bool: right on the image and on every point of the threat's set, in the model's own arithmetic.
    clean_correct:  (N,) bool: right on the image.
    margin:         (N,) float64: a lower bound of the logit of the label less the largest other one, over the set; NaN by
                    smoothing, which bounds no logit.
    by:             (N,) int64: which of `methods` proved it; -1: none.
    methods:        what was tried, in order.
    seconds:        what each of them took.
    prediction:     (N,) int64: the class that is answered on the image.

    By smoothing all of this is about the smoothed classifier, and each certificate is wrong with probability alpha at most:

    radius:   (N,) float64: no change of at most this size, in the threat's norm, changes the answer: eps where it is
              certified and 0 elsewhere, since no other size was asked about.
    refuted:  (N,) bool: the share of noise that the label wins is too small to certify eps, so more draws would not help.
    draws:    (N,) int64: forward passes spent on the image.
    """

    certified: Tensor
    clean_correct: Tensor
    margin: Tensor
    by: Tensor
    methods: tuple[str, ...]
    threat: Threat
    seconds: tuple[float, ...] = ()
    prediction: Tensor | None = None
    radius: Tensor | None = None
    refuted: Tensor | None = None
    draws: Tensor | None = None

    def __repr__(self) -> str:
        return (
            f"Certified({'+'.join(self.methods)} with {self.threat} on {len(self.certified)} images: clean accuracy "
            f"{self.clean_accuracy.value:.4f}, certified accuracy {self.certified_accuracy.value:.4f})"
        )

    @property
    def clean_accuracy(self) -> Estimate:
        """The share of images that the model gets right, with its 95 % interval."""
        return _share(self.clean_correct)

    @property
    def certified_accuracy(self) -> Estimate:
        """The share of images that are proved: a lower bound of robust accuracy, with its 95 % interval."""
        return _share(self.certified)


def _share(right: Tensor) -> Estimate:
    return clopper_pearson(int(right.sum()), len(right))
