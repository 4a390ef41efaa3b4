"""Attacks and the plans that compose them."""

from __future__ import annotations

from .. import text
from ..errors import ParameterError, unknown
from .base import Attack, Cascade, Plan, Restarts, Stage, State, Targeted
from .pgd import BIM, FGSM, PGD

ATTACKS: dict[str, type[Attack]] = {kind.name: kind for kind in (FGSM, BIM, PGD)}
PLANS = ("restarts", "targeted", "cascade")


def parse(words: str) -> Plan:
    """Read ``pgd:steps=40,step_size=0.1``, ``restarts:count=5(pgd)``, ``cascade(fgsm;pgd)``."""
    return _plan(text.parse(words))


def _plan(call: text.Call) -> Plan:
    if call.name not in PLANS:
        if call.inner:
            raise ParameterError(f"The attack {call.name!r} takes no plan in parentheses; {', '.join(PLANS)} do.")
        if call.name not in ATTACKS:
            raise unknown("attack", call.name, (*ATTACKS, *PLANS))
        attack: Plan = text.build("attack", call, ATTACKS)
        return attack
    inner = [_plan(part) for part in call.inner]
    if call.name == "cascade":
        return Cascade(*inner)
    if len(inner) != 1:
        raise ParameterError(f"{call.name!r} takes one plan in parentheses, as in '{call.name}(pgd:steps=40)'.")
    kinds: dict[str, type[Plan]] = {"restarts": Restarts, "targeted": Targeted}
    plan: Plan = text.build("plan", text.Call(call.name, (), _with_values(call), ()), kinds, plan=inner[0])
    return plan


def _with_values(call: text.Call) -> dict[str, object]:
    """Positional values by the order of the options: restarts:5(pgd) is restarts:count=5(pgd)."""
    names = {"restarts": ("count",), "targeted": ("k", "order")}[call.name]
    return dict(zip(names, call.values, strict=False)) | call.options


__all__ = [
    "ATTACKS",
    "BIM",
    "FGSM",
    "PGD",
    "Attack",
    "Cascade",
    "Plan",
    "Restarts",
    "Stage",
    "State",
    "Targeted",
    "parse",
]
