"""Set-ups in which nothing is wrong: gradients flow, answers are deterministic, accuracy is well above chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import unfooled as uf

from .common import (
    COUNT,
    MEAN,
    STD,
    Case,
    Setup,
    data,
    for_normalised,
    hardened,
    is_footwear_bag_or_shirt,
    plain,
    small,
)

NO_ALARM = "No doubt is raised: the number stands as an ordinary upper bound."


def _simple(make: Callable[[], Any], eps: float = 0.1, threat: uf.Threat | None = None, two: bool = False):
    def build(count: int = COUNT) -> Setup:
        images, labels = data(count)
        labels = is_footwear_bag_or_shirt(labels) if two else labels
        return Setup(make(), images, labels, threat or uf.Linf(eps), classes=2 if two else 10)

    return build


class Pair(nn.Module):
    """A network that answers (logits, features), as many training codes want it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*list(net)[:-1]), net[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features), features


class Named(nn.Module):
    """A network that answers a dictionary, as those of model hubs do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"loss": None, "logits": self.net(x)}


class Bytes(nn.Module):
    """A network for pixels from 0 to 255."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x / 255)


class Mean(nn.Module):
    """The mean of two networks' log-probabilities."""

    def __init__(self, *nets: nn.Module) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x).log_softmax(1) for net in self.nets]).mean(0)


def _in_closure() -> Callable[[Tensor], Tensor]:
    net = plain().requires_grad_(False)
    return lambda x: net(x)


def _bytes(count: int = COUNT) -> Setup:
    images, labels = data(count)
    return Setup(Bytes(hardened()), images * 255, labels, uf.Linf(25.5, bounds=(0, 255)))


def _all_correct(count: int = COUNT) -> Setup:
    net, (images, labels) = plain(), data(2 * count)
    with torch.no_grad():
        right = (net(images).argmax(1) == labels).nonzero().flatten()[:count]
    return Setup(net, images[right], labels[right], uf.Linf(0.1))


def _upper_half(count: int = COUNT) -> Setup:
    images, labels = data(count)
    mask = torch.zeros(1, 28, 28, dtype=torch.bool)
    mask[:, :14] = True
    return Setup(plain(), images, labels, uf.Linf(0.1, mask=mask))


def _float64(count: int = COUNT) -> Setup:
    images, labels = data(count)
    return Setup(plain().double(), images.double(), labels, uf.Linf(0.1))


def _normalised() -> nn.Module:
    return uf.models.Normalized(for_normalised(plain()), MEAN, STD)


_TABLE: list[tuple[str, Callable[..., Setup], str]] = [
    ("plain-cnn", _simple(plain), "The bundled CNN; nearly nothing is left of it, and rightly so."),
    ("hardened-cnn", _simple(hardened), "The bundled CNN, adversarially trained: its robustness is real."),
    ("normalized-wrapper", _simple(_normalised), "A CNN for normalised inputs behind the visible wrapper."),
    ("small-resnet", _simple(lambda: small("resnet"), 0.03), "A residual network with BatchNorm in eval mode."),
    ("mlp-gelu", _simple(lambda: small("mlp-gelu"), 0.03), "A perceptron with GELU."),
    ("cnn-tanh", _simple(lambda: small("cnn-tanh"), 0.05), "A CNN with tanh, which saturates a little."),
    ("cnn-silu", _simple(lambda: small("cnn-silu"), 0.05), "A CNN with SiLU."),
    ("cnn-batchnorm-dropout", _simple(lambda: small("cnn-bn"), 0.05), "LeakyReLU, BatchNorm and dropout in eval mode."),
    ("tiny-mixer", _simple(lambda: small("mixer"), 0.03), "Mixes tokens and features, with LayerNorm."),
    ("tiny-vit", _simple(lambda: small("vit"), 0.03), "Attention; torch fuses its forward pass where no gradient is asked."),
    ("linear", _simple(lambda: small("linear"), 0.03), "Logistic regression: one gradient for the whole space."),
    ("two-class", _simple(lambda: small("two-class"), 0.05, two=True), "A CNN with two logits."),
    ("one-logit", _simple(lambda: small("one-logit"), 0.05, two=True), "A binary CNN with one logit (N, 1)."),
    ("float64", _float64, "The plain CNN and its images in double precision."),
    ("blur-defended", _simple(lambda: uf.defend(plain(), uf.defenses.GaussianBlur(1.0))), "A declared, differentiable defense."),
    ("tuple-output", _simple(lambda: Pair(hardened())), "Answers (logits, features)."),
    ("dict-output", _simple(lambda: Named(plain())), "Answers a dictionary with 'logits'."),
    ("lambda", _simple(_in_closure), "A function round a sound network in eval mode."),
    ("bound-method", _simple(lambda: hardened().forward), "The forward method is handed in, not the module."),
    ("log-softmax-output", _simple(lambda: nn.Sequential(hardened(), nn.LogSoftmax(1))), "Log-probabilities are logits."),
    ("sound-ensemble", _simple(lambda: Mean(plain(), hardened())), "Two sound networks, averaged."),
    ("bytes-with-right-eps", _bytes, "Pixels from 0 to 255, with bounds and eps in the same units."),
    ("tiny-eps", _simple(plain, 0.004), "eps so small that hardly any image is fooled: no mask, only little power."),
    ("huge-eps", _simple(hardened, 0.4), "eps so large that nothing is left."),
    ("all-correct", _all_correct, "Only images that the model gets right, so clean accuracy is 1."),
    ("l2-threat", _simple(hardened, threat=uf.L2(1.0)), "Another norm than the one of training."),
    ("l1-threat", _simple(plain, threat=uf.L1(8.0)), "A sparse norm."),
    ("masked-threat", _upper_half, "Only the upper half of an image may change: gradients elsewhere do not matter."),
]  # fmt: skip

CASES: tuple[Case, ...] = tuple(
    Case(name, "sound", build, about, NO_ALARM, clean=(0.5, 1.0)) for name, build, about in _TABLE
)
