"""Attacks and the plans that compose them."""

from __future__ import annotations

from .. import text
from ..errors import ParameterError, unknown
from .apgd import APGD, APGDL1
from .base import Attack, Cascade, Escalate, Plan, Restarts, Stage, State, Targeted
from .cw import CarliniWagner
from .ddn import DDN
from .deepfool import DeepFool, SuperDeepFool
from .fab import FAB
from .fmn import FMN
from .hopskipjump import HopSkipJump
from .md import MD
from .mifgsm import MIFGSM
from .pdpgd import PDPGD
from .pgd import BIM, FGSM, PGD
from .sigma_zero import SigmaZero
from .square import Square

ATTACKS: dict[str, type[Attack]] = {
    kind.name: kind
    for kind in (
        FGSM,
        BIM,
        PGD,
        MIFGSM,
        MD,
        APGD,
        APGDL1,
        DeepFool,
        SuperDeepFool,
        DDN,
        FMN,
        FAB,
        CarliniWagner,
        PDPGD,
        SigmaZero,
        Square,
        HopSkipJump,
    )
}
PLANS = ("restarts", "targeted", "cascade", "escalate")


def parse(words: str) -> Plan:
    """Read ``pgd:steps=40,step_size=0.1``, ``restarts:count=5(pgd)``, ``cascade(fgsm;pgd)``."""
    return _plan(text.parse(words))


def _plan(call: text.Call) -> Plan:
    if call.name not in (*ATTACKS, *PLANS):
        raise unknown("attack", call.name, (*ATTACKS, *PLANS))
    if call.name in ATTACKS:
        if call.inner:
            raise ParameterError(f"The attack {call.name!r} takes no plan in parentheses; {', '.join(PLANS)} do.")
        attack: Plan = text.build("attack", call, ATTACKS)
        return attack
    inner = [_plan(part) for part in call.inner]
    if call.name == "cascade":
        if call.values or call.options:
            raise ParameterError("A cascade takes no options, only plans in parentheses: cascade(fgsm;pgd:steps=40).")
        return Cascade(*inner)
    if call.name == "escalate":
        if call.values or call.options or len(inner) != 2:
            raise ParameterError("'escalate' takes two plans in parentheses: escalate(square:steps=500;square).")
        return Escalate(*inner)
    if len(inner) != 1:
        raise ParameterError(f"{call.name!r} takes one plan in parentheses, as in '{call.name}(pgd:steps=40)'.")
    if call.name == "restarts":
        return Restarts(inner[0], **text.options("plan", call, ("count",)))
    return Targeted(inner[0], **text.options("plan", call, ("k", "order")))


__all__ = [
    "APGD",
    "APGDL1",
    "ATTACKS",
    "BIM",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "MD",
    "MIFGSM",
    "PDPGD",
    "PGD",
    "Attack",
    "CarliniWagner",
    "Cascade",
    "DeepFool",
    "Escalate",
    "HopSkipJump",
    "Plan",
    "Restarts",
    "SigmaZero",
    "Square",
    "Stage",
    "State",
    "SuperDeepFool",
    "Targeted",
    "parse",
]
