"""A function that answers, and nothing more: no gradients, perhaps no scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError, UnfooledError, must_be
from .access import Access
from .facts import Facts

Answers = Literal["logits", "probabilities", "labels"]
LEAST = 1e-12  # of a probability, whose logarithm is a logit


class BlackBox:
    """Any function from images to answers, with the access that these give.

    function:  called with images (N, *shape), the pixels that the user gave; returns one row per image.
    answers:   "logits" (N, C) or "probabilities" (N, C), whose logarithm is taken: an attacker sees scores;
               "labels" (N,) integers: decisions only.
    classes:   how many there are; needed for labels.
    arrays:    whether the function takes NumPy arrays instead of tensors.
    last:      whether it takes channels last, (N, H, W, C).
    facts:     what is known of it.

    Raises `ParameterError`; `ModelError` where an answer has another form.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        answers: Answers,
        classes: int | None = None,
        *,
        arrays: bool = False,
        last: bool = False,
        facts: Facts | None = None,
    ) -> None:
        if not callable(function):
            raise must_be("BlackBox", "function", "a callable from images to answers", type(function).__name__)
        if answers not in get_args(Answers):
            raise must_be("BlackBox", "answers", "'logits', 'probabilities' or 'labels'", answers)
        if (answers == "labels" or classes is not None) and not (isinstance(classes, int) and classes >= 2):
            raise must_be("BlackBox", "classes", "an int of at least 2, where the answers are labels", classes)
        self.function, self.answers, self.classes = function, answers, classes
        self.arrays, self.last = arrays, last
        self.access = Access.DECISION if answers == "labels" else Access.SCORE
        self.facts = facts or Facts(format=f"a function that answers {answers}")

    def __repr__(self) -> str:
        return f"BlackBox({getattr(self.function, '__name__', type(self.function).__name__)}, {self.answers!r})"

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C): the scores, or 1 for the class that is answered and 0 for all others."""
        given: Any = images.detach()
        if self.last and images.dim() == 4:
            given = given.permute(0, 2, 3, 1).contiguous()
        if self.arrays:
            given = given.cpu().numpy()
        try:
            answer = self.function(given)
        except UnfooledError:
            raise
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"The model failed on images of shape {tuple(given.shape[1:])}: {reason}") from error
        found = torch.as_tensor(np.asarray(answer) if not isinstance(answer, Tensor) else answer).to(images.device)
        return self._of_labels(found, len(images)) if self.answers == "labels" else self._scores(found, len(images))

    def _of_labels(self, labels: Tensor, rows: int) -> Tensor:
        assert self.classes is not None
        if labels.shape != (rows,) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ModelError(
                f"The model must answer {rows} labels, one integer for each image. It answered {labels.dtype} of shape "
                f"{tuple(labels.shape)}."
            )
        labels = labels.long()
        if rows and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ModelError(
                f"The model answered the label {int(labels.max() if labels.max() >= self.classes else labels.min())}, and "
                f"there are {self.classes} classes, from 0."
            )
        return torch.nn.functional.one_hot(labels, self.classes).float()

    def _scores(self, scores: Tensor, rows: int) -> Tensor:
        if scores.dim() != 2 or len(scores) != rows or not scores.is_floating_point():
            raise ModelError(
                f"The model must answer {self.answers} of shape ({rows}, classes). It answered {scores.dtype} of shape "
                f"{tuple(scores.shape)}."
            )
        if self.classes is not None and scores.shape[1] != self.classes:
            raise ModelError(f"The model answered {scores.shape[1]} scores for {self.classes} classes.")
        scores = scores.double() if scores.dtype == torch.float64 else scores.float()
        return scores if self.answers == "logits" else scores.clamp_min(LEAST).log()
