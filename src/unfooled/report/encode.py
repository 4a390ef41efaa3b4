"""Figures as bytes, the same bytes each time: no dates, no random ids."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from unfooled.report import style

SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LARGEST = 30_000  # pixels along a side; Agg draws fewer than 2^16


def png(figure: Figure, margin: float = 0, dpi: float = 160) -> bytes:
    """The figure as PNG, with a margin in points."""
    buffer = io.BytesIO()
    dpi = min(dpi, LARGEST / (float(max(figure.get_size_inches())) + margin / 36))
    with settings():
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches=_frame(figure, margin), metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, margin: float = 0) -> str:
    """The figure as SVG, with a margin in points, and text as text in the reader's own sans serif."""
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with settings():
        figure.savefig(buffer, format="svg", bbox_inches=_frame(figure, margin), metadata=nothing)
    text = buffer.getvalue().decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"'DejaVu Sans'[^;\"]*", SANS, text)


def inline(text: str, name: str, kind: str, alt: str) -> Markup:
    """An SVG as part of a page: as wide as its place, in the page's colours, its ids its own, said in words."""
    body = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', body)
    body = body[body.index(">") + 1 :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    head = f'<svg {box[0] if box else ""} class="{kind}" role="img" aria-label="{escape(alt)}">'
    return Markup(head + style.by_variable(body))


def _frame(figure: Figure, margin: float) -> Bbox:
    wide, high = (float(v) for v in figure.get_size_inches())
    return Bbox.from_extents(-margin / 72, -margin / 72, wide + margin / 72, high + margin / 72)


@contextmanager
def settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever the reader's own settings are, and what it takes from its settings only."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams["svg.fonttype"] = "none"
        mpl.rcParams["svg.hashsalt"] = "unfooled"
        mpl.rcParams["image.composite_image"] = False
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield
