"""Recipes: a name for everything that a training run needs to know beside model and data."""

from __future__ import annotations

from dataclasses import dataclass

from .. import attacks
from ..attacks.base import Attack
from ..errors import must_be


@dataclass(frozen=True)
class Recipe:
    """One complete way to train.

    attack:         the inner attack as text; None: train on the images themselves.
    epochs:         passes over the data.
    batch_size:     images per step.
    learning_rate:  the peak of a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120) for AdamW.
    weight_decay:   of AdamW.
    warm_up:        share of the steps in which eps grows from 0 to its full size.
    augment:        random shifts by up to 4 pixels and mirroring, for colour photographs.
    about:          one line on what it is.
    """

    about: str
    attack: str | None = None
    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warm_up: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise must_be("Recipe", "epochs", "an int of at least 1", self.epochs)
        if self.batch_size < 1:
            raise must_be("Recipe", "batch_size", "an int of at least 1", self.batch_size)
        if not self.learning_rate > 0:
            raise must_be("Recipe", "learning_rate", "a float above 0", self.learning_rate)

    def inner(self) -> Attack | None:
        """The inner attack."""
        if self.attack is None:
            return None
        plan = attacks.parse(self.attack)
        if not isinstance(plan, Attack):
            raise must_be("Recipe", "attack", "a single attack, not a plan", self.attack)
        return plan


RECIPES: dict[str, Recipe] = {
    "standard": Recipe("cross-entropy on the images"),
    "pgd": Recipe("adversarial training with PGD (Madry et al. 2018)", attack="pgd:steps=5,step_size=0.3", warm_up=0.2),
    "noise-fgsm": Recipe(
        "FGSM from a random start, step 1.25 eps (Wong et al. 2020, arXiv:2001.03994)",
        attack="pgd:steps=1,step_size=1.25",
        warm_up=0.2,
    ),
}
