"""The set of inputs that the adversary may use round an image: a ball of a norm, a box, and a mask.

`Linf(8/255)`, `L2(0.5)`, `L1(12)`, `L0(20)`; as text `linf:8/255`. eps is in the units of the images. Points and
images are (N, *shape) here; the arithmetic on flat rows is in `norms`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Real
from typing import Self

import torch
from torch import Tensor

from . import text
from .errors import ParameterError, must_be
from .norms import Box, Draw, L0Norm, L1Norm, L2Norm, LinfNorm, Norm, clip

Bound = float | Tensor


@dataclass(frozen=True, eq=False)
class Threat(ABC):
    """A ball of radius `eps` in a norm, inside `bounds`, changing only what `mask` allows.

    eps:     radius in input units, a float in (0, inf].
    bounds:  lower and upper limit of an input, floats or tensors that broadcast to one example.
    mask:    True where an input may change: a bool tensor that broadcasts to one example; None: everywhere.
    """

    eps: float
    bounds: tuple[Bound, Bound] = (0.0, 1.0)
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        given: object = self.eps
        if isinstance(given, bool) or not isinstance(given, Real) or not float(given) > 0:
            raise must_be(owner, "eps", "a float in (0, inf]", self.eps)
        object.__setattr__(self, "eps", float(self.eps))
        if not (isinstance(self.bounds, tuple | list) and len(self.bounds) == 2):
            raise must_be(owner, "bounds", "a pair (lower, upper) of floats or tensors", self.bounds)
        try:
            low, high = (b if isinstance(b, Tensor) else float(b) for b in self.bounds)
        except (TypeError, ValueError):
            raise must_be(owner, "bounds", "a pair (lower, upper) of floats or tensors", self.bounds) from None
        if not bool(torch.as_tensor(torch.as_tensor(low) < torch.as_tensor(high)).all()):
            raise must_be(owner, "bounds", "a pair (lower, upper) with lower < upper everywhere", self.bounds)
        object.__setattr__(self, "bounds", (low, high))
        if self.mask is not None and not (isinstance(self.mask, Tensor) and self.mask.dtype == torch.bool):
            raise must_be(owner, "mask", "a bool tensor, True where an input may change", self.mask)

    @property
    def unit_range(self) -> bool:
        """Whether inputs lie in [0, 1]."""
        return not any(isinstance(b, Tensor) for b in self.bounds) and self.bounds == (0.0, 1.0)

    @abstractmethod
    def norm(self, shape: torch.Size) -> Norm:
        """The geometry for one example of that shape."""

    # --- as text ---------------------------------------------------------------------------------

    @staticmethod
    def parse(words: str) -> Threat:
        """Read ``linf:8/255`` or ``l2:0.5,low=-1,high=1`` or ``l0:20,pixels=true``."""
        call = text.parse(words)
        options = dict(call.options)
        if call.inner or len(call.values) > 1:
            raise ParameterError(
                f"{words!r} should be a norm and its eps, as in 'linf:8/255' or 'l2:0.5,low=-1,high=1'."
            )
        bounds = (options.pop("low", 0.0), options.pop("high", 1.0))
        if "bounds" in options or "mask" in options:
            raise ParameterError(f"{words!r}: bounds are written low=… and high=…; a mask can only be given in Python.")
        if not call.values and "eps" not in options and call.name in THREATS:
            raise ParameterError(f"{words!r} lacks its eps: write for example '{call.name}:8/255'.")
        return text.build("threat", text.Call(call.name, call.values, options, call.inner), THREATS, bounds=bounds)

    def __str__(self) -> str:
        parts = [text.show(int(self.eps) if self.eps.is_integer() else self.eps)]
        for key, got, usual in zip(("low", "high"), self.bounds, (0.0, 1.0), strict=True):
            if isinstance(got, Tensor) or got != usual:
                parts.append(f"{key}={'tensor' if isinstance(got, Tensor) else text.show(got)}")
        parts += self._more() + (["mask=tensor"] if self.mask is not None else [])
        return f"{type(self).__name__.lower()}:{','.join(parts)}"

    def _more(self) -> list[str]:
        return []

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = ((*t.bounds, t.mask) for t in (self, other))
        return str(self) == str(other) and all(
            torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b
            for a, b in zip(mine, theirs, strict=True)
        )

    def __hash__(self) -> int:
        return hash(str(self))

    def within(self, eps: float) -> Self:
        """The same threat with another radius; box and mask stay."""
        return replace(self, eps=eps)

    def with_mask(self, mask: Tensor | None) -> Self:
        """The same threat with another mask."""
        return replace(self, mask=mask)

    # --- the set ---------------------------------------------------------------------------------

    def box(self, x: Tensor) -> Box:
        """The flat box round x: the bounds, and x itself where the mask forbids change."""
        low, high = (_flat(b, x) for b in self.bounds)
        if self.mask is None:
            return low, high
        free, rows = _flat(self.mask, x), x.flatten(1)
        return torch.where(free, low, rows), torch.where(free, high, rows)

    def _radius(self, x: Tensor, radius: Tensor | float | None) -> Tensor:
        given = self.eps if radius is None else radius
        return torch.as_tensor(given, dtype=x.dtype, device=x.device).expand(len(x))

    def _masked(self, g: Tensor) -> Tensor:
        return g.flatten(1) if self.mask is None else torch.where(_flat(self.mask, g), g.flatten(1), 0)

    def size(self, delta: Tensor) -> Tensor:
        """The size of each change: (N, *shape) to (N,)."""
        return self.norm(delta.shape[1:]).size(delta.flatten(1))

    def contains(self, z: Tensor, x: Tensor) -> Tensor:
        """Which z lie in the set round x, as (N,) bools.

        The one place with tolerances. Relative: 64 units of rounding, for the arithmetic of a projection. Absolute:
        two units at the scale of the inputs, as often as the norm adds up components, because z itself is rounded.
        The box and the mask have none.
        """
        flat, rows = z.flatten(1), x.flatten(1)
        low, high = self.box(x)
        size = self.norm(x.shape[1:]).size((flat - rows).double())
        scale = torch.maximum(flat.abs().amax(1), rows.abs().amax(1)).double()
        return (size <= self._most(scale, x)) & (flat >= low).all(1) & (flat <= high).all(1)

    def _most(self, scale: Tensor, x: Tensor) -> Tensor:
        """The largest size that counts as inside, where numbers are as large as `scale` (N,)."""
        precision, dimension = torch.finfo(x.dtype).eps, x.shape[1:].numel()
        rounding = self.norm(x.shape[1:]).rounding(dimension)
        return self.eps * (1 + 64 * precision) + 2 * precision * scale * rounding

    def reach(self, x: Tensor) -> Tensor:
        """A radius (N,) float64 that no point which `contains` counts as inside is beyond."""
        low, high = self.box(x)
        rows = x.flatten(1).abs().amax(1).double()
        bounds = torch.maximum(low.abs(), high.abs()).amax().double()
        most = self._most(torch.maximum(torch.minimum(bounds, rows + self.eps), rows), x)
        return (
            most * (1 + torch.finfo(torch.float32).eps) if math.isfinite(self.eps) else torch.full_like(rows, math.inf)
        )

    def project(self, z: Tensor, x: Tensor, radius: Tensor | float | None = None) -> Tensor:
        """The nearest point to z of the set round x; `radius` (N,) replaces eps, row by row."""
        norm = self.norm(x.shape[1:])
        return norm.project(z.flatten(1), x.flatten(1), self._radius(x, radius), self.box(x)).view_as(z)

    def steepest(self, g: Tensor, x: Tensor, radius: Tensor | float | None = None) -> Tensor:
        """The direction of size ≤ 1 that maximises <g, direction>; x + radius·direction is the best point."""
        norm = self.norm(x.shape[1:])
        return norm.steepest(self._masked(g), x.flatten(1), self._radius(x, radius), self.box(x)).view_as(g)

    def dual(self, g: Tensor) -> Tensor:
        """The dual norm of each gradient: (N, *shape) to (N,)."""
        return self.norm(g.shape[1:]).dual(self._masked(g), self._width(g))

    def support(self, g: Tensor, radius: Tensor | float | None = None) -> Tensor:
        """An upper bound of <g, z - x> over the ball: radius × dual (L0: the sum of its largest gains)."""
        return self.norm(g.shape[1:]).support(self._masked(g), self._radius(g, radius), self._width(g))

    def prox(self, delta: Tensor, weight: Tensor | float) -> Tensor:
        """The proximal operator of weight·size at delta."""
        norm = self.norm(delta.shape[1:])
        return norm.prox(delta.flatten(1), self._radius(delta, weight)).view_as(delta)

    def hyperplane(self, x: Tensor, w: Tensor, offset: Tensor) -> Tensor:
        """The smallest step d with <w, d> = offset and x + d in the box (the ball does not matter here)."""
        norm = self.norm(x.shape[1:])
        return norm.hyperplane(x.flatten(1), self._masked(w), offset, self.box(x)).view_as(x)

    def sample(self, x: Tensor, uniform: Draw, normal: Draw, radius: Tensor | float | None = None) -> Tensor:
        """A random point of the set: uniform in the ball, then clipped to the box.

        `uniform` and `normal` make draws of x's shape, in (0, 1) and standard normal; only what is needed is asked for.
        """
        norm, box = self.norm(x.shape[1:]), self.box(x)
        step = norm.sample(lambda: uniform().flatten(1), lambda: normal().flatten(1), self._radius(x, radius), box)
        return clip(x.flatten(1) + step, box).view_as(x)

    def _width(self, g: Tensor) -> Tensor:
        low, high = (_flat(b, g) for b in self.bounds)
        return high - low


def _flat(value: Bound, x: Tensor) -> Tensor:
    """A float, or a tensor that broadcasts to one example, as something that broadcasts to (N, D)."""
    kind = value.dtype if isinstance(value, Tensor) and value.dtype == torch.bool else x.dtype
    given = torch.as_tensor(value, dtype=kind, device=x.device)
    if given.dim() == 0:
        return given
    try:
        return given.expand(x.shape[1:]).reshape(1, -1)
    except RuntimeError:
        raise ParameterError(
            f"A bound or mask of shape {tuple(given.shape)} does not broadcast to one example of shape "
            f"{tuple(x.shape[1:])}."
        ) from None


@dataclass(frozen=True, eq=False)
class Linf(Threat):
    """Every component may change by at most eps."""

    def norm(self, shape: torch.Size) -> Norm:
        """See `Threat`."""
        return LinfNorm()


@dataclass(frozen=True, eq=False)
class L2(Threat):
    """The change has Euclidean length at most eps."""

    def norm(self, shape: torch.Size) -> Norm:
        """See `Threat`."""
        return L2Norm()


@dataclass(frozen=True, eq=False)
class L1(Threat):
    """The changes add up to at most eps."""

    def norm(self, shape: torch.Size) -> Norm:
        """See `Threat`."""
        return L1Norm()


@dataclass(frozen=True, eq=False)
class L0(Threat):
    """At most eps components change; with `pixels`, at most eps pixels, all channels of a pixel counting as one."""

    pixels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.pixels, bool):
            raise must_be("L0", "pixels", "true or false", self.pixels)
        if math.isfinite(self.eps) and (self.eps < 1 or self.eps != int(self.eps)):
            raise must_be("L0", "eps", "a whole number of components, 1 or more", self.eps)

    def norm(self, shape: torch.Size) -> Norm:
        """See `Threat`."""
        return L0Norm(shape[0] if self.pixels and len(shape) > 1 else 1)

    def _more(self) -> list[str]:
        return ["pixels=true"] if self.pixels else []


THREATS: dict[str, type[Threat]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
