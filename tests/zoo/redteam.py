"""More set-ups, made to get past the checks: masks where no hook or mode looks, and sound models that look odd."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

import unfooled as uf

from .common import COUNT, Case, Setup, data, hardened
from .sound import NO_ALARM

FOUND: list[Case] = []


def masked(name: str, about: str, shows: Literal["gap", "refusal", "raises", "little"] = "gap"):
    """Register a mask on the hardened CNN."""

    def register(mask: Callable[[nn.Module], Any]):
        def build(count: int = COUNT) -> Setup:
            images, labels = data(count)
            return Setup(mask(hardened()), images, labels, uf.Linf(0.1), true_model=hardened())

        expect = "Say what hides the gradient, and come as near to the network without it as to the network alone."
        FOUND.append(Case(name, "masked", build, about, expect, shows, None))
        return mask

    return register


def sound(name: str, about: str, count: int = COUNT):
    """Register a function that makes a model which is beyond suspicion."""

    def register(make: Callable[[], Any]):
        def build(many: int = count) -> Setup:
            images, labels = data(many)
            return Setup(make(), images, labels, uf.Linf(0.1))

        FOUND.append(Case(name, "sound", build, about, NO_ALARM, clean=(0.5, 1.0)))
        return make

    return register


class Rounded(nn.Module):
    """A network that reads rounded pixels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.round(x * 15.0) / 15.0)


# --- masks where nothing looks ---------------------------------------------------------------------------------------


@masked("scripted-rounding", "TorchScript: no hook fires inside, and no mode sees its calls.")
def scripted(net: nn.Module) -> nn.Module:
    return torch.jit.script(Rounded(net).eval())


@masked("traced-rounding-inside", "A traced module is one layer of an ordinary model.")
def traced(net: nn.Module) -> nn.Module:
    return nn.Sequential(torch.jit.trace(Rounded(net).eval(), torch.rand(2, 1, 28, 28)))


@masked("compiled-rounding", "torch.compile keeps whatever hooks and modes it has been compiled with.")
def compiled(net: nn.Module) -> Any:
    return torch.compile(Rounded(net).eval(), backend="eager")


def _zeros(module: nn.Module, given: Any, got: Any) -> Any:
    return tuple(None if one is None else torch.zeros_like(one) for one in given)


def _noise(module: nn.Module, given: Any, got: Any) -> Any:
    return tuple(None if one is None else torch.randn_like(one) * one.abs().mean() for one in given)


@masked("backward-hook-zeroes", "A full backward hook on the first layer answers zero, as left by a gradient logger.")
def zeroing(net: nn.Module) -> nn.Module:
    net[0].register_full_backward_hook(_zeros)
    return net


@masked("backward-hook-noises", "A full backward hook in the middle answers noise of the right size.")
def noising(net: nn.Module) -> nn.Module:
    net[3].register_full_backward_hook(_noise)
    return net


@masked("hook-turns-gradient", "A hook on features, set in the forward pass, turns the gradient round.")
class Turned(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*list(net)[:6]), nn.Sequential(*list(net)[6:])

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        if features.requires_grad:
            features.register_hook(lambda gradient: -gradient)
        return self.head(features)


@masked("object-that-rounds", "No module, but an object with __call__ that holds one.")
class Predictor:
    def __init__(self, net: nn.Module) -> None:
        self.backbone = net

    def __call__(self, x: Tensor) -> Tensor:
        return self.backbone(torch.round(x * 15) / 15)


@masked("partial-through-numpy", "A partial of a function that leaves torch and scales logits up.", "refusal")
def through_numpy(net: nn.Module) -> Any:
    def answer(scale: float, model: nn.Module, x: Tensor) -> Tensor:
        return scale * model(torch.from_numpy(np.round(x.detach().numpy() * 20) / 20).float())

    return functools.partial(answer, 1e4, net)


@masked("weights-from-a-dictionary", "functional_call on a skeleton without weights, after rounding.")
def from_dictionary(net: nn.Module) -> Callable[[Tensor], Tensor]:
    weights = {name: value.detach() for name, value in net.state_dict().items()}
    skeleton = hardened().to("meta").eval()
    return lambda x: functional_call(skeleton, weights, (torch.round(x * 15) / 15,))


@masked("rounded-and-softmax", "Two masks at once: rounded pixels in front, sharpened probabilities behind.")
class BothEnds(Rounded):
    def forward(self, x: Tensor) -> Tensor:
        return (10 * super().forward(x)).softmax(1)


# --- sound, but odd --------------------------------------------------------------------------------------------------


@sound("sound-scripted", "TorchScript of a sound network.")
def _scripted() -> nn.Module:
    return torch.jit.script(hardened())


@sound("sound-traced-layer", "A traced module within an ordinary one.")
def _traced() -> nn.Module:
    return nn.Sequential(torch.jit.trace(hardened(), torch.rand(2, 1, 28, 28)))


@sound("sound-compiled", "A compiled sound network.")
def _compiled() -> Any:
    return torch.compile(hardened(), backend="eager")


@sound("sound-clamping", "A wrapper that clamps to the range of pixels, which changes nothing in it.")
class _Clamped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = hardened()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.clamp(0, 1))


class LowPass(nn.Module):
    """The low frequencies of an image, by the fast Fourier transform."""

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft2(x)
        kept = torch.ones_like(waves.real)
        kept[..., 8:-8, :] = 0
        return torch.fft.irfft2(waves * kept, s=x.shape[-2:])


class HandMadeGELU(nn.Module):
    """Hendrycks & Gimpel's GELU in its tanh form, written out."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@sound("sound-fourier", "Custom modules without weights before and within the network.")
def _fourier() -> nn.Module:
    layers = (HandMadeGELU() if isinstance(part, nn.ReLU) else part for part in hardened())
    return nn.Sequential(LowPass(), *layers)


@sound("sound-few-images", "Twenty images.", 20)
def _few() -> nn.Module:
    return hardened()


CASES: tuple[Case, ...] = tuple(FOUND)
