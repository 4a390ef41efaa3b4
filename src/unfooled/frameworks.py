"""What a run's attacks are called in two public taxonomies: MITRE ATLAS 5.6.0 and NIST AI 100-2e2025.

It says which of their categories a run has exercised, as evidence for whoever assesses a system. It is no statement of
compliance: neither text sets requirements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

ATLAS, NIST = "MITRE ATLAS 5.6.0", "NIST AI 100-2e2025"
ADDRESSES = {ATLAS: "https://atlas.mitre.org", NIST: "https://doi.org/10.6028/NIST.AI.100-2e2025"}

WHITE_BOX, SCORE, DECISION, TRANSFER = "white-box", "score-based", "decision-based", "transfer"
ANY = "any"

ACCESS: Mapping[str, str] = {
    **dict.fromkeys(
        ("fgsm", "bim", "pgd", "mi-fgsm", "md", "apgd", "apgd-l1", "deepfool", "superdeepfool", "ddn", "fmn", "fab", "cw",
         "pdpgd", "sigma-zero"),
        WHITE_BOX,
    ),
    "square": SCORE,
    "hopskipjump": DECISION,
}  # fmt: skip
"""What each attack sees of a model, by its name. A test holds it to what the attacks declare."""


class Category(NamedTuple):
    """A category of a taxonomy.

    id:    its identifier there. name: its name there. means: what it is, in our words.
    when:  the kinds of access that exercise it; `ANY` stands for every attack.
    """

    framework: str
    id: str
    name: str
    means: str
    when: tuple[str, ...]


CATEGORIES = (
    Category(ATLAS, "AML.T0015", "Evade AI Model", "inputs made so that the model answers wrongly", (ANY,)),
    Category(
        ATLAS,
        "AML.T0043.000",
        "Craft Adversarial Data: White-Box Optimization",
        "changes found with the model’s own gradients",
        (WHITE_BOX,),
    ),
    Category(
        ATLAS,
        "AML.T0043.001",
        "Craft Adversarial Data: Black-Box Optimization",
        "changes found by asking the model only",
        (SCORE, DECISION),
    ),
    Category(
        ATLAS,
        "AML.T0043.002",
        "Craft Adversarial Data: Black-Box Transfer",
        "changes found on another model",
        (TRANSFER,),
    ),
    Category(ATLAS, "AML.T0042", "Verify Attack", "each success confirmed by the model itself", (ANY,)),
    Category(NIST, "NISTAML.022", "White-box evasion", "the attacker knows the model", (WHITE_BOX,)),
    Category(NIST, "NISTAML.025", "Black-box evasion: score-based", "the attacker sees scores", (SCORE,)),
    Category(
        NIST, "NISTAML.025", "Black-box evasion: decision-based", "the attacker sees the class alone", (DECISION,)
    ),
    Category(NIST, "NISTAML.022", "Transferability", "the attacker works on another model", (TRANSFER,)),
)


class Exercised(NamedTuple):
    """A category, and the attacks of a run that exercise it: none of them where it was not exercised."""

    category: Category
    by: tuple[str, ...]


def access(attack: str) -> frozenset[str]:
    """What an attack, given as its text, sees of the model; empty for one that is not known here.

    A text that begins with "transfer" is a transfer, whatever made its examples; one that begins with "adapted:" takes
    gradients through the model in another way, or estimates them from scores. A plan has the access of all its parts.
    """
    words = attack.strip().lower()
    if words.startswith("transfer"):
        return frozenset({TRANSFER})
    if words.startswith("adapted:"):
        return frozenset({SCORE if "from scores" in words else WHITE_BOX})
    return frozenset(ACCESS[name] for name in re.findall(r"[a-z][a-z0-9-]*", words) if name in ACCESS)


def exercised(attacks: Iterable[str]) -> list[Exercised]:
    """Every category in order, with those of the attacks (texts) that exercise it, each named once."""
    seen = {attack: access(attack) for attack in attacks}
    return [Exercised(category, _by(category.when, seen)) for category in CATEGORIES]


def _by(when: Sequence[str], seen: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    return tuple(attack for attack, kinds in seen.items() if ANY in when or not kinds.isdisjoint(when))
