"""An endpoint as a model: images go out by HTTP, scores or labels come back and are kept."""

from __future__ import annotations

from .address import Address
from .answers import Reader
from .calls import Caller
from .client import Endpoint
from .kept import Kept
from .requested import Form

__all__ = ["Address", "Caller", "Endpoint", "Form", "Kept", "Reader"]
