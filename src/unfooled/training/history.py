"""What a run has told of itself: plain numbers, an entry for each epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """How an epoch ended.

    epoch, step:    counted from 1; steps of the whole run.
    loss, accuracy: means over its batches, as they were trained on (for adversarial objectives, under attack).
    clean, robust:  accuracies on the images held out, without and under attack; NaN where none are held out. For recipes
                    without an attack robust is NaN.
    learning_rate, eps:  at its end.
    seconds:        of the run so far, earlier parts of it included.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    clean: float
    robust: float
    learning_rate: float
    eps: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: 1-based epoch, steps done of all, running loss and accuracy of the epoch.

    held:  how the last epoch ended; None in the first.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    held: Epoch | None = None
