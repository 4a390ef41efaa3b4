"""Where a run trains: on one device, or on several with a process each."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtra


class Alone:
    """One process."""

    main = True
    count = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The module that gradients are taken through."""
        return model

    def part(self, index: Tensor) -> tuple[Tensor, float]:
        """This process's rows of a batch, and what its mean loss weighs."""
        return index, 1.0

    def agreed(self, *values: float) -> tuple[float, ...]:
        """The first process's values."""
        return values

    def summed(self, *values: float) -> tuple[float, ...]:
        """The sums over all processes."""
        return values


class Several:
    """A process for each device, under accelerate. Gradients are those of the whole batch.

    Batch norm keeps the statistics of each process's part; the first process's are saved.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.main: bool = accelerator.is_main_process
        self.count: int = accelerator.num_processes

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes; an objective may pass through it more than once."""
        model = model.to(self.device)
        if not any(p.requires_grad for p in model.parameters()):
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)

    def part(self, index: Tensor) -> tuple[Tensor, float]:
        """This process's rows of a batch, and what its mean loss weighs; one of weight 0 where there are too few."""
        mine = index[self.accelerator.process_index :: self.count]
        if not len(mine):
            return index[:1], 0.0
        return mine, len(mine) * self.count / len(index)

    def agreed(self, *values: float) -> tuple[float, ...]:
        """The first process's values."""
        from accelerate.utils import broadcast

        held = torch.tensor(values, dtype=torch.float32, device=self.device)
        return tuple(broadcast(held).tolist())

    def summed(self, *values: float) -> tuple[float, ...]:
        """The sums over all processes."""
        held = torch.tensor(values, dtype=torch.float32, device=self.device)
        return tuple(self.accelerator.reduce(held, "sum").tolist())


def found(model: nn.Module) -> Alone | Several:
    """Several processes where they were started as such (`accelerate launch`, `torchrun`), else the model's own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MissingExtra('Several processes need accelerate: pip install "unfooled[train]"') from error
        return Several(Accelerator())
    first = next(iter(model.parameters()), None)
    return Alone(torch.device("cpu") if first is None else first.device)
