"""Tiny models with data for them, sizes by an independent formula, and hooks that count passes."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from unfooled.goals import Goal
from unfooled.models.classifier import Classifier
from unfooled.oracle import QUERIES, Access, Oracle, Query
from unfooled.threats import L0, L1, L2, Linf, Threat

CONVEX = (Linf, L2, L1)
NORMS = (Linf, L2, L1, L0)
_RANK = {Linf: 0, L2: 0.5, L1: 1}


def own_size(kind: type[Threat], delta: torch.Tensor) -> torch.Tensor:
    """The size of each row's change by plain formulas, in float64."""
    d = delta.double().flatten(1).abs()
    if kind is Linf:
        return d.max(1).values
    if kind is L2:
        return (d * d).sum(1).sqrt()
    if kind is L1:
        return d.sum(1)
    return (d != 0).sum(1).double()


def assert_inside(threat: Threat, z: torch.Tensor, x: torch.Tensor) -> None:
    """By an own check: finite, size, box and mask. The only slack is a few units of rounding of the inputs."""
    kind, unit = type(threat), torch.finfo(x.dtype).eps
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    assert bool(torch.isfinite(z).all())
    scale = max(1e-30, float(x.abs().max()), float(z.abs().max()))
    slack = 0 if kind is L0 else threat.eps * 100 * unit + 2 * unit * scale * x[0].numel() ** _RANK[kind]
    size = own_size(kind, z.double() - x.double())
    assert bool((size <= threat.eps + slack).all()), f"size {float(size.max())} at eps {threat.eps}"
    low, high = (torch.as_tensor(b, dtype=x.dtype) for b in threat.bounds)
    assert bool((z >= low).all()), "below the box"
    assert bool((z <= high).all()), "above the box"
    if threat.mask is not None:
        frozen = (~threat.mask).expand(x.shape)
        assert torch.equal(z[frozen], x[frozen]), "a masked component has moved"


class Net(nn.Module):
    """A small net for any shape: a convolution with BatchNorm where there are channels, then two layers."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        size = math.prod(shape)
        if len(shape) == 1:
            self.body = nn.Sequential(nn.Linear(size, 10), nn.BatchNorm1d(10))
        elif len(shape) == 2:
            self.body = nn.Sequential(nn.Conv1d(shape[0], 3, 3, padding=1), nn.BatchNorm1d(3), nn.Flatten())
        else:
            self.body = nn.Sequential(nn.Conv2d(shape[0], 3, 3, padding=1), nn.BatchNorm2d(3), nn.Flatten())
        width = 10 if len(shape) == 1 else 3 * size // shape[0]
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.tanh(self.body(x))))


class Wrapped(nn.Module):
    """A net whose output a function changes; `part` picks what the caller sees."""

    def __init__(self, net: nn.Module, change: Any) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(self.net(x))


@dataclass
class Problem:
    """A model in eval mode, images, and labels of which every fourth is wrong."""

    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    bounds: tuple[Any, Any]

    @property
    def correct(self) -> torch.Tensor:
        with torch.no_grad():
            return self.model(self.x).argmax(1) == self.y

    def eps(self, kind: type[Threat]) -> float:
        """About the size of change that a linear model of this margin would need, in the middle of all images."""
        z = self.x.detach().clone().requires_grad_(True)
        logits = self.model(z)
        rest = logits.masked_fill(F.one_hot(self.y, logits.shape[1]).bool(), -math.inf)
        margin = logits.gather(1, self.y[:, None])[:, 0] - rest.max(1).values
        (g,) = torch.autograd.grad(margin.sum(), z)
        g, margin = g.flatten(1).double().abs(), margin.detach().double()
        low, high = (torch.as_tensor(b) for b in self.bounds)
        width = float((high - low).max())
        needed = {
            Linf: margin / g.sum(1),
            L2: margin / (g * g).sum(1).sqrt(),
            L1: 3 * margin / g.max(1).values,
            L0: (2 * margin / (width * g.max(1).values)).ceil().clamp(min=1),
        }[kind]
        return float(needed[margin > 0].quantile(0.5, interpolation="higher"))

    def threat(self, kind: type[Threat], factor: float = 1.0, mask: torch.Tensor | None = None) -> Threat:
        eps = self.eps(kind) * factor
        return kind(max(1, round(eps)) if kind is L0 else eps, bounds=self.bounds, mask=mask)


def problem(
    shape: tuple[int, ...] = (8,),
    classes: int = 4,
    dtype: torch.dtype = torch.float32,
    count: int = 24,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    seed: int = 0,
) -> Problem:
    """Seeded model and data; the classes are about equally frequent, every fourth label is wrong."""
    draw = torch.Generator().manual_seed(seed)
    net = Net(shape, classes)
    low, high = (torch.as_tensor(b, dtype=torch.float32) for b in bounds)
    x = (low + (high - low) * torch.rand((count, *shape), generator=draw)).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) / max(1, p[0].numel()) ** 0.5)
        net.train()
        net.drop.p = 0.0
        for part in net.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.momentum = None
                part.weight.fill_(1.0)
        net(x.float())  # BatchNorm learns the data's statistics
        net.drop.p = 0.5
        net.eval().to(dtype)
        net.head.bias -= net(x).mean(0)
        y = net(x).argmax(1)
    y[::4] = (y[::4] + 1) % classes
    return Problem(net, x, y, bounds)


class Linear(nn.Module):
    """Logits x·Wᵀ + b of flattened images; one row in W is a one-logit model."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.flatten(1), self.weight, self.bias)


def query(
    access: Access, x: torch.Tensor, threat: Threat, model: Any = None, y: Any = None, seed: int = 0, **goal: Any
):
    """A query on all rows of x, and the points that it is asked about."""
    rows, seen = torch.arange(len(x)), []
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    none = torch.zeros_like(rows)
    oracle = Oracle(Classifier(model or nn.Flatten()), None, rows)
    return QUERIES[access](x, Goal(y, **goal), threat, rows, none, none, seed, oracle, rows, seen.append), seen


def states(q: Query, method: Any, steps: int):
    """The states before each step, and the one after the last."""
    s = replace(method.init(q, q.x), k=torch.zeros(len(q.x), dtype=torch.int64))
    yield s
    for _ in range(steps):
        s = method.step(q, s)
        s = replace(s, k=s.k + 1)
        yield s


@dataclass
class Counter:
    """Rows that went forward and backward."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted(module: nn.Module):
    """Count, by hooks, the rows of forward calls and the rows that gradients arrive for."""
    seen = Counter()

    def forward(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.forward += len(args[0])

    def backward(_: nn.Module, inward: tuple[torch.Tensor, ...], outward: tuple[torch.Tensor, ...]) -> None:
        seen.backward += len(outward[0])

    hooks = [module.register_forward_pre_hook(forward), module.register_full_backward_hook(backward)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Everything of a module that an attack could disturb."""
    return {
        "training": [m.training for m in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "pointers": [id(p) for p in module.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in module.modules()],
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in ("training", "requires_grad", "pointers", "hooks"):
        assert before[name] == after[name], f"{name} has changed"
    for a, b in zip(before["grad"], after["grad"], strict=True):
        assert (a is None) == (b is None), "a .grad has appeared or gone"
        assert a is None or torch.equal(a, b), "a .grad has changed"
    assert before["state"].keys() == after["state"].keys()
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), f"{name} has changed"
