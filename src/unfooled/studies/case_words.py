"""The sentences of a safety-critical case that hold for all of them, from the numbers of the run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..results import Estimate, Evaluation, percent
from .case import LEVELS, Reached

OPEN, SHAKEN = 0.1, 0.9  # the share of clean accuracy left: below, an attacker decides; above, little is lost
SCOPE = (
    "What was not tried: this attacker has the network's weights and changes the pixels after the camera. Paint or "
    "stickers on the thing itself, light and camera are another question, and so is an attacker who may only ask."
)


def steps(size: float) -> str:
    """A size of change in steps of 8 bits: 0.43 of 255 steps."""
    return f"{LEVELS * size:.2g} of {LEVELS} steps"


def telling(clean: Estimate, held: Mapping[int, Estimate], usual: int) -> int:
    """The levels to speak of: the smallest at which hardly anything is left, at most the usual."""
    return next((at for at, kept in held.items() if at < usual and kept.value < OPEN * clean.value), usual)


def headline(clean: Estimate, kept: Estimate, levels: int, things: str, more: str = "") -> str:
    """The finding, in one sentence: what a small change does; `more` is what it means here."""
    return (
        f"Changing no pixel by more than {levels} of {LEVELS} steps takes the network from {percent(clean)} of the {things} "
        f"right to {percent(kept)}{more}."
    )


def clean_sentence(clean: Estimate, things: str) -> str:
    """What the usual test says."""
    return (
        f"Not attacked, the network gets {percent(clean)} of {clean.n:,} {things} right "
        f"(95 % interval {100 * clean.low:.1f} to {100 * clean.high:.1f} %). That is what its usual test would say."
    )


def attacked_sentence(fgsm: Reached, held: Mapping[int, Estimate]) -> str:
    """What FGSM and the protocol leave at each size of change."""
    parts = [
        f"{percent(kept)} at {levels}/255 (FGSM alone: {percent(fgsm.accuracy(levels))})"
        for levels, kept in held.items()
    ]
    return (
        f"Attacked, it keeps {', '.join(parts[:-1])} and {parts[-1]}. A change of 1/255 is one step of an 8-bit pixel, "
        "and 8/255 is 3 % of the way from black to white: at best a faint grain."
    )


def smallest_sentence(best: Reached, what: str) -> str:
    """How small a change is enough: for the first image, and for half of those that it gets right."""
    hit = best.fooled()
    if not hit.any():
        return "No attack fooled it on any image. That may be strength, or a fault of the attacks: read the notes on trust."
    half = float(np.median(best.size[best.correct]))
    word = f"; half of all images that it gets right fall to {steps(half)} or less" if np.isfinite(half) else ""
    least = steps(float(best.size[hit].min()))
    return f"The smallest change that fooled it moves no pixel by more than {least}: {what}{word}."


def saved_sentence(levels: int, saved: Estimate, unsaved: Estimate) -> str:
    """What is left of the attack after the image has been written to a file."""
    return (
        f"Saved in a file, with pixels of 8 bits, such images leave {percent(saved)} at {levels}/255; unsaved, "
        f"{percent(unsaved)}."
    )


def decision(clean: Estimate, kept: Estimate, levels: int, stakes: str, remedy: str) -> str:
    """What follows for whoever must decide.

    stakes:  what must not be left to this network, as the object of "do not let it".
    remedy:  what to do instead, a sentence.
    """
    share = kept.value / clean.value if clean.value else 0.0
    if share < OPEN:
        first = (
            f"To decide: whoever can touch the image by {levels}/255 decides what this network answers. Do not let it "
            f"{stakes} wherever somebody else could have touched the image."
        )
    elif share < SHAKEN:
        first = (
            f"To decide: at {levels}/255 an attacker turns {percent(clean)} into {percent(kept)}. Do not let it {stakes} on "
            "the strength of its clean accuracy."
        )
    else:
        first = (
            f"To decide: at {levels}/255 little was lost to these attacks. That is no proof: a stronger attack may find "
            f"more. Before it may {stakes}, ask for a certificate or another attacker."
        )
    return f"{first} {remedy}"


def trust_sentence(evaluation: Evaluation) -> str:
    """Whether anything speaks against the numbers."""
    if evaluation.trust == "valid":
        return "Nothing that was checked speaks against these numbers. They are upper bounds: more may be found, never less."
    return f"How far to believe these numbers: {evaluation.trust}. The notes say why."


def doubts(evaluation: Evaluation, levels: int) -> list[str]:
    """What speaks against the evaluation, and where its own page is."""
    said = [f"{finding.severity}, {finding.code}: {finding.message}" for finding in evaluation.left]
    return [
        *said,
        f"The evaluation at {levels}/255 has a page of its own beside this one: evaluation-{levels}/report.html.",
    ]
