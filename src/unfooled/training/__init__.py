"""Training: one loop, objectives as functions to a loss, recipes with a name."""

from __future__ import annotations

from .fit import train
from .history import Epoch, Progress
from .objectives import OBJECTIVES, Batch, Objective
from .perturbations import NFGSM, NearPGD
from .recipes import RECIPES, Recipe
from .run import Trained

__all__ = [
    "NFGSM",
    "OBJECTIVES",
    "RECIPES",
    "Batch",
    "Epoch",
    "NearPGD",
    "Objective",
    "Progress",
    "Recipe",
    "Trained",
    "train",
]
