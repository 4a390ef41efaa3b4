"""The page of `evaluation.json`, from its JSON schema."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parent.parent / "docs" / "evaluation.schema.json"
ENTRY = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): {2,}", re.MULTILINE)
WORDS = {  # fields that the records' own accounts leave to their names
    "Evaluation.clean_accuracy": "the share of images right without an attack",
    "Evaluation.robust_accuracy": "the share of images right under attack, from both sides",
    "title": "its heading",
    "environment": "where and with what it was made",
    "created": "when: date, time and offset from UTC",
    "tables": "what is printed and shown as tables",
    "panels": "what is shown as plots",
    "galleries": "what is shown as pictures",
    "cost": "what each part of the work took",
    "notes": "what was converted or is doubtful",
    "schema_version": "the version of this form; another one is refused when it is read",
    "Environment.unfooled": "the version of this package",
    "Environment.python": "the version of Python",
    "Environment.torch": "the version of PyTorch",
    "Environment.machine": "processor and cores, or GPU",
    "Environment.threads": "threads of PyTorch",
    "id": "its name, in file names and anchors too",
    "columns": "their headings",
    "rows": "their cells, as text",
    "strong": "the numbers of the rows to read first",
    "caption": "the sentence beneath it",
    "x_label": "what the axis shows",
    "curves": "what is drawn",
    "marks": "points that are named",
    "label": "its name",
    "x": "where on the axis",
    "y": "accuracy there",
    "role": "how it is drawn, as of a curve",
    "family": "what belongs together, and has one colour",
    "value": "the share, from 0 to 1",
    "low": "lower end of its interval",
    "high": "upper end of its interval",
    "n": "of how many examples",
    "method": "which interval it is: Clopper-Pearson, or a confidence sequence",
    "Gallery.kind": '"triptych" or "grid"',
    "pictures": "the examples shown",
    "row": "of `pictures.safetensors`",
    "example": "the image's number in the data",
    "Picture.label": "the true class, by name",
    "Picture.clean_prediction": "the class answered on the image, by name",
    "clean_confidence": "the share that softmax gives it",
    "adversarial_prediction": "the class answered on the adversarial image, by name",
    "adversarial_confidence": "the share that softmax gives it",
    "Picture.threat": "the threat, as text",
    "Picture.attack": "the attack that found it",
    "Picture.size": "the size of the change, in the threat's norm",
    "Picture.model": "the model shown, by name",
    "part": "which part of the work",
    "forward": "forward passes of single images",
    "backward": "backward passes of single images",
    "seconds": "wall time",
    "attack": "its name and options, as text",
    "AttackCost.examples": "images that it was tried on",
    "AttackCost.fooled": "of these, images that it fooled",
    "Bracket.attacked": "from above: the share right on the image and under every attack",
    "Bracket.certified": "from below: the share proved; null where nothing was to be",
    "Finding.threshold": "the one beyond which it is a finding; null: any",
    "Remedy.fooled": "images that it fooled, not fooled before",
    "Example.index": "the image's number in the data",
    "Example.label": "the true class",
    "ByClass.label": "the class's index",
    "ByClass.name": "the class's name",
    "ByClass.clean": "without an attack",
    "ByClass.attacked": "under attack",
}

HEAD = """# evaluation.json

Made by `python tools/site_pages.py` from the [JSON schema](../evaluation.schema.json), which a program can check a file against.

Every run folder holds one when its run has ended. `unfooled.results.read` gives it as an `Evaluation`, without PyTorch; any other
language reads it as what it is: one JSON object, UTF-8, no infinite numbers, fields in this order. Shares are from 0 to 1. A field with
a default may be missing. The arrays of images are not in it: they lie beside it, as safetensors.
"""


def page() -> str:
    """The whole page."""
    records = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    return "\n".join([HEAD, *(_record(name, record) for name, record in records.items())])


def _record(name: str, record: dict[str, Any]) -> str:
    about, told = _split(record.get("description", ""))
    needed = record.get("required", [])
    lines = ["| field | type | what it is |", "| --- | --- | --- |"]
    for field, kind in record["properties"].items():
        default = "" if field in needed else f" Default: `{json.dumps(kind['default'])}`."
        lines.append(f"| `{field}` | {_type(kind)} | {meaning(name, field, told)}.{default} |")
    return f"## {name}\n\n{about}\n\n" + "\n".join(lines) + "\n"


def meaning(record: str, field: str, told: dict[str, str]) -> str:
    """What a field is, without a full stop. Raises `KeyError` where nobody says."""
    found = WORDS.get(f"{record}.{field}") or told.get(field) or WORDS[field]
    return re.sub(r"\bNone\b", "null", found.rstrip(". …")).replace("|", "\\|")


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What a record is, and what is told of its fields."""
    text = inspect.cleandoc(text)
    told: dict[str, str] = {}
    about = []
    for block in text.split("\n\n"):
        parts = ENTRY.split(block)
        if parts[0].strip() or len(parts) == 1:
            about.append(" ".join(block.split()))
            continue
        for names, words in zip(parts[1::2], parts[2::2], strict=True):
            told |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return "\n\n".join(one for one in about if not one.endswith("has these too:")), told


def _type(kind: dict[str, Any]) -> str:
    """A schema's type in words; another record as a link to it."""
    if "anyOf" in kind:
        return " or ".join(_type(one) for one in kind["anyOf"])
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if kind["type"] == "array":
        return f"list of {_type(kind['items'])}"
    if kind["type"] == "object":
        return f"object of {_type(kind['additionalProperties'])}"
    return str(kind["type"])
