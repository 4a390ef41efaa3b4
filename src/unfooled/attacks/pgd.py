"""Projected gradient ascent: FGSM, BIM and PGD. One formula, three customs.

    x ← P(x + α · argmax over d of size ≤ 1 of <∇x J(θ, x, y), d>)

P projects on the threat's set; for Linf the direction is the sign of the gradient. With a target class t the loss is
-J(θ, x, t), so the step is minus the gradient of the loss to t.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..losses import named
from ..models.access import Access
from ..oracle import GradientQuery
from ..threats import L1, L2, Linf, Threat
from .base import ANY_NORM, Attack, State, check_count, check_number


def ascend(q: GradientQuery, x: Tensor, loss: str, share: float) -> Tensor:
    """One step from x, `share` of eps long, and back into the set."""
    length = share * q.threat.eps
    direction = q.threat.steepest(q.look(x, loss).gradient, x, length)
    return q.threat.project(torch.add(x, direction, alpha=length), q.x)


@dataclass(frozen=True)
class FGSM(Attack):
    """Fast gradient sign method: one step of length eps from the image. Goodfellow et al. 2015, arXiv:1412.6572.

    Every pixel moves by eps, up or down, whichever raises the loss; for L2, L1 and L0 it is the steepest step of size
    eps in that norm.

        x_adv = x + eps · sign(∇x J(θ, x, y))

    loss:  the loss J by name. cross_entropy: their section 4.

    Fails: wherever the loss bends within eps. It is a lesson and a lower bar, not a measure of robustness.
    """

    loss: str = "cross_entropy"

    name: ClassVar[str] = "fgsm"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = ANY_NORM
    steps: ClassVar[int] = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        named(self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> State:
        """From the image."""
        return State(x=x)

    def step(self, q: GradientQuery, s: State) -> State:
        """The formula."""
        return replace(s, x=ascend(q, s.x, self.loss, 1.0))


@dataclass(frozen=True)
class BIM(Attack):
    """Basic iterative method: FGSM in small steps. Kurakin et al. 2017, arXiv:1607.02533, section 2.2.

    Each step begins where the last one ended, so the attack follows the loss as it bends; P projects on the set.

        x ← P(x + α · sign(∇x J(θ, x, y)))

    steps:      looks. 10: their min(255·eps + 4, 1.25·255·eps) at the common eps of 8/255.
    step_size:  as a fraction of eps. Their step is 1/255, an eighth of that eps.
    loss:       the loss by name. cross_entropy: their section 2.2.

    Fails: it always begins at the image, where a model may have been flattened on purpose; PGD begins elsewhere.
    """

    steps: int = 10
    step_size: float = 0.125
    loss: str = "cross_entropy"

    name: ClassVar[str] = "bim"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_number(self, "step_size", "(0, inf)", "a fraction of eps, a float in")
        named(self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> State:
        """From the image."""
        return State(x=x)

    def step(self, q: GradientQuery, s: State) -> State:
        """One ascent."""
        return replace(s, x=ascend(q, s.x, self.loss, self.step_size))


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent: many small ascents from a random point of the set. Madry et al. 2018,
    arXiv:1706.06083, section 2.1.

    The workhorse. P projects on the set; the step is the steepest one of its size in the threat's norm.

        x ← P(x + α · argmax over d of size ≤ 1 of <∇x J(θ, x, y), d>)

    steps:      looks. 40, as in their MNIST evaluation (section 5).
    step_size:  as a fraction of eps. Their 0.01 at eps 0.3 is 1/30.
    loss:       the loss by name. cross_entropy: their section 2.1.

    Fails: its step is fixed: too long a step circles the optimum, too short a one does not arrive; APGD finds its own.
    """

    steps: int = 40
    step_size: float = 0.01 / 0.3
    loss: str = "cross_entropy"

    name: ClassVar[str] = "pgd"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_number(self, "step_size", "(0, inf)", "a fraction of eps, a float in")
        named(self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> State:
        """From a random point of the set."""
        return State(x=q.threat.sample(x, q.uniform, q.normal))

    def step(self, q: GradientQuery, s: State) -> State:
        """One ascent."""
        return replace(s, x=ascend(q, s.x, self.loss, self.step_size))
