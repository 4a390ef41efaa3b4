"""Models: what a user brings, what this package trains, and how both are read and written."""

from __future__ import annotations

from .classifier import Classifier, Model, logits_of, untouched
from .layout import Compute
from .load import BUNDLED, NETWORKS, build, load
from .networks import SeedCNN, SmallResNet
from .weights import apply as load_weights
from .weights import save as save_weights
from .wrappers import Normalized, Output

__all__ = [
    "BUNDLED",
    "NETWORKS",
    "Classifier",
    "Compute",
    "Model",
    "Normalized",
    "Output",
    "SeedCNN",
    "SmallResNet",
    "build",
    "load",
    "load_weights",
    "logits_of",
    "save_weights",
    "untouched",
]
