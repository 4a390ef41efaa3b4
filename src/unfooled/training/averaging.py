"""An exponential moving average of the weights, which is what is judged and kept.

Izmailov et al. 2018, arXiv:1803.05407; for adversarial training Gowal et al. 2020, arXiv:2010.03593, section 4.3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of the module that follows it with `update_parameters`, statistics of batch norm included.

    decay:  share of the average that stays at each step; (1 + step) / (10 + step) while that is less, so that the first
            weights are soon forgotten.
    """

    def follow(average: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return now
        return average.lerp(now, 1 - min(decay, (1 + int(steps)) / (10 + int(steps))))

    return AveragedModel(module, avg_fn=follow, use_buffers=True)
