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
SLACK = 1e-3  # that a probability may lie outside [0, 1]


class BlackBox:
    """Any function from images to answers, with the access that these give.

    function:  called with images (N, *shape), the pixels that the user gave; returns one row per image.
    answers:   "logits" (N, C) or "probabilities" (N, C), whose logarithm is taken: an attacker sees scores;
               "labels" (N,) integers: decisions only. One score for each image, (N,) or (N, 1), is that of the second of
               two classes.
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
        found = self._tensor(answer, len(images)).to(images.device)
        return self._of_labels(found, len(images)) if self.answers == "labels" else self._scores(found, len(images))

    def _tensor(self, answer: Any, rows: int) -> Tensor:
        """What was answered as numbers: a tensor, an array, or lists of numbers or of either."""
        if isinstance(answer, Tensor):
            return answer
        try:
            if isinstance(answer, list | tuple) and answer and all(isinstance(one, Tensor) for one in answer):
                return torch.stack(list(answer))
            return torch.as_tensor(np.asarray(answer))
        except (TypeError, ValueError, RuntimeError):
            kind = type(answer).__name__
            inner = f" of {type(answer[0]).__name__}" if isinstance(answer, list | tuple) and answer else ""
            raise ModelError(
                f"The model must answer {self.answers} as a tensor, an array or a list of equal rows, {rows} in all. It "
                f"answered a {kind}{inner}, which is none of these."
            ) from None

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
        found = scores[:, None] if scores.dim() == 1 else scores
        if found.dim() != 2 or len(found) != rows or not found.is_floating_point() or not found.shape[1]:
            raise ModelError(
                f"The model must answer {self.answers} of shape ({rows}, classes). It answered {scores.dtype} of shape "
                f"{tuple(scores.shape)}."
            )
        found = found.double() if found.dtype == torch.float64 else found.float()
        if self.answers == "probabilities":
            _check_probabilities(found)
        if found.shape[1] == 1:
            other = 1 - found if self.answers == "probabilities" else torch.zeros_like(found)
            found = torch.cat([other, found], 1)
        if self.classes is not None and found.shape[1] != self.classes:
            raise ModelError(f"The model answered {found.shape[1]} scores for {self.classes} classes.")
        return found if self.answers == "logits" else found.clamp_min(LEAST).log()


def _check_probabilities(found: Tensor) -> None:
    """Refuse what are none: the logarithm of a negative score would make it equal to all others."""
    wrong = ((found < -SLACK) | (found > 1 + SLACK)).any(1).nonzero()
    if len(wrong):
        row = found[int(wrong[0])].detach()
        raise ModelError(
            f"The model must answer probabilities. It answered scores from {float(row.min()):.4g} to {float(row.max()):.4g} "
            "for one image: say that they are logits."
        )
