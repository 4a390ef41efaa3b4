"""Findings of a whole run, from the record that its shards kept: all examples, not a first batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..intervals import clopper_pearson
from ..results import SEVERITIES, AttackCost, Finding
from .catalog import KINDS, finding

FEW_IMAGES = KINDS["few-images"].threshold or 0


def of_run(
    logs: Sequence[Mapping[str, Any]], costs: Sequence[AttackCost], evidence: Mapping[str, np.ndarray], bad: np.ndarray,
    correct: np.ndarray, held: np.ndarray, protocol: str, classes: int,
) -> list[Finding]:  # fmt: skip
    """What the run itself shows."""
    n, left = len(held), int(held.sum())
    found: list[Finding] = []
    if bad.any():
        names = evidence["example"][bad]
        text = f"The logits of {len(names)} examples are not finite: {', '.join(map(str, names[:8]))}"
        found.append(finding("nonfinite-logits", len(names), text + (" …" if len(names) > 8 else ".")))
    after = [c for at, c in enumerate(costs) if any(before.examples for before in costs[:at])]  # it was not the first
    blind = sum(c.fooled for c in after if c.attack.split(":")[0] in ("square", "hopskipjump"))
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
    steep = sum(log["steep"] for log in logs)
    if steep:
        text = f"On {steep} of {int(correct.sum())} examples an attack met gradients of NaN or inf and went no further."
        found.append(finding("nonfinite-gradients", steep / max(1, int(correct.sum())), text))
    rises = sum(log["seen"]["late_rises"] for log in logs)
    rise = sum(log["seen"]["late_rise"] for log in logs) / max(1, rises)
    if rise > (KINDS["incomplete-optimisation"].threshold or 0.0):
        text = f"On images left, the last 10 looks still made {100 * rise:.0f} % of the loss's rise."
        found.append(finding("incomplete-optimisation", rise, text))
    found += _of_pairs(logs, classes)
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


def _of_pairs(logs: Sequence[Mapping[str, Any]], classes: int) -> list[Finding]:
    """What counts in pairs say: points that do not transfer, and survivors where nothing should survive."""
    found = []
    first, second = (sum(log["transfer"][k] for log in logs if log["transfer"]) for k in (0, 1))
    if first and 1 - second / first > (KINDS["transfer-failure"].threshold or 0.0):
        text = f"Of {first} points that fool the surrogate, {second} fool the model."
        found.append(finding("transfer-failure", 1 - second / first, text))
    held, n = (sum(log["half"][k] for log in logs if log["half"]) for k in (0, 1))
    if n and held / n - 1 / classes > (KINDS["large-eps-survivors"].threshold or 0.0):
        text = f"At Linf 0.5 of the range, {held} of {n} examples still hold."
        found.append(finding("large-eps-survivors", held / n - 1 / classes, text))
    return found


def settle(findings: Sequence[Finding], settled: Mapping[str, str]) -> list[Finding]:
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
