"""Who computes what: a newer question of a page ends its older one, and a page that is closed ends all of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any

from torch import Tensor, nn

from ..errors import UnfooledError
from ..models.access import Access, access_of
from ..models.classifier import Model

WAIT = 0.02  # seconds between two looks at whether a waiting job is still wanted


class Stopped(UnfooledError):
    """A job was ended: its page was closed, or has asked for something else."""


@dataclass(eq=False)
class Ticket:
    """A job of a page.

    stale:    nobody waits for it any more.
    patient:  it steps aside, between two passes, for jobs that are not.
    """

    stale: bool = False
    patient: bool = False

    def check(self) -> None:
        """Raise `Stopped` where the job is stale."""
        if self.stale:
            raise Stopped("The page was closed, or has asked for something else.")


@dataclass
class Desk:
    """The running jobs of all pages, by page and kind of job; the newest question of a kind is the one that counts.

    Questions carry the browser's clock, since two requests may overtake each other on their way.
    """

    _held: dict[tuple[str, str], tuple[float, Ticket]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def begin(self, page: str, kind: str, clock: float, patient: bool = False) -> Ticket:
        """A ticket for a question asked at that clock; what the page asked of this kind before is stale."""
        with self._lock:
            since, held = self._held.get((page, kind), (-1.0, Ticket()))
            if clock < since:
                return Ticket(stale=True)
            held.stale = True
            ticket = Ticket(patient=patient)
            self._held[page, kind] = (clock, ticket)
            return ticket

    def stop(self, page: str, kind: str) -> None:
        """End a job; later questions are welcome."""
        with self._lock:
            _, held = self._held.get((page, kind), (0.0, Ticket()))
            held.stale = True

    def close(self, page: str) -> None:
        """End every job of a page."""
        with self._lock:
            for key in [key for key in self._held if key[0] == page]:
                self._held.pop(key)[1].stale = True

    def running(self) -> int:
        """How many tickets are held and not stale."""
        with self._lock:
            return sum(not ticket.stale for _, ticket in self._held.values())


class Watched(nn.Module):
    """A model that looks before each pass whether its job is still wanted, and is worked with by one job at a time.

    A patient job that is in its forward pass waits there for others: these run from beginning to end meanwhile, and what
    they have frozen or seeded is restored before it goes on.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.inner = model
        self._jobs: list[Ticket] = []  # the last one works, those before it have stepped aside
        self._aside: set[int] = set()
        self._urgent = 0
        self._turn = Condition()
        self.train(isinstance(model, nn.Module) and model.training)

    @property
    def access(self) -> Access:
        """What the model lets an attacker see."""
        return access_of(self.inner)

    @property
    def busy(self) -> bool:
        """Whether a job is working with it."""
        return bool(self._jobs)

    def forward(self, images: Tensor) -> Any:
        """The model's output. Raises `Stopped`."""
        if self._jobs:
            ticket = self._jobs[-1]
            if ticket.patient and self._urgent:
                self._step_aside(ticket)
            ticket.check()
        return self.inner(images)

    def _step_aside(self, ticket: Ticket) -> None:
        with self._turn:
            self._aside.add(id(ticket))
            self._turn.notify_all()
            while self._urgent or self._jobs[-1] is not ticket:
                self._turn.wait(WAIT)
            self._aside.discard(id(ticket))

    def _free(self, ticket: Ticket) -> bool:
        return not self._jobs or (not ticket.patient and id(self._jobs[-1]) in self._aside)

    @contextmanager
    def working(self, ticket: Ticket) -> Iterator[None]:
        """Have the model alone for a job. Raises `Stopped` where the job turns stale before its turn comes."""
        with self._turn:
            self._urgent += not ticket.patient
            try:
                while not self._free(ticket):
                    ticket.check()
                    self._turn.wait(WAIT)
                ticket.check()
                self._jobs.append(ticket)
            finally:
                self._urgent -= not ticket.patient
        try:
            yield
        finally:
            with self._turn:
                self._jobs.remove(ticket)
                self._turn.notify_all()
