"""An exponential moving average of the weights, which is what is judged and kept.

Izmailov et al. 2018, arXiv:1803.05407; for adversarial training Gowal et al. 2020, arXiv:2010.03593, section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of the module that follows it with `update_parameters`, statistics of batch norm included.

    decay:  share of the average that stays at each step; (1 + step) / (10 + step) while that is less, so that the first
            weights are soon forgotten.
    """

    def follow(average: Sequence[Tensor], now: Sequence[Tensor], steps: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        for held, current in zip(average, now, strict=True):
            if held.is_floating_point():
                held.lerp_(current, weight)
            else:  # a count of batches
                held.copy_(current)

    return AveragedModel(module, multi_avg_fn=follow, use_buffers=True)
