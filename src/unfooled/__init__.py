"""Robustness numbers you can trust, and models that earn them.

    import unfooled as uf
    result = uf.attack(model, images, labels, uf.Linf(8 / 255), uf.attacks.PGD(steps=40))
    print(result.robust_accuracy)

The names below are all of the public interface. They load on first use, so that importing the package costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import attacks, certificates, cluster, data, defenses, errors, losses, models, protocols
    from .attacks import Cascade, Escalate, Restarts, Targeted
    from .certificates import Certified, certify
    from .defenses import defend
    from .engine import Result, attack, perturb
    from .evaluation import evaluate
    from .models import Compute
    from .results import Evaluation
    from .sweeping import Sweep, sweep
    from .threats import L0, L1, L2, Linf, Threat
    from .training import RECIPES, Recipe, train

_HOME = {
    "Cascade": "attacks",
    "Certified": "certificates",
    "Compute": "models",
    "Escalate": "attacks",
    "Evaluation": "results",
    "L0": "threats",
    "L1": "threats",
    "L2": "threats",
    "Linf": "threats",
    "RECIPES": "training",
    "Recipe": "training",
    "Restarts": "attacks",
    "Result": "engine",
    "Sweep": "sweeping",
    "Targeted": "attacks",
    "Threat": "threats",
    "attack": "engine",
    "certify": "certificates",
    "defend": "defenses",
    "evaluate": "evaluation",
    "perturb": "engine",
    "sweep": "sweeping",
    "train": "training",
}
_MODULES = ("attacks", "certificates", "cluster", "data", "defenses", "errors", "losses", "models", "protocols")

__all__ = [
    "L0",
    "L1",
    "L2",
    "RECIPES",
    "Cascade",
    "Certified",
    "Compute",
    "Escalate",
    "Evaluation",
    "Linf",
    "Recipe",
    "Restarts",
    "Result",
    "Sweep",
    "Targeted",
    "Threat",
    "__version__",
    "attack",
    "attacks",
    "certificates",
    "certify",
    "cluster",
    "data",
    "defend",
    "defenses",
    "errors",
    "evaluate",
    "losses",
    "models",
    "perturb",
    "protocols",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
