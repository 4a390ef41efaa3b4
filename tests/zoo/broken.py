"""Broken set-ups: models that mask their gradients, and mistakes in what is handed in.

The masks are those of published defenses that fell, and of everyday code: Athalye et al. 2018 (arXiv:1802.00420), Carlini
et al. 2019 (arXiv:1902.06705), Tramèr et al. 2020 (arXiv:2002.08347), Pintor et al. 2022 (arXiv:2106.09947). Each hides a
bundled network which is sound by itself, and which stands beside it as `true_model`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

import unfooled as uf

from .common import (
    COUNT,
    IMAGENET,
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

FOUND: list[Case] = []

BLOCKED = (
    "No gradient comes through, so gradient attacks say nothing: name that, and attack without gradients or past the "
    "blocked part. A refusal that names it will do."
)
VANISHED = "Gradients are zero for most images: the accuracy under gradient attacks is not to be believed, or is not reported alone."
MISLEADING = (
    "Gradients exist but do not point to where the loss rises: not to be believed, or broken by an attack without them."
)
RANDOM = "The model is random: say so, and do not take the answer of one draw for robustness."


def masked(
    name: str,
    about: str,
    expect: str,
    shows: Literal["gap", "refusal", "raises", "little"] = "gap",
    net: Callable[[], nn.Module] = plain,
    cost: float = 0.05,
):
    """Register a case from a function (or class) that puts a mask on a sound network."""

    def register(mask: Callable[[nn.Module], Any]):
        def build(count: int = COUNT) -> Setup:
            images, labels = data(count)
            return Setup(mask(net()), images, labels, uf.Linf(0.1), true_model=net())

        FOUND.append(Case(name, "masked", build, about, expect, shows, None, shows in ("refusal", "raises"), cost))
        return mask

    return register


def mistake(name: str, about: str, expect: str, clean: tuple[float, float] | None, refusal: bool = False):
    """Register a case from a function of the number of images."""

    def register(build: Callable[[int], Setup]):
        def default(count: int = COUNT) -> Setup:
            return build(count)

        FOUND.append(Case(name, "mistake", default, about, expect, "", clean, refusal))
        return build

    return register


class Around(nn.Module):
    """A network that subclasses put something round."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


# --- masks: the input is quantised, encoded or filtered --------------------------------------------------------------


@masked("rounded-input-module", "Bit-depth reduction to 4 bits as a module, after feature squeezing.", VANISHED)
class RoundedInput(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.round(x * 15) / 15)


@masked("floor-inline", "torch.floor in a forward pass that does more than that.", VANISHED, cost=0.1)
class FloorInline(Around):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(0, 1)
        x = torch.floor(x * 8).clamp(max=7) / 7
        for layer in self.net:
            x = layer(x)
        return x


@masked("numpy-quantiser-lambda", "A function hides the network and quantises in numpy.", BLOCKED, "refusal")
def numpy_quantiser(net: nn.Module) -> Callable[[Tensor], Tensor]:
    def quantised(batch: Tensor) -> Tensor:
        levels = np.round(batch.detach().cpu().numpy() * 16) / 16
        return torch.as_tensor(levels, dtype=torch.float32)

    return lambda x: net(quantised(x))


@masked(
    "jpeg-through-pil",
    "JPEG compression at test time, image by image through Pillow (Guo et al. 2018).",
    BLOCKED,
    "refusal",
)
class Jpeg(Around):
    def forward(self, x: Tensor) -> Tensor:
        out = []
        for image in x.detach():
            file = io.BytesIO()
            Image.fromarray((image[0] * 255).round().byte().numpy()).save(file, "JPEG", quality=75)
            out.append(torch.from_numpy(np.array(Image.open(file), dtype=np.float32) / 255)[None])
        return self.net(torch.stack(out))


@masked("uint8-and-back", "Pixels are stored as uint8 inside the model.", BLOCKED, "refusal")
class ThroughBytes(Around):
    def forward(self, x: Tensor) -> Tensor:
        stored = (x * 255).round().to(torch.uint8)
        return self.net(stored.float() / 255)


@masked(
    "thermometer",
    "Thermometer encoding into ten channels, which the first layer reads (Buckman et al. 2018).",
    BLOCKED,
    "refusal",
)
class Thermometer(nn.Module):
    def __init__(self, net: nn.Module, levels: int = 10) -> None:
        super().__init__()
        self.edges = ((torch.arange(levels) + 0.5) / levels).view(1, -1, 1, 1)
        old = net[0]
        first = nn.Conv2d(levels, old.out_channels, 3)
        first.weight.data = old.weight.data.expand(-1, levels, -1, -1) / levels
        first.bias.data = old.bias.data.clone()
        self.net = nn.Sequential(first, *list(net)[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x > self.edges).float())


@masked(
    "soft-staircase",
    "Quantisation with steep ramps between its steps: clamp lets no gradient through beside them.",
    VANISHED,
)
class SoftStaircase(Around):
    def forward(self, x: Tensor) -> Tensor:
        whole = (x * 8).detach().floor()
        ramp = ((x * 8 - whole - 0.5) * 200 + 0.5).clamp(0, 1)
        return self.net((whole + ramp) / 8)


@masked("sine-shattered", "A fast small ripple on every pixel: the gradient's sign is that of the ripple.", MISLEADING)
class Rippled(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.03 * torch.sin(1000 * x))


@masked("median-by-scipy", "A 3×3 median filter by scipy in front of the network.", BLOCKED, "refusal", cost=0.1)
class MedianByScipy(Around):
    def forward(self, x: Tensor) -> Tensor:
        clean = ndimage.median_filter(x.detach().numpy(), size=(1, 1, 3, 3))
        return self.net(torch.from_numpy(clean))


@masked(
    "total-variation-descent",
    "Images are smoothed by descent on their total variation, with autograd inside forward.",
    BLOCKED,
    "refusal",
    cost=0.1,
)
class TotalVariation(Around):
    def forward(self, x: Tensor) -> Tensor:
        z = x.detach().clone()
        for _ in range(8):
            with torch.enable_grad():
                z.requires_grad_(True)
                rough = (z[..., 1:, :] - z[..., :-1, :]).abs().sum() + (z[..., 1:] - z[..., :-1]).abs().sum()
                (slope,) = torch.autograd.grad(0.1 * rough + (z - x.detach()).square().sum(), z)
            z = (z - 0.05 * slope).detach().clamp(0, 1)
        return self.net(z)


@masked(
    "patch-codebook",
    "Every 2×2 patch is replaced by the nearest of 256 code words, found by argmin.",
    BLOCKED,
    "refusal",
    cost=0.15,
)
class Codebook(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        patches = F.unfold(data(256)[0], 2, stride=2).transpose(1, 2).reshape(-1, 4)
        self.words = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))[:256]]

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 2, stride=2).transpose(1, 2)
        nearest = torch.cdist(patches, self.words.expand(len(x), -1, -1)).argmin(-1)
        return self.net(F.fold(self.words[nearest].transpose(1, 2), (28, 28), 2, stride=2))


# --- masks: the gradient itself is cut, spoilt or replaced -----------------------------------------------------------


@masked("detached-input", "`x.detach()`, left over from debugging.", BLOCKED, "refusal")
class DetachedInput(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach())


@masked(
    "no-grad-forward", "The whole forward pass carries @torch.no_grad(), as in code for deployment.", BLOCKED, "refusal"
)
class NoGrad(Around):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@masked("inference-mode-lambda", "A prediction function in torch.inference_mode.", BLOCKED, "refusal")
def inference_only(net: nn.Module) -> Callable[[Tensor], Tensor]:
    def predict(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(x)

    return predict


@masked(
    "frozen-features",
    "Features under no_grad, as in linear probing; only the head is in the graph.",
    BLOCKED,
    "refusal",
)
def frozen_features(net: nn.Module) -> Callable[[Tensor], Tensor]:
    body, head = nn.Sequential(*list(net)[:-1]), net[-1]

    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            features = body(x)
        return head(features)

    return predict


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 20) / 20


@masked(
    "function-without-backward",
    "A custom autograd.Function of which only forward was written: backward raises.",
    BLOCKED,
    "raises",
)
class ForwardOnly(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(_NoBackward.apply(x))


class _ZeroBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


@masked("zero-backward", "A custom function that is the identity forwards and zero backwards.", VANISHED)
class ZeroBackward(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(_ZeroBackward.apply(x))


class _NoisyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.randn_like(gradient) * gradient.abs().mean()


@masked("noise-backward", "Deterministic answers, but the backward pass returns noise of the right size.", MISLEADING)
class NoisyBackward(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(_NoisyBackward.apply(x))


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


@masked(
    "gradient-reversal",
    "A gradient reversal layer of domain adaptation was left in: attacks walk the wrong way.",
    MISLEADING,
)
def reversal_left_in(net: nn.Module) -> nn.Module:
    class Reversal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _Reversed.apply(x)

    layers = list(net)
    return nn.Sequential(*layers[:6], Reversal(), *layers[6:])


@masked(
    "nan-gradient",
    "Decodes to linear light and encodes again: the root has an infinite slope at black pixels.",
    BLOCKED,
    "refusal",
)
class LinearLight(Around):
    def forward(self, x: Tensor) -> Tensor:
        light = x.pow(2.2)
        return self.net(light.pow(1 / 2.2))


@masked("zeroing-hook", "A hook that clips gradients of the input to nearly nothing, then rounds them.", VANISHED)
class ZeroingHook(Around):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        if x.requires_grad:
            x.register_hook(lambda g: (g.clamp(-1e-3, 1e-3) * 100).round() / 100)
        return self.net(x)


# --- masks: activations and logits saturate, jump or are decided ------------------------------------------------------


class Winners(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.kthvalue(flat.shape[1] - max(1, int(self.share * flat.shape[1])) + 1, dim=1, keepdim=True).values
        return (flat * (flat >= least)).view_as(x)


@masked(
    "k-winners", "k-winners-take-all for every ReLU (Xiao et al. 2020), without training again.", MISLEADING, cost=0.35
)
def k_winners(net: nn.Module) -> nn.Module:
    return nn.Sequential(*(Winners(0.08) if isinstance(part, nn.ReLU) else part for part in net))


@masked(
    "quantised-activations",
    "Activations are rounded to 4 bits, as for small hardware, with no straight-through.",
    VANISHED,
    cost=0.2,
)
def quantised_activations(net: nn.Module) -> nn.Module:
    class Grid(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.round(x * 4) / 4

    return nn.Sequential(*(p for part in net for p in ((part, Grid()) if isinstance(part, nn.ReLU) else (part,))))


@masked("huge-logits", "Logits times 10,000: softmax is exactly 0 or 1 in float32.", VANISHED)
class HugeLogits(Around):
    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.net(x)


@masked(
    "distillation-scale",
    "The last layer's weights are as large as defensive distillation at T = 100 makes them.",
    VANISHED,
)
def distilled_scale(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        net[-1].weight *= 100
        net[-1].bias *= 100
    return net


@masked("saturated-softmax", "Answers sharpened probabilities, most of them exactly 1.", VANISHED)
class SharpSoftmax(Around):
    def forward(self, x: Tensor) -> Tensor:
        return (self.net(x) * 20).softmax(1)


@masked(
    "clipped-probabilities",
    "Logarithms of probabilities clipped to [1e-3, 0.999] 'for stability': no slope where it is sure.",
    VANISHED,
)
class ClippedProbabilities(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1).clamp(1e-3, 1 - 1e-3).log()


@masked("rounded-logits", "Logits are rounded to one decimal, against attacks that use scores.", VANISHED)
class RoundedLogits(Around):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(self.net(x), decimals=1)


@masked("sigmoid-squash", "One sigmoid for each class on top of steep logits.", VANISHED)
class SquashedLogits(Around):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.net(x))


@masked("hard-labels", "Answers the one-hot vector of its decision.", BLOCKED, "refusal")
class HardLabels(Around):
    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(self.net(x).argmax(1), 10).float()


@masked("argmax-lookup", "The decision picks a row of a table of smoothed answers.", BLOCKED, "refusal", net=hardened)
class Lookup(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.table = nn.Parameter(torch.full((10, 10), 0.02) + 0.8 * torch.eye(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[self.net(x).argmax(1)].log()


@masked(
    "anti-adversary",
    "Moves each input to where the network is surer of its first answer, detached (Alfarra et al. 2022).",
    MISLEADING,
    cost=0.2,
)
class AntiAdversary(Around):
    def forward(self, x: Tensor) -> Tensor:
        move = torch.zeros_like(x)
        for _ in range(3):
            with torch.enable_grad():
                z = (x + move).detach().requires_grad_(True)
                out = self.net(z)
                (slope,) = torch.autograd.grad(F.cross_entropy(out, out.argmax(1), reduction="sum"), z)
            move = move - 0.15 * slope.sign()
        return self.net(x + move)


@masked(
    "ensemble-half-masked",
    "Two networks vote; the louder one reads rounded pixels, so gradients tell of the other alone.",
    MISLEADING,
)
def half_masked(net: nn.Module) -> nn.Module:
    class Vote(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud, self.quiet = net, small("linear")

        def forward(self, x: Tensor) -> Tensor:
            return 5 * self.loud(torch.round(x * 15) / 15) + 0.05 * self.quiet(x)

    return Vote()


# --- masks: randomness -----------------------------------------------------------------------------------------------


@masked(
    "noise-at-test-time",
    "Gaussian noise on every input (randomised smoothing without the smoothing).",
    RANDOM,
    "little",
    hardened,
    0.2,
)
class TestNoise(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.randn_like(x))


@masked("random-shift", "Each image is rolled by up to two pixels.", RANDOM, "little", hardened, 0.3)
class RandomShift(Around):
    def forward(self, x: Tensor) -> Tensor:
        moves = torch.randint(-2, 3, (len(x), 2)).tolist()
        return self.net(torch.stack([torch.roll(image, move, (1, 2)) for image, move in zip(x, moves, strict=True)]))


@masked(
    "random-resize-pad",
    "A random size, then a random place in the frame (Xie et al. 2018).",
    RANDOM,
    "little",
    plain,
    0.3,
)
class ResizePad(Around):
    def forward(self, x: Tensor) -> Tensor:
        size = int(torch.randint(23, 28, ()))
        left, top = (int(torch.randint(0, 29 - size, ())) for _ in range(2))
        small_one = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        return self.net(F.pad(small_one, (left, 28 - size - left, top, 28 - size - top)))


@masked("dropout-stays-on", "Monte Carlo dropout: the module's train(False) leaves dropout on.", RANDOM, "little")
def monte_carlo(net: nn.Module) -> nn.Module:
    class Stays(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, training=True)

    return nn.Sequential(*(Stays() if isinstance(part, nn.Dropout) else part for part in net))


@masked(
    "random-levels", "Each image is rounded to a randomly chosen grid: random and shattered at once.", RANDOM, "gap"
)
class RandomLevels(Around):
    def forward(self, x: Tensor) -> Tensor:
        levels = torch.randint(6, 16, (len(x), 1, 1, 1))
        return self.net(torch.round(x * levels) / levels)


# --- mistakes: what the model expects --------------------------------------------------------------------------------

LOW_CLEAN = "Clean accuracy is far too low for a trained model: say that before any number of robustness."
DIFFERS = "Answers are not a function of the image: say so, rather than give a number as for an ordinary model."


def bundled(model: Any, count: int, classes: int = 10) -> Setup:
    images, labels = data(count)
    return Setup(model, images, labels, uf.Linf(0.1), classes=classes)


class Divided(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x / 255)


@mistake("expects-bytes", "The model divides by 255 itself; its images are in [0, 1] already.", LOW_CLEAN, (0.0, 0.35))
def expects_bytes(count: int) -> Setup:
    return bundled(Divided(plain()), count)


@mistake(
    "normalised-twice-visibly",
    "A Normalized wrapper round a Normalized wrapper; this network bears it, so that accuracy hardly falls.",
    "Name the two layers: the number is of a model that nobody meant.",
    (0.75, 1.0),
)
def normalised_twice(count: int) -> Setup:
    once = uf.models.Normalized(for_normalised(plain()), MEAN, STD)
    return bundled(uf.models.Normalized(once, MEAN, STD), count)


@mistake(
    "normalised-twice-in-a-function",
    "Normalised by the caller's function and again by the model's, with the constants of ImageNet.",
    "Nothing but a lower clean accuracy betrays it: a hint to compare that with what is known, or silence.",
    (0.55, 0.85),
)
def normalised_in_function(count: int) -> Setup:
    net = for_normalised(plain(), *IMAGENET)

    def preprocess(x: Tensor) -> Tensor:
        return (x - IMAGENET[0]) / IMAGENET[1]

    return bundled(lambda x: net(preprocess(preprocess(x))), count)


@mistake(
    "scaled-twice-then-normalised",
    "The function divides by 255 what was divided already, then normalises: all images look black to the network.",
    LOW_CLEAN + " It is at chance.",
    (0.0, 0.35),
)
def scaled_twice(count: int) -> Setup:
    net = for_normalised(plain())
    return bundled(lambda x: net((x / 255 - MEAN) / STD), count)


@mistake(
    "normalised-data-and-model",
    "The data loader normalises, and so does the model; bounds were fitted to the data.",
    "Name it: bounds that are not a range of pixels and a normalising layer in the model; eps no longer means pixels.",
    (0.75, 1.0),
)
def normalised_data(count: int) -> Setup:
    images, labels = data(count)
    bounds = ((0 - MEAN) / STD, (1 - MEAN) / STD)
    model = uf.models.Normalized(for_normalised(plain()), MEAN, STD)
    return Setup(model, ((images - MEAN) / STD).clamp(*bounds), labels, uf.Linf(0.1, bounds=bounds))


@mistake(
    "normalised-images-unit-bounds",
    "Images are normalised, the threat's bounds are still (0, 1).",
    "Refuse: the images lie outside the bounds.",
    None,
    True,
)
def normalised_images(count: int) -> Setup:
    images, labels = data(count)
    return Setup(for_normalised(plain()), (images - MEAN) / STD, labels, uf.Linf(0.1))


@mistake(
    "normalisation-missing", "The network was trained on normalised images and gets raw ones.", LOW_CLEAN, (0.0, 0.82)
)
def unnormalised(count: int) -> Setup:
    return bundled(for_normalised(plain()), count)


@mistake(
    "transposed-images",
    "Height and width swapped, as some loaders do: every garment lies on its side.",
    LOW_CLEAN,
    (0.0, 0.6),
)
def transposed(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), images.transpose(2, 3).contiguous(), labels, uf.Linf(0.1))


@mistake(
    "blue-green-red", "A model for red, green, blue gets the channels as OpenCV reads them.", LOW_CLEAN, (0.0, 0.6)
)
def wrong_channels(count: int) -> Setup:
    images, labels = data(count)
    warm = torch.cat([images, 0.6 * images, 0.2 * images], 1)  # tinted photographs
    net = plain()
    first = nn.Conv2d(3, 32, 3)
    with torch.no_grad():
        first.weight.copy_(net[0].weight * torch.tensor([1.6, -0.5, -1.5]).view(1, 3, 1, 1))
        first.bias.copy_(net[0].bias)
    return Setup(nn.Sequential(first, *list(net)[1:]), warm.flip(1), labels, uf.Linf(0.1))


@mistake("channels-last", "Images are (N, H, W, C).", "Refuse: say that channels are last.", None, True)
def channels_last(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), images.permute(0, 2, 3, 1).contiguous(), labels, uf.Linf(0.1))


@mistake(
    "float-bytes",
    "Float images from 0 to 255 with the usual bounds.",
    "Refuse: the images lie outside the bounds.",
    None,
    True,
)
def float_bytes(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), images * 255, labels, uf.Linf(0.1))


@mistake(
    "uint8-images",
    "Images are uint8 as read from files.",
    "Either convert them and say so, or refuse.",
    (0.75, 1.0),
    True,
)
def uint8_images(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), (images * 255).round().to(torch.uint8), labels, uf.Linf(0.1))


@mistake(
    "eps-in-other-units",
    "Pixels from 0 to 255, but eps is still 0.1: a change that no camera resolves.",
    "Nothing is fooled because eps is tiny beside the range: say so, or do not take it for robustness.",
    (0.75, 1.0),
)
def eps_too_small(count: int) -> Setup:
    images, labels = data(count)
    return Setup(Divided(plain()), images * 255, labels, uf.Linf(0.1, bounds=(0, 255)))


@mistake(
    "eps-beyond-the-range",
    "eps = 8 was meant in 1/255; the images are in [0, 1].",
    "Any image may become any other: say that such an eps means nothing; a refusal is fine.",
    (0.65, 1.0),
    True,
)
def eps_too_large(count: int) -> Setup:
    images, labels = data(count)
    return Setup(hardened(), images, labels, uf.Linf(8))


# --- mistakes: what the model answers --------------------------------------------------------------------------------


@mistake(
    "returns-probabilities",
    "A softmax at the end, taken for logits.",
    "Say that the answers are probabilities; the number may stand if the attack copes.",
    (0.75, 1.0),
)
def probabilities(count: int) -> Setup:
    return bundled(nn.Sequential(plain(), nn.Softmax(1)), count)


@mistake(
    "features-before-logits",
    "The model answers (features, logits), and the first is taken.",
    LOW_CLEAN + " Better: say which output was taken.",
    (0.0, 0.2),
    True,
)
def features_first(count: int) -> Setup:
    class Both(Around):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            *body, head = self.net
            for layer in body:
                x = layer(x)
            return x, head(x)

    return bundled(Both(plain()), count, classes=250)


@mistake(
    "one-logit-upside-down",
    "The one logit is that of class 0.",
    LOW_CLEAN + " It is far below chance: the classes are swapped.",
    (0.0, 0.25),
)
def upside_down(count: int) -> Setup:
    images, labels = data(count)
    net = small("one-logit")
    return Setup(lambda x: -net(x), images, is_footwear_bag_or_shirt(labels), uf.Linf(0.05), classes=2)


@mistake(
    "nan-for-some",
    "Each image is standardised by its own deviation; a few are black, so that is 0 / 0.",
    "Refuse, and name an image; never count NaN as robust or as fooled in silence.",
    None,
    True,
)
def nan_for_some(count: int) -> Setup:
    class Standardised(Around):
        def forward(self, x: Tensor) -> Tensor:
            mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
            return self.net((x - mean) / std * STD + MEAN)

    images, labels = data(count)
    images[3::20] = 0
    return Setup(Standardised(plain()), images, labels, uf.Linf(0.1))


@mistake(
    "works-in-place",
    "Normalises its input in place, so every pass sees other images.",
    "Refuse, and say that the model changes its input.",
    None,
    True,
)
def in_place(count: int) -> Setup:
    class InPlace(Around):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.sub_(MEAN).div_(STD))

    return bundled(InPlace(for_normalised(plain())), count)


@mistake(
    "weights-not-loaded",
    "load_state_dict(strict=False) with keys that all have a prefix: nothing was loaded.",
    LOW_CLEAN + " It is at chance.",
    (0.0, 0.3),
)
def untrained(count: int) -> Setup:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = uf.models.build("seed-cnn").eval()
    net.load_state_dict({f"model.{name}": value for name, value in plain().state_dict().items()}, strict=False)
    return bundled(net, count)


@mistake(
    "bfloat16-inside",
    "Computes in bfloat16: small changes are lost, logits tie, and copies in float32 answer otherwise.",
    "Say that the precision is low or that near ties decide; a caution is enough.",
    (0.75, 1.0),
)
def low_precision(count: int) -> Setup:
    class Low(Around):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.to(torch.bfloat16)).float()

    return bundled(Low(plain().to(torch.bfloat16)), count)


# --- mistakes: modes, batches, randomness ----------------------------------------------------------------------------


@mistake(
    "train-mode",
    "model.eval() was forgotten: dropout is on.",
    "Judge it in eval mode (a word on it is welcome) and hand it back in train mode; or refuse.",
    (0.5, 1.0),
    True,
)
def train_mode(count: int) -> Setup:
    return bundled(plain().train(), count)


@mistake(
    "train-mode-in-a-function", "The same behind a lambda, where no tool can put it into eval mode.", RANDOM, (0.5, 1.0)
)
def train_mode_hidden(count: int) -> Setup:
    net = plain().train()
    return bundled(lambda x: net(x), count)


@mistake(
    "batchnorm-train-in-a-function",
    "BatchNorm in train mode behind a function: an answer depends on the others in the batch.",
    DIFFERS,
    (0.5, 1.0),
)
def batchnorm_hidden(count: int) -> Setup:
    net = small("cnn-bn").train()
    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return bundled(lambda x: net(x), count)


@mistake(
    "batch-statistics-hard-coded",
    "BatchNorm without running statistics: eval mode changes nothing.",
    DIFFERS,
    (0.5, 1.0),
)
def batch_statistics(count: int) -> Setup:
    net = small("cnn-bn")
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = part.running_var = None
            part.track_running_stats = False
    return bundled(net, count)


@mistake(
    "batch-standardised",
    "Images are standardised by the mean and deviation of the whole batch.",
    DIFFERS + " On clean images hardly visible.",
    (0.75, 1.0),
)
def batch_standardised(count: int) -> Setup:
    class Standardised(Around):
        def forward(self, x: Tensor) -> Tensor:
            x = x - x.mean((0, 2, 3), keepdim=True)
            return self.net(x / x.std((0, 2, 3), keepdim=True) * STD + MEAN)

    return bundled(Standardised(plain()), count)


@mistake(
    "adapts-at-test-time",
    "Keeps a running mean of what it has seen and subtracts it: answers depend on the order of queries.",
    DIFFERS,
    (0.5, 1.0),
)
def adapts(count: int) -> Setup:
    class Adapts(Around):
        def __init__(self, net: nn.Module) -> None:
            super().__init__(net)
            self.seen = torch.tensor(MEAN)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = 0.7 * self.seen + 0.3 * x.detach().mean()
            return self.net(x - self.seen + MEAN)

    return bundled(Adapts(plain()), count)


@mistake(
    "unseeded-numpy-noise",
    "Augmentation left on: noise from a numpy generator of the function's own.",
    RANDOM,
    (0.5, 1.0),
)
def numpy_noise(count: int) -> Setup:
    net, draw = hardened(), np.random.default_rng()

    def predict(x: Tensor) -> Tensor:
        noise = draw.normal(0, 0.15, tuple(x.shape))
        return net(x + torch.from_numpy(noise).to(x.dtype))

    return bundled(predict, count)


# --- mistakes: labels ------------------------------------------------------------------------------------------------


@mistake(
    "labels-from-one", "Labels count from 1, so that some are 10.", "Refuse: labels lie beyond the classes.", None, True
)
def labels_from_one(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), images, labels + 1, uf.Linf(0.1))


@mistake(
    "labels-shifted",
    "Labels are off by one, round the end.",
    LOW_CLEAN + " It is below chance, which a trained model only is by a mistake of labels.",
    (0.0, 0.1),
)
def labels_shifted(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), images, (labels + 1) % 10, uf.Linf(0.1))


@mistake(
    "labels-in-alphabetical-order",
    "Class folders sorted by name give other indices than the training had.",
    LOW_CLEAN,
    (0.0, 0.5),
)
def labels_sorted(count: int) -> Setup:
    names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    place = torch.tensor([sorted(names).index(name) for name in names])
    images, labels = data(count)
    return Setup(plain(), images, place[labels], uf.Linf(0.1))


@mistake("labels-of-unlabelled", "255 marks images without a label.", "Refuse, and name an example.", None, True)
def unlabelled(count: int) -> Setup:
    images, labels = data(count)
    labels[3::16] = 255
    return Setup(plain(), images, labels, uf.Linf(0.1))


@mistake("labels-one-hot", "Labels are one-hot rows of floats.", "Refuse, and say what labels must be.", None, True)
def one_hot_labels(count: int) -> Setup:
    images, labels = data(count)
    return Setup(plain(), images, F.one_hot(labels, 10).float(), uf.Linf(0.1))


@mistake(
    "images-and-labels-out-of-step",
    "Images were shuffled, labels were not.",
    LOW_CLEAN + " It is at chance.",
    (0.0, 0.35),
)
def out_of_step(count: int) -> Setup:
    images, labels = data(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return Setup(plain(), images[order], labels, uf.Linf(0.1))


CASES: tuple[Case, ...] = tuple(FOUND)
