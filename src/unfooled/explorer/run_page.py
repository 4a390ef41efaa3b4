"""The page of a run: what it found, and its examples by class, attack and size of the change."""

from __future__ import annotations

import shlex
from html import escape
from typing import Any

from ..errors import UnfooledError
from ..report.galleries import prediction
from ..report.images import as_bytes, between
from ..report.words import size
from ..results import Evaluation, percent
from . import pictures
from .extra import gr
from .look import PRIVATE, header, notice
from .picker import SCRIPT
from .runs import ORDERS, PAGE, Case, Filter, Run

SEVERITY = {"invalid": "invalid", "suspect": "suspect", "note": "note"}


def build(run: Run) -> gr.Blocks:
    """The page of a run."""
    with gr.Blocks(title="unfooled explorer: a run", analytics_enabled=False) as page:
        gr.HTML(header(f"run {run.folder.path.name}", run.evaluation.title, run.settings.get("data", "")))
        gr.HTML(summary(run.evaluation), elem_id="summary")
        if run.note:
            gr.HTML(notice(run.note))
        at = gr.State(0)
        largest = run.largest
        step = _step(largest)
        with gr.Row(elem_classes="filters"):
            label = gr.Dropdown([("all classes", -1), *((run.name(k), k) for k in run.labels)], value=-1, label="Class",
                                elem_id="class", min_width=150)  # fmt: skip
            fate = gr.Dropdown([("whatever became of it", ""), *((name, name) for name in run.fates)], value="",
                               label="Fooled by", elem_id="fate", min_width=210)  # fmt: skip
            low = gr.Slider(0, _up(largest, step), 0, step=step, label="Change from", elem_id="low", buttons=[],
                            min_width=170)  # fmt: skip
            high = gr.Slider(0, _up(largest, step), _up(largest, step), step=step, label="to", elem_id="high",
                             buttons=[], min_width=170)  # fmt: skip
            order = gr.Dropdown(list(ORDERS), value=ORDERS[0], label="Order", elem_id="order", min_width=180)
        handlers = Examples(run)
        asked = [label, fate, low, high, order]
        grid = gr.HTML(handlers.first(*[part.value for part in asked]), elem_id="examples", js_on_load=SCRIPT)
        with gr.Row(elem_classes="tools"):
            before = gr.Button("Earlier", size="sm", elem_id="earlier", min_width=110, scale=0)
            after = gr.Button("More", size="sm", elem_id="more", min_width=110, scale=0)
        one = gr.HTML(handlers.opening(), elem_id="one")
        changes = [label.input, fate.input, low.release, low.input, high.release, high.input, order.input]
        gr.on(changes, handlers.filter, asked, [at, grid], **PRIVATE)  # one listener: its answers cannot overtake
        before.click(handlers.back, [at, *asked], [at, grid], **PRIVATE)
        after.click(handlers.on, [at, *asked], [at, grid], **PRIVATE)
        grid.select(handlers.show, None, one, scroll_to_output=True, **PRIVATE)
    return page  # type: ignore[no-any-return]


class Examples:
    """The handlers of the page."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.by_number = {case.example: case for case in run.cases}

    def filter(self, label: int, fate: str, low: float, high: float, order: str) -> tuple[int, str]:
        """The first page of what the filters let through."""
        return 0, self.first(label, fate, low, high, order)

    def first(self, label: int, fate: str, low: float, high: float, order: str) -> str:
        """The same without its number."""
        return self._grid(0, self._chosen(label, fate, low, high, order))

    def on(self, at: int, label: int, fate: str, low: float, high: float, order: str) -> tuple[int, str]:
        """The next page, if there is one."""
        found = self._chosen(label, fate, low, high, order)
        at = min(at + 1, max(0, (len(found) - 1) // PAGE))
        return at, self._grid(at, found)

    def back(self, at: int, label: int, fate: str, low: float, high: float, order: str) -> tuple[int, str]:
        """The page before."""
        at = max(0, at - 1)
        return at, self._grid(at, self._chosen(label, fate, low, high, order))

    def opening(self) -> str:
        """The example that is shown before one is picked."""
        found = self.run.chosen(Filter())
        return self._one(found[0]) if found else ""

    def show(self, event: gr.EventData) -> str:
        """The example that was picked."""
        case = self.by_number.get(int(event.index))
        return "" if case is None else self._one(case)

    def _chosen(self, label: int, fate: str, low: float, high: float, order: str) -> list[Case]:
        return self.run.chosen(
            Filter(None if label is None or label < 0 else int(label), fate or None, float(low), float(high), order)
        )

    def _grid(self, at: int, found: list[Case]) -> str:
        if not found:
            return notice("No example passes these filters. Widen one of them.")
        shown = found[at * PAGE : (at + 1) * PAGE]
        first = at * PAGE + 1
        head = f'<p class="count">{first}–{first + len(shown) - 1} of {len(found)} examples</p>'
        try:
            cards = "".join(self._card(case) for case in shown)
        except UnfooledError as error:
            return notice(str(error), alarm=True)
        return f'{head}<div class="cards" role="group" aria-label="Examples">{cards}</div>'

    def _card(self, case: Case) -> str:
        clean, adversarial = self.run.images(case)
        shown = adversarial if adversarial is not None else clean
        name = escape(self.run.name(case.label))
        image = "" if shown is None else pictures.picture(pictures.thumbnail(as_bytes(shown)), "")
        if case.fooled:
            words = f"<span>{name}</span><b>{escape(case.fate.partition(':')[0])}</b>"
            words += f"<small>size {size(case.distance or 0.0)}</small>"
        else:
            words = f"<span>{name}</span><small>{escape(case.fate)}</small>"
        label = f"example {case.example}, {self.run.name(case.label)}, {case.fate}"
        return (
            f'<button type="button" data-index="{case.example}" aria-pressed="false" '
            f'aria-label="{escape(label, quote=True)}">{image}{words}</button>'
        )

    def _one(self, case: Case) -> str:
        run = self.run
        try:
            clean, adversarial = run.images(case)
        except UnfooledError as error:
            return notice(str(error), alarm=True)
        facts = [("Example", str(case.example)), ("Label", run.name(case.label)), ("Answer", run.name(case.answer)),
                 ("Became of it", case.fate)]  # fmt: skip
        if case.distance is not None:
            facts.append(("Size of the change", size(case.distance)))
        rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
        shown = self._images(case, clean, adversarial)
        command = escape(self._command(case))
        again = f"<p class='fine'>To try other attacks on it:</p><pre><code>{command}</code></pre>" if command else ""
        return f'<div class="one">{shown}<dl>{rows}</dl>{again}</div>'

    def _images(self, case: Case, clean: Any, adversarial: Any) -> str:
        truth, held = f"label: {escape(self.run.name(case.label))}", escape(self.run.name(case.answer))
        told = next((p for g in self.run.evaluation.galleries for p in g.pictures if p.example == case.example), None)
        after = "fooled" if told is None else prediction(told.adversarial_prediction, told.adversarial_confidence)
        if clean is not None and adversarial is not None:
            shot = between(clean, adversarial)
            parts = [
                pictures.part(pictures.picture(shot.clean, "the picture"), held, truth),
                pictures.part(pictures.picture(shot.change, "what was added"), escape(shot.title),
                              f"{escape(shot.scale_words)}; mid-grey = no change"),
                pictures.part(pictures.picture(shot.adversarial, "the adversarial picture"), escape(after),
                              escape(case.fate), "fooled"),
            ]  # fmt: skip
            return pictures.equation(parts, "+=")
        only = adversarial if adversarial is not None else clean
        if only is None:
            return ""
        words = after if adversarial is not None else held
        return f'<div class="equation">{pictures.part(pictures.picture(as_bytes(only), "the picture"), words, truth)}</div>'

    def _command(self, case: Case) -> str:
        model, data = (self.run.settings.get(name, "") for name in ("model", "data"))
        if not (model and data) or self.run.settings.get("model_options"):
            return ""
        more = [word for name in ("weights", "resize", "crop") if (value := self.run.settings.get(name))
                for word in (f"--{name}", value)]  # fmt: skip
        return shlex.join(["unfooled", "explore", model, data, *more, "--image", str(case.example)])


def summary(evaluation: Evaluation) -> str:
    """The trust, the verdict and the findings of a run."""
    e = evaluation
    parts = []
    if e.trust:
        robust = (
            "" if e.robust_accuracy is None else f"accuracy under attack {percent(e.robust_accuracy.attacked, True)}"
        )
        clean = "" if e.clean_accuracy is None else f", clean {percent(e.clean_accuracy)}"
        parts.append(f'<p class="badge {escape(e.trust)}"><b>{escape(e.trust)}</b><span>{robust}{clean}</span></p>')
    parts.append('<div class="verdict">' + "".join(f"<p>{escape(words)}</p>" for words in e.verdict) + "</div>")
    if e.findings:
        rows = "".join(
            f'<li class="{SEVERITY.get(f.severity, "note")}"><b>{escape(f.severity)}</b>{escape(f.message)} '
            f"<small>{escape('settled: ' + f.settled if f.settled else f.remedy)} · {escape(f.code)}</small></li>"
            for f in sorted(e.findings, key=lambda f: list(SEVERITY).index(f.severity))
        )
        parts.append(f'<details class="glossary" {"open" if e.left else ""}><summary>Findings: {len(e.findings)}</summary>'
                     f'<ul class="findings">{rows}</ul></details>')  # fmt: skip
    return "".join(parts)


def _step(largest: float) -> float:
    """A slider's step: a hundredth of its length at most, as a round number."""
    if largest <= 0:
        return 0.01
    step = 1.0
    while step > largest / 50:
        step /= 10
    return float(f"{step:.0e}")


def _up(largest: float, step: float) -> float:
    """The end of a slider: the first step that no change is beyond."""
    steps = max(1, -int(-(largest + 1e-12) // step))
    return round(steps * step, 10)
