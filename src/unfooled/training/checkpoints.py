"""The state of a run on disk: whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from ..files import whole

VERSION = 1


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and texts, so that a kill or a full disk leaves the last checkpoint. Raises `OutputError`."""
    with whole(path, durable=True) as temporary:
        torch.save({"version": VERSION, **state}, temporary)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote. No code in it is run. Raises `DataError` where it is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        version = state.pop("version")
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError):
        raise DataError(f"{path} is damaged. Remove it to train from the start.") from None
    if version != VERSION:
        raise DataError(
            f"{path} is of version {version}; this program reads {VERSION}. Remove it to train from the start."
        )
    return dict(state)
