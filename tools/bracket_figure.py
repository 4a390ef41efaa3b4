"""Draw docs/images/bracket.svg from a run folder of `unfooled evaluate`, with the code that draws it in reports.

.venv/bin/python tools/bracket_figure.py RUN [OUT]
"""

import re
import sys
from importlib.resources import files
from pathlib import Path

from unfooled.report import bracket, style
from unfooled.results import Evaluation, read

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "bracket.svg"
MARGIN = 20.0


def figure(evaluation: Evaluation) -> str:
    """The bracket as a picture by itself: on white, with the report's own rules."""
    inner = str(bracket.draw(evaluation, "wide"))
    found = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" class="wide" role="img" aria-label="([^"]*)">', inner)
    if found is None:
        raise SystemExit("The run has no robust accuracy, so there is no bracket to draw.")
    wide, high = (float(found[k]) + 2 * MARGIN for k in (1, 2))
    drawn = inner[found.end() : -len("</svg>")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:g} {high:g}" width="{wide:g}" height="{high:g}" '
        f'role="img" aria-label="{found[3]}"><style>{_rules()}</style>'
        f'<rect width="100%" height="100%" rx="6" fill="#ffffff"/>'
        f'<g class="bracket" transform="translate({MARGIN:g} {MARGIN:g})">{drawn}</g></svg>\n'
    )


def _rules() -> str:
    """The rules of the report that begin with .bracket, colours filled in."""
    css = (files("unfooled.report") / "templates" / "evaluation.css").read_text(encoding="utf-8")
    rules = " ".join(
        re.findall(
            r"^\.bracket (?:\.part|\.under|\.stripe|\.leader|text|\.label|\.whisker|\.mark).*$", css, re.MULTILINE
        )
    )
    for colour in style.COLOURS:
        rules = rules.replace(f"var(--{colour.name})", colour.light)
    rules = re.sub(r" background: [^;]+;|, \.swatch\.\w+", "", rules)
    return f'text {{ font-family: system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }} {rules}'


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit("Usage: python tools/bracket_figure.py RUN [OUT]")
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else PICTURE
    out.write_text(figure(read(Path(sys.argv[1]) / "evaluation.json")), encoding="utf-8")


if __name__ == "__main__":
    main()
