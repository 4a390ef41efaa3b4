"""Coefficients that are written down where they are not zero alone: within windows of feature maps, or for some columns.

A number of a feature map depends on a few places of the map before it. Coefficients of it need not be written down for all
others: a patch holds those within its window, and grows by the kernel's size with each convolution on the way back
(auto_LiRPA, Xu et al. 2020, arXiv:2002.12920, has this too). A number of a vector depends on all numbers before it, but
most ReLUs are off on the whole set: `Columns` leaves those out. What comes back by several ways, as from the sum of a block
and its shortcut, is added up where they meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .operations import Kernel


@dataclass(frozen=True)
class Patches:
    """Coefficients (rows, channels, kh, kw) of feature maps (channels, height, width).

    origin:  (rows, 2) int64: where in the map the first of them stands; it may lie outside.
    """

    values: Tensor
    origin: Tensor
    shape: torch.Size

    @classmethod
    def units(cls, chosen: Tensor, shape: torch.Size, signs: Tensor) -> Patches:
        """One row for each chosen place in the flat map: its sign there."""
        side = shape[1] * shape[2]
        values = signs.new_zeros((len(chosen), shape[0], 1, 1))
        values[torch.arange(len(chosen)), chosen // side, 0, 0] = signs
        place = chosen % side
        return cls(values, torch.stack([place // shape[2], place % shape[2]], 1), shape)

    def _places(self) -> tuple[Tensor, Tensor]:
        """Where each coefficient stands in the flat map of a channel, (rows, kh, kw), and whether it is inside."""
        high, wide = self.shape[1:]
        down = self.origin[:, :1, None] + torch.arange(self.values.shape[2])[None, :, None]
        across = self.origin[:, 1:, None] + torch.arange(self.values.shape[3])[None, None, :]
        inside = (down >= 0) & (down < high) & (across >= 0) & (across < wide)
        return down.clamp(0, high - 1) * wide + across.clamp(0, wide - 1), inside

    def at(self, maps: Tensor) -> Tensor:
        """The numbers of a map (channels, height, width) under each coefficient: (rows, channels, kh, kw); 0 outside."""
        high, wide = self.values.shape[2:]
        first, last = self.origin.amin(0).clamp(max=0), self.origin.amax(0) + torch.tensor([high, wide])
        beyond = (last - torch.tensor(self.shape[1:])).clamp(min=0)
        padded = F.pad(maps, (-int(first[1]), int(beyond[1]), -int(first[0]), int(beyond[0])))
        windows = padded.unfold(1, high, 1).unfold(2, wide, 1).permute(1, 2, 0, 3, 4)
        return windows[tuple((self.origin - first).T)]

    def scaled(self, values: Tensor) -> Patches:
        """Other coefficients at the same places."""
        return Patches(values, self.origin, self.shape)

    @property
    def small(self) -> bool:
        """Whether there are so few coefficients that leaving the others out is worth it: for at most half of the places."""
        return 2 * self.values.shape[2] * self.values.shape[3] <= self.shape[1] * self.shape[2]

    def sum_with(self, maps: Tensor, absolute: bool = False) -> Tensor:
        """The sum (rows,) of the coefficients, or of their sizes, times the numbers of a map (channels, height, width)."""
        if not bool(maps.any()):
            return self.values.new_zeros(len(self.values))
        values = self.values.abs() if absolute else self.values
        return (values * self.at(maps)).flatten(1).sum(1)

    def plus(self, other: Patches) -> Patches:
        """The sum with those of the same rows and the same map that came another way, within one window."""
        first = torch.minimum(self.origin, other.origin)
        shifts = [one.origin - first for one in (self, other)]
        if any(bool((shift != shift[:1]).any()) for shift in shifts):  # the ways move windows by different strides
            return Patches(self.dense() + other.dense(), torch.zeros_like(first), self.shape)
        corners = [shift[0].tolist() if len(shift) else [0, 0] for shift in shifts]
        ends = [
            (down + one.values.shape[2], across + one.values.shape[3])
            for (down, across), one in zip(corners, (self, other), strict=True)
        ]
        high, wide = (max(end) for end in zip(*ends, strict=True))
        total = self.values.new_zeros((*self.values.shape[:2], high, wide))
        for one, (down, across), (below, right) in zip((self, other), corners, ends, strict=True):
            total[:, :, down:below, across:right] += one.values
        return Patches(total, first, self.shape)

    def total(self, bias: Tensor) -> Tensor:
        """The sum (rows,) of the coefficients times a number for each channel. Those outside must be 0."""
        return torch.einsum("rchw,c->r", self.values, bias)

    def back(self, kernel: Kernel, shape: torch.Size) -> Patches:
        """Coefficients of what a convolution was made from, feature maps of that shape."""
        grown = F.conv_transpose2d(self.values, kernel.weight, stride=kernel.stride)
        step = torch.tensor(kernel.stride)
        found = Patches(grown, self.origin * step - torch.tensor(kernel.padding), shape)
        return found.scaled(grown * found._places()[1][:, None])

    def dense(self) -> Tensor:
        """The same, written down for every place: (rows, channels, height, width)."""
        places, _ = self._places()
        rows, channels = self.values.shape[:2]
        flat = self.values.new_zeros((rows, channels, self.shape[1] * self.shape[2]))
        index = places[:, None].expand(-1, channels, -1, -1).flatten(2)
        return flat.scatter_add_(2, index, self.values.flatten(2)).view(rows, *self.shape)


@dataclass(frozen=True)
class Columns:
    """Coefficients (rows, k) of the k numbers of a vector whose places are in `index`; 0 for the others."""

    values: Tensor
    index: Tensor
    shape: torch.Size

    @classmethod
    def units(cls, chosen: Tensor, shape: torch.Size, signs: Tensor) -> Columns:
        """One row for each chosen place: its sign there."""
        return cls(signs.diag(), chosen, shape)

    def at(self, vector: Tensor) -> Tensor:
        """The numbers of a vector that stand under the coefficients: (k,)."""
        return vector[self.index]

    def scaled(self, values: Tensor) -> Columns:
        """Other coefficients at the same places."""
        return Columns(values, self.index, self.shape)

    @property
    def small(self) -> bool:
        """Always so: they never grow beyond the vector."""
        return True

    def sum_with(self, vector: Tensor, absolute: bool = False) -> Tensor:
        """The sum (rows,) of the coefficients, or of their sizes, times the numbers of a vector."""
        under = self.at(vector)
        if not bool(under.any()):
            return self.values.new_zeros(len(self.values))
        return (self.values.abs() if absolute else self.values) @ under

    def plus(self, other: Columns) -> Columns:
        """The sum with those of the same rows and the same vector that came another way."""
        index = torch.cat([self.index, other.index]).unique()
        total = self.values.new_zeros((len(self.values), len(index)))
        for one in (self, other):
            total.index_add_(1, torch.searchsorted(index, one.index), one.values)
        return Columns(total, index, self.shape)

    def through(self, places: Tensor, part: Tensor, shape: torch.Size) -> Columns:
        """Coefficients of what a matrix was multiplied with, a vector of that shape, at some places.

        part:  of the matrix: the rows of these columns, at the places.
        """
        return Columns(self.values @ part, places, shape)

    def dense(self) -> Tensor:
        """The same, written down for every place: (rows, length)."""
        whole = self.values.new_zeros((len(self.values), self.shape.numel()))
        return whole.index_add_(1, self.index, self.values)  # one that is chosen twice stands there twice
