"""The networks that this project trains: the seed's CNN, one for adversarial training, and a small residual network."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..errors import must_be


class SeedCNN(nn.Sequential):
    """The CNN of the student's project that this one grew out of.

    conv 32 3×3 valid, pool 2, conv 32 3×3 valid, pool 2, 1000, dropout .5, 500, dropout .5, 250, classes; ReLU between.
    Images (N, channels, size, size) in [0, 1] to logits (N, classes).
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10) -> None:
        side = ((size - 2) // 2 - 2) // 2
        if side < 1:
            raise must_be("SeedCNN", "size", "an int of at least 10", size)
        super().__init__(
            nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * side * side, 1000), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(1000, 500), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(500, 250), nn.ReLU(),
            nn.Linear(250, classes),
        )  # fmt: skip


class SmallCNN(nn.Sequential):
    """A CNN that is cheap to train adversarially: most of its work is done at half of the images' size.

    conv 8 1×1, conv 32 4×4 stride 2, conv 64 3×3, conv 64 4×4 stride 2, 256, classes; ReLU between. The first layer sees
    one pixel at a time, so that it can learn thresholds, as Madry et al. 2018 (arXiv:1706.06083, appendix C) found robust
    networks to do. Images (N, channels, size, size) in [0, 1] to logits (N, classes).
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10, width: int = 32) -> None:
        side = size // 2 // 2
        if side < 1:
            raise must_be("SmallCNN", "size", "an int of at least 4", size)
        super().__init__(
            nn.Conv2d(channels, 8, 1), nn.ReLU(),
            nn.Conv2d(8, width, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, 256), nn.ReLU(),
            nn.Linear(256, classes),
        )  # fmt: skip


class CertifiedCNN(nn.Sequential):
    """A CNN for certified training: few layers, each with batch norm, which Shi et al. 2021 (arXiv:2103.17268, section 3.3)
    found to be what keeps its activations alive.

    conv 32 4×4 stride 2, conv 64 3×3, conv 64 4×4 stride 2, 256, classes; batch norm and ReLU between.
    Images (N, channels, size, size) in [0, 1] to logits (N, classes).
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10, width: int = 32) -> None:
        side = size // 2 // 2
        if side < 1:
            raise must_be("CertifiedCNN", "size", "an int of at least 4", size)
        super().__init__(
            nn.Conv2d(channels, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, 256), nn.BatchNorm1d(256), nn.ReLU(),
            nn.Linear(256, classes),
        )  # fmt: skip


class _Block(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut. He et al. 2016, arXiv:1512.03385, figure 2."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.shortcut(x)
        return total.relu()


class SmallResNet(nn.Sequential):
    """A residual network of 8 layers for small images: width 16, 32, 64, one block each, global average.

    Images (N, channels, H, W) in [0, 1] to logits (N, classes).
    """

    def __init__(self, channels: int = 3, classes: int = 10, width: int = 16) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            _Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))
