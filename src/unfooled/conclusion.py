"""From the evidence of a run to its numbers, its findings and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from .album import Album
from .checks.catalog import KINDS, finding
from .checks.preflight import Preflight
from .data import Given
from .defenses import Defended
from .environment import environment, now
from .intervals import clopper_pearson, confidence_sequence
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
    Gallery,
    Panel,
    Remedy,
    Table,
    ThreeWays,
    percent,
)
from .shard import Question
from .store import RunFolder, shard_file

FEW_IMAGES = 100
POINTS = 24  # of the curve of accuracy against the size of changes


def running(folder: RunFolder, tuned_for: float) -> Estimate:
    """Robust accuracy of the examples judged so far, with an interval that holds at every moment."""
    if not folder.shards():
        return confidence_sequence(0, 0, tuned_for=tuned_for)
    evidence = folder.evidence()
    held = evidence["clean_correct"] & ~evidence["success"] & ~_failed(evidence)
    return confidence_sequence(int(held.sum()), len(held), tuned_for=tuned_for)


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
    findings = [*found.findings, *q.strategy.findings, *_after(logs, costs, evidence, bad, correct, held, protocol)]
    findings += [finding("converted-input", 1, note) for note in notes]
    settled = dict(q.strategy.settled)
    findings = _judged(findings, settled)
    trust = TRUST[max((f.severity for f in findings), key=SEVERITIES.index, default="note")]
    rounded = None if any(log["rounded"] is None for log in logs) else estimate(sum(log["rounded"] for log in logs))
    defense = _three_ways(q, logs, estimate, attacked)
    galleries = _galleries(folder, q, source, evidence) if keep else []
    return Evaluation(
        kind="evaluation",
        title=f"{asked.get('model', 'The model')} against {q.threat}",
        verdict=_verdict(clean, attacked, trust, findings, q, protocol, len(q.images), defense),
        settings={**asked, "threat": str(q.threat), "protocol": protocol, "plan": str(q.plan), "seed": str(q.seed),
                  **({"surrogate": "given"} if q.surrogate is not None else {})},
        command=command,
        environment=environment(),
        created=now(),
        tables=_tables(clean, attacked, rounded, trust, costs, evidence, n),
        panels=_panels(evidence, correct, held, q, estimate),
        galleries=galleries,
        cost=[Cost(part=c.attack, forward=c.forward, backward=c.backward, seconds=c.seconds) for c in costs],
        notes=folder.notes(),
        clean_accuracy=clean,
        robust_accuracy=Bracket(attacked=attacked),
        rounded=rounded,
        trust=trust,
        findings=findings,
        remedies=_remedies(q, logs),
        defense=defense,
        classes=_classes(evidence, correct, held, source.classes, estimate),
        attacks=costs,
        examples=_examples(evidence),
        asked=len(q.images),
    )  # fmt: skip


# --- findings ------------------------------------------------------------------------------------------


def _after(
    logs: Sequence[Mapping[str, Any]], costs: Sequence[AttackCost], evidence: Mapping[str, np.ndarray], bad: np.ndarray,
    correct: np.ndarray, held: np.ndarray, protocol: str,
) -> list[Finding]:  # fmt: skip
    """What the run itself shows."""
    n, left = len(held), int(held.sum())
    found: list[Finding] = []
    if bad.any():
        names = evidence["example"][bad]
        text = f"The logits of {len(names)} examples are not finite: {', '.join(map(str, names[:8]))}"
        found.append(finding("nonfinite-logits", len(names), text + (" …" if len(names) > 8 else ".")))
    blind = sum(c.fooled for c in costs if c.attack.split(":")[0] in ("square", "hopskipjump"))
    counts = {"black-box-better": blind}
    for log in logs:
        for code, count in log["checks"].items():
            counts[code] = counts.get(code, 0) + count
    words = {
        "black-box-better": "Attacks without gradients fooled {} of {} examples that gradients had left.",
        "single-step-better": "One step fooled {} of {} examples that iterative attacks had left.",
        "noise-fools": "Random noise fooled {} of {} examples that the attacks had left.",
        "more-steps-help": "More steps fooled {} of {} examples that the protocol had left.",
        "hard-label-better": "An attack by decisions alone fooled {} of {} examples that the protocol had left.",
    }
    for code, text in words.items():
        low = clopper_pearson(counts.get(code, 0), n).low
        if low > (KINDS[code].threshold or 0.0):
            found.append(finding(code, low, text.format(counts[code], n)))
    unmoved = sum(log["unmoved"] for log in logs)
    if left and unmoved / left > (KINDS["unmoved-points"].threshold or 0.0):
        found.append(
            finding("unmoved-points", unmoved / left, f"The attacks did not move {unmoved} of {left} images left.")
        )
    rises = sum(log["seen"]["late_rises"] for log in logs)
    rise = sum(log["seen"]["late_rise"] for log in logs) / max(1, rises)
    if rise > (KINDS["incomplete-optimisation"].threshold or 0.0):
        text = f"On images left, the last 10 looks still made {100 * rise:.0f} % of the loss's rise."
        found.append(finding("incomplete-optimisation", rise, text))
    outside = sum(log["outside"] for log in logs)
    if outside:
        found.append(
            finding("attack-broken", outside, f"{outside} points lay outside the threat's set and were not counted.")
        )
    if protocol == "quick":
        found.append(
            finding("quick-protocol", 1, "The protocol quick is for development: its number is never a verdict.")
        )
    if n < FEW_IMAGES:
        found.append(finding("few-images", n, f"Only {n} images were judged."))
    return found


def _judged(findings: Sequence[Finding], settled: Mapping[str, str]) -> list[Finding]:
    """The findings, the worst first; what adaptation has settled is a note.

    Where it has settled what gradients could not do, attacks that need none may well have been better before it.
    """
    how = next(iter(settled.values()), "")
    out = []
    for one in findings:
        late = KINDS[one.code].settles and KINDS[one.code].when != "before"
        text = settled.get(one.code, how if late else "")
        out.append(msgspec.structs.replace(one, severity="note", settled=text) if text else one)
    return sorted(out, key=lambda f: -SEVERITIES.index(f.severity))


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


def _three_ways(q: Question, logs: Sequence[Mapping[str, Any]], estimate: Any, attacked: Estimate) -> ThreeWays | None:
    parts = [log["defense"] for log in logs]
    if q.undefended is None or not parts or any(part is None for part in parts):
        return None
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    if isinstance(q.model, Defended):
        name = " then ".join(str(getattr(defense, "name", type(defense).__name__)) for defense in q.model.defenses)
    else:
        name = "what stands before the network"
    return ThreeWays(
        defense=name, undefended_clean=estimate(total["clean"]), undefended=estimate(total["undefended"]),
        defended_clean=estimate(total["defended_clean"]), non_adaptive=estimate(total["non_adaptive"]), adaptive=attacked,
    )  # fmt: skip


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


def _examples(evidence: Mapping[str, np.ndarray]) -> list[Example]:
    columns = ("example", "label", "clean_prediction", "fooled_by", "distance", "error")
    return [
        Example(
            index=int(index), label=int(label), clean_prediction=int(prediction), fooled_by=by, error=error,
            distance=None if not np.isfinite(distance) or error is not None else float(distance),
        )
        for index, label, prediction, by, distance, error in zip(*(evidence[name] for name in columns), strict=True)
    ]  # fmt: skip


# --- what is shown -------------------------------------------------------------------------------------


def _verdict(
    clean: Estimate, attacked: Estimate, trust: str, findings: Sequence[Finding], q: Question, protocol: str, asked: int,
    defense: ThreeWays | None,
) -> list[str]:  # fmt: skip
    n = clean.n
    first = (
        f"At most {percent(attacked)} of {n} images withstand {q.threat}; {percent(clean)} are right without an attack."
    )
    said = [first]
    if trust == "valid":
        said.append(
            "The attack is an upper bound: a stronger one may leave less. The checks found no sign that it failed."
        )
    else:
        worst = [f.code for f in findings if f.severity != "note"]
        said.append(f"The number is {trust}: {', '.join(dict.fromkeys(worst))}.")
    if defense is not None and defense.gap > 0:
        said.append(
            f"Attacked as if it were not there, the defense ({defense.defense}) seems to leave "
            f"{percent(defense.non_adaptive)}; attacked through it, {percent(defense.adaptive)}: "
            f"{100 * defense.gap:.1f} points are not there."
        )
    if n < asked:
        said.append(f"{n} of {asked} images were judged, in random order: what was asked for was certain by then.")
    if protocol == "quick":
        said.append("The protocol quick is for development: its number is never a verdict.")
    return said


def _tables(
    clean: Estimate, attacked: Estimate, rounded: Estimate | None, trust: str, costs: Sequence[AttackCost],
    evidence: Mapping[str, np.ndarray], n: int,
) -> list[Table]:  # fmt: skip
    rows = [
        ["clean accuracy", percent(clean, interval=True)],
        ["robust accuracy (attacked)", percent(attacked, interval=True)],
        *([["the same, rounded to 8 bits", percent(rounded, interval=True)]] if rounded is not None else []),
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


def _panels(
    evidence: Mapping[str, np.ndarray], correct: np.ndarray, held: np.ndarray, q: Question, estimate: Any
) -> list[Panel]:
    """Accuracy against the size of the change that fooled: of the points found, so beyond eps nothing is known."""
    size = np.where(correct, evidence["distance"], 0.0)
    eps = float(q.threat.eps)
    if not np.isfinite(eps) or not correct.any():
        return []
    grid = [eps * k / POINTS for k in range(POINTS + 1)]
    values = [estimate(int((correct & ~((size <= at) & (size > 0) | ~correct)).sum())) for at in grid]
    values[-1] = estimate(int(held.sum()))
    return [
        Panel(
            id="distances", title="Accuracy against the size of the change", x_label=f"{type(q.threat).__name__} size",
            curves=[Curve(label="attacked", x=grid, y=values)],
            caption="By the changes that were found. Attacks with a fixed eps use all of it, so the true curve lies lower.",
        )
    ]  # fmt: skip


def _galleries(folder: RunFolder, q: Question, source: Given, evidence: Mapping[str, np.ndarray]) -> list[Gallery]:
    hit = np.flatnonzero(evidence["success"])
    if not len(hit) or q.images.dim() != 4 or q.images.shape[1] not in (1, 3) or not q.threat.unit_range:
        return []
    place = {int(name): at for at, name in enumerate(q.names.tolist())}
    rows = torch.tensor([place[int(name)] for name in evidence["example"]])
    points = _points(folder, q, place)
    hit = hit[np.argsort(evidence["distance"][hit], kind="stable")]
    album = Album(source.classes)

    def pictures(some: np.ndarray) -> list[Any]:
        found = []
        for at in some.tolist():
            row = rows[at : at + 1]
            found += album.add(
                q.model, q.images[row], points[row], q.labels[row], q.names[row], q.threat,
                str(evidence["fooled_by"][at]), "the model",
            )  # fmt: skip
        return found

    shown = [
        Gallery(id="triptych", title="What the attacks do", kind="triptych", pictures=pictures(hit[:3])),
        Gallery(id="smallest", title="The smallest changes that fooled", kind="grid", pictures=pictures(hit[:8])),
        Gallery(id="largest", title="The largest changes that fooled", kind="grid", pictures=pictures(hit[-8:][::-1])),
    ]
    folder.write_arrays("pictures.safetensors", album.arrays())
    return shown


def _points(folder: RunFolder, q: Question, place: Mapping[int, int]) -> Tensor:
    points = q.images.clone()
    for number in sorted(folder.shards()):
        held = folder.arrays(shard_file(number))
        at = torch.tensor([place[int(name)] for name in held["example"]])
        points[at] = torch.from_numpy(held["adversarial"]).to(points.dtype)
    return points
