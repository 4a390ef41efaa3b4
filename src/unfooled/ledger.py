"""Trials, and the ledger of what has been found for every example."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .threats import Threat

NEVER = torch.iinfo(torch.int64).max
Rows = TypeVar("Rows")


def take(rows: Rows, index: Tensor) -> Rows:
    """Some rows of a dataclass of tensors."""
    return replace(rows, **{name: t[index.to(t.device)] for name, t in _tensors(rows).items()})  # type: ignore[type-var]


def where(rows: Rows, mask: Tensor) -> Rows:
    """Those rows where the mask (B,) holds; if it does everywhere, nothing is copied."""
    return rows if bool(mask.all()) else take(rows, mask.nonzero().squeeze(1))


def join(first: Rows, second: Rows) -> Rows:
    """The rows of two such dataclasses, one after the other."""
    others = _tensors(second)
    return replace(first, **{n: torch.cat([t, others[n]]) for n, t in _tensors(first).items()})  # type: ignore[type-var]


def _tensors(rows: Any) -> dict[str, Tensor]:
    return {f.name: v for f in fields(rows) if isinstance(v := getattr(rows, f.name), Tensor)}


def first_of_each(key: Tensor) -> Tensor:
    """Positions of the first occurrence of every value of key (M,)."""
    order = key.argsort(stable=True)
    ordered = key[order]
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return order[new]


@dataclass(frozen=True)
class Trials:
    """Trials in the pool, one a row: which example, which number, its image, label, class aimed at (or -1) and id.

    `example` stays on the CPU, where the ledger is; the rest is on the model's device.
    """

    example: Tensor
    number: Tensor
    x: Tensor
    label: Tensor
    toward: Tensor
    ids: Tensor
    fresh: Tensor  # its first look is at the image itself and tells whether the model is right there

    def __len__(self) -> int:
        return len(self.example)


@dataclass(frozen=True)
class Trace:
    """Improvements in the order in which they were found, one a row.

    example:   (M,) whose.
    passes:    (M,) forward and backward passes that had been spent on the example by then.
    distance:  (M,) float64 the size reached. Of a fixed budget, the size of the point that fooled.
    """

    example: Tensor
    passes: Tensor
    distance: Tensor

    def at(self, passes: int, count: int) -> Tensor:
        """(count,) the smallest distance of examples 0 … count - 1 within that many passes; inf where there is none."""
        early = self.passes <= passes
        best = torch.full((count,), torch.inf, dtype=torch.float64)
        return best.scatter_reduce(0, self.example[early], self.distance[early], "amin")


class Ledger:
    """What is known of every example: the best point so far, from which trial, how far from the image."""

    def __init__(self, images: Tensor, threat: Threat) -> None:
        count = len(images)
        self.threat = threat
        self.adversarial = images.clone()
        self.distance = torch.full((count,), torch.inf, dtype=torch.float64)
        self.winner = torch.full((count,), NEVER)  # the number of the trial that succeeded
        self.last = torch.full((count,), NEVER)  # the number of the trial whose end is kept for want of a success
        self.correct = torch.zeros(count, dtype=torch.bool)
        self.prediction = torch.full((count,), -1)  # what the model answers on the image
        self.screened = torch.zeros(count, dtype=torch.bool)
        self.lead = torch.full((count,), torch.inf, dtype=torch.float64)  # the least that the label has led by so far
        self.outside = 0
        self.notes: list[str] = []
        self.improvements: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def fooled(self) -> Tensor:
        """(N,) which examples a confirmed point has been found for."""
        return self.winner != NEVER

    def open(self) -> Tensor:
        """Indices of the examples that a further stage has work with."""
        return (~self.screened | (self.correct & ~self.fooled)).nonzero().squeeze(1)

    def screen(self, example: Tensor, logits: Tensor, correct: Tensor) -> None:
        """Note what the model answers on these images (M, C), and whether that counts as right (M,)."""
        self.screened[example] = True
        self.prediction[example] = logits.argmax(1).cpu()
        self.correct[example] = correct.cpu()

    def see(self, example: Tensor, lead: Tensor) -> None:
        """Note by how much the label leads at points (M,) that were asked about."""
        self.lead.scatter_reduce_(0, example, lead.cpu().double(), "amin")

    def trace(self) -> Trace:
        """When which distance was reached."""
        parts = zip(*self.improvements, strict=True) if self.improvements else ([], [], [])
        example, passes, distance = (torch.cat(list(part)) if part else torch.zeros(0) for part in map(list, parts))
        return Trace(example.long(), passes.long(), distance.double())

    def offer(self, rows: Trials, z: Tensor, spent: Tensor, minimal: bool, final: bool = False) -> None:
        """Keep confirmed adversarial points (M, *shape) where they are better than what is held.

        spent:  (M,) passes that their examples have taken so far.

        Minimum norm: the smaller one. Fixed budget: the one of the lower trial; of one trial its end, if that fools,
        else the first that did.
        """
        size = self.threat.size(z.double() - rows.x.double()).clamp(max=self.threat.eps).cpu()
        example, number = rows.example, rows.number.cpu()
        if minimal:
            order = size.argsort(stable=True)
        else:
            order = number.argsort(stable=True)
        order = order[first_of_each(example[order])]
        example, number, size = example[order], number[order], size[order]
        if minimal:
            better = size < self.distance[example]
        else:
            better = (number < self.winner[example]) | (final & (number == self.winner[example]))
        kept, order = example[better], order[better]
        self.winner[kept], self.distance[kept] = number[better], size[better]
        self.improvements.append((kept, spent[order], size[better]))
        self._store(kept, z[order.to(z.device)])

    def end(self, rows: Trials, z: Tensor) -> None:
        """Keep the last points of trials that did not succeed, where there is no success; of the lowest trial."""
        example, number = rows.example, rows.number.cpu()
        order = number.argsort(stable=True)
        order = order[first_of_each(example[order])]
        example, number = example[order], number[order]
        kept = (self.winner[example] == NEVER) & (number < self.last[example])
        self.last[example[kept]] = number[kept]
        self._store(example[kept], z[order[kept].to(z.device)])

    def _store(self, example: Tensor, z: Tensor) -> None:
        held = self.adversarial
        held[example.to(held.device)] = z.to(held.device, held.dtype)
