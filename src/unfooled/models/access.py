"""What a model lets an attacker see."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Access(IntEnum):
    """What an attack may ask of a model; each level includes those before it."""

    DECISION = 1
    SCORE = 2
    GRADIENT = 3

    @property
    def words(self) -> str:
        """What it gives, in words."""
        return {1: "labels only", 2: "scores, but no gradients", 3: "gradients"}[self.value]


def access_of(model: Any) -> Access:
    """The access that a model declares by an attribute `access`; a model that declares none gives gradients."""
    declared = getattr(model, "access", None)
    return declared if isinstance(declared, Access) else Access.GRADIENT
