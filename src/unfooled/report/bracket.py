"""The bracket as a picture: what is proved, what attacks have left, what is right without them, on one scale.

The scale is all images. Left to right: those on which no change can fool the model (proved), those that held against
every attack, those that an attack fooled, those that were wrong anyway. Units are CSS pixels, top down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from unfooled.report import letters
from unfooled.results import Bracket, Estimate, Evaluation, percent

WIDE, NARROW = 712.0, 350.0
BAR_TOP, BAR = 84.0, 44.0
SMALL, LARGE, GAP = 12.0, 20.0, 12.0


class Part(NamedTuple):
    """A part of the scale: what the images in it are, and from which share to which."""

    kind: str
    meaning: str
    low: float
    high: float

    @property
    def share(self) -> float:
        """How much of the scale it covers."""
        return self.high - self.low


class _Label(NamedTuple):
    """What stands over the bar: lines from the top, and the share that they belong to."""

    at: float
    kind: str
    name: str
    value: str
    interval: str

    @property
    def width(self) -> float:
        big = LARGE if self.interval else SMALL + 2
        small = max(letters.width(words, SMALL) for words in (self.name, self.interval))
        return max(small, letters.width(self.value, big, bold=True)) + GAP


def parts(clean: Estimate | None, robust: Bracket) -> list[Part]:
    """The parts of the scale; one that cannot be told from its neighbour is not there."""
    held = robust.attacked.value
    right = 1.0 if clean is None else max(clean.value, held)
    proved = 0.0 if robust.certified is None else min(robust.certified.value, held)
    lost = "wrong without any attack, or fooled" if clean is None else "fooled by an attack"
    found = [Part("held", "held against every attack tried; nothing is proved of them", proved, held)]
    if robust.certified is not None:
        found.insert(0, Part("proved", "proved: no change within the threat fools the model", 0.0, proved))
    found.append(Part("fooled", lost, held, right))
    if clean is not None:
        found.append(Part("wrong", "wrong without any attack", right, 1.0))
    return found


def draw(evaluation: Evaluation, kind: str) -> Markup:
    """The picture as inline SVG; empty where there is no robust accuracy.

    kind:  "wide" for pages, "narrow" for telephones.
    """
    robust = evaluation.robust_accuracy
    if robust is None:
        return Markup("")
    wide = WIDE if kind == "wide" else NARROW
    high = BAR_TOP + BAR + (24 if evaluation.rounded else 0) + 24
    drawn = [
        *_hatch(kind),
        *_bar(parts(evaluation.clean_accuracy, robust), wide, kind),
        *_labels(_named(evaluation.clean_accuracy, robust), wide),
        *_whiskers(evaluation.clean_accuracy, robust, wide),
        *(_rounded(evaluation.rounded, wide) if evaluation.rounded else ()),
        *_axis(wide, high),
    ]
    head = (
        f'<svg viewBox="0 0 {_n(wide)} {_n(high)}" class="{kind}" role="img" aria-label="{escape(_said(evaluation))}">'
    )
    return Markup(head + "".join(drawn) + "</svg>")


def _said(evaluation: Evaluation) -> str:
    """The picture in words."""
    robust = evaluation.robust_accuracy
    assert robust is not None
    said = [f"Robust accuracy is at most {percent(robust.attacked, True)}: so much attacks have left."]
    proved = robust.certified
    said.append(f"At least {percent(proved, True)} is proved." if proved else "Nothing is proved yet.")
    if evaluation.clean_accuracy:
        said.append(f"Without attack: {percent(evaluation.clean_accuracy, True)}.")
    if evaluation.rounded:
        said.append(f"With adversarial images rounded to 8 bits: {percent(evaluation.rounded)}.")
    return " ".join(said)


# --- parts of the picture ------------------------------------------------------------------------


def _hatch(kind: str) -> Iterator[str]:
    """Stripes for what has held and is not proved."""
    yield (
        f'<defs><pattern id="bracket-{kind}-hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="7" height="7" class="under"/><rect width="2.6" height="7" '
        f'class="stripe"/></pattern><clipPath id="bracket-{kind}-round"><rect y="{_n(BAR_TOP)}" width="100%" '
        f'height="{_n(BAR)}" rx="4"/></clipPath></defs>'
    )


def _bar(found: Sequence[Part], wide: float, kind: str) -> Iterator[str]:
    yield f'<g clip-path="url(#bracket-{kind}-round)">'
    for part in found:
        fill = f' fill="url(#bracket-{kind}-hatch)"' if part.kind == "held" else ""
        yield (
            f'<rect class="part {part.kind}" x="{_n(part.low * wide)}" y="{_n(BAR_TOP)}" '
            f'width="{_n(part.share * wide)}" height="{_n(BAR)}"{fill}/>'
        )
    yield "</g>"


def _named(clean: Estimate | None, robust: Bracket) -> list[_Label]:
    """The labels, from left to right."""
    proved = robust.certified
    found = [
        _label("proved", "proved, at least", proved) if proved else _Label(0.0, "none", "proved", "nothing yet", ""),
        _label("attacked", "attacked, at most", robust.attacked),
    ]
    if clean:
        found.append(_label("clean", "not attacked", clean))
    return sorted(found, key=lambda label: label.at)


def _label(kind: str, name: str, estimate: Estimate) -> _Label:
    value, _, interval = percent(estimate, interval=True).partition(" [")
    return _Label(estimate.value, kind, name, value, f"[{interval}")


def _labels(found: Sequence[_Label], wide: float) -> Iterator[str]:
    """Names and values over the bar, none on another, each with a line to its place."""
    wanted = [label.at * wide for label in found]
    centres = letters.spread(wanted, [label.width for label in found], -GAP / 2, wide + GAP / 2)
    for label, centre, want in zip(found, centres, wanted, strict=True):
        half, x = (label.width - GAP) / 2, _inside(want, wide)
        moved = centre - want
        anchor, at = (
            ("middle", centre)
            if abs(moved) < 0.5
            else ("start", centre - half)
            if moved > 0
            else ("end", centre + half)
        )
        tip = _inside(at, wide)
        yield f'<path class="leader" d="M{_n(tip)} 61V64L{_n(x)} {_n(BAR_TOP - 4)}V{_n(BAR_TOP)}"/>'
        yield f'<g class="label {label.kind}" text-anchor="{anchor}">'
        size = LARGE if label.interval else SMALL + 2
        for y, words, points, weight in (
            (14, label.name, SMALL, 400),
            (37, label.value, size, 650),
            (55, label.interval, SMALL, 400),
        ):
            if words:
                yield _text(at, y, words, points, weight)
        yield "</g>"


def _whiskers(clean: Estimate | None, robust: Bracket, wide: float) -> Iterator[str]:
    """Each number with its interval, one under the other, so that none hides another."""
    proved, attacked = (robust.certified, "proved", 0.22), (robust.attacked, "attacked", 0.5)
    for estimate, kind, depth in (proved, attacked, (clean, "clean", 0.78)):
        if estimate is None:
            continue
        x, y = _inside(estimate.value * wide, wide), _n(BAR_TOP + depth * BAR)
        low, high = _n(_inside(estimate.low * wide, wide)), _n(_inside(estimate.high * wide, wide))
        line = f"M{low} {y}H{high}M{low} {float(y) - 4:g}v8M{high} {float(y) - 4:g}v8"
        edge = f"M{_n(x)} {_n(BAR_TOP)}v{_n(BAR)}"
        yield f'<g class="whisker {kind}"><path class="edge" d="{edge}"/><path class="halo" d="{line}"/>'
        yield f'<path d="{line}"/><circle cx="{_n(x)}" cy="{y}" r="4"/></g>'


def _rounded(estimate: Estimate, wide: float) -> Iterator[str]:
    """A small mark beneath the bar, its words to the side that has room for them."""
    x, base = _inside(estimate.value * wide, wide), BAR_TOP + BAR
    words = f"{percent(estimate)} rounded to 8 bits"
    room = x + 10 + letters.width(words, SMALL) <= wide
    yield f'<path class="mark" d="M{_n(x)} {_n(base + 4)}l5 9h-10z"/><g class="label rounded"'
    yield f' text-anchor="{"start" if room else "end"}">{_text(x + (10 if room else -10), base + 14, words, SMALL)}</g>'


def _axis(wide: float, high: float) -> Iterator[str]:
    yield '<g class="axis">'
    for tick in range(0, 101, 20):
        anchor = "start" if tick == 0 else "end" if tick == 100 else "middle"
        yield f'<path d="M{_n(_inside(tick / 100 * wide, wide))} {_n(high - 20)}v5"/>'
        words = f"{tick} %" if tick in (0, 100) else str(tick)
        yield _text(tick / 100 * wide, high - 3, words, SMALL - 1, anchor=anchor)
    yield "</g>"


def _text(x: float, y: float, words: str, size: float, weight: int = 400, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" font-weight="{weight}"{where}>{escape(words)}</text>'


def _inside(x: float, wide: float) -> float:
    """A place where a line of its width is not cut."""
    return min(max(x, 1.0), wide - 1.0)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
