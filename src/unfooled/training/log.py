"""TensorBoard logs, where TensorBoard is installed."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .history import Epoch


class Log:
    """Writes an epoch's numbers under their names; those of steps that are taken again are replaced."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.there = folder is not None and find_spec("tensorboard") is not None
        self.writer: Any = None

    def write(self, epoch: Epoch) -> None:
        """Add an epoch, at its step."""
        if not self.there:
            return
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=epoch.step)
        for name in ("loss", "accuracy", "clean", "robust", "learning_rate", "eps"):
            value = getattr(epoch, name)
            if math.isfinite(value):
                self.writer.add_scalar(name, value, epoch.step)
        self.writer.flush()

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.close()
