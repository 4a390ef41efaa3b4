"""What says how far a number can be believed: checks before the first attack, and of what the attacks have done."""

from __future__ import annotations

from .catalog import KINDS, Kind, finding

__all__ = ["KINDS", "Kind", "finding"]
