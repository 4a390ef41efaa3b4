"""What is said beside the numbers: how numbers are written, and the terms that a page uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from unfooled.results import Estimate, Evaluation, Panel, Table

TERMS: tuple[tuple[str, str, str], ...] = (
    (
        "Certified accuracy",
        r"certified accuracy",
        "The share of images that are right and proved to stay right, whatever is done to them within the threat. It is a "
        "lower bound: what is not proved may hold all the same.",
    ),
    (
        "Accuracy under attack",
        r"accuracy|attack|fool",
        "The share of images still classified correctly after the attack. It is an upper bound: a stronger attack may "
        "find more mistakes, never fewer.",
    ),
    (
        "eps (ε)",
        r"\beps\b|ε|epsilon",
        "The attacker’s budget: how far an image may be moved, in units of the input. Where nothing else is said, no "
        "component changes by more than eps.",
    ),
    (
        "linf",
        r"\blinf\b",
        "The threat linf:ε: every component of the image (a pixel’s brightness, or one of its colours) may change, none "
        "by more than ε.",
    ),
    ("l2", r"\bl2\b", "The threat l2:ε: the root of the sum of all squared changes is at most ε."),
    ("l1", r"\bl1\b", "The threat l1:ε: the sum of all changes, each counted as positive, is at most ε."),
    ("l0", r"\bl0\b", "The threat l0:n: at most n components change, as much as they like."),
    (
        "FGSM",
        r"\bfgsm\b",
        "One step. Every pixel moves by eps in the direction that raises the loss: x′ = x + ε · sign(∇ₓ loss). "
        "Goodfellow et al. 2015.",
    ),
    (
        "IBP",
        r"\bibp\b",
        "Interval bound propagation: an interval for every number goes through every layer. Fast, loose. Gowal et al. 2018.",
    ),
    (
        "CROWN",
        r"\bcrown\b",
        "A line under and one over every activation, followed back to the image. alpha-crown chooses the slopes of these "
        "lines by gradient. Zhang et al. 2018, Xu et al. 2021.",
    ),
    (
        "Randomized smoothing",
        r"\bsmooth(ing|ed)\b",
        "The smoothed classifier answers what the model answers most often on the image with noise. If that majority is "
        "large enough, no small change can take it away. Cohen et al. 2019.",
    ),
    (
        "PGD",
        r"\bpgd\b",
        "FGSM in many smaller steps. After each step the image is put back within eps of the original. It finds what "
        "one step misses. Madry et al. 2018.",
    ),
    (
        "Non-adaptive",
        r"non-adaptive|does not know|not know of",
        "The attacker works on the model without its defense, which is switched on afterwards. It measures surprise, "
        "not safety.",
    ),
    (
        "Adaptive",
        r"(?<!non-)\badaptive|who does\b|who knows",
        "The attacker knows the defense and takes gradients through it. This is the number to rely on.",
    ),
    (
        "Backward",
        r"\bbackward\b|stand-in",
        "The pass in which an attack takes its gradient. A step whose own gradient is missing or zero (rounding, a filter "
        "outside torch) gets another on the way back, such as the identity; what the model answers stays its own.",
    ),
    (
        "Draws",
        r"\bdraws?\b|\brandom model\b|is random",
        "A random model answers otherwise in each pass. Gradients are averaged over several draws, and a draw too few "
        "must not decide: what most draws say counts, of images and of adversarial images alike.",
    ),
    (
        "Interval",
        r"\[\d",
        "The range that chance leaves for the accuracy, given how many images were tested. It says nothing of attacks "
        "stronger than those tried.",
    ),
    (
        "Size",
        r"\bsize\b",
        "How far the adversarial image lies from the original, by the measure that the threat names.",
    ),
)


def terms(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The terms that occur in an evaluation, with what they mean."""
    found = terms_in(_texts(evaluation))
    return (
        found if evaluation.kind != "certificate" else [(name, words) for name, words in found if "attack" not in name]
    )


def terms_in(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The terms that occur in these texts, with what they mean."""
    text = " ".join(texts)
    return [(name, meaning) for name, pattern, meaning in TERMS if re.search(pattern, text, re.IGNORECASE)]


def _texts(evaluation: Evaluation) -> Iterable[str]:
    yield from (evaluation.title, *evaluation.verdict, *evaluation.settings.values(), *evaluation.notes)
    for table in evaluation.tables:
        yield from (table.title, table.caption, *table.columns)
        yield from (cell for row in table.rows for cell in row)
    for panel in evaluation.panels:
        yield from (panel.title, panel.caption, panel.x_label, "accuracy")
        yield from (text for curve in panel.curves for text in (curve.label, curve.role))
    for gallery in evaluation.galleries:
        yield from (gallery.title, gallery.caption, "size" if gallery.pictures else "")
        yield from (picture.attack for picture in gallery.pictures)


def bands(panels: Sequence[Panel]) -> str:
    """What the bands of the panels are: the method of their intervals and how many images each point stands on."""
    estimates = [y for panel in panels for curve in panel.curves for y in curve.y]
    if not estimates:
        return ""
    methods = " or ".join(dict.fromkeys(y.method for y in estimates))
    low, high = min(y.n for y in estimates), max(y.n for y in estimates)
    images = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"Each point is the accuracy on {images} images. Bands: {methods} intervals."


def numeric(table: Table) -> list[bool]:
    """Which columns hold numbers: all cells that hold something begin as a number does. The first names its row."""
    columns = []
    for n in range(len(table.columns)):
        cells = [row[n].strip() for row in table.rows if n < len(row) and row[n].strip() not in ("", "–", "—", "-")]
        columns.append(bool(cells) and all(_is_number(cell) for cell in cells) and n > 0)
    return columns


def _is_number(cell: str) -> bool:
    """61.2 % [58.1, 64.2], 8/255, ×3.1, 12 s: a number with little beside it."""
    return bool(re.match(r"[-+−±≤≥<>~≈×]?\s*\.?\d", cell)) and len(re.findall(r"[^\W\d_]", cell)) <= 8


def in_parts(cell: str) -> tuple[str, str]:
    """A cell as its value and its interval, which may be empty."""
    match = re.fullmatch(r"(.*\S)(\s+\[[^\[\]]*\])", cell, re.DOTALL)
    return (match[1], match[2]) if match else (cell, "")


def values(panel: Panel) -> tuple[list[str], list[list[Estimate | None]]]:
    """The numbers behind a panel: each x in order, by name where it has one, and the estimate of every curve there."""
    xs = sorted({x for curve in panel.curves for x in curve.x})
    held = [dict(zip(curve.x, curve.y, strict=True)) for curve in panel.curves]
    return [panel.ticks[int(x)] if panel.ticks else f"{x:.6g}" for x in xs], [
        [points.get(x) for points in held] for x in xs
    ]


def together(text: str) -> Markup:
    """The text with its percentages kept on one line."""
    kept = re.sub(r"[+−-]?\d[\d.,]* %", r'<span class="whole">\g<0></span>', str(escape(text)))
    return Markup(kept)


def size(value: float) -> str:
    """A distance with three digits that matter: 0.0500, 1.25."""
    return f"{value:#.3g}".rstrip(".")


def duration(seconds: float) -> str:
    """Seconds as people write them: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
