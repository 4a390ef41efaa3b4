"""Small random networks with images, labels and threats, for whoever checks bounds: seeded, odd on purpose.

`network(seed)` draws a structure over every layer that certificates support, in the spellings that people use, and
weights that are awkward: exact zeros, ties at kinks, dead units, huge and tiny scales. `case(seed)` puts images, labels
and a threat to it; `cases(seed)` gives many cases of one structure, each with weights of its own. With `exact` a network has affine layers, ReLU, LeakyReLU and max pooling alone, and so few units
that `milp` solves it.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unfooled as uf

Shape = tuple[int, ...]


# --- parts -----------------------------------------------------------------------------------------------------------


class Call(nn.Module):
    """A function of one tensor, in a functional spelling."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return SPELLINGS[self.name](x)

    def extra_repr(self) -> str:
        return self.name


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu, "torch.relu": torch.relu, "x.relu": lambda x: x.relu(),
    "F.leaky_relu": lambda x: F.leaky_relu(x, 0.2), "F.leaky_relu default": F.leaky_relu,
    "torch.tanh": torch.tanh, "x.tanh": lambda x: x.tanh(), "F.tanh": F.tanh,
    "torch.sigmoid": torch.sigmoid, "x.sigmoid": lambda x: x.sigmoid(), "F.sigmoid": F.sigmoid,
    "F.gelu": F.gelu, "F.gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "F.dropout": lambda x: F.dropout(x, 0.5, training=False),
    "torch.flatten": lambda x: torch.flatten(x, 1), "x.flatten": lambda x: x.flatten(1),
    "x.view": lambda x: x.view(x.size(0), -1), "x.reshape": lambda x: x.reshape(x.shape[0], -1),
    "F.max_pool1d": lambda x: F.max_pool1d(x, 2), "F.max_pool2d": lambda x: F.max_pool2d(x, 2, stride=1),
    "F.avg_pool1d": lambda x: F.avg_pool1d(x, 2), "F.avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "F.adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 1),
    "F.adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
}  # fmt: skip


class Functional(nn.Module):
    """A layer's weights, used through `torch.nn.functional`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        m = self.layer
        if isinstance(m, nn.Linear):
            return F.linear(x, m.weight, m.bias)
        if isinstance(m, nn.Conv1d):
            return F.conv1d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)
        if isinstance(m, nn.Conv2d):
            return F.conv2d(
                x, m.weight, m.bias, stride=m.stride, padding=m.padding, groups=m.groups, dilation=m.dilation
            )
        return F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, training=False, eps=m.eps)


CONSTANTS: dict[str, Callable[[Tensor, float | Tensor], Tensor]] = {
    "x + c": operator.add, "c + x": lambda x, c: c + x, "x - c": operator.sub, "c - x": lambda x, c: c - x,
    "x * c": operator.mul, "c * x": lambda x, c: c * x, "x / c": operator.truediv,
    "torch.add": torch.add, "torch.sub": torch.sub, "torch.mul": torch.mul, "x.mul": lambda x, c: x.mul(c),
    "torch.div": torch.div, "x.sub": lambda x, c: x.sub(c), "x.add": lambda x, c: x.add(c),
}  # fmt: skip


class Constant(nn.Module):
    """Arithmetic with a constant: a float, or a buffer that broadcasts."""

    def __init__(self, spelling: str, value: float | Tensor) -> None:
        super().__init__()
        self.spelling = spelling
        if isinstance(value, Tensor):
            self.register_buffer("value", value)
        else:
            self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return CONSTANTS[self.spelling](x, self.value)

    def extra_repr(self) -> str:
        return self.spelling


class Normalize(nn.Module):
    """(x - mean) / std."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def added_in_place(a: Tensor, b: Tensor) -> Tensor:
    a += b
    return a


SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a + b": operator.add, "b + a": lambda a, b: b + a, "a - b": operator.sub, "b - a": lambda a, b: b - a,
    "torch.add": torch.add, "a.add": lambda a, b: a.add(b), "torch.sub": torch.sub, "a += b": added_in_place,
    "torch.add alpha": lambda a, b: torch.add(a, b, alpha=-0.5),
}  # fmt: skip
SIGNS = {"a - b": (1.0, -1.0), "b - a": (-1.0, 1.0), "torch.sub": (1.0, -1.0), "torch.add alpha": (1.0, -0.5)}


class Sum(nn.Module):
    """body(x) and shortcut(x), added or subtracted."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, spelling: str) -> None:
        super().__init__()
        self.body, self.shortcut, self.spelling = body, shortcut, spelling

    def forward(self, x: Tensor) -> Tensor:
        return SUMS[self.spelling](self.body(x), self.shortcut(x))

    def extra_repr(self) -> str:
        return self.spelling


class Concat(nn.Module):
    """Branches side by side, along the channels."""

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Reuse(nn.Module):
    """One tensor used three times, so that some of it cancels: interval arithmetic cannot see that, the sum must."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + (0.5 * y - y)


# --- drawing ---------------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "relu": (nn.ReLU, lambda: nn.ReLU(inplace=True), "F.relu", "torch.relu", "x.relu"),
    "leaky": (nn.LeakyReLU, lambda: nn.LeakyReLU(0.3), "F.leaky_relu", "F.leaky_relu default"),
    "tanh": (nn.Tanh, "torch.tanh", "x.tanh", "F.tanh"),
    "sigmoid": (nn.Sigmoid, "torch.sigmoid", "x.sigmoid", "F.sigmoid"),
    "gelu": (nn.GELU, lambda: nn.GELU("tanh"), "F.gelu", "F.gelu tanh"),
}
FLATTENS = (nn.Flatten, "torch.flatten", "x.flatten", "x.view", "x.reshape")


class Drawing:
    """The network as it grows: its layers, the shape that the next one meets, and the seeded draws."""

    def __init__(self, seed: int, exact: bool) -> None:
        self.die, self.make = random.Random(f"network {seed} {exact}"), torch.Generator().manual_seed(seed)
        self.exact = exact
        self.kind = self.die.choices(("vector", "image", "sequence"), (5, 3, 2))[0]
        self.main = self.die.choice(("relu", "relu", "leaky") if exact else tuple(ACTIVATIONS))

    def chance(self, share: float) -> bool:
        return self.die.random() < share

    def normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.make)

    def spelled(self, ways: tuple) -> nn.Module:
        """One of the ways to write a layer; modules alone where the exact solver has to read them."""
        way = self.die.choice([w for w in ways if not isinstance(w, str)] if self.exact else ways)
        return Call(way) if isinstance(way, str) else way()

    def layer(self, module: nn.Module) -> nn.Module:
        """A layer with weights, filled, in one of its two spellings."""
        self.fill(module)
        return Functional(module) if not self.exact and self.chance(0.2) else module

    @torch.no_grad()
    def fill(self, m: nn.Module) -> None:
        """Draw a layer's weights, in place: a traced graph that holds them sees the new ones."""
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.copy_(0.5 * self.normal(m.num_features))
            m.running_var.copy_(self.normal(m.num_features).square() + 0.05)
            if m.affine:
                m.weight.copy_(self.normal(m.num_features))
                m.bias.copy_(0.3 * self.normal(m.num_features))
            return
        w = self.normal(*m.weight.shape)
        style = self.die.choice(("plain", "plain", "ternary", "sparse", "scaled"))
        fan = w[0].numel()
        if style == "ternary":
            w = w.round().clamp(-1, 1)
        else:
            w = w * self.die.choice((1.0, 2.0)) / math.sqrt(fan)
        if style == "sparse":
            w = torch.where(torch.rand(w.shape, generator=self.make) < 0.5, w, 0)
        if style == "scaled":
            w = w * self.die.choice((0.3, 3.0) if self.exact else (1e-4, 0.01, 10.0, 300.0))
        if self.chance(0.1):
            w[self.die.randrange(len(w))] = 0.0
        m.weight.copy_(w)
        if m.bias is None:
            return
        rows = w.flatten(1)
        centred = -0.5 * rows.sum(1)  # the kink goes through the middle of the box
        bias = {"random": 0.5 * self.normal(len(w)), "zero": torch.zeros(len(w)), "centred": centred}
        b = bias[self.die.choice(("random", "zero", "centred", "centred"))].clone()
        if self.chance(0.2):  # a unit that is dead, or always on, or cancels almost all of its sum
            b[self.die.randrange(len(b))] = self.die.choice((-10.0, 10.0) if self.exact else (-100.0, 100.0, 1e4, -1e4))
        m.bias.copy_(b)

    def activation(self) -> nn.Module:
        name = self.main if self.exact or self.chance(0.8) else self.die.choice(tuple(ACTIVATIONS))
        return self.spelled(ACTIVATIONS[name])

    def shape_after(self, m: nn.Module, shape: Shape) -> Shape:
        with torch.no_grad():
            return tuple(m.eval()(torch.zeros((1, *shape))).shape[1:])

    def constant(self, shape: Shape) -> nn.Module:
        spelling = self.die.choice(tuple(CONSTANTS))
        one = self.normal(shape[0], *([1] * (len(shape) - 1)))
        value = one if self.chance(0.5) else float(one.flatten()[0])
        if spelling in ("x / c", "torch.div"):
            value = value + math.copysign(0.3, value) if isinstance(value, float) else value + one.sign() * 0.3
        return Constant(spelling, value)

    # --- vectors ---

    def dense(self, width: int, out: int) -> nn.Module:
        return self.layer(nn.Linear(width, out, bias=self.chance(0.85)))

    def dense_block(self, width: int, most: int) -> nn.Module:
        """Affine and activation, plain or with a shortcut, branches, reuse or shared weights; vectors to vectors."""
        out = self.die.randint(2, most)
        way = self.die.choices(("plain", "sum", "concat", "reuse", "shared", "norm"), (5, 2, 1, 1, 1, 1))[0]
        if way == "sum":
            body = nn.Sequential(self.dense(width, out), self.activation(), self.dense(out, width))
            short = nn.Identity() if self.chance(0.6) else self.dense(width, width)
            return Sum(body, short, self.die.choice(tuple(SUMS)))
        if way == "concat":
            half = max(1, out // 2)
            first = nn.Sequential(self.dense(width, half), self.activation())
            return Concat([first, self.dense(width, half) if self.chance(0.5) else nn.Identity()])
        if way == "reuse":
            return nn.Sequential(self.dense(width, out), Reuse(self.activation()))
        if way == "shared":
            layer, act = self.dense(width, width), self.activation()
            return nn.Sequential(layer, act, layer, act)
        parts = [self.dense(width, out)]
        if way == "norm":
            parts.append(self.layer(nn.BatchNorm1d(out, affine=self.chance(0.7))))
        return nn.Sequential(*parts, self.activation())

    # --- images and sequences ---

    def conv(self, shape: Shape, out: int, same: bool = False) -> nn.Module:
        flat = len(shape) == 2
        size, groups = shape[-1], self.die.choice([g for g in (1, 1, 2) if shape[0] % g == out % g == 0])
        if same:
            kernel, stride, padding, dilation = 3, 1, 1, 1
        else:
            kernel = self.die.randint(1, min(3, size))
            stride, padding = self.die.choice((1, 1, 2)), self.die.randint(0, kernel // 2)
            dilation = 2 if kernel > 1 and 2 * (kernel - 1) < size + 2 * padding and self.chance(0.2) else 1
        kind = nn.Conv1d if flat else nn.Conv2d
        bias = self.chance(0.8)
        return self.layer(kind(shape[0], out, kernel, stride, padding, dilation, groups, bias))

    def conv_block(self, shape: Shape, most: int) -> nn.Module:
        out = self.die.randint(1, most)
        way = self.die.choices(("plain", "sum", "concat", "norm"), (5, 2, 1, 2))[0]
        norm = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
        if way == "sum":
            body = nn.Sequential(self.conv(shape, shape[0], same=True), self.activation())
            spelling = self.die.choice(tuple(SUMS))
            if spelling == "a += b" or self.chance(0.5):  # what an activation made is needed for its gradient
                body.append(self.conv(shape, shape[0], same=True))
            short = nn.Identity() if self.chance(0.6) else self.conv(shape, shape[0], same=True)
            return nn.Sequential(Sum(body, short, spelling), self.activation())
        if way == "concat":
            return Concat([nn.Sequential(self.conv(shape, 1, same=True), self.activation()), nn.Identity()])
        parts = [self.conv(shape, out)]
        if way == "norm":
            parts.append(self.layer(norm(out)))
        return nn.Sequential(*parts, self.activation())

    def pool(self, shape: Shape) -> nn.Module:
        flat, size = len(shape) == 2, shape[-1]
        d = "1d" if flat else "2d"
        if not self.exact and size >= 2 and self.chance(0.3):
            names = ["F.max_pool", "F.avg_pool", "F.adaptive_avg_pool"]
            return Call(self.die.choice(names) + d)
        kernel = self.die.randint(1, min(3, size))
        stride, padding = self.die.choice((None, 1, 2)), self.die.randint(0, kernel // 2)
        name = self.die.choice(("MaxPool", "MaxPool", "AvgPool", "AdaptiveAvgPool"))
        if name == "AdaptiveAvgPool":
            return getattr(nn, name + d)(self.die.choice([n for n in (1, 2) if size % n == 0]))
        more = {"count_include_pad": self.chance(0.5)} if name == "AvgPool" else {}
        return getattr(nn, name + d)(kernel, stride, padding, **more)

    # --- the whole ---

    def start(self) -> Shape:
        if self.kind == "vector":
            return (self.die.randint(1, 8),)
        channels = self.die.randint(1, 2)
        if self.kind == "sequence":
            return (channels, self.die.randint(2, 4 if self.exact else 8))
        side = self.die.randint(2, 3 if self.exact else 6)
        return (channels, side, side)

    def network(self) -> tuple[nn.Module, Shape]:
        first = shape = self.start()
        parts: list[nn.Module] = []

        def put(m: nn.Module) -> None:
            nonlocal shape
            parts.append(m)
            shape = self.shape_after(m, shape)

        if self.chance(0.25):
            each = (shape[0], *([1] * (len(shape) - 1)))
            put(Normalize(0.5 + 0.1 * self.normal(*each), 0.2 + 0.3 * self.normal(*each).abs()))
        if len(shape) > 1:
            for _ in range(1 if self.exact or self.chance(0.6) else 2):
                put(self.conv_block(shape, 1 if self.exact else 4))
                if self.chance(0.5):
                    put(self.pool(shape))
            put(self.spelled(FLATTENS))
        elif self.chance(0.1):
            put(self.spelled(FLATTENS))
        vector = len(first) == 1
        deep = self.die.choice(
            ((1, 2, 2) if vector else (0, 1, 1)) if self.exact else ((1, 2) if vector else (0, 1, 1))
        )
        for _ in range(deep):
            if self.chance(0.15):
                put(self.constant(shape))
            put(self.dense_block(shape[0], 5 if self.exact else self.die.choice((6, 12, 24))))
            if self.chance(0.15):
                put(nn.Dropout(0.5) if self.exact else self.spelled((nn.Dropout, "F.dropout")))
        classes = self.die.randint(2, 5)
        put(self.dense(shape[0], classes))
        if not self.exact and self.chance(0.05):
            put(self.activation())
        return nn.Sequential(*parts).eval(), first


def network(seed: int, exact: bool = False) -> tuple[nn.Module, Shape]:
    """A small random network in eval mode, and the shape of its images. The same for the same seed.

    exact:  affine layers, ReLU, LeakyReLU and max pooling in their module spelling, with at most some 20 units.
    """
    with torch.random.fork_rng():  # constructors draw from the global generator
        return Drawing(seed, exact).network()


@torch.no_grad()
def redraw(model: nn.Module, seed: int) -> None:
    """Other weights and buffers in place, drawn as `network` draws them; numbers that are part of the code stay."""
    drawing = Drawing(seed, exact=False)
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d):
            drawing.fill(m)
        elif isinstance(m, Normalize):
            m.mean.copy_(0.5 + 0.1 * drawing.normal(*m.mean.shape))
            m.std.copy_(0.2 + 0.3 * drawing.normal(*m.std.shape).abs())
        elif isinstance(m, Constant) and isinstance(m.value, Tensor):
            value = drawing.normal(*m.value.shape)
            m.value.copy_(value + value.sign() * 0.3 if m.spelling in ("x / c", "torch.div") else value)


# --- with data and a threat ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A network, images (N, *shape) inside the threat's bounds, labels (N,), and a threat."""

    seed: int
    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: uf.Threat

    def __str__(self) -> str:
        return f"seed {self.seed}, {tuple(self.images.shape)}, {self.threat!s}"


def case(seed: int, count: int = 3, exact: bool = False) -> Case:
    """The network of that seed with images and a threat; labels are its own answers, now and then others.

    exact:  Linf alone, a radius neither tiny nor huge, no mask: what `milp` solves well.
    """
    model, shape = network(seed, exact)
    return _case(seed, model, shape, count, exact)


def cases(first: int, end: int, count: int = 3) -> Iterator[Case]:
    """The structure of `case(first)`, with that case's weights and then others for each further seed.

    All share one model, whose weights change from case to case.
    """
    model, shape = network(first)
    for seed in range(first, end):
        if seed > first:
            redraw(model, seed)
        yield _case(seed, model, shape, count, wide=None if seed == first else model_dtype(model) == torch.float64)


def model_dtype(model: nn.Module) -> torch.dtype:
    """Of the weights."""
    return next(model.parameters()).dtype


def _case(seed: int, model: nn.Module, shape: Shape, count: int, exact: bool = False, wide: bool | None = None) -> Case:
    """Images, labels and a threat; in float64 if `wide`, None: that is drawn too."""
    die, make = random.Random(f"case {seed} {exact}"), torch.Generator().manual_seed(seed + 1)
    images = torch.rand((count, *shape), generator=make)
    images[1::3] = (2 * images[1::3]).round() / 2  # on the walls of the box, and where centred kinks meet
    images[2::3] = images[2::3].round(decimals=1)
    kind = uf.Linf if exact else die.choice((uf.Linf, uf.Linf, uf.L2, uf.L1))
    size = math.prod(shape)
    ways = (("middle", 1),) if exact else (("middle", 7), ("tiny", 1), ("any", 2), ("huge", 1))
    eps = {
        "middle": 10 ** die.uniform(-1.5 if exact else -2.5, -0.3),
        "tiny": 10 ** die.uniform(-12, -5),
        "any": 10 ** die.uniform(-6, 0),
        "huge": 10 ** die.uniform(0, 2),
    }[die.choices([w for w, _ in ways], [n for _, n in ways])[0]]
    eps *= {uf.Linf: 1.0, uf.L2: math.sqrt(size) / 2, uf.L1: size / 4}[kind]
    bounds, mask = (0.0, 1.0), None
    if not exact and die.random() < 0.15:
        bounds = die.choice(((-1.0, 2.0), (images.amin(0) * 0.5, images.amax(0) + 0.25), (0.0, torch.ones(shape[-1:]))))
    if not exact and die.random() < 0.15:
        mask = torch.rand(die.choice((shape, shape[-1:])), generator=make) < 0.6
    drawn = not exact and die.random() < 0.1
    if drawn if wide is None else wide:
        model, images = model.double(), images.double()
        bounds = tuple(b.double() if isinstance(b, Tensor) else b for b in bounds)
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(1)
    if die.random() < 0.1:
        labels = (labels + 1) % logits.shape[1]
    return Case(seed, model, images, labels, kind(eps, bounds, mask))
