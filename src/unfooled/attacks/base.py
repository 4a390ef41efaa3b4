"""What an attack is, and how attacks compose into plans.

An attack is a frozen dataclass of options with two methods: `init(q, x)` makes a state and no pass; `step(q, s)` takes
one look at each row. The engine counts the steps, tests every point that was looked at, and ends rows; an attack knows
nothing of devices, batches, budgets, progress or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import must_be
from ..models.access import Access
from ..threats import L0, L1, L2, Linf, Threat

ORDERS = ("logits", "malt")
ANY_NORM: tuple[type[Threat], ...] = (Linf, L2, L1, L0)


@dataclass(frozen=True, kw_only=True)
class State:
    """One row per trial in every field. Subclass it for what an attack must remember.

    x:     (B, *shape) the point that the next look is at, and the result if no look comes any more.
    k:     (B,) int64 the number of looks taken; kept by the engine.
    done:  (B,) bool, or None: rows that want no more steps.
    """

    x: Tensor
    k: Tensor = field(default=None)  # type: ignore[assignment]  # the engine sets it before the first step
    done: Tensor | None = None


class Plan(ABC):
    """What to run on each example: stages of trials, in order."""

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages; a stage's trials run on the examples that all stages before it left unfooled."""

    @abstractmethod
    def __str__(self) -> str:
        """The text that `unfooled.attacks.parse` reads back."""


@dataclass(frozen=True)
class Stage:
    """`restarts` × `targets` trials of one attack on each example, numbered target first within a restart.

    targets:  0: no aim; k: the trials aim at the k classes that `order` puts first.
    order:    "logits" or "malt"; see `Targeted`.
    needs:    run only if one of this many stages before it has fooled an image or got nearer on many; 0: always.
    """

    attack: Attack
    restarts: int = 1
    targets: int = 0
    order: str = "logits"
    needs: int = 0

    @property
    def trials(self) -> int:
        """How many trials each example has."""
        return self.restarts * max(1, self.targets)

    def __str__(self) -> str:
        plan: Plan = self.attack
        if self.targets:
            plan = Targeted(plan, self.targets, self.order)
        return str(plan if self.restarts == 1 else Restarts(plan, self.restarts))


class Attack(Plan):
    """An attack; as a plan, one trial of itself.

    name:     its name in text.
    access:   what it asks of the model.
    norms:    the threats it works for.
    steps:    looks per trial (a field or a class variable).
    minimal:  whether it looks for the smallest change: then it sees the threat with an infinite radius.
    wanders:  whether it looks at points outside the set on its way, which then are no fault and no success.
    enough:   looks in which a run from the image finds nearly all that it finds; where `steps` are twice as many or more,
              further runs find more than the same one going on. None: it has one run.
    """

    name: ClassVar[str]
    access: ClassVar[Access]
    norms: ClassVar[tuple[type[Threat], ...]]
    minimal: ClassVar[bool] = False
    wanders: ClassVar[bool] = False
    enough: ClassVar[int | None] = None
    steps: int

    @property
    def passes(self) -> int:
        """Forward and backward passes that a step takes at most."""
        return 2 if self.access == Access.GRADIENT else 1

    @property
    def aimed_passes(self) -> int:
        """The same in a trial that has one class to aim at."""
        return self.passes

    @abstractmethod
    def init(self, q: Any, x: Tensor) -> State:
        """The state to start rows from; `x` (B, *shape) are their images. Makes no pass."""

    @abstractmethod
    def step(self, q: Any, s: Any) -> State:
        """One look at each row, and the state after it."""

    def stages(self) -> tuple[Stage, ...]:
        """One trial of itself, or as many as its steps are enough for."""
        runs = max(1, self.steps // self.enough) if self.enough else 1
        if runs == 1:
            return (Stage(self),)
        return (Stage(replace(self, steps=self.steps // runs), restarts=runs),)  # type: ignore[type-var]  # all are dataclasses

    def __str__(self) -> str:
        from .. import text

        return text.write(self.name, self)


def check_count(owner: Plan, name: str, least: int = 1) -> None:
    """Raise unless this option is a whole number of at least `least`."""
    got = getattr(owner, name)
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
        raise must_be(type(owner).__name__, name, f"an int of at least {least}", got)


def check_number(owner: Plan, name: str, interval: str, what: str = "a float in") -> None:
    """Raise unless this option is a number in the interval, written as in "(0, 1]"."""
    got = getattr(owner, name)
    low, high = map(float, interval[1:-1].split(","))
    inside = isinstance(got, int | float) and not isinstance(got, bool) and low <= got <= high
    if not inside or (got == low and interval[0] == "(") or (got == high and interval[-1] == ")"):
        raise must_be(type(owner).__name__, name, f"{what} {interval}", got)


def rows(values: Tensor, like: Tensor) -> Tensor:
    """One value per row (B,), shaped to scale points (B, *shape)."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def where(mask: Tensor, yes: Sequence[Tensor], no: Sequence[Tensor]) -> list[Tensor]:
    """Row by row, of each pair the first where the mask (B,) is true, else the second."""
    return [torch.where(rows(mask, a), a, b) for a, b in zip(yes, no, strict=True)]


@dataclass(frozen=True)
class Restarts(Plan):
    """A plan again and again, each time with other random numbers; a success ends the later ones."""

    plan: Plan
    count: int = 5

    def __post_init__(self) -> None:
        check_count(self, "count")

    def stages(self) -> tuple[Stage, ...]:
        """The plan's stages with `count` times their restarts."""
        return tuple(replace(s, restarts=s.restarts * self.count) for s in self.plan.stages())

    def __str__(self) -> str:
        return f"restarts:count={self.count}({self.plan})"


@dataclass(frozen=True)
class Targeted(Plan):
    """A plan once for each of the `k` most promising wrong classes; any wrong answer still counts as fooled.

    Gowal et al. 2019, arXiv:1910.09338 (MultiTargeted).

    k:      classes; 9: AutoAttack's.
    order:  "logits": by falling clean logit; "malt": by the distance to each class's boundary in the model linearised
            at the image (Melamed et al. 2024, arXiv:2407.02240), at one backward pass for each class.
    """

    plan: Plan
    k: int = 9
    order: str = "logits"

    def __post_init__(self) -> None:
        check_count(self, "k")
        if self.order not in ORDERS:
            raise must_be("Targeted", "order", " or ".join(map(repr, ORDERS)), self.order)

    def stages(self) -> tuple[Stage, ...]:
        """The plan's stages with `k` targets each."""
        return tuple(replace(s, targets=self.k, order=self.order) for s in self.plan.stages())

    def __str__(self) -> str:
        return f"targeted:k={self.k},order={self.order}({self.plan})"


@dataclass(frozen=True, init=False)
class Cascade(Plan):
    """Plans one after the other, each only on the examples that those before it did not fool."""

    plans: tuple[Plan, ...]

    def __init__(self, *plans: Plan) -> None:
        if not plans:
            raise must_be("Cascade", "plans", "at least one plan", plans)
        object.__setattr__(self, "plans", plans)

    def stages(self) -> tuple[Stage, ...]:
        """All stages, in order."""
        return tuple(stage for plan in self.plans for stage in plan.stages())

    def __str__(self) -> str:
        return f"cascade({';'.join(map(str, self.plans))})"


@dataclass(frozen=True)
class Escalate(Plan):
    """A cheap plan, and a dear one on what it left only if the cheap one fooled any image at all, or brought the label's
    lead below what all stages before it had reached on a quarter of its images.

    For a gradient-free attack after gradient attacks: where it gets nearer than they did, gradients are masked.
    """

    plan: Plan
    further: Plan

    def stages(self) -> tuple[Stage, ...]:
        """The plan's stages, then the further ones, which need a success or progress among those before them."""
        first = self.plan.stages()
        more = (replace(stage, needs=len(first) + at) for at, stage in enumerate(self.further.stages()))
        return (*first, *more)

    def __str__(self) -> str:
        return f"escalate({self.plan};{self.further})"
