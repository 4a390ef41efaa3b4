"""Protocols: named cascades of attacks, each made for the norm of a threat.

| name | what it is for |
| --- | --- |
| quick | a first look in seconds, for development; never a verdict |
| fast | the default: as low as `standard` at a fraction of its passes |
| standard | AutoAttack's own parts and settings, to compare with published figures |
| thorough | fast, standard, minimum-norm attacks and restarts: the lowest number that is known how to get |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .attacks import (
    APGD,
    APGDL1,
    DDN,
    FAB,
    FMN,
    MD,
    PDPGD,
    Cascade,
    Escalate,
    HopSkipJump,
    Plan,
    Restarts,
    SigmaZero,
    Square,
    Targeted,
)
from .errors import ParameterError, must_be, unknown
from .models.access import Access
from .threats import L0, L1, L2, Linf, Threat

Builder = Callable[[], Plan]


@dataclass(frozen=True)
class Protocol:
    """A name's plan for each norm, and one line on what it is for."""

    about: str
    plans: dict[type[Threat], Builder]


def _standard() -> Plan:
    """AutoAttack's for Linf and L2. Croce & Hein 2020, arXiv:2003.01690, section 5; their code's version 'standard'."""
    return Cascade(APGD(), Targeted(APGD(loss="dlr"), 9), Targeted(FAB(), 9), Square())


def _standard_l1() -> Plan:
    """AutoAttack's for L1. Croce & Hein 2021, arXiv:2103.01208, section 5."""
    return Cascade(Restarts(APGDL1(), 5), Targeted(APGDL1(loss="dlr"), 5), Targeted(FAB(), 9), Square())


def _gradient_free() -> Plan:
    """A short search without gradients, and the whole one if that finds, or comes near to, what gradients missed."""
    return Escalate(Square(steps=500), Square())


def _quick() -> Plan:
    return Cascade(APGD(steps=10), APGD(steps=20, loss="dlr"))


def _fast() -> Plan:
    """Plain models fall to the first stage; restarts find what luck decides on MNIST, targets what they miss elsewhere."""
    restarts = (Restarts(APGD(steps=40, loss=loss), 2) for loss in ("cross_entropy", "dlr"))
    return Cascade(APGD(steps=20), *restarts, Targeted(APGD(steps=40, loss="dlr"), 3, "malt"), _gradient_free())


def _fast_l1() -> Plan:
    return Cascade(APGDL1(steps=40), Targeted(APGDL1(steps=40, loss="dlr"), 5, "malt"), _gradient_free())


def _fast_l0() -> Plan:
    return Cascade(SigmaZero(steps=100), SigmaZero(steps=500))


PROTOCOLS: dict[str, Protocol] = {
    "quick": Protocol(
        "a first look in seconds, for development; never a verdict",
        {
            Linf: _quick,
            L2: _quick,
            L1: lambda: Cascade(APGDL1(steps=20), APGDL1(steps=20, loss="margin")),
            L0: lambda: SigmaZero(steps=50),
        },
    ),
    "fast": Protocol(
        "the default: as low as standard at a fraction of its passes",
        {Linf: _fast, L2: _fast, L1: _fast_l1, L0: _fast_l0},
    ),
    "standard": Protocol(
        "AutoAttack's own parts and settings (Linf, L2, L1)",
        {Linf: _standard, L2: _standard, L1: _standard_l1},
    ),
    "thorough": Protocol(
        "fast, standard, minimum-norm attacks and restarts: best known",
        {
            Linf: lambda: Cascade(
                _fast(), _standard(), FMN(steps=1000), Restarts(MD(), 4), Restarts(APGD(loss="dlr"), 5)
            ),
            L2: lambda: Cascade(
                _fast(), _standard(), DDN(steps=1000), Restarts(MD(), 4), Restarts(APGD(loss="dlr"), 5)
            ),
            L1: lambda: Cascade(_fast_l1(), _standard_l1(), PDPGD(steps=1000), FMN(steps=1000)),
            L0: lambda: Cascade(_fast_l0(), Restarts(SigmaZero(steps=1000), 3), FMN(steps=1000)),
        },
    ),
}


QUERIES: dict[str, int] = {"quick": 500, "fast": 2000, "standard": 5000, "thorough": 10_000}
"""Questions an image at most, of a model that gives no gradients. Square's published figures take 5,000."""


def named(name: str, threat: Threat, access: Access = Access.GRADIENT) -> Plan:
    """The plan of a protocol for the norm of a threat, of attacks that the access suffices for."""
    if not isinstance(name, str):
        raise must_be("evaluate", "protocol", "the name of a protocol or a plan", name)
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise unknown("protocol", name, PROTOCOLS)
    if access < Access.GRADIENT:
        return _by_questions(name, threat, access)
    for norm, build in protocol.plans.items():
        if isinstance(threat, norm):
            return build()
    have = ", ".join(one for one, other in PROTOCOLS.items() if any(isinstance(threat, n) for n in other.plans))
    raise ParameterError(f"The protocol {name!r} has no attacks for {type(threat).__name__}. Those that do: {have}.")


def _by_questions(name: str, threat: Threat, access: Access) -> Plan:
    """A search by scores where there are any; by decisions, what starts from other images and comes nearer."""
    attack = Square if access == Access.SCORE else HopSkipJump
    if not isinstance(threat, attack.norms):
        have = ", ".join(norm.__name__ for norm in attack.norms)
        raise ParameterError(
            f"Of a model that gives {access.words}, robustness is measured against {have}. Got {type(threat).__name__}."
        )
    return attack(steps=QUERIES[name])


def by_gradient(plan: Plan) -> Plan | None:
    """What of a plan attacks by gradient; None if nothing does."""
    if isinstance(plan, Cascade):
        parts = [part for part in map(by_gradient, plan.plans) if part is not None]
        return Cascade(*parts) if parts else None
    return plan if all(stage.attack.access == Access.GRADIENT for stage in plan.stages()) else None
