"""What counts as fooled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import must_be

ROUNDING = 32  # units in the last place of the largest logit


def rival(logits: Tensor, label: Tensor) -> Tensor:
    """The largest logit of another class than the label: (N, C), (N,) to (N,)."""
    return logits.scatter(1, label[:, None], -torch.inf).amax(1)


def pick(logits: Tensor, index: Tensor) -> Tensor:
    """One logit of each row: (N, C), (N,) to (N,)."""
    return logits.gather(1, index[:, None]).squeeze(1)


@dataclass(frozen=True)
class Goal:
    """One row per trial.

    label:       (N,) the true classes.
    target:      (N,) classes that the model must answer; None: any wrong class counts (untargeted).
    aim:         (N,) classes that the losses pull towards, although any wrong class counts; None: no such class.
    confidence:  the answer must lead every other class (untargeted: the true one) by this margin of logits.
    firm:        and by more than rounding: a point on the boundary itself is judged one way in one batch and another
                 way in the next, and minimum-norm attacks end there.
    """

    label: Tensor
    target: Tensor | None = None
    aim: Tensor | None = None
    confidence: float = 0.0
    firm: bool = False

    def __post_init__(self) -> None:
        if not self.confidence >= 0:
            raise must_be("Goal", "confidence", "a float of at least 0", self.confidence)

    @property
    def toward(self) -> Tensor | None:
        """The class that losses pull towards, if there is one."""
        return self.aim if self.target is None else self.target

    def rows(self, index: Tensor) -> Goal:
        """The goal of some rows."""
        target, aim = (None if t is None else t[index] for t in (self.target, self.aim))
        return Goal(self.label[index], target, aim, self.confidence, self.firm)

    def fooled(self, logits: Tensor) -> Tensor:
        """Which rows reach the goal: (N, C) to (N,) bools."""
        answer = logits.argmax(1)
        reached = answer != self.label if self.target is None else answer == self.target
        if not (self.confidence or self.firm):
            return reached
        if self.target is None:
            margin = rival(logits, self.label) - pick(logits, self.label)
        else:
            margin = pick(logits, self.target) - rival(logits, self.target)
        if self.firm:
            reached = reached & (margin > ROUNDING * torch.finfo(logits.dtype).eps * logits.abs().amax(1))
        return reached & (margin >= self.confidence)
