"""Models: what a user brings, what this package trains, and how both are read and written."""

from __future__ import annotations

from .access import Access
from .black_box import BlackBox
from .bring import brought
from .classifier import Classifier, Model, logits_of, untouched
from .facts import Facts, facts_of
from .layout import Compute
from .load import BUNDLED, NETWORKS, build, load
from .networks import SeedCNN, SmallResNet
from .weights import apply as load_weights
from .weights import save as save_weights
from .wrappers import Normalized, Output

__all__ = [
    "BUNDLED",
    "NETWORKS",
    "Access",
    "BlackBox",
    "Classifier",
    "Compute",
    "Facts",
    "Model",
    "Normalized",
    "Output",
    "SeedCNN",
    "SmallResNet",
    "brought",
    "build",
    "facts_of",
    "load",
    "load_weights",
    "logits_of",
    "save_weights",
    "untouched",
]
