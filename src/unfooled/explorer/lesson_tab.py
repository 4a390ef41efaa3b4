"""The first screen: FGSM's formula on the picture that was picked."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from ..errors import UnfooledError
from . import lesson, pictures
from .desk import Stopped, Ticket
from .extra import gr
from .look import PRIVATE, TIMED, notice
from .room import Room
from .state import Subject, lesson_possible, scale

LETTERS = (
    ("x", "the picture: a number from 0 (black) to 1 (white) for each pixel"),
    ("J(θ, x, y)", "the loss: how wrong the model with the weights θ is on x, whose true class is y"),
    ("∇ₓ J", "its gradient: for each pixel, how the loss changes when that pixel alone changes"),
    ("sign", "only the direction of each: +1 where brighter is worse, −1 where darker is"),
    ("ε", "how far each pixel may go: the attacker’s budget, the same for all pixels"),
)


def build(room: Room, subject: gr.State, clock: gr.Number) -> Callable[[Any], None]:
    """Lay the screen out. Gives back what has an event draw it."""
    if not lesson_possible(room.bench):
        gr.HTML(notice(f"This model gives {room.bench.access.words}, and the lesson is about its gradient. Attacks that "
                       "need none are under Explore."))  # fmt: skip
        return lambda event: None
    most, step = scale("linf", room.bench.shape)
    gr.HTML(_intro(), elem_id="formula")
    with gr.Row(elem_classes="knobs"):
        eps = gr.Slider(
            0, most, 0.0, step=step, label="ε: how far every pixel may move", elem_id="lesson-eps", scale=4, buttons=[]
        )
        find = gr.Button("Smallest ε that fools", elem_id="lesson-smallest", variant="primary", min_width=200, scale=1)
    stage = gr.HTML(elem_id="lesson")
    gr.HTML(_glossary())
    handlers = Lessons(room, most)

    def draw(event: Any) -> None:
        event(handlers.show, [subject, eps, clock], stage, **TIMED)

    sought = find.click(handlers.seek, subject, eps, **PRIVATE)
    for event in (eps.input, eps.release, sought.then):
        draw(event)
    return draw


class Lessons:
    """The handlers of the screen."""

    def __init__(self, room: Room, most: float) -> None:
        self.room, self.most = room, most

    def show(self, subject: Subject, eps: float, clock: float, request: gr.Request) -> Any:
        """The lesson at an eps."""
        bench = self.room.bench
        ticket = self.room.desk.begin(str(request.session_hash), "lesson", clock)
        try:
            told = self.room.lesson_of(subject, ticket)
            seen = lesson.look(bench, told, min(max(float(eps), 0.0), self.most), ticket)
        except Stopped:
            return gr.skip()
        except UnfooledError as error:
            return notice(str(error), alarm=True)
        return pictures.lesson(told, seen, bench.classes, lesson.sentences(told, seen, bench.classes))

    def seek(self, subject: Subject) -> Any:
        """The first eps of the grid that fools; the largest where none does."""
        try:
            first = self.room.lesson_of(subject, Ticket()).first
        except UnfooledError:
            return gr.skip()
        return self.most if first is None else round(first, 6)


def _intro() -> str:
    return (
        "<p>A network learns by asking how its weights must change to be less wrong. The fast gradient sign method asks "
        f"the same of the <em>picture</em>, to be more wrong, and takes one step:</p>{pictures.formula()}"
    )


def _glossary() -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(meaning)}</dd></div>" for name, meaning in LETTERS)
    return (
        f'<details class="glossary"><summary>The letters, one by one</summary><dl>{rows}</dl><p>One step is the lesson, '
        "not the measure: attacks of many small steps find more. <em>Explore</em> has them, and shows why a blur in front "
        "of the model is no defense. Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572.</p></details>"
    )
