"""Sweeps of a user's own model: accuracy against eps, and against a defense's strength, both ways."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .. import defenses
from ..album import Album
from ..attacks.base import Attack, Plan
from ..data import Dataset
from ..environment import command_line, environment, now
from ..errors import ParameterError
from ..results import Curve, Evaluation, Panel, Table, percent
from ..sweeping import sweep
from ..threats import Threat
from .both_ways import STRONGER, Attacker, blind_points, gap_sentence, over_strengths, panels, table
from .common import Clock, Say


def over_eps(
    model: nn.Module,
    data: Dataset,
    threat: Threat,
    eps: Sequence[float],
    plan: Plan,
    settings: dict[str, str],
    say: Say,
) -> tuple[Evaluation, Album]:
    """Accuracy against eps."""
    clock = Clock()
    say(f"{plan} against eps", 0.0)
    with clock.part(str(plan)) as spent:
        found = sweep(model, data.whole(), data.labels, threat, eps, plan, seed=int(settings["seed"]))
        spent.add(found.forward, found.backward)
    norm = type(threat).__name__
    rows = [[f"{e:.4g}", percent(found.accuracy(e), interval=True)] for e in found.eps]
    first, last = found.accuracy(0.0), found.accuracy(found.eps[-1])
    evaluation = Evaluation(
        kind="sweep",
        title=f"{settings['model']}: accuracy against eps",
        verdict=[
            f"{plan} takes the model from {percent(first)} to {percent(last)} at eps {found.eps[-1]:.4g} ({norm}): an upper "
            "bound of its robust accuracy."
        ],
        settings=settings | {"threat": str(threat), "attack": str(plan)},
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[Table(id="eps", title="Accuracy against eps", columns=["eps", "accuracy"], rows=rows)],
        panels=[
            Panel(
                id="accuracy-against-eps",
                title="Accuracy against epsilon",
                x_label=f"eps ({norm})",
                curves=[Curve(label=str(plan), x=list(found.eps), y=found.accuracies())],
                caption="A point found at a smaller eps counts at every larger one.",
            )
        ],
        cost=clock.costs,
    )
    return evaluation, Album(data.classes)


def over_strength(
    model: nn.Module,
    data: Dataset,
    threat: Threat,
    eps: Sequence[float],
    plan: Plan,
    defense: str,
    strengths: Sequence[float],
    settings: dict[str, str],
    say: Say,
) -> tuple[Evaluation, Album]:
    """Accuracy against the first option of a defense, attacked non-adaptively and adaptively."""
    if not isinstance(plan, Attack):
        raise ParameterError(f"A sweep over a defense takes a single attack, not the plan {plan}.")
    eps = [e for e in eps if e > 0]
    if not eps:
        raise ParameterError("A sweep over a defense needs an eps above 0.")
    name, option, make = defenses.family(defense)
    if not isinstance(threat, STRONGER.norms):
        raise ParameterError(f"A sweep over a defense works for Linf, L2 and L1, not for {type(threat).__name__}.")
    attacker = Attacker(threat, plan, STRONGER, int(settings["seed"]))
    images, labels, clock = data.whole(), data.labels, Clock()
    with clock.part(f"{defense}, both ways") as spent:
        points = blind_points(model, images, labels, eps, attacker, spent)
        series = over_strengths(name, option, make, strengths, str, model, images, labels, points, attacker, spent, say)
        bare = sweep(model, images, labels, threat, eps, plan, seed=attacker.seed)
        spent.add(bare.forward, bare.backward)
    evaluation = Evaluation(
        kind="sweep",
        title=f"{settings['model']} behind {name}: both ways",
        verdict=[gap_sentence(series, e) for e in eps],
        settings=settings | {"threat": str(threat), "attack": str(plan), "defense": defense},
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[table(series, bare.accuracy(0.0))],
        panels=panels(series, eps[0]),
        cost=clock.costs,
    )
    return evaluation, Album(data.classes)
