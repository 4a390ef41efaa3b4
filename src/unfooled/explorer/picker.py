"""A strip of pictures to pick from: buttons, so that keyboards and screen readers have them too."""

from __future__ import annotations

from html import escape
from itertools import chain

from ..report.images import as_bytes
from .extra import gr
from .pictures import picture, thumbnail
from .state import Bench

SHOWN = 20
SCRIPT = """
const mark = (chosen) => element.querySelectorAll('button').forEach(
    (each) => each.setAttribute('aria-pressed', String(each === chosen)));
element.addEventListener('click', (event) => {
    const chosen = event.target.closest('button[data-index]');
    if (chosen === null) return;
    mark(chosen);
    trigger('select', {index: Number(chosen.dataset.index)});
});
"""


def order(bench: Bench) -> list[list[int]]:
    """The pictures page by page: of few classes one of each, then the next of each; of many as they come."""
    if len(bench.classes) > SHOWN:
        numbers = list(range(len(bench.images)))
        return [numbers[at : at + SHOWN] for at in range(0, len(numbers), SHOWN)]
    rows: list[list[int]] = []
    seen: dict[int, int] = {}
    for at, label in enumerate(bench.labels.tolist()):
        turn = seen[label] = seen.get(label, -1) + 1
        rows.extend([] for _ in range(turn + 1 - len(rows)))
        rows[turn].append(at)
    several = max(1, SHOWN // max(1, len(seen)))
    rows = [sorted(row, key=lambda at: int(bench.labels[at])) for row in rows]
    return [list(chain.from_iterable(rows[at : at + several])) for at in range(0, len(rows), several)]


def value(bench: Bench, pages: list[list[int]], at: int, chosen: int) -> str:
    """The strip of a page as HTML."""
    shown = pages[at % len(pages)]
    if chosen >= 0 and chosen not in shown:
        shown = [chosen, *shown]
    buttons = []
    for index in shown:
        name = bench.classes[int(bench.labels[index])] if int(bench.labels[index]) < len(bench.classes) else "?"
        image = picture(thumbnail(as_bytes(bench.subject(index).image.numpy())), "")
        buttons.append(
            f'<button type="button" data-index="{index}" aria-pressed="{str(index == chosen).lower()}" '
            f'aria-label="{escape(name, quote=True)}, picture {index}">{image}<span>{escape(name)}</span></button>'
        )
    return f'<div class="strip" role="group" aria-label="Pictures to pick from">{"".join(buttons)}</div>'


def strip(first: str) -> gr.HTML:
    """The strip as a component; its event `select` carries `index`."""
    return gr.HTML(first, js_on_load=SCRIPT, elem_id="strip")
