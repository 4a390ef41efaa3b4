"""From the evidence of a run to its numbers, its findings and its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from .board import Question
from .checks.catalog import KINDS, finding
from .checks.masking import of_run, settle
from .checks.preflight import Preflight
from .data import Given
from .defenses import Defended
from .environment import environment, now
from .gallery import galleries
from .intervals import clopper_pearson, confidence_sequence
from .models.access import access_of
from .proving import DOUBT, LEVELS
from .results import (
    SEVERITIES,
    TRUST,
    AttackCost,
    Bracket,
    ByClass,
    Cost,
    Curve,
    Estimate,
    Evaluation,
    Example,
    Finding,
    Mark,
    Panel,
    Remedy,
    Table,
    ThreeWays,
    percent,
)
from .store import Row, RunFolder

POINTS = 24  # of the curve of accuracy against the size of changes


class Tally:
    """How many examples have been judged, how many of them hold, and how many are proved to.

    They are kept along, since reading all evidence takes time.
    """

    def __init__(self) -> None:
        self.held = self.total = 0
        self.proved: int | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> Tally:
        """That of a run folder."""
        tally = cls()
        if folder.shards():
            evidence = folder.evidence()
            held = evidence["clean_correct"] & ~evidence["success"] & ~_failed(evidence)
            tally.held, tally.total = int(held.sum()), len(held)
            tally._prove(folder.logs().values())
        return tally

    def add(self, rows: Sequence[Row], log: Mapping[str, Any]) -> None:
        """Count the rows of one more shard."""
        self._prove([log])
        self.held += sum(row.clean_correct and not row.success and row.error is None for row in rows)
        self.total += len(rows)

    def estimate(self, tuned_for: float) -> Estimate:
        """Robust accuracy so far, with an interval that holds at every moment."""
        return confidence_sequence(self.held, self.total, tuned_for=tuned_for)

    def proved_share(self, tuned_for: float) -> Estimate | None:
        """What is proved so far, with an interval that holds at every moment; None where nothing is to be."""
        return None if self.proved is None else confidence_sequence(self.proved, self.total, tuned_for=tuned_for)

    def _prove(self, logs: Iterable[Mapping[str, Any]]) -> None:
        for log in logs:
            if log["proof"] is not None:
                self.proved = (self.proved or 0) + len(log["proofs"])


def _failed(evidence: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array([error is not None for error in evidence["error"]], dtype=bool)


def conclude(
    folder: RunFolder,
    q: Question,
    found: Preflight,
    protocol: str,
    source: Given,
    asked: Mapping[str, str],
    tuned_for: float,
    ended_early: bool,
    notes: Sequence[str],
    command: str,
    keep: bool,
) -> Evaluation:
    """The evaluation of the evidence in a run folder.

    ended_early:  the run might have ended before the last example, so that intervals must hold at every moment.
    keep:         whether pictures are written into the folder.
    """
    evidence, logs = folder.evidence(), [log for _, log in sorted(folder.logs().items())]
    bad = _failed(evidence)
    correct = evidence["clean_correct"] & ~bad
    held = correct & ~evidence["success"]
    n = len(held)

    def estimate(count: int) -> Estimate:
        return confidence_sequence(count, n, tuned_for=tuned_for) if ended_early else clopper_pearson(count, n)

    clean, attacked = estimate(int(correct.sum())), estimate(int(held.sum()))
    costs = _costs(logs)
    before = [msgspec.convert(kept["cost"], Cost) for part in ("preflight", "strategy") if (kept := folder.kept(part))]
    proofs = {name: method for log in logs for name, method, _ in log["proofs"]}
    proved = np.isin(evidence["example"], list(proofs))
    certified = None if folder.kept("means") is None else estimate(int((proved & held).sum()))
    tried = [cost for cost in costs if cost.attack != DOUBT]  # which came before any attack on the others
    late = of_run(logs, tried, evidence, bad, correct, held & ~proved, protocol, found.classes)
    findings = [*found.findings, *q.strategy.findings, *late]
    findings += [finding("converted-input", 1, note) for note in notes]
    settled = dict(q.strategy.settled)
    if certified is not None and certified.value == attacked.value:  # then no attack can leave less
        settled |= {one.code: "What attacks have left is proved." for one in late if KINDS[one.code].settles}
    findings = settle(findings, settled)
    trust = TRUST[max((f.severity for f in findings), key=SEVERITIES.index, default="note")]
    rounded = None if any(log["rounded"] is None for log in logs) else estimate(sum(log["rounded"] for log in logs))
    defense = _three_ways(q, logs, estimate, attacked, asked.get("defense"))
    shown = galleries(folder, q, source, evidence) if keep else []
    behind = f" behind {asked['defense']}" if "defense" in asked else ""
    return Evaluation(
        kind="evaluation",
        title=f"{asked.get('model', 'The model')}{behind} against {q.threat}",
        verdict=_verdict(
            clean, attacked, certified, trust, findings, q, protocol, len(q.images), defense, _draws_fooled(logs)
        ),
        settings={**asked, "threat": str(q.threat), "protocol": protocol, "plan": str(q.plan), "seed": str(q.seed),
                  **({"certificates": ", ".join(m.name for m in q.certify)} if q.certify else {}),
                  **({"surrogate": "given"} if q.surrogate is not None else {})},
        command=command,
        environment=environment(),
        created=now(),
        tables=[
            *_tables(clean, attacked, certified, rounded, _draws_fooled(logs), trust, costs, evidence, n), *_proofs(logs)
        ],
        panels=[*_bracket(logs, q), *_panels(logs, q)],
        galleries=shown,
        cost=[*before, *(Cost(part=c.attack, forward=c.forward, backward=c.backward, seconds=c.seconds) for c in costs)],
        notes=[*folder.notes(), *((folder.kept("means") or {}).get("note", "").splitlines())],
        clean_accuracy=clean,
        robust_accuracy=Bracket(attacked=attacked, certified=certified),
        rounded=rounded,
        draws_fooled=_draws_fooled(logs),
        trust=trust,
        findings=findings,
        remedies=_remedies(q, logs),
        defense=defense,
        classes=_classes(evidence, correct, held, source.classes, estimate),
        attacks=costs,
        examples=_examples(evidence, proved, q.threat.eps),
        asked=len(q.images),
    )  # fmt: skip


# --- numbers -------------------------------------------------------------------------------------------


def _costs(logs: Sequence[Mapping[str, Any]]) -> list[AttackCost]:
    """What each attack did, over all shards, in the order in which they ran."""
    whole: dict[str, AttackCost] = {}
    for log in logs:
        for item in log["attacks"]:
            cost = msgspec.convert(item, AttackCost)
            old = whole.get(cost.attack)
            whole[cost.attack] = cost if old is None else AttackCost(
                attack=cost.attack, examples=old.examples + cost.examples, fooled=old.fooled + cost.fooled,
                forward=old.forward + cost.forward, backward=old.backward + cost.backward,
                seconds=round(old.seconds + cost.seconds, 3),
            )  # fmt: skip
    return list(whole.values())


def _remedies(q: Question, logs: Sequence[Mapping[str, Any]]) -> list[Remedy]:
    """What was tried on the probe, and then what the kept ways did to all examples."""
    remedies = list(q.strategy.remedies)
    codes = [f for remedy in remedies[:1] for f in remedy.findings]
    for at, way in enumerate(q.strategy.ways):
        parts = [log["ways"][at] for log in logs]
        correct = sum(part["correct"] for part in parts)
        before, fooled = sum(part["examples"] for part in parts), sum(part["fooled"] for part in parts)
        remedies.append(
            Remedy(
                name=f"{way.name}: on all examples", findings=codes, examples=before, fooled=fooled,
                before=before / max(1, correct), after=(before - fooled) / max(1, correct),
                forward=sum(p["forward"] for p in parts), backward=sum(p["backward"] for p in parts),
                seconds=round(sum(p["seconds"] for p in parts), 3), kept=True,
            )
        )  # fmt: skip
    return remedies


def _three_ways(
    q: Question, logs: Sequence[Mapping[str, Any]], estimate: Any, attacked: Estimate, called: str | None
) -> ThreeWays | None:
    parts = [log["defense"] for log in logs]
    if q.undefended is None or not parts or any(part is None for part in parts):
        return None
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    if isinstance(q.model, Defended):
        name = called or " then ".join(
            str(getattr(defense, "name", type(defense).__name__)) for defense in q.model.defenses
        )
    else:
        name = "what stands before the network"
    return ThreeWays(
        defense=name, undefended_clean=estimate(total["clean"]), undefended=estimate(total["undefended"]),
        defended_clean=estimate(total["defended_clean"]), non_adaptive=estimate(total["non_adaptive"]), adaptive=attacked,
    )  # fmt: skip


def _draws_fooled(logs: Sequence[Mapping[str, Any]]) -> float | None:
    rates = [log["rate"] for log in logs if log["rate"]]
    return sum(total for total, _ in rates) / sum(n for _, n in rates) if rates else None


def _classes(
    evidence: Mapping[str, np.ndarray], correct: np.ndarray, held: np.ndarray, names: Sequence[str], estimate: Any
) -> list[ByClass]:
    found = []
    for label in np.unique(evidence["label"]):
        mine = evidence["label"] == label
        n = int(mine.sum())
        name = names[label] if label < len(names) else str(label)
        clean, attacked = clopper_pearson(int((correct & mine).sum()), n), clopper_pearson(int((held & mine).sum()), n)
        found.append(ByClass(label=int(label), name=name, clean=clean, attacked=attacked))
    return found


def _examples(evidence: Mapping[str, np.ndarray], proved: np.ndarray, eps: float) -> list[Example]:
    columns = ("example", "label", "clean_prediction", "fooled_by", "distance", "error")
    return [
        Example(
            index=int(index), label=int(label), clean_prediction=int(prediction), fooled_by=by, error=error,
            distance=None if not np.isfinite(distance) or error is not None else float(distance),
            certified_radius=float(eps) if sure and np.isfinite(eps) else None,
        )
        for sure, index, label, prediction, by, distance, error in zip(
            proved, *(evidence[name] for name in columns), strict=True
        )
    ]  # fmt: skip


# --- what is shown -------------------------------------------------------------------------------------


def _verdict(
    clean: Estimate, attacked: Estimate, certified: Estimate | None, trust: str, findings: Sequence[Finding], q: Question,
    protocol: str, asked: int, defense: ThreeWays | None, rate: float | None,
) -> list[str]:  # fmt: skip
    n = clean.n
    closed = certified is not None and certified.value == attacked.value
    share = f"At most {percent(attacked)}"
    if certified is not None:
        share = f"Exactly {percent(attacked)}" if closed else f"Between {percent(certified)} and {percent(attacked)}"
    said = [f"{share} of {n} images withstand {q.threat}; {percent(clean)} are right without an attack."]
    if closed:
        said.append("What is proved and what attacks have left are the same images: none of these images is undecided.")
    elif certified is not None:
        left = f"{100 * (attacked.value - certified.value):.1f} %"
        said.append(f"The lower number is proved: no attack can leave less. {left} of the images are undecided.")
    if trust == "valid" and not closed:
        said.append(
            "The attack is an upper bound: a stronger one may leave less. The checks found no sign that it failed."
        )
    elif trust != "valid":
        worst = [f.code for f in findings if f.severity != "note"]
        said.append(f"The number is {trust}: {', '.join(dict.fromkeys(worst))}.")
    if defense is not None and defense.gap > 0:
        said.append(
            f"Attacked as if {defense.defense} were not there, the model seems to keep "
            f"{percent(defense.non_adaptive)}; by an attacker who knows of it, {percent(defense.adaptive)}: "
            f"{100 * defense.gap:.1f} points of safety are not there."
        )
    if q.black_box:
        said.append(
            f"The model was asked for {access_of(q.model).words}: the number is for attackers who see no more, and ask no "
            f"more than {sum(stage.attack.steps * stage.trials for stage in q.plan.stages())} times an image."
        )
    if rate is not None:
        said.append(
            "The model is random: an image counts as fooled when most of 20 draws are wrong, and most of 100 more. The "
            f"images found fool it on {100 * rate:.1f} % of fresh draws."
        )
    if n < asked:
        said.append(f"{n} of {asked} images were judged, in random order: what was asked for was certain by then.")
    if protocol == "quick":
        said.append("The protocol quick is for development: its number is never a verdict.")
    return said


def _tables(
    clean: Estimate, attacked: Estimate, certified: Estimate | None, rounded: Estimate | None, rate: float | None, trust: str,
    costs: Sequence[AttackCost], evidence: Mapping[str, np.ndarray], n: int,
) -> list[Table]:  # fmt: skip
    rows = [
        ["clean accuracy", percent(clean, interval=True)],
        ["robust accuracy (attacked)", percent(attacked, interval=True)],
        *([["robust accuracy (proved)", percent(certified, interval=True)]] if certified is not None else []),
        *([["the same, rounded to 8 bits", percent(rounded, interval=True)]] if rounded is not None else []),
        *([["draws that the images found fool", f"{100 * rate:.1f} %"]] if rate is not None else []),
        ["trust", trust],
        ["passes per image", f"{(evidence['forward'] + evidence['backward']).sum() / max(1, n):.0f}"],
        ["seconds", f"{sum(c.seconds for c in costs):.1f}"],
    ]
    by_attack = [
        [
            c.attack,
            str(c.examples),
            str(c.fooled),
            f"{(c.forward + c.backward) / max(c.examples, 1):.0f}",
            f"{c.seconds:.1f}",
        ]
        for c in costs
        if c.examples
    ]
    return [
        Table(id="summary", title="Result", columns=["measure", "value"], rows=rows, strong=[1]),
        Table(
            id="attacks",
            title="By attack",
            columns=["attack", "images", "fooled", "passes each", "seconds"],
            rows=by_attack,
        ),
    ]


def _proofs(logs: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What each method of certification did, on all shards."""
    parts = [log["proof"] for log in logs if log["proof"] is not None]
    if not parts:
        return []
    rows = [
        [name, str(sum(part["tried"][at] for part in parts)), str(sum(part["proved"][at] for part in parts))]
        for at, name in enumerate(parts[0]["methods"])
    ]
    doubted = sum(log["doubted"] for log in logs)
    return [
        Table(
            id="proofs", title="By certificate", columns=["method", "images", "proved"], rows=rows,
            caption="Each on what the ones before it left open, "
            f"{sum(part['seconds'] for part in parts):.1f} seconds in all. {doubted} of the images that are proved were "
            "attacked with PGD all the same; it fooled none.",
        )
    ]  # fmt: skip


def _bracket(logs: Sequence[Mapping[str, Any]], q: Question) -> list[Panel]:
    """What is proved, undecided and fooled at each eps, of the examples whose radii were sought on both sides."""
    found = np.array([pair for log in logs for pair in log["radii"]])
    if not len(found):
        return []
    eps, n = float(q.threat.eps), len(found)
    grid = [0.0, *(eps * level for level in LEVELS)]

    def proved(at: float) -> Estimate:
        return clopper_pearson(int(((found[:, 0] >= at) & (found[:, 1] > 0)).sum()), n)

    def held(at: float) -> Estimate:
        return clopper_pearson(int((found[:, 1] > at).sum()), n)

    return [
        Panel(
            id="bracket",
            title="Proved, undecided, fooled",
            x_label=f"{type(q.threat).__name__} eps",
            curves=[
                Curve(label="proved below", x=grid, y=[proved(at) for at in grid], role="proved"),
                Curve(label="fooled above", x=grid, y=[held(at) for at in grid], role="attacked"),
            ],
            marks=[
                Mark(label="proved", x=eps, y=proved(eps), role="proved"),
                Mark(label="not fooled", x=eps, y=held(eps), role="attacked"),
            ],
            caption=f"{n} of the examples. Below: proved, by intervals and CROWN. Above: fooled, by the smallest changes "
            "that a short minimum-norm attack and the attacks above found. Between: undecided.",
        )
    ]  # fmt: skip


def _panels(logs: Sequence[Mapping[str, Any]], q: Question) -> list[Panel]:
    """Accuracy against eps, by the smallest changes found for some examples of each shard."""
    found = np.array([size for log in logs for size in log["sizes"]])
    if not len(found):
        return []
    eps = float(q.threat.eps)
    far = min(2 * eps, max(float(found.max()), eps)) if np.isfinite(eps) else float(found.max())
    grid = [far * k / POINTS for k in range(POINTS + 1)]
    curve = [clopper_pearson(int((found > at).sum()), len(found)) for at in grid]
    marks = [Mark(label="eps", x=eps, y=clopper_pearson(int((found > eps).sum()), len(found)))] if eps <= far else []
    return [
        Panel(
            id="distances",
            title="Accuracy against eps",
            x_label=f"{type(q.threat).__name__} eps",
            curves=[Curve(label="attacked", x=grid, y=curve)],
            marks=marks,
            caption=f"By the smallest changes that a short minimum-norm attack and the attacks above found for {len(found)} "
            "of the examples: an upper bound at every eps, and at eps itself looser than the number above.",
        )
    ]
