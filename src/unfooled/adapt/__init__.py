"""From findings to attacks: gradients taken in another way, until they are of use; the verdict stays the model's."""

from __future__ import annotations

from .candidates import undefended
from .search import Strategy, Way, plan, rebuild
from .through import through

__all__ = ["Strategy", "Way", "plan", "rebuild", "through", "undefended"]
