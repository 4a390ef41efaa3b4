"""One backward pass of linear bounds through boxes: the CROWN half of CROWN-IBP.

Zhang et al. 2020, arXiv:1906.06316, section 3.2: intervals bound what goes into each activation, and a linear function of the
logits is taken back to the input through a line under or over each of them. Gradients flow through both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import Boxes, Made


def margins(seen: Boxes, label: Tensor) -> Tensor:
    """Of logits (N, classes): lower bounds of the label's less each, 0 at the label."""
    eye = torch.eye(seen.value.shape[1], dtype=seen.value.dtype, device=seen.value.device)
    return least(seen, eye[label][:, None] - eye).scatter(1, label[:, None], 0.0)


def least(seen: Boxes, rows: Tensor) -> Tensor:
    """Lower bounds of linear functions (N, R, *shape) of what came out of a pass: (N, R)."""
    pending = {id(seen): rows}
    total = rows.new_zeros(rows.shape[:2])
    for boxes in _backwards(seen):
        rows = pending.pop(id(boxes))
        if boxes.made is None:
            total = total + _at_worst(boxes, rows)
            continue
        if boxes.made.function is None:
            parts, constant = _through_bend(boxes.made, rows)
        else:
            parts, constant = _through_affine(boxes.made, rows)
        total = total + constant
        for one, part in zip(boxes.made.inputs, parts, strict=True):
            pending[id(one)] = pending[id(one)] + part if id(one) in pending else part
    return total


def _backwards(seen: Boxes) -> list[Boxes]:
    """What came out of a pass, each before what it was made of."""
    order: list[Boxes] = []
    known: set[int] = set()
    stack = [(seen, False)]
    while stack:
        boxes, done = stack.pop()
        if done:
            order.append(boxes)
        elif id(boxes) not in known:
            known.add(id(boxes))
            stack.append((boxes, True))
            stack += [(one, False) for one in (boxes.made.inputs if boxes.made else ())]
    return order[::-1]


def _through_affine(made: Made, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The same functions of the inputs, and the constants (N, R)."""
    assert made.function is not None
    zeros = [torch.zeros_like(one.value) for one in made.inputs]
    constant, back = torch.func.vjp(made.function, *zeros)  # type: ignore[misc]  # nothing aside
    parts = torch.func.vmap(back, in_dims=1, out_dims=1)(rows)
    return parts, (rows * constant[:, None]).flatten(2).sum(2)


def _through_bend(made: Made, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The same of max(x, slope · x): a line under it where a coefficient is positive, one over it where it is negative."""
    (before,), slope = made.inputs, made.slope
    low, high = before.low, before.high
    on, off = low >= 0, high <= 0
    across = ~(on | off)
    width = torch.where(across, high - low, 1.0)
    over = torch.where(across, (high - slope * low) / width, torch.where(on, 1.0, slope))
    under = torch.where(on | (across & (high > -low)), 1.0, slope)
    gap = torch.where(across, high * (1 - over), 0.0)
    up, down = rows.clamp_min(0), rows.clamp_max(0)
    return (up * under[:, None] + down * over[:, None],), (down * gap[:, None]).flatten(2).sum(2)


def _at_worst(boxes: Boxes, rows: Tensor) -> Tensor:
    """Where nothing more is known of them than their box."""
    centre, radius = boxes.centre[:, None], boxes.radius[:, None]
    return (rows * centre).flatten(2).sum(2) - (rows.abs() * radius).flatten(2).sum(2)
