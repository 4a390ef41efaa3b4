"""The plain numbers of a whole study: what is written as `evaluation.json`, and what reports are drawn from.

No torch here. `schema()` is the JSON schema of what is written; `docs/evaluation.schema.json` is its copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from .errors import DataError, MissingData

SCHEMA_VERSION = 2
SEVERITIES = ("note", "suspect", "invalid")
TRUST = {"note": "valid", "suspect": "suspect", "invalid": "invalid"}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frozen record that refuses unknown fields."""


class Estimate(Record, frozen=True):
    """A share of n examples with its interval."""

    value: float
    low: float
    high: float
    n: int
    method: str = "Clopper-Pearson 95 %"


class Curve(Record, frozen=True):
    """Accuracy against x (eps, or a defense's strength). Curves with the same `family` are shown in one colour.

    role:  how it is drawn: "model" (solid), "non-adaptive" (dashed), "adaptive" (solid), "clean" (thin, grey); "proved" and
           "attacked" are the edges of areas.
    """

    label: str
    x: list[float]
    y: list[Estimate]
    role: str = "model"
    family: str = ""


class Mark(Record, frozen=True):
    """A point worth naming on a panel, such as the best strength of a defense."""

    label: str
    x: float
    y: Estimate
    role: str = "model"
    family: str = ""


class Panel(Record, frozen=True):
    """One plot: curves over a common axis, and the sentence that it shows.

    ticks:  names of the places 0, 1, 2 … on the axis, where it has places and no numbers: points, not lines, are drawn.
    """

    id: str
    title: str
    x_label: str
    curves: list[Curve]
    marks: list[Mark] = []
    caption: str = ""
    ticks: list[str] = []


class Table(Record, frozen=True):
    """Rows of text, as they are printed. The first column names the row; `strong` rows are the ones to read."""

    id: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    strong: list[int] = []
    caption: str = ""


class Picture(Record, frozen=True):
    """One example and what fooled the model on it. Its arrays are row `row` of `pictures.safetensors`."""

    row: int
    example: int
    label: str
    clean_prediction: str
    clean_confidence: float
    adversarial_prediction: str
    adversarial_confidence: float
    threat: str
    attack: str
    size: float
    model: str


class Gallery(Record, frozen=True):
    """Pictures that belong together. kind: "triptych" (image, scaled perturbation, adversarial image) or "grid"."""

    id: str
    title: str
    kind: str
    pictures: list[Picture]
    caption: str = ""


class Cost(Record, frozen=True):
    """What a part of the work took."""

    part: str
    forward: int
    backward: int
    seconds: float


class AttackCost(Record, frozen=True):
    """What one attack of a protocol did: how many images it was tried on and fooled, its passes and its time."""

    attack: str
    examples: int
    fooled: int
    forward: int
    backward: int
    seconds: float


class Bracket(Record, frozen=True):
    """Robust accuracy: from above by attacks, from below by certificates (None: nothing was to be proved)."""

    attacked: Estimate
    certified: Estimate | None = None


class Example(Record, frozen=True):
    """What became of one example.

    clean_prediction:  what the model answers on the image; -1 where its logits are not finite.
    fooled_by:  the attack that fooled the model on it; None where the model was wrong anyway or held.
    distance:   the size of that attack's change; 0 where the model was wrong anyway; None where it held.
    certified_radius:  a size up to which no change can fool the model; None where none was sought or proved.
    error:      why nothing can be said of it (logits that are not finite), or None. It counts as wrong.
    """

    index: int
    label: int
    clean_prediction: int
    fooled_by: str | None = None
    distance: float | None = None
    certified_radius: float | None = None
    error: str | None = None


class Finding(Record, frozen=True):
    """Something measured that bears on how far the numbers can be believed.

    code:         its name in the table of findings, such as "zero-gradients".
    severity:     "note", "suspect" or "invalid"; what adaptation has settled is a note.
    message:      what was seen, in a sentence.
    measurement:  the number measured; threshold: the one beyond which it is a finding (None: any).
    source:       the paper or the practice that the check comes from.
    remedy:       what to do about it.
    settled:      how adaptation settled it; empty where it did not.
    """

    code: str
    severity: str
    message: str
    measurement: float
    threshold: float | None
    source: str
    remedy: str
    settled: str = ""


class Remedy(Record, frozen=True):
    """One remedy that adaptation tried: gradients taken in another way, the verdict always the model's own.

    name:      what was done, such as "identity backward through 'quantize' (Quantize)".
    findings:  the codes of what it was tried for.
    examples:  how many it was tried on, `fooled` of which it fooled; none of them had been fooled before it.
    before, after:  robust accuracy before and after it, of the examples it was tried with.
    kept:      whether it was used on all examples.
    """

    name: str
    findings: list[str]
    examples: int
    fooled: int
    before: float
    after: float
    forward: int
    backward: int
    seconds: float
    kept: bool


class ThreeWays(Record, frozen=True):
    """A defense shown three ways, on the same examples.

    defense:       what stands before (or within) the network, by name.
    undefended_clean, undefended:  the network alone: clean accuracy, and robust accuracy under attack.
    defended_clean:  clean accuracy of the defended model, on the same examples.
    non_adaptive:  the defended model, attacked by what was made for the network alone.
    adaptive:      the defended model, attacked through the defense: the number that counts.
    """

    defense: str
    undefended_clean: Estimate
    undefended: Estimate
    defended_clean: Estimate
    non_adaptive: Estimate
    adaptive: Estimate

    @property
    def gap(self) -> float:
        """How much of the accuracy that the defense seems to bring back is not there (a share, not points)."""
        return self.non_adaptive.value - self.adaptive.value


class ByClass(Record, frozen=True):
    """One class: its accuracy, clean and under attack."""

    label: int
    name: str
    clean: Estimate
    attacked: Estimate


class Environment(Record, frozen=True):
    """Where and with what it was made."""

    unfooled: str
    python: str
    torch: str
    machine: str
    threads: int


class Evaluation(Record, frozen=True):
    """A whole study.

    kind:      "demo", "seed-study", "study", "sweep", "attack", "certificate" or "evaluation".
    verdict:   the sentences to read first.
    settings:  what it was made from, in order: data, models, threats, attacks, seed …
    command:   the command line that makes it again.

    An evaluation of a model has these too:

    clean_accuracy, robust_accuracy:  with their intervals.
    certified_accuracy:  of a run that only proves: the share that is proved, a lower bound of robust accuracy.
    rounded:   robust accuracy when the adversarial images are rounded to 8 bits a pixel; None where they cannot be.
    draws_fooled:  of a random model, the mean share of draws on which the points that count as fooling it do so.
    trust:     "valid", "suspect" or "invalid": the worst severity left among the findings.
    findings:  what was measured that bears on that, the worst first.
    remedies:  what adaptation tried, in order.
    defense:   the three ways of a defense; None where there is none to take away.
    classes:   accuracy by class.
    attacks:   what each attack of the protocol did.
    examples:  one for each image that was judged, by rising index.
    asked:     how many images there were; more than were judged where a precision or an assertion ended the run.
    """

    kind: str
    title: str
    verdict: list[str]
    settings: dict[str, str]
    command: str
    environment: Environment
    created: str
    tables: list[Table] = []
    panels: list[Panel] = []
    galleries: list[Gallery] = []
    cost: list[Cost] = []
    notes: list[str] = []
    clean_accuracy: Estimate | None = None
    robust_accuracy: Bracket | None = None
    certified_accuracy: Estimate | None = None
    rounded: Estimate | None = None
    draws_fooled: float | None = None
    trust: str | None = None
    findings: list[Finding] = []
    remedies: list[Remedy] = []
    defense: ThreeWays | None = None
    classes: list[ByClass] = []
    attacks: list[AttackCost] = []
    examples: list[Example] = []
    asked: int = 0
    schema_version: int = SCHEMA_VERSION

    @property
    def left(self) -> list[Finding]:
        """The findings that speak against the numbers: those that are not notes."""
        return [finding for finding in self.findings if finding.severity != "note"]

    def to_json(self) -> str:
        """Pretty JSON. Infinite numbers do not occur in it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema of an evaluation."""
    found: dict[str, Any] = msgspec.json.schema(Evaluation)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unfooled evaluation",
        **found,
    }


def read(path: Path) -> Evaluation:
    """Read an evaluation; one of another version, or damaged, is a `DataError` that says which."""
    if not path.is_file():
        raise MissingData(f"There is no {path}. A run folder holds an evaluation.json when its run has ended.")
    raw = path.read_bytes()
    try:
        version = msgspec.json.decode(raw).get("schema_version")
    except (msgspec.DecodeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    if version != SCHEMA_VERSION:
        raise DataError(f"{path} has schema version {version}; this version of unfooled reads {SCHEMA_VERSION}.")
    try:
        return msgspec.json.decode(raw, type=Evaluation)
    except msgspec.ValidationError as error:
        raise DataError(f"{path} is not an evaluation: {error}.") from None


def percent(estimate: Estimate, interval: bool = False) -> str:
    """An estimate as people write it: 87.3 %, or 87.3 % [85.1, 89.3]."""
    text = f"{100 * estimate.value:.1f} %"
    return f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]" if interval else text
