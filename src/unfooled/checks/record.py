"""The record of a run, kept while it runs: what the looks of its attacks have shown, example by example."""

from __future__ import annotations

from typing import Any

import torch

from ..oracle import Seen

LAST = 10  # looks at the end of a trial that should no longer raise the loss (Pintor et al. 2022, indicator 4)


class Record:
    """Watches every look by gradient; see `Oracle.observer`. The examples are rows 0 … count - 1 of one attack.

    zero:  (N,) whether some look had a gradient of zero on a point that did not fool.
    """

    def __init__(self, count: int) -> None:
        self.zero = torch.zeros(count, dtype=torch.bool)
        self.looks = torch.zeros(count, dtype=torch.int64)
        self.least = torch.full((count,), torch.inf, dtype=torch.float64)
        self.best = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.recent = torch.full((count, LAST + 1), -torch.inf, dtype=torch.float64)  # the best loss, look by look

    def __call__(self, seen: Seen) -> None:
        """Take in a look."""
        flat = (seen.look.gradient.flatten(1).abs().amax(1) == 0) & ~seen.look.fooled
        self.zero[seen.example[flat.cpu()]] = True
        first = seen.first.cpu()
        example, loss = seen.example[first], seen.look.loss.detach().cpu().double()[first]
        if len(example) != len(example.unique()):  # several points of one example: their order is not that of a trial
            return
        self.looks[example] += 1
        self.least[example] = torch.minimum(self.least[example], loss)
        self.best[example] = torch.maximum(self.best[example], loss)
        self.recent[example] = torch.cat([self.recent[example, 1:], self.best[example, None]], dim=1)

    def rise(self, left: torch.Tensor) -> list[float]:
        """How much of the loss's whole rise came in the last looks, for each of the examples left (N,) with enough."""
        enough = left.cpu() & (self.looks > 2 * LAST)
        whole = (self.best - self.least)[enough]
        late = (self.recent[:, -1] - self.recent[:, 0])[enough]
        share = torch.where(whole > 0, late / whole.clamp_min(1e-300), 0.0)
        return [float(value) for value in share.nan_to_num(0.0, posinf=0.0)]

    def summary(self, left: torch.Tensor) -> dict[str, Any]:
        """Plain numbers, for the run folder; left: (N,) the examples that held."""
        rises = self.rise(left)
        return {
            "zero": int(self.zero.sum()),
            "looked": int((self.looks > 0).sum()),
            "late_rise": sum(rises),
            "late_rises": len(rises),
        }
