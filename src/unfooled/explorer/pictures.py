"""Numbers as pictures: what the page shows, as HTML in the colours of the report. Nothing in it is fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from ..report.images import Shot, as_bytes, between, small
from .curves import Points
from .lesson import Lesson, Seen, percent
from .state import Answer

BARS = 5
SMALL = 160  # pixels of a card
WIDE, HIGH = 420.0, 210.0
LEFT, RIGHT, TOP, FOOT = 34.0, 12.0, 14.0, 34.0


def uri(image: np.ndarray) -> str:
    """(H, W, 3) bytes as a PNG inside its own address; packed quickly, since a slider waits for it."""
    grey = bool((image == image[..., :1]).all())
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The image no larger than a card needs it."""
    if small(image):
        return image
    found = Image.fromarray(image)
    found.thumbnail((SMALL, SMALL))
    return np.asarray(found)


def picture(image: np.ndarray, alt: str) -> str:
    """An image that keeps its pixels as squares where it has few."""
    pixels = ' class="pixels"' if small(image) else ""
    return f'<img src="{uri(image)}" alt="{escape(alt, quote=True)}"{pixels} decoding="sync" draggable="false">'


def shown(image: Tensor, alt: str) -> str:
    """An image (C, H, W) in [0, 1]."""
    return picture(as_bytes(image.numpy()), alt)


def part(image: str, strong: str, soft: str, kind: str = "") -> str:
    """One image of an equation, with a strong line and a soft one under it."""
    return f'<figure class="{kind}">{image}<figcaption><b>{strong}</b><small>{soft}</small></figcaption></figure>'


def equation(parts: Sequence[str], signs: Sequence[str]) -> str:
    """Images with signs between them."""
    joined = parts[0]
    for sign, each in zip(signs, parts[1:], strict=True):
        joined += f'<i aria-hidden="true">{sign}</i>{each}'
    return f'<div class="equation">{joined}</div>'


def said(shares: Tensor, classes: Sequence[str]) -> str:
    """What the model answers, and how surely."""
    answer = int(shares.argmax())
    return f"{escape(classes[answer])}, {percent(float(shares[answer]))}"


def formula() -> str:
    """The formula, each letter with what it is for whoever points at it."""
    letters = (
        ("x′", "result", "the adversarial picture"), ("=", "wide", ""), ("x", "", "the picture"), ("+", "wide", ""),
        ("ε", "eps", "how far each pixel may move: the slider"), ("·", "tight", ""),
        ("sign", "word", "keeps only the direction: +1 or −1 for each pixel"), ("(", "", ""),
        ("∇", "word", "the gradient: how a change of each pixel changes the loss"), ("<sub>x</sub>", "", ""),
        ("J", "", "the loss: how wrong the model is"), ("(", "", ""), ("θ", "", "the weights of the model: they stay"),
        (", ", "", ""), ("x", "", "the picture"), (", ", "", ""), ("y", "", "the true class"), ("))", "", ""),
    )  # fmt: skip
    spans = "".join(
        f'<span class="{kind}" title="{title}">{letter}</span>' if title else f'<span class="op {kind}">{letter}</span>'
        for letter, kind, title in letters
    )
    return (
        f'<p class="formula" role="img" aria-label="x prime = x + epsilon times sign of the gradient of J">{spans}</p>'
    )


def lesson(told: Lesson, seen: Seen, classes: Sequence[str], sentences: Sequence[str]) -> str:
    """The first screen: the formula in pictures, what is seen in words, and the way there."""
    image, label = told.subject.image, told.subject.label
    answer = int(seen.after.argmax())
    fooled = told.right and answer != label
    signs = as_bytes((0.5 + 0.5 * told.sign).numpy())
    truth = f"label: {escape(classes[label])}" if told.subject.given else "the model’s own answer is the label"
    parts = [
        part(shown(image, "the picture"), f'<span class="name">x</span>{said(told.shares[0], classes)}', truth),
        part(
            picture(signs, "the gradient's sign"), f'<span class="name">sign(∇J)</span>{seen.eps:.3g} ×',
            "white: brighter hurts; black: darker hurts; grey: neither",
        ),
        part(
            shown(seen.adversarial, "the adversarial picture"),
            f'<span class="name">x′</span>{said(seen.after, classes)}', _verdict(told, fooled), "fooled" if fooled else "",
        ),
    ]  # fmt: skip
    first, *rest = sentences
    words = f'<p class="news{" fooled" if fooled else ""}">{escape(first)}</p>'
    words += "".join(f"<p>{escape(sentence)}</p>" for sentence in rest)
    way = _way(told, seen, classes)
    return (
        f'<div class="lesson"><div class="first">{equation(parts, ("+ <b>ε</b> ·", "="))}'
        f'<div class="told" aria-live="polite">{words}</div></div>'
        f'<div class="two"><section><h3>What the model answers</h3>{bars(told.shares[0], seen.after, classes)}</section>'
        f"<section><h3>How sure it is on the way</h3>{way}</section></div></div>"
    )


def _verdict(told: Lesson, fooled: bool) -> str:
    if not told.right:
        return "wrong before anything is added"
    return "fooled" if fooled else "not fooled"


def triptych(subject_image: Tensor, answer: Answer, classes: Sequence[str], truth: str) -> str:
    """Image + what was added = adversarial image."""
    shot: Shot = between(subject_image.numpy(), answer.adversarial.numpy())
    verdict = "fooled" if answer.fooled else "not fooled" if answer.right else "wrong before anything is added"
    parts = [
        part(picture(shot.clean, "the picture"), said(answer.before, classes), truth),
        part(
            picture(shot.change, "what was added"), escape(shot.title),
            f"{escape(shot.scale_words)}; mid-grey = no change" if shot.largest else "no change",
        ),
        part(
            picture(shot.adversarial, "the adversarial picture"), said(answer.after, classes), verdict,
            "fooled" if answer.fooled else "",
        ),
    ]  # fmt: skip
    return equation(parts, "+=")


def bars(before: Tensor, after: Tensor, classes: Sequence[str], most: int = BARS) -> str:
    """The shares of the classes that matter, before and after: grey and in colour."""
    best = dict.fromkeys([int(before.argmax()), int(after.argmax()), *after.argsort(descending=True).tolist()])
    best = dict.fromkeys([*list(best)[:2], *before.argsort(descending=True).tolist()[:2], *best])
    rows = []
    for k in list(best)[:most]:
        one, two = float(before[k]), float(after[k])
        kind = "truth" if k == int(after.argmax()) and k != int(before.argmax()) else "plain"
        rows.append(
            f'<li><span class="class">{escape(classes[k])}</span>'
            f'<span class="pair"><i class="before" style="width:{100 * one:.2f}%"></i>'
            f'<i class="{kind}" style="width:{100 * two:.2f}%"></i></span>'
            f'<span class="share"><small>{_hundredths(one)}</small><b>{_hundredths(two)}\N{NO-BREAK SPACE}%</b></span></li>'
        )
    key = '<p class="key"><span><i class="before"></i>before</span><span><i class="plain"></i>after</span></p>'
    return f'<div><ul class="shares">{"".join(rows)}</ul>{key}</div>'


def _hundredths(share: float) -> str:
    """A percentage without its sign; certainty is never rounded up."""
    return "&gt;\N{NO-BREAK SPACE}99.9" if 99.95 <= 100 * share < 100 else f"{100 * share:.1f}"


# --- curves ----------------------------------------------------------------------------------------


def _way(told: Lesson, seen: Seen, classes: Sequence[str]) -> str:
    """The share of the label, and of whatever else wins, along the line from the picture."""
    label = told.subject.label
    most = float(told.eps[-1])
    others = told.shares.clone()
    others[:, label] = -1
    rival = int(others.max(0).values.argmax())
    xs = told.eps.tolist()
    lines = [
        ("plain", classes[label], told.shares[:, label].tolist()),
        ("truth", classes[rival], told.shares[:, rival].tolist()),
    ]
    body = "".join(_line(xs, [100 * y for y in ys], most, f"line {kind}") for kind, _, ys in lines)
    body += _marker(seen.eps, most, [100 * float(seen.after[k]) for k in (label, rival)])
    key = "".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name, _ in lines)
    return f'{_chart(body, most, "share, %", "How sure the model is along epsilon")}<p class="key">{key}</p>'


def accuracy(curves: Sequence[tuple[str, str, Points]], eps: float, most: float, unit: str) -> str:
    """Accuracy against eps with its band, one curve for each (kind, name, points), and where the slider stands."""
    if not curves:
        return '<p class="wait">The curve is being computed …</p>'
    body, key, notes = "", "", []
    for kind, name, points in curves:
        low, high = ([100 * getattr(e, end) for e in points.accuracy] for end in ("low", "high"))
        body += _band(points.eps, low, high, most, kind)
        body += _line(points.eps, [100 * e.value for e in points.accuracy], most, f"line {kind}")
        key += f'<span><i class="{kind}"></i>{escape(name)}</span>'
    at = [100 * float(np.interp(eps, p.eps, [e.value for e in p.accuracy])) for _, _, p in curves]
    body += _marker(eps, most, at)
    for (_, name, points), value in zip(curves, at, strict=True):
        so_far = "" if points.whole else " so far"
        notes.append(
            f"{escape(name)}: about {value:.0f}\N{NO-BREAK SPACE}% of {points.images} images{so_far} hold at ε = {eps:.3g}."
        )
    plan = escape(curves[0][2].attack)
    words = (
        f'<p class="fine">{" ".join(notes)} Attack: <code>{plan}</code>; bands are 95\N{NO-BREAK SPACE}% intervals.</p>'
    )
    return f'{_chart(body, most, "accuracy, %", "Accuracy against epsilon", unit)}<p class="key">{key}</p>{words}'


def _chart(body: str, most: float, y: str, alt: str, unit: str = "ε") -> str:
    ticks = ""
    for percentage in range(0, 101, 20):
        at = _y(percentage)
        ticks += f'<path class="rule" d="M{LEFT} {at:.1f}H{WIDE - RIGHT}"/><text x="{LEFT - 6}" y="{at + 4:.1f}" '
        ticks += f'text-anchor="end">{percentage}</text>'
    for k in range(5):
        value = most * k / 4
        ticks += f'<text x="{_x(value, most):.1f}" y="{HIGH - FOOT + 17:.1f}" text-anchor="middle">{value:.4g}</text>'
    foot = f'<text class="unit" x="{WIDE - RIGHT}" y="{HIGH - 3}" text-anchor="end">{escape(unit)}</text>'
    foot += f'<text class="unit" x="{LEFT}" y="{HIGH - 3}">{escape(y)}</text>'
    return f'<svg class="chart" viewBox="0 0 {WIDE:g} {HIGH:g}" role="img" aria-label="{alt}">{ticks}{body}{foot}</svg>'


def _x(value: float, most: float) -> float:
    return LEFT + (WIDE - LEFT - RIGHT) * min(value / most, 1.0)


def _y(value: float) -> float:
    return TOP + (HIGH - TOP - FOOT) * (1 - value / 100)


def _places(xs: Sequence[float], ys: Sequence[float], most: float) -> list[str]:
    return [f"{_x(x, most):.1f} {_y(y):.1f}" for x, y in zip(xs, ys, strict=True)]


def _line(xs: Sequence[float], ys: Sequence[float], most: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{"L".join(_places(xs, ys, most))}"/>'


def _band(xs: Sequence[float], low: Sequence[float], high: Sequence[float], most: float, kind: str) -> str:
    there, back = _places(xs, high, most), _places(xs, low, most)[::-1]
    return f'<path class="band {kind}" d="M{"L".join([*there, *back])}Z"/>'


def _marker(eps: float, most: float, values: Sequence[float]) -> str:
    x = _x(eps, most)
    dots = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{_y(v):.1f}" r="3.6"/>' for v in values)
    return f'<path class="marker" d="M{x:.1f} {TOP}V{HIGH - FOOT}"/>{dots}'
