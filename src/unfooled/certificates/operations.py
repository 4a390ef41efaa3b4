"""What a network is made of, as the bounds see it: affine maps, curves and maxima, on rows (one image each)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .curves import Curve


@dataclass(frozen=True)
class Kernel:
    """A two-dimensional convolution of one group, without dilation: weight (out, in, kh, kw), bias, stride, padding."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """An affine map of one or several tensors (rows, *shape).

    function:  the map.
    absolute:  the same with the absolute value of every coefficient and no constant term.
    terms:     how many products are added up, at most, for one number that comes out; 0: numbers are only moved.
    mixes:     whether a number that comes out may depend on several that go in.
    adjoint:   the transposed coefficients, applied to (rows, *shape of what comes out); None: by torch's own gradient.
    kernel:    where it is a convolution of images.
    matrix:    where it is a product of vectors with a matrix (out, in).
    apart:     whether each number depends on the one at its own place alone.
    factors:   where it is a sum of tensors of one shape, each times one of these.
    beside:    sizes of numbers that are added and taken away again in what comes out; rounding counts them.
    """

    function: Callable[..., Tensor]
    absolute: Callable[..., Tensor]
    terms: int = 0
    mixes: bool = False
    adjoint: Callable[[Tensor], Tensor] | None = None
    kernel: Kernel | None = None
    apart: bool = False
    beside: Tensor | float = 0.0
    matrix: Tensor | None = None
    factors: tuple[float, ...] = ()

    def constant(self, *inputs: Tensor) -> Tensor:
        """What comes out where zeros go in: (1, *shape)."""
        return self.function(*(torch.zeros_like(one[:1]) for one in inputs))

    def back(self, gradient: Tensor, shapes: tuple[torch.Size, ...]) -> tuple[Tensor, ...]:
        """The transposed coefficients applied to `gradient` (rows, *shape), for inputs of these shapes."""
        if self.adjoint is not None:
            return (self.adjoint(gradient),)
        zeros = [gradient.new_zeros((len(gradient), *shape)) for shape in shapes]
        pull = torch.func.vjp(self.function, *zeros)[1]
        pulled: tuple[Tensor, ...] = pull(gradient)
        return pulled


@dataclass(frozen=True)
class Elementwise:
    """A curve, applied to each number."""

    curve: Curve


@dataclass(frozen=True)
class Maximum:
    """The largest of the numbers in each window.

    index:  (k, *shape of what comes out): the places, in the flat input, of the k numbers of each window; where a window
            has fewer (at a border) some come twice.
    """

    index: Tensor

    def windows(self, x: Tensor) -> Tensor:
        """(rows, *shape) to (rows, k, *shape of what comes out)."""
        return x.flatten(1)[:, self.index]

    def back(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The numbers of windows (rows, k, *out), added up where they came from: (rows, *shape)."""
        flat = gradient.new_zeros((len(gradient), shape.numel()))
        return flat.index_add(1, self.index.flatten(), gradient.flatten(1)).view(len(gradient), *shape)


Operation = Affine | Elementwise | Maximum
