"""Proof: bounds on what a network answers over a threat's set, and certificates from them."""

from __future__ import annotations

from .methods import CROWN, IBP, METHODS, AlphaCROWN, Method, parse
from .outcome import Certified
from .proof import Span, bounded, certify, margins

__all__ = [
    "CROWN", "IBP", "METHODS", "AlphaCROWN", "Certified", "Method", "Span", "bounded", "certify", "margins", "parse",
]  # fmt: skip
