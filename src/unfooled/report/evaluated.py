"""What the page of an evaluation says of its numbers: the badge, the gap in words, what is shown first and what folded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from unfooled import frameworks
from unfooled.report import bracket, words
from unfooled.results import AttackCost, Bracket, ByClass, Estimate, Evaluation, Finding, ThreeWays, percent

CLASSES = 20  # shown at once; more are folded
NO_SIGN = "The checks found no sign"  # what the badge of a valid number says, and need not be said twice
BADGES = {
    "valid": f"{NO_SIGN} that the attacks failed: rely on the number as an upper bound. A stronger attack may leave less.",
    "suspect": "Something measured speaks against the number: settle it before you rely on it.",
    "invalid": "The number says nothing yet: what was measured shows that the evaluation failed.",
}

EXACT = f"{NO_SIGN} that the attacks failed, and what they have left is proved: on these images the number is exact."
DOUBTS = {
    "suspect": "The numbers are provisional: see the findings.",
    "invalid": "Do not quote these numbers: see the findings.",
}


class Way(NamedTuple):
    """One bar of a defense shown three ways. `gap` is how much of the illusion beyond it is not there."""

    kind: str
    name: str
    estimate: Estimate
    gap: float = 0.0


class Totals(NamedTuple):
    """What all attacks took together."""

    fooled: int
    forward: int
    backward: int
    seconds: float


def fits(evaluation: Evaluation) -> bool:
    """Whether it has the numbers that its own page is drawn from; runs of older versions have tables only."""
    return evaluation.kind == "evaluation" and evaluation.robust_accuracy is not None


def context(evaluation: Evaluation) -> dict[str, Any]:
    """What the template of an evaluation takes, besides what every page takes."""
    e, robust = evaluation, evaluation.robust_accuracy
    assert robust is not None
    ranked = worst_first(e.classes)
    return {
        "badge": EXACT if e.trust == "valid" and _closed(robust) else BADGES.get(e.trust or ""),
        "bracket": [bracket.draw(e, kind) for kind in ("wide", "narrow")],
        "parts": bracket.parts(e.clean_accuracy, robust),
        "judged": judged(e),
        "said": [sentence for sentence in e.verdict[1:] if not (e.trust == "valid" and NO_SIGN in sentence)],
        "doubt": doubt(e.trust, robust),
        "terms": terms(e),
        "left": [finding for finding in _by_severity(e.findings) if finding.severity != "note"],
        "settled": [finding for finding in e.findings if finding.severity == "note" and finding.settled],
        "noted": [finding for finding in e.findings if finding.severity == "note" and not finding.settled],
        "errors": [example for example in e.examples if example.error],
        "ways": ways(e.defense) if e.defense else [],
        "gap": gap_words(e.defense) if e.defense else [],
        "same_size": same_size(e),
        "other_cost": {part.part for part in e.cost} > {attack.attack for attack in e.attacks},
        "classes": [ranked[:CLASSES], ranked[CLASSES:]],
        "totals": totals(e.attacks),
        "taxonomies": taxonomies(e),
        "snippets": {name: value for name, value in e.settings.items() if "\n" in value.strip()},
    }


def _closed(robust: Bracket) -> bool:
    return robust.certified is not None and robust.certified.value == robust.attacked.value


def judged(evaluation: Evaluation) -> str:
    """How many images the numbers stand on, and how their intervals were made."""
    robust = evaluation.robust_accuracy
    assert robust is not None
    n, asked = robust.attacked.n, evaluation.asked
    some = f"{n:,} of {asked:,} images were judged, in random order" if asked > n else f"{n:,} images were judged"
    return f"{some}. Intervals: {robust.attacked.method}."


def doubt(trust: str | None, robust: Bracket) -> str:
    """What to hold against the numbers before they are quoted; empty where there is nothing."""
    if robust.certified and robust.certified.value > robust.attacked.value:
        return (
            "More is proved than attacks have left: the certificate or the attack is wrong. Do not quote these numbers."
        )
    return DOUBTS.get(trust or "", "")


def terms(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The terms that the page uses, with what they mean."""
    e = evaluation
    said = [e.title, *e.verdict, "accuracy under attack, interval [0"]
    said += [attack.attack for attack in e.attacks] + [finding.message for finding in e.findings]
    said += [remedy.name for remedy in e.remedies]
    if e.defense:
        said.append("non-adaptive, adaptive")
    if e.galleries:
        said.append("size")
    return words.terms_in(said)


def measured(finding: Finding) -> str:
    """What was measured, against its threshold."""
    if math.isnan(finding.measurement):
        return "not a number"
    if finding.threshold is None:
        return number(finding.measurement)
    return f"{number(finding.measurement)}, against a threshold of {number(finding.threshold)}"


def number(value: float) -> str:
    """A number with the digits that matter: 3, 1,024, 0.0712, 2.5e-07."""
    if value == round(value) and abs(value) < 1e9:
        return f"{round(value):,}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−", 1) if value < 0 else f"{value:.3g}"


def points(share: float) -> str:
    """A difference of shares in percentage points: 38.0 points, −1.2 points."""
    value = round(100 * share, 1) + 0.0
    return f"{value:.1f} points".replace("-", "−")


def ways(defense: ThreeWays) -> list[Way]:
    """The bars of a defense: with and without it, attacked by who does not know of it and by who does."""
    return [
        Way("clean", "Network alone, not attacked", defense.undefended_clean),
        Way("clean", "Defended, not attacked", defense.defended_clean),
        Way("alone", "Network alone, attacked", defense.undefended),
        Way("illusion", "Defended; the attacker does not know", defense.non_adaptive),
        Way("truth", "Defended; the attacker knows", defense.adaptive, max(defense.gap, 0.0)),
    ]


def gap_words(defense: ThreeWays) -> list[str]:
    """The gap, and what the defense is worth, in a sentence each."""
    seems, is_left = percent(defense.non_adaptive), percent(defense.adaptive)
    if round(1000 * defense.gap) > 0:
        first = (
            f"With {defense.defense}, {seems} seem to hold; {points(defense.gap)} of that are not there once the "
            "attacker knows of it."
        )
    elif round(1000 * defense.gap) == 0:
        first = f"With {defense.defense}, {is_left} hold, whether or not the attacker knows of it."
    else:
        first = (
            f"The attack that knows of {defense.defense} left {is_left}, more than the one that does not ({seems}): "
            "believe the lower number, and look for a stronger adaptive attack."
        )
    gain = min(defense.adaptive.value, defense.non_adaptive.value) - defense.undefended.value
    change = "adds" if gain >= 0 else "takes"
    alone = f"the {percent(defense.undefended)} that the network alone keeps"
    onto = "to" if gain >= 0 else "from"
    loss = defense.undefended_clean.value - defense.defended_clean.value
    price = f" Without an attack it costs {points(loss)}." if round(1000 * loss) > 0 else ""
    return [first, f"Against an attacker who knows, it {change} {points(abs(gain))} {onto} {alone}.{price}"]


def same_size(evaluation: Evaluation) -> bool:
    """Whether all changes that are shown are of one size, to a percent: then none is the smallest."""
    sizes = [picture.size for gallery in evaluation.galleries for picture in gallery.pictures]
    return len(sizes) > 1 and min(sizes) > 0.99 * max(sizes)


def worst_first(classes: Iterable[ByClass]) -> list[ByClass]:
    """The classes by what attacks have left of them."""
    return sorted(classes, key=lambda one: (one.attacked.value, one.clean.value, one.label))


def each(passes: int, examples: int) -> str:
    """Passes per image: 12, 0.4, 1,240."""
    if not examples:
        return "–"
    value = passes / examples
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def totals(attacks: Sequence[AttackCost]) -> Totals:
    """The sums over attacks. Images are not among them: the same image is tried by many."""
    return Totals(
        sum(a.fooled for a in attacks),
        sum(a.forward for a in attacks),
        sum(a.backward for a in attacks),
        sum(a.seconds for a in attacks),
    )


def taxonomies(evaluation: Evaluation) -> list[tuple[str, str, list[frameworks.Exercised]]]:
    """Each taxonomy with its address and its categories, as the attacks that were run exercise them."""
    ran = [attack.attack for attack in evaluation.attacks if attack.examples]
    if evaluation.defense:  # its non-adaptive attack is one, also where it fooled nothing more
        ran.append("transfer from the network alone")
    found = frameworks.exercised(ran)
    return [
        (name, address, [each for each in found if each.category.framework == name])
        for name, address in frameworks.ADDRESSES.items()
    ]


def _by_severity(findings: Iterable[Finding]) -> list[Finding]:
    rank = {"invalid": 0, "suspect": 1}
    return sorted(findings, key=lambda finding: rank.get(finding.severity, 2))
