"""Budgets of passes per image, shared out over a plan's stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..errors import must_be
from ..models.access import Access
from ..oracle import Oracle
from .base import Stage
from .targeting import MOST


def deal(stages: Sequence[Stage], budget: int | None, oracle: Oracle, logits: Tensor | None) -> list[Stage]:
    """Share a budget of passes per image out over the stages, in order, before the first step.

    The clean logits (N, C) have cost a pass, where they are known. Finding an order of targets costs its passes; a trial
    its looks and one confirming pass. The stage at which the budget ends gets as many trials as can have a look (of an
    attack that says so, enough looks), with equal steps; those after it get nothing.
    """
    if budget is None:
        return list(stages)
    clean = 0 if logits is None else 1
    left, dealt = budget - clean, []
    for stage in stages:
        if logits is not None:
            stage = replace(stage, targets=min(stage.targets, logits.shape[1] - 1))
        order = 0
        if logits is not None and stage.targets and stage.order == "malt":
            order = oracle.draws * (1 + min(logits.shape[1], MOST + 1))
        left -= order
        draws = oracle.draws if stage.attack.access == Access.GRADIENT else 1
        passes = stage.attack.aimed_passes if stage.targets else stage.attack.passes
        look = passes * draws + (not oracle.shows_victim(stage.attack.access))
        if stage.trials * (stage.attack.steps * look + 1) <= left:
            dealt.append(stage)
            left -= stage.trials * (stage.attack.steps * look + 1)
            continue
        trials = min(stage.trials, left // (look + 1))
        if stage.attack.enough:  # fewer runs rather than shorter ones
            trials = min(trials, max(1, stage.targets, left // look // stage.attack.enough))
        if trials > 0:
            steps = min(stage.attack.steps * stage.trials // trials, (left // trials - 1) // look)
            dealt.append(_shortened(stage, trials, steps))
        break
    if not dealt:
        raise must_be(
            "attack", "budget", f"at least {clean + order + look + 1} passes per image for {stages[0].attack}", budget
        )
    return dealt


def _shortened(stage: Stage, trials: int, steps: int) -> Stage:
    attack = stage.attack
    if steps != attack.steps:
        attack = replace(attack, steps=steps)  # type: ignore[type-var]  # every attack is a dataclass
    if stage.targets:
        targets = min(stage.targets, trials)
        return replace(stage, attack=attack, targets=targets, restarts=trials // targets)
    return replace(stage, attack=attack, restarts=trials)
