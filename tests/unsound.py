"""Points of a threat's set, found by sampling and by an attack written here, and the bounds that they contradict.

Nothing here is the library's but what `claims` asks it, and `Threat.contains`, which says which float32 points an
adversary may use.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import unfooled as uf
from random_networks import Case

F64 = torch.float64


@dataclass(frozen=True)
class Given:
    """What a method claims of a case, all (N, K): bounds of the logits, and lower bounds of logit[label] - logit[k]."""

    lower: Tensor
    upper: Tensor
    margins: Tensor


def claims(c: Case, method: str) -> Given:
    """What the library claims."""
    from unfooled.certificates import bounded, margins

    b = bounded(c.model, c.images, c.threat, method)
    return Given(b.lower, b.upper, margins(c.model, c.images, c.labels, c.threat, method))


@dataclass(frozen=True)
class Ball:
    """The exact set round flat rows x (N, D) in float64: a ball of the norm, and a box."""

    x: Tensor
    eps: float
    low: Tensor
    high: Tensor
    kind: type[uf.Threat]

    @staticmethod
    def of(c: Case) -> Ball:
        x, shape = c.images.to(F64), c.images.shape
        low, high = (torch.as_tensor(b).to(F64).expand(shape[1:]).expand(shape) for b in c.threat.bounds)
        if c.threat.mask is not None:
            free = c.threat.mask.expand(shape)
            low, high = torch.where(free, low, x), torch.where(free, high, x)
        low, high, x = (t.flatten(1) for t in (low, high, x))
        eps = c.threat.eps
        if isinstance(c.threat, uf.Linf):
            low, high = torch.maximum(low, x - eps), torch.minimum(high, x + eps)
        return Ball(x, eps, low, high, type(c.threat))

    def inside(self, z: Tensor) -> Tensor:
        """z (N, P, D) brought into the set: clipped to the box, then drawn towards x as far as its size asks."""
        x = self.x[:, None]
        z = torch.minimum(torch.maximum(z, self.low[:, None]), self.high[:, None])
        if self.kind is uf.Linf:
            return z
        size = torch.linalg.vector_norm(z - x, ord=2 if self.kind is uf.L2 else 1, dim=2, keepdim=True)
        return torch.where(size > self.eps, x + (z - x) * (self.eps / size), z)

    def lowest(self, g: Tensor) -> Tensor:
        """The point of the set where a function with gradient g (N, P, D) is least, were it linear (L2: nearly)."""
        x, low, high = self.x[:, None], self.low[:, None], self.high[:, None]
        wall = torch.where(g > 0, low, torch.where(g < 0, high, x))
        if self.kind is uf.Linf:
            return wall
        if self.kind is uf.L2:
            length = torch.linalg.vector_norm(g, dim=2, keepdim=True).clamp(min=1e-300)
            return self.inside(x - self.eps * g / length)
        room = (wall - x).abs()
        order = g.abs().argsort(dim=2, descending=True)
        cost = room.gather(2, order)
        left = (self.eps - (cost.cumsum(2) - cost)).clamp(min=0)
        step = torch.zeros_like(room).scatter(2, order, cost.minimum(left))
        return x + step * (wall - x).sign()

    def sample(self, count: int, make: torch.Generator) -> Tensor:
        """Interior points, faces and corners, sparse and dense, (N, P, D); the first is x. All corners of small boxes."""
        n, d = self.x.shape
        x, size = self.x[:, None], (n, count, d)
        uniform = torch.rand(size, generator=make, dtype=F64)
        kept = torch.rand(size, generator=make, dtype=F64) < torch.rand((1, count, 1), generator=make, dtype=F64).sqrt()
        if self.kind is uf.Linf:
            spread = (uniform - 0.5) * (1 + 9 * (torch.arange(count) % 4))[:, None]  # ever more of them at the walls
            share = (spread + 0.5).clamp(0, 1)
            z = self.low[:, None] + share * (self.high - self.low)[:, None]
            z[:, 0] = self.x
            if d <= 6:
                corners = torch.tensor(list(itertools.product((False, True), repeat=d)))
                z = torch.cat([z, torch.where(corners, self.high[:, None], self.low[:, None])], 1)
            return z
        if self.kind is uf.L2:
            step = torch.randn(size, generator=make, dtype=F64) * kept
            length = torch.linalg.vector_norm(step, dim=2, keepdim=True)
        else:
            step = -uniform.clamp(min=1e-300).log() * (torch.randint(0, 2, size, generator=make) * 2 - 1) * kept
            length = step.abs().sum(2, keepdim=True)
        reach = torch.where(torch.arange(count) % 3 > 0, 1.0, uniform[:, :, 0] ** (1 / d))[..., None]
        z = x + self.eps * reach * step / length.clamp(min=1e-300)
        z[:, 0] = self.x
        axes = torch.cat([torch.eye(d, dtype=F64), -torch.eye(d, dtype=F64)])[: 4 * count]
        return self.inside(torch.cat([z, x + self.eps * axes], 1))


@dataclass(frozen=True)
class Seen:
    """Logits at points of the set: float64 arithmetic (N, P, K) and, at float32 points, the model's own (N, Q, K)."""

    wide: Tensor
    own: Tensor


def attacked(c: Case, count: int = 64, steps: int = 8, wide: nn.Module | None = None) -> Seen:
    """Sample the set, then minimise every margin and every logit, and its negative, from the best sample.

    By Frank & Wolfe's steps, which stay in the set, steps 2/(t+2), the first one a corner. All points
    on the way count. The best of each are then rounded to the model's precision, at the ball's edge and beyond it by the
    tolerance of `Threat.contains`; those that it lets pass count as float32 points.

    wide:  the model in float64, if there is a copy already.
    """
    wide, ball = copy.deepcopy(c.model).to(F64) if wide is None else wide, Ball.of(c)
    make = torch.Generator().manual_seed(c.seed)
    n, shape = len(c.images), c.images.shape[1:]

    def logits(m: nn.Module, z: Tensor) -> Tensor:
        out: Tensor = m(z.reshape(-1, *shape))
        return out.reshape(*z.shape[:2], -1)

    with torch.no_grad():
        z = ball.sample(count, make)
        out = [logits(wide, z)]
        aims = specifications(c.labels, out[0].shape[2])
        best = (out[0] @ aims.mT).argmin(1)
        z = z.gather(1, best[..., None].expand(-1, -1, z.shape[2]))
        top, least = z, torch.full(z.shape[:2], torch.inf, dtype=F64)
    for p in wide.parameters():
        p.requires_grad_(False)
    for t in range(steps + 1):
        z = z.detach().requires_grad_(True)
        got = logits(wide, z)
        value = (got * aims).sum(2)
        out.append(got.detach())
        better = value.detach() < least
        top, least = torch.where(better[..., None], z.detach(), top), torch.where(better, value.detach(), least)
        if t < steps:
            (g,) = torch.autograd.grad(value.sum(), z)
            z = z.detach() + 2 / (t + 2) * (ball.lowest(g) - z.detach())
    with torch.no_grad():
        edge = torch.cat([top, nearly_outside(c, ball, top), ball.x[:, None]], 1)
        rounded = edge.to(c.images.dtype)
        low, high = (b[:, None].to(c.images.dtype) for b in outer_box(c))
        rounded = rounded.clamp(low, high)
        flat = c.images.flatten(1)[:, None].expand_as(rounded)
        inside = c.threat.contains(rounded.reshape(-1, *shape), flat.reshape(-1, *shape)).reshape(n, -1)
        rounded = torch.where(inside[..., None], rounded, flat)
        own = logits(c.model, rounded).to(F64)
    return Seen(torch.cat(out, 1), own)


def lowest(c: Case, seen: Seen) -> Tensor:
    """(N, K): the lowest margins found in float64."""
    return margins_of(seen.wide, c.labels).amin(1)


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """logit[label] - logit[k] of logits (N, P, K)."""
    return logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1)) - logits


def specifications(labels: Tensor, classes: int) -> Tensor:
    """(N, 3K, K): the rows of logit[label] - logit[k], of each logit, and of its negative."""
    unit = torch.eye(classes, dtype=F64)
    return torch.cat(
        [unit[labels][:, None] - unit, unit.expand(len(labels), -1, -1), -unit.expand(len(labels), -1, -1)], 1
    )


def outer_box(c: Case) -> tuple[Tensor, Tensor]:
    """The threat's box alone, flat (N, D)."""
    return tuple(torch.as_tensor(b).expand(c.images.shape).flatten(1) for b in c.threat.bounds)  # type: ignore[return-value]


def nearly_outside(c: Case, ball: Ball, z: Tensor) -> Tensor:
    """z pushed away from x by nine tenths of the tolerance of `Threat.contains`."""
    x, d = ball.x[:, None], z.shape[2]
    precision = torch.finfo(c.images.dtype).eps
    scale = ball.x.abs().amax(1)[:, None, None]
    step, free = z - x, (ball.high > ball.low)[:, None]
    if ball.kind is uf.Linf:
        more = step.sign() * (64 * precision * c.threat.eps + 2 * precision * scale)
    else:
        order, units = (2, d**0.5) if ball.kind is uf.L2 else (1, d)
        size = torch.linalg.vector_norm(step, ord=order, dim=2, keepdim=True).clamp(min=1e-300)
        more = step / size * (64 * precision * c.threat.eps + 2 * precision * scale * units)
    return torch.where(free, z + 0.9 * more, z)


# --- the verdict -----------------------------------------------------------------------------------------------------


def contradictions(c: Case, given: Given, seen: Seen, name: str = "") -> list[str]:
    """What the points contradict, one line each: no slack is given, the bounds have to allow for rounding themselves."""
    found = []
    k = seen.wide.shape[2]
    rows = torch.arange(len(c.labels))
    for what, claimed in (("lower", given.lower), ("upper", given.upper), ("margins", given.margins)):
        if claimed.shape != (len(rows), k) or claimed.dtype != F64 or bool(claimed.isnan().any()):
            return [f"{c}: {name}: {what} is {claimed.dtype} of shape {tuple(claimed.shape)}, or NaN"]
    if not bool((given.margins[rows, c.labels] == torch.inf).all()):
        found.append(f"{c}: {name}: the margin at the label is not inf")
    for what, logits in (("points in float64", seen.wide), ("the model's own float32", seen.own)):
        margin = margins_of(logits, c.labels).amin(1)
        margin[rows, c.labels] = torch.inf
        for bound, excess in (
            ("lower bound of the logits", given.lower - logits.amin(1)),
            ("upper bound of the logits", logits.amax(1) - given.upper),
            ("lower bound of the margins", (given.margins - margin).nan_to_num(nan=0.0)),
        ):
            if bool((excess > 0).any()):
                at = divmod(int(excess.argmax()), k)
                found.append(f"{c}: {name}: {bound} is wrong by {float(excess.max()):.3g} at {at}, by {what}")
        if bool(((given.margins.amin(1) > 0) & ~(margin.amin(1) > 0)).any()):
            found.append(f"{c}: {name}: certified, but fooled by {what}")
    return found
