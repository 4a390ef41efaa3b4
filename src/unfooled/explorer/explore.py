"""The second screen's handlers: a question becomes pictures, a curve, or the smallest eps that fools."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from html import escape
from typing import Any

from ..errors import UnfooledError
from . import pictures
from .curves import Points, companion, curve
from .desk import Stopped, Ticket
from .extra import gr
from .look import notice
from .room import Room, keep, waiting
from .state import Answer, Question, Subject, ask, scale, smallest, threat_of

BOTH, NOT, KNOWS = "both, side by side", "does not know of the defense", "knows it"
OPTIONS = {
    "blur": "sigma", "percentile": "percentile", "median": "size", "bit-depth": "bits", "jpeg": "quality", "tv": "drop",
    "random-shift": "pixels", "resize-pad": "scale", "noise": "sigma",
}  # fmt: skip
WAYS = {False: ("illusion", "The attacker does not know"), True: ("truth", "The attacker knows")}
Asked = tuple[str, float, str, int, str, float, str]  # norm, eps, attack, target, defense, strength, who knows


class Explorer:
    """What the screen's events call. Each takes the subject, what was asked, the browser's clock and the request."""

    def __init__(self, room: Room) -> None:
        self.room, self.bench = room, room.bench

    def show(
        self, subject: Subject, norm: str, eps: float, attack: str, target: int, defense: str, strength: float,
        knows: str, clock: float, request: gr.Request,
    ) -> Iterator[Any]:  # fmt: skip
        """Attack the picture at the slider's eps: status, pictures, curve with its mark."""
        page = str(request.session_hash)
        ticket = self.room.desk.begin(page, "show", clock)
        if ticket.stale:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        self.room.places[page] = eps
        asked = questions((norm, eps, attack, target, defense, strength, knows))
        job = self.room.start(lambda: [ask(self.bench, subject, q, ticket, float(eps)) for q in asked])
        for seconds in waiting(job):
            yield _working(f"{attack} is at work, {seconds:.0f} s"), gr.skip(), gr.skip()
        try:
            answers = job.result()
        except Stopped:
            yield gr.skip(), gr.skip(), gr.skip()
        except UnfooledError as error:
            yield notice(str(error), alarm=True), gr.skip(), gr.skip()
        else:
            yield self._told(subject, asked, answers), self._stage(subject, asked, answers), self._drawn(asked, eps)

    def curve(
        self, norm: str, eps: float, attack: str, target: int, defense: str, strength: float, knows: str,
        clock: float, request: gr.Request,
    ) -> Iterator[Any]:  # fmt: skip
        """Accuracy against eps, drawn again as more images are in it."""
        page = str(request.session_hash)
        ticket = self.room.desk.begin(page, "curve", clock, patient=True)
        asked = questions((norm, eps, attack, target, defense, strength, knows))
        try:
            for question in asked:
                key = _key(question)
                if key in self.room.curves and self.room.curves[key].whole:
                    continue
                for points in curve(self.bench, question, scale(norm, self.bench.shape)[0], ticket):
                    keep(self.room.curves, key, points)
                    yield self._drawn(asked, self.room.places.get(page, eps))
            yield self._drawn(asked, self.room.places.get(page, eps))
        except Stopped:
            yield gr.skip()
        except UnfooledError as error:
            yield notice(f"No curve: {error}", alarm=True)

    def find(
        self, subject: Subject, norm: str, eps: float, attack: str, target: int, defense: str, strength: float,
        knows: str, clock: float, request: gr.Request,
    ) -> Iterator[Any]:  # fmt: skip
        """Look for the smallest eps that fools and move the slider there; of both attackers, the one who knows."""
        ticket = self.room.desk.begin(str(request.session_hash), "show", clock)
        every = questions((norm, eps, attack, target, defense, strength, knows))
        most = scale(norm, self.bench.shape)[0]
        words: queue.SimpleQueue[str] = queue.SimpleQueue()
        job = self.room.start(lambda: smallest(self.bench, subject, every[-1], most, ticket, words.put))
        said = ""
        for _ in waiting(job):
            while not words.empty():
                said = words.get()
            yield _working(said), gr.skip(), gr.skip(), gr.skip()
        try:
            found = job.result()
            if found is None:
                yield notice(self._none(subject, every[-1], most, ticket)), gr.skip(), gr.skip(), gr.skip()
                return
            at, answer = found
            others = [ask(self.bench, subject, q, ticket, at) for q in every[:-1]]
        except Stopped:
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
        except UnfooledError as error:
            yield notice(str(error), alarm=True), gr.skip(), gr.skip(), gr.skip()
        else:
            self.room.places[str(request.session_hash)] = at
            words_ = f"The smallest ε that fooled: {at:.4g}. It is an upper bound: another attack may need less."
            answers = [*others, answer]
            yield notice(words_), min(at, most), self._stage(subject, every, answers), self._drawn(every, at)

    def halt(self, request: gr.Request) -> str:
        """End what is being computed for the page."""
        for kind in ("show", "curve"):
            self.room.desk.stop(str(request.session_hash), kind)
        return notice("Stopped. The next change goes on.")

    def _none(self, subject: Subject, question: Question, most: float, ticket: Ticket) -> str:
        answer = ask(self.bench, subject, question, ticket, 0)
        if not answer.right:
            return "The model is wrong on this picture already: no change is needed."
        return f"{question.attack} fooled at no ε up to {most:.4g} that was tried. Try another attack."

    def _stage(self, subject: Subject, asked: list[Question], answers: list[Answer]) -> str:
        names = self.bench.classes
        truth = f"label: {escape(names[subject.label])}" if subject.given else "the model’s own answer is the label"
        rows, both = [], len(asked) > 1
        for question, answer in zip(asked, answers, strict=True):
            kind, words = WAYS[question.knows]
            head = f'<h3 class="{kind}">{words}</h3>' if question.defense else ""
            body = pictures.triptych(subject.image, answer, names, truth)
            shares = pictures.bars(answer.before, answer.after, names)
            rows.append(f'<section class="way">{head}{body}{shares}</section>')
        return f'<div class="ways{" both" if both else ""}">{"".join(rows)}</div>'

    def _drawn(self, asked: list[Question], eps: float) -> str:
        found = []
        for question in asked:
            points: Points | None = self.room.curves.get(_key(question))
            if points is not None:
                kind, words = WAYS[question.knows] if question.defense else ("plain", "The model")
                found.append((kind, words, points))
        norm = type(asked[0].threat).__name__.lower()
        head = "<h3>Accuracy against ε, on a sample of the data</h3>"
        return head + pictures.accuracy(found, eps, scale(norm, self.bench.shape)[0], "ε")

    def _told(self, subject: Subject, asked: list[Question], answers: list[Answer]) -> str:
        """The news in a sentence or two."""
        if not answers[-1].right and not any(answer.right for answer in answers):
            return notice("The model is wrong on this picture before anything is added. Pick another one.")
        if len(asked) == 1:
            return notice(_sentence(asked[0], answers[0]))
        blind, knowing = (answer.fooled for answer in answers)
        if knowing and not blind:
            return notice("The defense stops who does not know of it, and nobody else: what seemed robust was the "
                          "attacker’s ignorance.")  # fmt: skip
        if knowing and blind:
            return notice("Fooled both ways: here the defense does not even stop who does not know of it.")
        if blind:
            return notice("Fooled by who does not know of the defense; the attack through it failed here. Try a "
                          "stronger attack: who knows can always do what who does not know does.")  # fmt: skip
        return notice("Not fooled, either way, at this ε. Raise it, or try a stronger attack.")


def questions(asked: Asked) -> list[Question]:
    """The questions behind the controls: two where both attackers are asked for, who does not know first."""
    norm, eps, attack, target, defense, strength, knows = asked
    threat = threat_of(norm, float(eps) or scale_least(norm))
    wall = f"{defense}:{OPTIONS[defense]}={_plain(strength)}" if defense else ""
    aim = None if target is None or int(target) < 0 else int(target)
    ways = {BOTH: [False, True], NOT: [False], KNOWS: [True]}[knows] if wall else [True]
    return [Question(threat, attack, aim, wall, way) for way in ways]


def scale_least(norm: str) -> float:
    """An eps to make a threat of where the slider stands at 0."""
    return 1.0 if norm == "l0" else 1e-6


def _plain(value: float) -> str:
    return f"{int(value)}" if value == int(value) else f"{value:g}"


def _key(question: Question) -> tuple[Any, ...]:
    """What a curve goes by: everything but eps and target."""
    asked = companion(question)
    return type(asked.threat).__name__, asked.attack, asked.defense, asked.knows


def _sentence(question: Question, answer: Answer) -> str:
    cost = f" {answer.passes} passes, {answer.seconds:.2f} s." if answer.passes else ""
    if not answer.passes:
        return "ε is 0: nothing is added."
    name, size = question.attack, f"{answer.size:.4g}"
    if answer.fooled:
        return f"Fooled by {name}, with a change of size {size}.{cost}"
    return f"Not fooled by {name} at this ε. That proves nothing: another attack may.{cost}"


def _working(words: str) -> str:
    return f'<p class="notice working" role="status">{escape(words)} …</p>'
