"""Small wrappers, so that eps always means pixels in [0, 1] and the right output is the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, ParameterError, must_be


class Normalized(nn.Module):
    """A model that was trained on (x - mean) / std, as a model of x in [0, 1].

    mean, std:  one float for each channel (or one for all), in units of [0, 1] pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float] | float, std: Sequence[float] | float) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)
        if len(self.mean) != len(self.std):
            raise ParameterError(f"Normalized needs as many means as stds. Got {mean!r} and {std!r}.")
        if not bool((self.std > 0).all()):
            raise must_be("Normalized", "std", "floats above 0", std)

    def forward(self, images: Tensor) -> Any:
        """Logits of images (N, C, H, W) in [0, 1]."""
        return self.model((images - self.mean.to(images.dtype)) / self.std.to(images.dtype))


class Output(nn.Module):
    """A model of several outputs, answering the one of that name (mapping, attribute) or position (tuple)."""

    def __init__(self, model: nn.Module, name: str | int) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, images: Tensor) -> Any:
        """The named output on images (N, *shape)."""
        output = self.model(images)
        try:
            if isinstance(output, Mapping) or isinstance(self.name, int):
                return output[self.name]
            return getattr(output, self.name)
        except (KeyError, IndexError, TypeError, AttributeError):
            have = sorted(output) if isinstance(output, Mapping) else type(output).__name__
            raise ModelError(f"The model's output has no {self.name!r}: it is {have}.") from None
