"""The search for a way to take gradients that works: tried on a few images, kept where it lowers the number."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from .. import protocols
from ..attacks import APGD, Cascade, Plan
from ..checks.catalog import KINDS, finding
from ..checks.preflight import Preflight
from ..checks.probing import Probe, astray, slope, unbounded
from ..engine import Result, attack
from ..errors import UnfooledError
from ..models.access import Access, access_of
from ..models.classifier import Model
from ..results import Finding, Remedy
from .candidates import Surrogate, candidates, has_custom_steps, last_resorts, needed
from .rewired import Rewired

TRIED = 5  # ways that are attacked through, of those whose gradients point somewhere
PASSES = 1000  # that a way may take of each example of the probe, where what confirms a random model comes on top
FEWER_TRIED = 2  # the same of a random model, where every look takes many passes
KEPT = 3  # ways that all examples are attacked through
SHORT: Plan = Cascade(APGD(steps=20, loss="margin"), APGD(steps=20))
POINTS = 0.05  # of the examples, on which a step along a way's gradient may do no better than a random one
FEW = 32  # examples for the attack without a bound


@dataclass(frozen=True)
class Way:
    """A way of taking gradients, and how much worse than a step along its gradients is a random one."""

    surrogate: Surrogate
    astray: float

    @property
    def name(self) -> str:
        """In words."""
        return self.surrogate.name


@dataclass(frozen=True)
class Strategy:
    """What all examples are attacked with, beyond the protocol.

    ways:      the best one first; empty where the model's own gradients are as good as any.
    usable:    whether the model's own gradients can be used at all.
    remedies:  what was tried on the probe.
    settled:   finding codes, each with how it was settled.
    findings:  what the search itself has found.
    """

    ways: tuple[Way, ...] = ()
    usable: bool = True
    remedies: tuple[Remedy, ...] = ()
    settled: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it but the ways themselves, which go by their names."""
        return {
            "ways": [way.name for way in self.ways],
            "usable": self.usable,
            "remedies": msgspec.to_builtins(list(self.remedies)),
            "settled": [list(pair) for pair in self.settled],
            "findings": msgspec.to_builtins(list(self.findings)),
        }

    @classmethod
    def from_json(cls, held: Mapping[str, Any], ways: tuple[Way, ...]) -> Strategy:
        """What `to_json` gave, with its ways found again."""
        remedies = tuple(msgspec.convert(held["remedies"], list[Remedy]))
        settled = tuple((code, how) for code, how in held["settled"])
        return cls(ways, held["usable"], remedies, settled, tuple(msgspec.convert(held["findings"], list[Finding])))


def plan(model: Model, found: Preflight, seed: int = 0) -> Strategy:
    """Find ways round what the preflight has found; none are sought where gradients are sound."""
    if access_of(model) < Access.GRADIENT:  # there is nothing to send a gradient through
        return Strategy(usable=False)
    codes, probe = needed(found), found.probe
    if not len(probe.images) or not (codes or has_custom_steps(model, probe)):
        return Strategy()
    own = slope(model, probe)
    usable = not (own.failure or own.broken or own.zero == 1)
    ranked = _searched(model, found)
    tried = ranked[: TRIED if probe.draws == 1 else FEWER_TRIED]
    found_by, remedies = _tried(model, tried, codes, probe, usable, seed)
    if not codes and not any(bool(fooled.any()) for fooled in found_by):
        return Strategy(remedies=tuple(remedies))  # its own gradients are as good as any
    if probe.draws > 1 and usable and not any(bool(fooled.any()) for fooled in found_by):  # averaging is the remedy
        settled = _settled(model, (Way(Rewired(model, ()), 0.0),), found, seed)
        return Strategy((), usable, tuple(remedies), tuple(settled))
    kept = _cover(found_by)
    ways = tuple(ranked[at] for at in kept)
    remedies = [msgspec.structs.replace(remedy, kept=at in kept) for at, remedy in enumerate(remedies)]
    settled = _settled(model, ways, found, seed)
    if codes:
        return Strategy(ways, usable, tuple(remedies), tuple(settled))
    best = max(int(fooled.sum()) for fooled in found_by)
    seen = finding(
        "stand-in-better", best / len(probe.images), f"Only by the gradients of a stand-in, {best} examples fell."
    )
    return Strategy(ways, usable, tuple(remedies), ((seen.code, _how(ways[0], probe)),), (seen,))


def rebuild(model: Model, found: Preflight, names: Sequence[str]) -> tuple[Way, ...]:
    """The ways of those names, as an earlier search on the same model and probe has kept them."""
    by_name = {way.name: way for way in _searched(model, found)}
    return tuple(by_name[name] for name in names if name in by_name)


def _searched(model: Model, found: Preflight) -> list[Way]:
    """The ways whose gradients arrive, the best first; the dear ones are made where no other will do."""
    ranked = _ranked(candidates(model, found), found.probe)
    if not ranked or (found.draws == 1 and ranked[0].astray > POINTS):
        ranked = sorted([*ranked, *_ranked(last_resorts(model, found), found.probe)], key=lambda way: way.astray)
    return ranked


def _ranked(ways: Iterable[Surrogate], probe: Probe) -> list[Way]:
    """Those whose gradients arrive, by how few examples they lead astray on."""
    ranked = []
    for surrogate in ways:
        found = slope(surrogate, probe)
        if found.failure or found.broken or found.zero == 1:
            continue
        judge = surrogate if isinstance(surrogate, Rewired) else surrogate.model
        ranked.append(Way(surrogate, astray(judge, surrogate, probe, found.gradient)))
    return sorted(ranked, key=lambda way: way.astray)


def _tried(
    model: Model, ways: Sequence[Way], codes: list[str], probe: Probe, usable: bool, seed: int
) -> tuple[list[Tensor], list[Remedy]]:
    """Attack the probe through each way; what each fooled of what the model's own gradients leave."""
    left = torch.ones(len(probe.images), dtype=torch.bool)
    if usable:
        left = ~_attacked(model, None, probe, left, seed)[0]
    before = float(left.double().mean())
    found, remedies = [], []
    for way in ways:
        start = time.perf_counter()
        fooled, forward, backward = _attacked(model, way.surrogate, probe, left, seed)
        found.append(fooled)
        remedies.append(
            Remedy(
                name=way.name, findings=codes, examples=int(left.sum()), fooled=int(fooled.sum()), before=before,
                after=float((left & ~fooled).double().mean()), forward=forward, backward=backward,
                seconds=round(time.perf_counter() - start, 3), kept=False,
            )
        )  # fmt: skip
    return found, remedies


def _attacked(
    model: Model, surrogate: Surrogate | None, probe: Probe, left: Tensor, seed: int
) -> tuple[Tensor, int, int]:
    """Which of the examples left (N,) fall; forward and backward passes."""
    fooled, rows = torch.zeros_like(left), left.nonzero().squeeze(1)
    if not len(rows):
        return fooled, 0, 0
    at = rows.to(probe.images.device)
    plan_ = SHORT if _fits(probe) else protocols.named("quick", probe.threat)
    try:
        result: Result = attack(
            model, probe.images[at], probe.labels[at], probe.threat, plan_,
            seed=seed, draws=probe.draws, surrogate=surrogate, budget=PASSES,
        )  # fmt: skip
    except UnfooledError:
        return fooled, 0, 0
    fooled[rows] = result.success.cpu()
    return fooled, int(result.forward.sum()), int(result.backward.sum())


def _fits(probe: Probe) -> bool:
    return isinstance(probe.threat, SHORT.stages()[0].attack.norms)


def _cover(found: Sequence[Tensor]) -> list[int]:
    """The way that fooled most, and those that fooled what it did not; at least one where there is any."""
    kept: list[int] = []
    covered = torch.zeros_like(found[0]) if found else torch.zeros(0, dtype=torch.bool)
    while found and len(kept) < KEPT:
        gains = [-1 if at in kept else int((one & ~covered).sum()) for at, one in enumerate(found)]
        best = max(range(len(found)), key=lambda at: gains[at])
        if kept and gains[best] <= 0:
            break
        kept.append(best)
        covered = covered | found[best]
    return kept


def _settled(model: Model, ways: Sequence[Way], found: Preflight, seed: int) -> list[tuple[str, str]]:
    """The findings that the ways settle: measured again, they stay below their thresholds."""
    if not ways:
        return []
    best, probe = ways[0], found.probe
    if probe.draws == 1 and best.astray > KINDS["misleading-gradients"].threshold:  # type: ignore[operator]
        return []
    if slope(best.surrogate, probe).zero > 0:
        return []
    if probe.threat.mask is None:
        try:
            left = unbounded(model, best.surrogate, probe.first(FEW), seed)
        except UnfooledError:
            return []
        if left > KINDS["unbounded-survivors"].threshold:  # type: ignore[operator]
            return []
    return [(f.code, _how(best, probe)) for f in found.findings if KINDS[f.code].settles]


def _how(way: Way, probe: Probe) -> str:
    how = f"attacked again with: {way.name}"
    return (
        how
        if probe.draws == 1
        else f"{how}, gradients averaged over {probe.draws} draws, judged by most of 20 draws and of 100 more"
    )
