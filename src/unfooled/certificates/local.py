"""The first part of the way back from an outcome, while few coefficients are not zero."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from .bounds import Bounds, Lines, lines_of
from .graph import Step
from .operations import Affine, Elementwise, Maximum
from .patches import Columns, Patches

Few = TypeVar("Few", Patches, Columns)
Kept = dict[int, tuple[Tensor, Tensor, Tensor]]
"""By number of an outcome that a matrix made: the columns that were asked for, which places before it matter, and the matrix
there; of one image."""


def locally(
    found: Bounds, number: int, chosen: Tensor, signs: Tensor, row: int, kept: Kept
) -> tuple[dict[int, Tensor], Tensor]:
    """The way back from some numbers of an outcome, times signs, while few coefficients are not zero, for one image.

    Gives where it ends, by number of an outcome, the coefficients there (1, rows, *shape), and an offset of the lower bounds
    (rows,).
    """
    shape = found.network.shape_of(number)
    if len(shape) == 3:
        return _locally(found, number, Patches.units(chosen, shape, signs), row, kept)
    if len(shape) == 1:
        return _locally(found, number, Columns.units(chosen, shape, signs), row, kept)
    rows = signs.new_zeros((len(chosen), shape.numel()))
    rows[torch.arange(len(chosen)), chosen] = signs
    return {number: rows.view(1, len(chosen), *shape)}, signs.new_zeros(len(chosen))


def _locally(found: Bounds, number: int, units: Few, row: int, kept: Kept) -> tuple[dict[int, Tensor], Tensor]:
    waiting, offset = {number: units}, units.values.new_zeros(len(units.values))
    while (at := max(waiting)) and waiting[at].small and _goes_on(found.network.steps[at - 1], waiting[at]):
        few = waiting.pop(at)
        offset = offset - few.sum_with(found.rounding[at][row], absolute=True)
        parts, constant = _through(found, at, few, row, kept)
        offset = offset + constant
        for source, part in zip(found.network.steps[at - 1].inputs, parts, strict=True):
            waiting[source] = waiting[source].plus(part) if source in waiting else part
    return {at: few.dense()[None] for at, few in waiting.items()}, offset


def _goes_on(step: Step, few: Patches | Columns) -> bool:
    """Whether few coefficients stay few: where numbers keep their places, and through windows or a matrix."""
    operation = step.operation
    if not isinstance(operation, Affine):
        return isinstance(operation, Elementwise)
    mixed = operation.kernel if isinstance(few, Patches) else operation.matrix
    return operation.apart or bool(operation.factors) or mixed is not None


def _through(found: Bounds, at: int, few: Few, row: int, kept: Kept) -> tuple[list[Few], Tensor]:
    """Coefficients of what an outcome is made from, for each of its inputs, and what is constant in them (rows,)."""
    step = found.network.steps[at - 1]
    operation = step.operation
    assert not isinstance(operation, Maximum)
    if isinstance(operation, Elementwise):
        part, total = _through_curve(few, lines_of(found, at), row)
        return [part], total
    if operation.factors:
        return [few.scaled(few.values * factor) for factor in operation.factors], few.values.new_zeros(len(few.values))
    if operation.apart:
        constant = found.constant(at)
        slope = operation.function(torch.ones_like(constant)) - constant
        return [few.scaled(few.values * few.at(slope[0]))], few.sum_with(constant[0])
    shape = found.network.shape_of(step.inputs[0])
    if isinstance(few, Patches):
        assert operation.kernel is not None
        bias = operation.kernel.bias
        return [few.back(operation.kernel, shape)], few.values.new_zeros(()) if bias is None else few.total(bias)
    assert operation.matrix is not None
    if at not in kept or not torch.equal(kept[at][0], few.index):
        places = _needed(found, step.inputs[0], row).nonzero().squeeze(1)
        kept[at] = few.index, places, operation.matrix[few.index[:, None], places]
    return [few.through(*kept[at][1:], shape)], few.sum_with(found.constant(at)[0])


def _needed(found: Bounds, number: int, row: int) -> Tensor:
    """Of which numbers of a vector coefficients matter: those after a curve whose lines are 0 there do not."""
    if not number or not isinstance(found.network.steps[number - 1].operation, Elementwise):
        return torch.ones(found.network.shape_of(number), dtype=torch.bool)
    lines = lines_of(found, number)
    return torch.stack([one[row] != 0 for one in (*lines.under, *lines.over, found.rounding[number])]).any(0)


def _through_curve(few: Few, lines: Lines, row: int) -> tuple[Few, Tensor]:
    """Coefficients that go through a curve's lines, and what is constant in them (rows,)."""
    (under, low), (over, high) = ((slope[row], shift[row]) for slope, shift in (lines.under, lines.over))
    constant = few.scaled(few.values.clamp(min=0)).sum_with(low) + few.scaled(few.values.clamp(max=0)).sum_with(high)
    return replace(few, values=few.values * torch.where(few.values > 0, few.at(under), few.at(over))), constant
