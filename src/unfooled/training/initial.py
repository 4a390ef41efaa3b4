"""The weights that a run begins with."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def given(model: nn.Module) -> None:
    """As they are."""


def ibp(model: nn.Module) -> None:
    """Normal with standard deviation √(2π) / fan-in: an interval then keeps its width through a layer and a ReLU.

    Shi et al. 2021, arXiv:2103.17268, section 3.2. Biases 0; batch norm as it is made.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | _ConvNd):
            nn.init.normal_(module.weight, 0, math.sqrt(2 * math.pi) / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _BatchNorm):
            module.reset_parameters()


STARTS: dict[str, Callable[[nn.Module], None]] = {"given": given, "ibp": ibp}
