"""`fast` beside `standard` on models that mask their gradients: both must see through each. One command.

    OMP_PROC_BIND=true .venv/bin/python -m benchmarks.masked [--images 200] [--model NAME] [--arms fast standard]

Each is a bundled CNN for Fashion-MNIST behind one of the masks that fooled published defenses, deterministic, with its own
backward pass. Of the plain CNN nearly nothing is left under Linf 0.1; of the hardened one what its weights are worth.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

import unfooled as uf

EPS = 0.1


class ScaledLogits(nn.Module):
    """Logits so large that float32's softmax saturates: cross-entropy has no gradient left."""

    def __init__(self, net: nn.Module, scale: float = 1e3) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale


class SquashedLogits(nn.Module):
    """Logits through a steep sigmoid: nearly all of them end at 0 or 1."""

    def __init__(self, net: nn.Module, scale: float = 2.0) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return (self.net(x) * self.scale).sigmoid()


class ShatteredInput(nn.Module):
    """A fast small ripple on the pixels: gradients point anywhere."""

    def __init__(self, net: nn.Module, height: float = 0.02, rate: float = 500.0) -> None:
        super().__init__()
        self.net, self.height, self.rate = net, height, rate

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.height * torch.sin(self.rate * x))


class WinnersOnly(nn.Module):
    """k-winners-take-all: of a layer only the largest activations go on. Xiao et al. 2020, arXiv:1905.10510."""

    def __init__(self, share: float = 0.2) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0).view_as(x)


def k_winners(net: nn.Module) -> nn.Module:
    """The network with its ReLUs replaced; it is not trained again, so its clean accuracy falls a little."""
    return nn.Sequential(*(WinnersOnly() if isinstance(part, nn.ReLU) else part for part in net.children()))


def distilled(net: nn.Module, temperature: float = 100.0, images: int = 20_000, epochs: int = 4) -> nn.Module:
    """A student of the network's answers at T = 100, used at T = 1. Papernot et al. 2016, arXiv:1511.04508."""
    data = uf.data.load(f"fashion-mnist:train[0:{images}]")
    x = data.floats()
    with torch.no_grad():
        soft = torch.cat([(net(part) / temperature).softmax(1) for part in x.split(500)])
    torch.manual_seed(0)
    student = uf.models.build("seed-cnn")
    optimizer = torch.optim.Adam(student.parameters(), 1e-3)
    student.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            loss = temperature**2 * -(soft[index] * (student(x[index]) / temperature).log_softmax(1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return student.eval()


MASKS = {
    "scaled logits": ScaledLogits,
    "squashed logits": SquashedLogits,
    "shattered input": ShatteredInput,
    "k-winners": k_winners,
    "distillation": distilled,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=200)
    options.add_argument("--model", default="fashion-mnist/plain", help="or fashion-mnist/hardened")
    options.add_argument("--arms", nargs="+", default=["fast", "standard"])
    options.add_argument("--masks", nargs="+", default=list(MASKS))
    chosen = options.parse_args()
    data = uf.data.load(f"fashion-mnist-sample[0:{chosen.images}]")
    print(f"{'model':18}{'arm':10}{'clean':>8}{'robust':>8}{'seconds':>9}   fooled by")
    for name in chosen.masks:
        model = MASKS[name](uf.models.load(chosen.model))
        for arm in chosen.arms:
            start = time.perf_counter()
            found = uf.evaluate(model, data, uf.Linf(EPS), arm)
            by = ", ".join(f"{a.attack.split('(')[0]} {a.fooled}" for a in found.attacks if a.fooled)
            clean, robust = found.clean_accuracy.value, found.robust_accuracy.attacked.value
            print(f"{name:18}{arm:10}{clean:8.3f}{robust:8.3f}{time.perf_counter() - start:9.1f}   {by}", flush=True)


if __name__ == "__main__":
    main()
