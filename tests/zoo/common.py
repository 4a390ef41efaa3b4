"""What every case of the zoo is made of: two dataclasses, the images, and sound networks to start from."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unfooled as uf

COUNT = 64
POOL = 1000  # bundled images; small nets learn from those after FIRST_TO_LEARN
FIRST_TO_LEARN = 128
MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST
IMAGENET = (0.449, 0.226)  # mean and deviation, its channels averaged


@dataclass(frozen=True)
class Setup:
    """What somebody hands to `evaluate(model, (images, labels), threat)`.

    true_model:  of a masked model the same without the mask: what is left of it under attack is the truth.
    classes:     the logits of the model are (N, classes); one logit counts as two classes.
    """

    model: Any
    images: Any
    labels: Any
    threat: uf.Threat
    true_model: Any = None
    classes: int = 10


@dataclass(frozen=True)
class Case:
    """One set-up, and what is to be said of it.

    build:    makes the set-up; takes the number of images, 64 by default.
    about:    what is wrong (or why nothing is), and who does such things.
    expect:   what a good tool says of it, in words.
    shows:    of a masked one, how PGD with 20 steps gets on: "gap": it leaves at least 10 points more accuracy than on
              the true model; "refusal": it raises ModelError; "raises": the model's own exception comes out of it, where
              ModelError would be better; "little": it is fooled nearly as easily.
    clean:    between what the clean accuracy lies; None: the model does not run on these images, or not on all.
    refusal:  whether an exception of unfooled.errors is an acceptable answer.
    cost:     of a masked one, the share of clean accuracy that the mask may cost beside the true model.
    """

    name: str
    family: Literal["masked", "mistake", "sound"]
    build: Callable[..., Setup]
    about: str
    expect: str
    shows: Literal["gap", "refusal", "raises", "little", ""] = ""
    clean: tuple[float, float] | None = (0.75, 1.0)
    refusal: bool = False
    cost: float = 0.05


@functools.cache
def _pool() -> tuple[Tensor, Tensor]:
    whole = uf.data.load(f"fashion-mnist-sample[0:{POOL}]")
    return whole.floats(), torch.as_tensor(whole.labels).long()


def data(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """The first bundled images (count, 1, 28, 28) in [0, 1], and their labels; a fresh copy."""
    images, labels = _pool()
    return images[:count].clone(), labels[:count].clone()


@functools.cache
def _bundled(name: str) -> nn.Module:
    return uf.models.load(name).eval()


def plain() -> nn.Module:
    """The bundled CNN, trained normally; a fresh copy."""
    return copy.deepcopy(_bundled("fashion-mnist/plain"))


def hardened() -> nn.Module:
    """The bundled CNN, adversarially trained for Linf 0.1; a fresh copy."""
    return copy.deepcopy(_bundled("fashion-mnist/hardened"))


def for_normalised(net: nn.Module, mean: float = MEAN, std: float = STD) -> nn.Module:
    """The same network for inputs (x - mean) / std: the change is folded into its first convolution."""
    with torch.no_grad():
        first = next(part for part in net.modules() if isinstance(part, nn.Conv2d))
        first.bias += mean * first.weight.sum((1, 2, 3))
        first.weight *= std
    return net


# --- small networks that learn in seconds ----------------------------------------------------------------------------


def is_footwear_bag_or_shirt(labels: Tensor) -> Tensor:
    """Two classes out of ten: the labels 5 to 9 against the others."""
    return (labels >= 5).long()


class Mixer(nn.Module):
    """Patches of 7×7 as 16 tokens; one block that mixes tokens and one that mixes features."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 7, 7)
        self.before, self.between, self.after = (nn.LayerNorm(width) for _ in range(3))
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.features = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).flatten(2).transpose(1, 2)
        h = h + self.tokens(self.before(h).transpose(1, 2)).transpose(1, 2)
        h = h + self.features(self.between(h))
        return self.head(self.after(h).mean(1))


class ViT(nn.Module):
    """Patches of 7×7 with learned places, and one of torch's own encoder layers (which is fused where no grad is asked)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 7, 7)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.layer(h).mean(1))


def _small_cnn(act: Callable[[], nn.Module], classes: int = 10, norm: bool = False, drop: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), *([nn.BatchNorm2d(16)] if norm else []), act(),
        nn.Conv2d(16, 32, 3, 2, 1), *([nn.BatchNorm2d(32)] if norm else []), act(),
        nn.Flatten(), nn.Dropout(drop), nn.Linear(32 * 49, classes),
    )  # fmt: skip


def _mlp(*widths: int) -> nn.Module:
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


_SMALL: dict[str, tuple[Callable[[], nn.Module], int, float]] = {  # network, epochs, learning rate
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 15, 2e-3),
    "mlp-gelu": (lambda: _mlp(784, 128, 64, 10), 12, 2e-3),
    "cnn-tanh": (lambda: _small_cnn(nn.Tanh), 6, 2e-3),
    "cnn-silu": (lambda: _small_cnn(nn.SiLU), 6, 3e-3),
    "cnn-bn": (lambda: _small_cnn(lambda: nn.LeakyReLU(0.1), norm=True, drop=0.3), 6, 2e-3),
    "resnet": (lambda: nn.Sequential(nn.AvgPool2d(2), uf.models.SmallResNet(1, 10, 8)), 7, 5e-3),
    "mixer": (Mixer, 12, 4e-3),
    "vit": (ViT, 8, 3e-3),
    "two-class": (lambda: _small_cnn(nn.ReLU, classes=2), 6, 2e-3),
    "one-logit": (lambda: _small_cnn(nn.ReLU, classes=1), 6, 2e-3),
}  # fmt: skip


@functools.cache
def _trained(name: str) -> nn.Module:
    make, epochs, rate = _SMALL[name]
    images, labels = (part[FIRST_TO_LEARN:] for part in _pool())
    if name in ("two-class", "one-logit"):
        labels = is_footwear_bag_or_shirt(labels)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        net = make().train()
        optimizer = torch.optim.Adam(net.parameters(), rate)
        for _ in range(epochs):
            for index in torch.randperm(len(images)).split(50):
                out = net(images[index])
                if name == "one-logit":
                    loss = F.binary_cross_entropy_with_logits(out.flatten(), labels[index].float())
                else:
                    loss = F.cross_entropy(out, labels[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return net.eval()


def small(name: str) -> nn.Module:
    """A small network, trained once in a process on the bundled images that come after the tested ones; a fresh copy."""
    return copy.deepcopy(_trained(name))
