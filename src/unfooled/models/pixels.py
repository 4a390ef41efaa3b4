"""What stands between the user's pixels and a network: resizing, cropping, the order of channels, mean and std."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError, must_be
from . import resampling
from .classifier import logits_of
from .facts import Facts

LEVELS = 2.0  # of 256 that two pipelines may differ by: each of Pillow's two passes rounds to bytes
PROBES = ((331, 247), (75, 118))  # height and width of images that two pipelines are compared on


@dataclass(frozen=True)
class Resize:
    """Resample images, with Pillow's filters.

    height, width:  the size aimed at.
    rule:      "exact": that size;
               "shorter": both sides by one factor, the shorter one to `height` (and `width`, the same number);
               "cover", "inside": both sides by one factor, so that the image just covers that size, or just fits into it.
    how:       the filter, one of `resampling.FILTERS`.
    multiple:  sides are rounded up to a multiple of this.
    """

    height: int
    width: int
    rule: Literal["exact", "shorter", "cover", "inside"] = "exact"
    how: str = "bilinear"
    multiple: int = 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width afterwards."""
        after = self.height, self.width
        if self.rule == "shorter":
            longer = int(self.height * max(height, width) / min(height, width))
            after = (longer, self.height) if width <= height else (self.height, longer)
        elif self.rule != "exact":
            factors = height / self.height, width / self.width
            factor = min(factors) if self.rule == "cover" else max(factors)
            after = round(height / factor), round(width / factor)
        tall, wide = (math.ceil(side / self.multiple) * self.multiple for side in after)
        return tall, wide

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1]."""
        return resampling.resize(images, *self.size(*images.shape[-2:]), self.how)

    @property
    def words(self) -> str:
        """What it does."""
        to = {
            "exact": f"resized to {self.height}×{self.width}",
            "shorter": f"resized so that the shorter side is {self.height}",
            "cover": f"resized to cover {self.height}×{self.width}",
            "inside": f"resized to fit into {self.height}×{self.width}",
        }[self.rule]
        return f"{to} ({self.how})" + (
            f", sides rounded up to multiples of {self.multiple}" if self.multiple > 1 else ""
        )


@dataclass(frozen=True)
class Crop:
    """Cut out the centre; what is smaller is padded.

    height, width:  the size afterwards.
    fill:      of the padding, in [0, 1]: one float, or one for each channel.
    odd:       where the middle lies when an odd number of rows goes: "even", as torchvision rounds halves; "down".
    pad_odd:   the side that an odd row of padding is added to: "after" or "before".
    """

    height: int
    width: int
    fill: tuple[float, ...] = (0.0,)
    odd: Literal["even", "down"] = "even"
    pad_odd: Literal["after", "before"] = "after"

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1]."""
        lacks = [max(0, want - have) for want, have in zip((self.height, self.width), images.shape[-2:], strict=True)]
        if any(lacks):
            (top, bottom), (left, right) = (self._both(lack) for lack in lacks)
            fill = images.new_tensor(self.fill).reshape(-1, 1, 1)
            images = F.pad(images - fill, (left, right, top, bottom)) + fill
        rows, columns = (
            self._start(have - want) for want, have in zip((self.height, self.width), images.shape[-2:], strict=True)
        )
        return images[..., rows : rows + self.height, columns : columns + self.width]

    def _both(self, lack: int) -> tuple[int, int]:
        less, more = lack // 2, (lack + 1) // 2
        return (less, more) if self.pad_odd == "after" else (more, less)

    def _start(self, over: int) -> int:
        return round(over / 2) if self.odd == "even" else over // 2

    @property
    def words(self) -> str:
        """What it does."""
        return f"centre {self.height}×{self.width} cut out"


@dataclass(frozen=True)
class Flip:
    """Blue, green, red instead of red, green, blue."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W)."""
        return images.flip(1)

    @property
    def words(self) -> str:
        """What it does."""
        return "channels in the order blue, green, red"


Step = Resize | Crop | Flip


class Pixels(nn.Module):
    """A network as a model of the user's own pixels: images (N, C, H, W) in [0, 1], of any size, to what it answers.

    network:   takes images as its own pipeline prepares them.
    steps:     of that pipeline before mean and std, in order.
    mean, std: one float for each channel (or one for all), in units of [0, 1] pixels.
    channels:  of the network. Grey images are repeated for one of three channels.
    facts:     what else is known; its `preprocessing` is put into words here.

    Everything is differentiable, so eps means the pixels that the user gave. A pipeline of its own rounds to 8 bits after
    resizing and this does not: see `differs`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        steps: Sequence[Step],
        mean: Sequence[float],
        std: Sequence[float],
        channels: int,
        facts: Facts,
    ) -> None:
        super().__init__()
        self.network, self.steps, self.channels = network, tuple(steps), channels
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise must_be("Pixels", name, f"1 or {channels} floats, one for each channel", tuple(values))
            held = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, held, persistent=False)
        if not bool((self.std > 0).all()):
            raise must_be("Pixels", "std", "floats above 0", tuple(std))
        self.facts = replace(facts, preprocessing=self.words)
        self.pipeline: Callable[[Image.Image], Tensor] | None = None  # the model's own, as `check` was given it

    @property
    def words(self) -> str:
        """What is done to images in [0, 1]."""
        found = [step.words for step in self.steps]
        mean, std = ([f"{value:.6g}" for value in values.flatten().tolist()] for values in (self.mean, self.std))
        if set(mean) != {"0"} or set(std) != {"1"}:
            found.append(f"minus mean ({', '.join(mean)}), over std ({', '.join(std)})")
        return "; ".join(found)

    def prepared(self, images: Tensor) -> Tensor:
        """What the network is given for images (N, C, H, W) in [0, 1]. Raises `ModelError`."""
        if images.dim() != 4:
            raise ModelError(f"The model takes images (N, C, H, W). Got {tuple(images.shape)}.")
        if images.shape[1] == 1 and self.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[1] != self.channels:
            raise ModelError(f"The model takes images of {self.channels} channels. Got {images.shape[1]}.")
        for step in self.steps:
            images = step(images)
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)

    @property
    def raw(self) -> Callable[[Tensor], Tensor] | None:
        """What the model's own pipeline makes of images: labels (N,). None where it has none."""
        return None if self.pipeline is None else self._raw

    def _raw(self, images: Tensor) -> Tensor:
        assert self.pipeline is not None
        taken = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        pictures = [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in taken]
        if self.channels == 3:
            pictures = [one.convert("RGB") for one in pictures]
        ready = torch.stack([self.pipeline(one) for one in pictures]).to(self.mean)
        return logits_of(self.network(ready), len(images)).argmax(1)

    def forward(self, images: Tensor) -> Any:
        """Logits, or what else the network answers, of images (N, C, H, W) in [0, 1]."""
        return self.network(self.prepared(images))


def differs(pixels: Pixels, pipeline: Callable[[Image.Image], Tensor]) -> float:
    """By how many of 256 levels, at most, two random images are prepared differently by the model's own pipeline.

    pipeline:  prepares one image, as (C, h, w). An infinite answer: it comes out in another shape.
    """
    draw, worst = np.random.default_rng(0), 0.0
    for height, width in PROBES:
        shape = (height, width, 3) if pixels.channels == 3 else (height, width)
        taken = draw.integers(0, 256, shape, dtype=np.uint8)
        theirs = pipeline(Image.fromarray(taken))
        with torch.no_grad():
            ours = pixels.prepared(torch.from_numpy(taken.reshape(height, width, -1)).permute(2, 0, 1)[None] / 255)[0]
            if theirs.shape != ours.shape:
                return math.inf
            worst = max(worst, float(((ours - theirs.float()) * pixels.std).abs().max()) * 255)
    return worst


def check(pixels: Pixels, pipeline: Callable[[Image.Image], Tensor], what: str) -> None:
    """Refuse to go on where `differs` is more than rounding explains: its numbers would be another model's."""
    pixels.pipeline = pipeline
    off = differs(pixels, pipeline)
    if off > LEVELS:
        shown = f"by up to {off:.0f} of 256 levels" if math.isfinite(off) else "in shape"
        raise ModelError(
            f"{what} prepares images in a way that is not known here: the result differs {shown}. "
            "Load it in a file of your own, file.py:factory, with its preparation in torch."
        )
