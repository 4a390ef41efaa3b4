"""What one server holds for all pages of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from . import lesson
from .curves import Points
from .desk import Desk, Ticket
from .state import Bench, Subject, scale

KEPT = 32  # lessons, and curves
SOON = 0.4  # seconds until a word on what is being done is due
JOBS = 16


@dataclass
class Room:
    """The bench, the desk, and what need not be computed again.

    curves:  by what they were computed for; complete ones stay.
    places:  where each page's slider stands.
    """

    bench: Bench
    desk: Desk = field(default_factory=Desk)
    curves: dict[Any, Points] = field(default_factory=dict)
    places: dict[str, float] = field(default_factory=dict)
    _lessons: dict[int, lesson.Lesson] = field(default_factory=dict)
    _jobs: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(JOBS, "explorer"))

    def close(self, page: str) -> None:
        """A page was closed: nothing is computed for it any more."""
        self.desk.close(page)
        self.places.pop(page, None)

    def lesson_of(self, subject: Subject, ticket: Ticket) -> lesson.Lesson:
        """The part of the lesson that does not depend on eps."""
        held = self._lessons.get(subject.number)
        if held is None:
            held = lesson.begin(self.bench, subject, scale("linf", self.bench.shape)[0], ticket)
            keep(self._lessons, subject.number, held)
        return held

    def start(self, work: Callable[[], Any]) -> Future[Any]:
        """Begin a job of its own."""
        return self._jobs.submit(work)


def waiting(job: Future[Any]) -> Iterator[float]:
    """The seconds waited for a job, now and then until it has ended; nothing where it ends soon."""
    waited, pause = 0.0, SOON
    while not wait([job], timeout=pause).done:
        waited += pause
        yield waited
        pause = 1.0


def keep(held: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep a value, and let the oldest go where there are too many."""
    held.pop(key, None)
    while len(held) >= KEPT:
        held.pop(next(iter(held)))
    held[key] = value
