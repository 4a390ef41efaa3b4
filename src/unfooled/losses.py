"""Losses by registered name. All are what an attack *maximises*: higher is nearer to the goal.

A loss maps logits (N, C) and a `Goal` to (N,). The oracle has subtracted each row's largest logit before, so a
constant added to all logits changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import must_be, unknown
from .goals import Goal, pick, rival

Loss = Callable[[Tensor, Goal], Tensor]


def cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    """-log p_y; with a target t: log p_t. Goodfellow et al. 2015, arXiv:1412.6572."""
    if goal.toward is None:
        return F.cross_entropy(logits, goal.label, reduction="none")
    return -F.cross_entropy(logits, goal.toward, reduction="none")


def mse(logits: Tensor, goal: Goal) -> Tensor:
    """The mean over classes of (p - onehot_y)²; with a target t: minus that to onehot_t."""
    wanted = goal.label if goal.toward is None else goal.toward
    gap = logits.softmax(1) - F.one_hot(wanted, logits.shape[1])
    error = gap.square().mean(1)
    return error if goal.toward is None else -error


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """max over i ≠ y of z_i, less z_y; with a target z_t less the largest other; with an aim, z_t - z_y.

    Carlini & Wagner 2017, arXiv:1608.04644, section V-A, f6.
    """
    if goal.target is not None:
        return pick(logits, goal.target) - rival(logits, goal.target)
    if goal.aim is not None:
        return pick(logits, goal.aim) - pick(logits, goal.label)
    return rival(logits, goal.label) - pick(logits, goal.label)


def probability_margin(logits: Tensor, goal: Goal) -> Tensor:
    """The margin of softmax shares instead of logits. Xie et al. 2024, arXiv:2411.15210 (PMA)."""
    return margin(logits.softmax(1), goal)


def dlr(logits: Tensor, goal: Goal) -> Tensor:
    """Difference of logits ratio, which no rescaling of the logits changes. Croce & Hein 2020, arXiv:2003.01690.

    -(z_y - max_{i≠y} z_i)/(z_(1) - z_(3)); towards t: -(z_y - z_t)/(z_(1) - (z_(3) + z_(4))/2). Where y ranks third the
    first would be 1, whatever the logits: there z_(4) takes the place of z_(3). Below 4 classes the ratio towards t has
    no denominator, and with 3 there is no z_(4): there the margin stands in.
    """
    if logits.shape[1] < 4:
        return margin(logits, goal)
    top, ranked = logits.topk(4, dim=1)
    if goal.toward is None:
        third = torch.where(ranked[:, 2] == goal.label, top[:, 3], top[:, 2])
        return (rival(logits, goal.label) - pick(logits, goal.label)) / (top[:, 0] - third + 1e-12)
    gap = pick(logits, goal.toward) - pick(logits, goal.label)
    return gap / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "margin": margin,
    "probability_margin": probability_margin,
    "dlr": dlr,
}
_SHORT = {"ce": "cross_entropy", "cw": "margin"}


def named(name: str) -> Loss:
    """The loss of that name, or the short names ce and cw."""
    if not isinstance(name, str):
        raise must_be("an attack", "loss", "the name of a loss", name)
    loss = LOSSES.get(_SHORT.get(name, name))
    if loss is None:
        raise unknown("loss", name, LOSSES)
    return loss


def shifted(logits: Tensor) -> Tensor:
    """Logits with each row's maximum at 0, so that no constant in them can cost precision."""
    return logits - logits.detach().amax(1, keepdim=True)


__all__ = ["LOSSES", "Loss", "cross_entropy", "dlr", "margin", "mse", "named", "probability_margin", "shifted"]
