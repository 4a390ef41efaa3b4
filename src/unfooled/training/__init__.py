"""Training: one loop, objectives as functions to a loss, recipes with a name."""

from __future__ import annotations

from .fit import Progress, train
from .objectives import Objective, adversarial, standard
from .recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Objective", "Progress", "Recipe", "adversarial", "standard", "train"]
