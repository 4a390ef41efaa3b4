"""Exact margins of small networks by mixed-integer programming, with nothing of the library in it.

Every tensor of the network is an affine expression in the variables so far: the input, and one variable for each unit
whose sign the box leaves open. Big-M constants come from interval arithmetic on these expressions. Tjeng, Xiao & Tedrake
2019, arXiv:1711.07356, with HiGHS as the solver. Modules alone are read: Sequential, sums, branches, affine layers,
ReLU, LeakyReLU, max pooling.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor, nn

from random_networks import SIGNS, Case, Concat, Constant, Normalize, Reuse, Sum

AFFINE = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool1d, nn.AvgPool2d, nn.Flatten, nn.Unflatten, nn.Dropout,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Identity, Normalize, Constant,
)  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """A tensor of that shape: matrix @ variables + offset, flat. Variables that came later have no column."""

    matrix: np.ndarray
    offset: np.ndarray
    shape: tuple[int, ...]

    def wide(self, columns: int) -> np.ndarray:
        return np.pad(self.matrix, ((0, 0), (0, columns - self.matrix.shape[1])))


class Program:
    """Variables with bounds, constraints row by row, and the walk through the network that makes them."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """The input is centre + half·t with t in [-1, 1], so that a tiny box is as well scaled as a large one."""
        centre, half = (low + high) / 2, (high - low) / 2
        self.low, self.high, self.whole = [-1.0] * x.size, [1.0] * x.size, [0] * x.size
        self.rows: list[tuple[np.ndarray, float]] = []  # row @ variables >= number
        self.start = Expression(np.diag(half.ravel()), centre.ravel(), x.shape)

    def new(self, low: float, high: float, whole: bool = False) -> int:
        self.low.append(low), self.high.append(high), self.whole.append(int(whole))
        return len(self.low) - 1

    def at_least(self, number: float, row: np.ndarray | None = None, **variables: tuple[int, float]) -> None:
        """row @ variables + the sum of coefficients times variables >= number."""
        whole = np.zeros(len(self.low))
        if row is not None:
            whole[: len(row)] += row
        for at, coefficient in variables.values():
            whole[at] += coefficient
        self.rows.append((whole, number))

    def interval(self, e: Expression) -> tuple[np.ndarray, np.ndarray]:
        low, high = (np.asarray(side[: e.matrix.shape[1]]) for side in (self.low, self.high))
        up, down = np.maximum(e.matrix, 0), np.minimum(e.matrix, 0)
        return up @ low + down @ high + e.offset, up @ high + down @ low + e.offset

    # --- the walk ---

    def walk(self, m: nn.Module, e: Expression) -> Expression:
        if isinstance(m, nn.Sequential):
            for part in m:
                e = self.walk(part, e)
            return e
        if isinstance(m, Sum):
            a, b = (self.walk(part, e) for part in (m.body, m.shortcut))
            s, t = SIGNS.get(m.spelling, (1.0, 1.0))
            n = len(self.low)
            return Expression(s * a.wide(n) + t * b.wide(n), s * a.offset + t * b.offset, a.shape)
        if isinstance(m, Concat):
            parts = [self.walk(branch, e) for branch in m.branches]
            shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
            matrix = np.concatenate([p.wide(len(self.low)) for p in parts])
            return Expression(matrix, np.concatenate([p.offset for p in parts]), shape)
        if isinstance(m, Reuse):
            y = self.walk(m.body, e)
            return Expression(0.5 * y.matrix, 0.5 * y.offset, y.shape)
        if isinstance(m, nn.ReLU):
            return self.relu(e, 0.0)
        if isinstance(m, nn.LeakyReLU):
            return self.relu(e, m.negative_slope)
        if isinstance(m, nn.MaxPool1d | nn.MaxPool2d):
            return self.max_pool(m, e)
        if isinstance(m, AFFINE):
            return affine(m, e)
        raise TypeError(f"The exact solver cannot read {type(m).__name__}.")

    def relu(self, e: Expression, slope: float) -> Expression:
        """slope·e + (1 - slope)·max(e, 0): a variable for the second where e may have either sign."""
        low, high = self.interval(e)
        matrix, offset = e.matrix * (low >= 0)[:, None], e.offset * (low >= 0)
        matrix = np.pad(matrix, ((0, 0), (0, len(self.low) - matrix.shape[1])))
        for unit in np.flatnonzero((low < 0) & (high > 0)):
            row, c = e.matrix[unit], e.offset[unit]
            r, on = self.new(0.0, high[unit]), self.new(0, 1, whole=True)
            self.at_least(c, -row, r=(r, 1))  # r >= e
            self.at_least(-c + low[unit], row, r=(r, -1), on=(on, low[unit]))  # r <= e - low (1 - on)
            self.at_least(0.0, r=(r, -1), on=(on, high[unit]))  # r <= high·on
            matrix = np.pad(matrix, ((0, 0), (0, len(self.low) - matrix.shape[1])))
            matrix[unit, r] = 1.0
        whole = (1 - slope) * matrix + slope * e.wide(len(self.low))
        return Expression(whole, (1 - slope) * offset + slope * e.offset, e.shape)

    def max_pool(self, m: nn.MaxPool1d | nn.MaxPool2d, e: Expression) -> Expression:
        low, high = self.interval(e)
        places = np.arange(math.prod(e.shape)).reshape(e.shape)
        outputs, shape = [], (e.shape[0], *tuple(m(torch.zeros((1, *e.shape))).shape[2:]))
        for channel, *at in itertools.product(*map(range, shape)):
            outputs.append(self.maximum(e, window(m, places[channel], at), low, high))
        n = len(self.low)
        matrix = np.stack([np.pad(row, (0, n - len(row))) for row, _ in outputs])
        return Expression(matrix, np.array([c for _, c in outputs]), shape)

    def maximum(self, e: Expression, of: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
        """The largest of some entries, as a row and an offset."""
        floor, top = low[of].max(), high[of].max()
        left = of[high[of] >= floor]
        if len(left) == 1:
            return e.matrix[left[0]], e.offset[left[0]]
        r = self.new(floor, top)
        chosen = [self.new(0, 1, whole=True) for _ in left]
        self.at_least(1.0, **{f"c{at}": (at, 1) for at in chosen})
        self.at_least(-1.0, **{f"c{at}": (at, -1) for at in chosen})
        for unit, on in zip(left, chosen, strict=True):
            row, c, far = e.matrix[unit], e.offset[unit], top - low[unit]
            self.at_least(c, -row, r=(r, 1))  # r >= e
            self.at_least(-c - far, row, r=(r, -1), on=(on, -far))  # r <= e + far (1 - on)
        row = np.zeros(len(self.low))
        row[r] = 1.0
        return row, 0.0


def window(m: nn.Module, places: np.ndarray, at: list[int]) -> np.ndarray:
    """The flat places that one output of a pooling layer sees; those of the padding are left out."""
    found = places
    for axis, start in enumerate(at):
        kernel, stride, padding = (
            given if isinstance(given, int) else given[axis] for given in (m.kernel_size, m.stride, m.padding)
        )
        first = start * stride - padding
        found = found.take(range(max(0, first), min(places.shape[axis], first + kernel)), axis=axis)
    return found.ravel()


def affine(m: nn.Module, e: Expression) -> Expression:
    """An affine layer's matrix, read off by what it does to the unit vectors in float64."""
    n = math.prod(e.shape)
    with torch.no_grad():
        made = m(torch.cat([torch.zeros(1, n), torch.eye(n)]).double().reshape(n + 1, *e.shape))
    flat = made.flatten(1).numpy()
    linear = (flat[1:] - flat[:1]).T
    return Expression(linear @ e.matrix, linear @ e.offset + flat[0], tuple(made.shape[1:]))


# --- the answer ------------------------------------------------------------------------------------------------------


def ball(x: Tensor, threat: object) -> tuple[np.ndarray, np.ndarray]:
    """The Linf ball in the box, and what a mask leaves of it, in float64."""
    flat = x.double().numpy()
    bounds = [np.broadcast_to(torch.as_tensor(b).double().numpy(), flat.shape) for b in threat.bounds]
    low, high = np.maximum(flat - threat.eps, bounds[0]), np.minimum(flat + threat.eps, bounds[1])
    if threat.mask is not None:
        free = np.broadcast_to(threat.mask.numpy(), flat.shape)
        low, high = np.where(free, low, flat), np.where(free, high, flat)
    return low, high


def exact_margin(model: nn.Module, x: Tensor, label: int, k: int, threat: object) -> float:
    """The minimum of logit[label] - logit[k] over the Linf ball round x (*shape) in the box.

    It is attained: the model itself, in float64, was run at the minimiser. Raises `ArithmeticError` where the solver
    did not end, or its optimum and the attained value are apart by more than its tolerance.
    """
    model = copy.deepcopy(model).double().eval()
    low, high = ball(x, threat)
    program = Program(x.double().numpy(), low, high)
    logits = program.walk(model, program.start)
    n = len(program.low)
    wide = logits.wide(n)
    aim, constant = wide[label] - wide[k], logits.offset[label] - logits.offset[k]
    scale = max(np.abs(aim).max(), 1e-300)
    constraints = []
    if program.rows:
        matrix = sparse.csr_matrix(np.stack([np.pad(row, (0, n - len(row))) for row, _ in program.rows]))
        constraints = [optimize.LinearConstraint(matrix, [number for _, number in program.rows], np.inf)]
    found = optimize.milp(
        aim / scale, integrality=program.whole, bounds=optimize.Bounds(program.low, program.high),
        constraints=constraints, options={"mip_rel_gap": 0.0, "presolve": True, "time_limit": 60.0},
    )  # fmt: skip
    if found.status != 0:
        raise ArithmeticError(f"The solver ended with: {found.message}")
    t = np.clip(found.x[: x.numel()], -1, 1)
    best = np.clip((program.start.matrix @ t + program.start.offset).reshape(x.shape), low, high)
    with torch.no_grad():
        out = model(torch.from_numpy(best)[None])[0]
    attained = float(out[label] - out[k])
    claimed = found.fun * scale + constant
    magnitude = 1 + abs(constant) + np.abs(aim) @ np.maximum(np.abs(program.low), np.abs(program.high))
    if abs(attained - claimed) > 1e-5 * magnitude:
        raise ArithmeticError(f"The solver claims {claimed}, the model attains {attained}.")
    return attained


def exact_margins(c: Case) -> Tensor:
    """(N, K): `exact_margin` of each image and class; 0 at the label."""
    classes = range(c.model(c.images).shape[1])
    return torch.tensor(
        [
            [0.0 if k == int(y) else exact_margin(c.model, x, int(y), k, c.threat) for k in classes]
            for x, y in zip(c.images, c.labels, strict=True)
        ],
        dtype=torch.float64,
    )
