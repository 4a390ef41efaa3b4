"""Adversarial weight perturbation. Wu, Xia & Wang 2020, arXiv:2004.05884, equations 7 to 10."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def worst_weights(module: nn.Module, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Take the loss, and its gradient, where the weights are worst nearby: each matrix moved by gamma times its own norm.

    loss:   the mean loss at the weights as they are; its gradient shows the way, in one step (their section 3.3).
    gamma:  the size of the move. 0: none.

    The weights are afterwards what they were, to the bit; gradients taken inside stay.
    """
    if not gamma:
        yield
        return
    loss().backward()  # so that gradients are averaged over devices
    moved = [p for p in module.parameters() if p.requires_grad and p.grad is not None and p.dim() > 1]
    before = [p.detach().clone() for p in moved]
    with torch.no_grad():
        for p in moved:
            assert p.grad is not None
            p.add_(p.grad * (gamma * p.norm() / (p.grad.norm() + 1e-12)))
    module.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, held in zip(moved, before, strict=True):
                p.copy_(held)
