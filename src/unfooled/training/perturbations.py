"""Inner attacks that only training uses: what they make may lie outside the set, or hardly moved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from .. import attacks, text
from ..attacks.base import Attack, State, check_count, check_number
from ..attacks.pgd import ascend
from ..errors import ParameterError
from ..losses import named
from ..models.access import Access
from ..norms import clip
from ..oracle import GradientQuery
from ..threats import L1, L2, Linf, Threat


@dataclass(frozen=True)
class NFGSM(Attack):
    """N-FGSM: one step from noise that is larger than the set, and no way back into it. de Jorge et al. 2022,
    arXiv:2202.01181, algorithm 1.

        x' = x + u + α · sign(∇x J(θ, x + u, y)), u uniform in ± noise · eps

    Only the box clips it. The noise keeps single-step training from catastrophic overfitting.

    noise:      in eps. 2, their section 5.
    step_size:  as a fraction of eps. 1, theirs.
    """

    noise: float = 2.0
    step_size: float = 1.0
    loss: str = "cross_entropy"

    name: ClassVar[str] = "n-fgsm"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf,)
    steps: ClassVar[int] = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_number(self, "noise", "(0, inf)", "a multiple of eps, a float in")
        check_number(self, "step_size", "(0, inf)", "a fraction of eps, a float in")
        named(self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> State:
        """From the noisy image, inside the box."""
        return State(x=_boxed(q, x + (2 * q.uniform() - 1) * self.noise * q.threat.eps))

    def step(self, q: GradientQuery, s: State) -> State:
        """One step from there, inside the box only."""
        direction = q.look(s.x, self.loss).gradient.sign()
        return replace(s, x=_boxed(q, s.x + self.step_size * q.threat.eps * direction))


@dataclass(frozen=True)
class NearPGD(Attack):
    """PGD from the image with very little noise, as TRADES does it: at the image itself its loss has no gradient.

    Zhang et al. 2019, arXiv:1901.08573, algorithm 1.

    steps:      looks. 10: their CIFAR-10 training.
    step_size:  as a fraction of eps. 0.25: their 0.007 at eps 0.031.
    noise:      standard deviation in the images' units. 0.001, theirs.
    """

    steps: int = 10
    step_size: float = 0.25
    noise: float = 0.001
    loss: str = "cross_entropy"

    name: ClassVar[str] = "near-pgd"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_number(self, "step_size", "(0, inf)", "a fraction of eps, a float in")
        check_number(self, "noise", "(0, inf)", "in the images' units, a float in")
        named(self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> State:
        """From beside the image."""
        return State(x=q.threat.project(x + self.noise * q.normal(), x))

    def step(self, q: GradientQuery, s: State) -> State:
        """One ascent."""
        return replace(s, x=ascend(q, s.x, self.loss, self.step_size))


def _boxed(q: GradientQuery, z: Tensor) -> Tensor:
    return clip(z.flatten(1), q.threat.box(q.x)).view_as(z)


INNER: dict[str, type[Attack]] = {kind.name: kind for kind in (NFGSM, NearPGD)}


def parse(words: str) -> Attack:
    """An inner attack from its text: one of this module, or any single attack by gradient."""
    call = text.parse(words)
    if call.name in INNER:
        return text.build("attack", call, INNER)
    plan = attacks.parse(words)
    if not isinstance(plan, Attack) or plan.access is not Access.GRADIENT or plan.minimal:
        raise ParameterError(
            f"{words!r} cannot be an inner attack of training: give a single attack by gradient inside the set, such as "
            "pgd:steps=10,step_size=0.25, or n-fgsm."
        )
    return plan


__all__ = ["INNER", "NFGSM", "NearPGD", "parse"]
