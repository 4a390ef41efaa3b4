"""Which worker examines which shard, whatever becomes of the workers. It knows nothing of Ray.

Every worker has a shard in work and one more waiting, so that none is idle while an answer is written. A shard whose worker
is lost goes to another. Where the run may end early, answers are given in the order of the shards, however they come, so
that a rule which looks at them sees what it would see in one process.
"""

from __future__ import annotations

import heapq
import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..errors import ClusterError
from ..shard import Arriving, Outcome

DEEP = 2  # shards that a worker has: the one in work, and the next
AHEAD = 4  # shards per worker that may be finished before their turn has come
LOSSES = 3  # workers that may be lost on one shard before it is the shard's fault
STARTS = 5  # workers in a row that may be lost before any has begun
RECENT = 200  # shards whose times say what is usual
SLOW = 3.0  # times the usual time of a shard, after which an idle worker takes it on too
PATIENCE = 5.0  # seconds, after which it is looked whether any shard is that slow


class Lost(Exception):
    """An answer is gone with the machine that it lay on."""


@dataclass(frozen=True)
class Event:
    """What has happened to a worker: it is ready for its first shard, has answered, or is lost.

    answer:  of a shard, what the crew's `fetch` takes.
    reason:  of a loss, in a few words.
    """

    kind: Literal["ready", "answered", "lost"]
    worker: int
    number: int = -1
    answer: Any = None
    reason: str = ""


class Crew(Protocol):
    """Workers, wherever they are. It replaces those that are lost by itself, and tells of the new ones."""

    def give(self, worker: int, number: int) -> None:
        """Have a worker examine a shard after those that it has."""

    def wait(self, seconds: float) -> Iterable[Event]:
        """What has happened since; at least one event, unless so much time has passed."""

    def fetch(self, answer: Any) -> Outcome:
        """What an answer says. Raises `Lost`, and whatever the worker's examination raised."""

    def forget(self, answer: Any) -> None:
        """An answer that nobody needs any more."""


@dataclass(eq=False)
class _Desk:
    """What is to be done, who does it, and what has come back."""

    crew: Crew
    todo: list[int]  # a heap
    ordered: bool
    clock: Callable[[], float]
    loads: dict[int, list[int]] = field(default_factory=dict)
    begun: dict[tuple[int, int], float] = field(default_factory=dict)
    took: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    losses: Counter[int] = field(default_factory=Counter)
    failed_starts: int = 0

    def __post_init__(self) -> None:
        self.turns = sorted(self.todo, reverse=True) if self.ordered else []  # whose turn it is comes last
        self.open, self.left = set(self.todo), len(self.todo)
        self.answers: dict[int, Any] = {}
        heapq.heapify(self.todo)

    def deal(self) -> None:
        """Give out shards: one to each idle worker, then one more to each while there are enough for all."""
        for depth in range(1, DEEP + 1):
            for worker in sorted(self.loads, key=lambda one: len(self.loads[one])):
                enough = depth == 1 or len(self.todo) >= len(self.loads)
                if len(self.loads[worker]) < depth and enough and self.todo and self._may_begin(self.todo[0]):
                    self._give(worker, heapq.heappop(self.todo))
        if not self.todo:
            self._help()

    def _may_begin(self, number: int) -> bool:
        if not self.ordered:
            return True
        ahead = len(self.answers) + sum(map(len, self.loads.values()))
        return number == self.turns[-1] or ahead < AHEAD * len(self.loads)

    def _give(self, worker: int, number: int) -> None:
        self.loads[worker].append(number)
        if len(self.loads[worker]) == 1:
            self.begun[worker, number] = self.clock()
        self.crew.give(worker, number)

    def _help(self) -> None:
        """Nothing is left to give out: idle workers take on what waits for others, or takes them far too long.

        Such a shard is with two workers then, and the first answer counts: both are the same.
        """
        idle = [worker for worker, load in self.loads.items() if not load]
        if not idle:
            return
        doers = self._doers()
        usual = statistics.median(self.took) if len(self.took) >= DEEP else math.inf
        late = self.clock() - SLOW * usual
        slow = [number for (_, number), since in self.begun.items() if since < late]
        waits = [number for load in self.loads.values() for number in load[1:]]
        wanted = [number for number in (*sorted(waits), *sorted(slow)) if number in self.open and doers[number] == 1]
        for worker, number in zip(idle, wanted, strict=False):
            self._give(worker, number)

    def _doers(self) -> Counter[int]:
        """How many workers each shard is with."""
        return Counter(number for load in self.loads.values() for number in load)

    def take(self, event: Event) -> None:
        """Note what has happened."""
        if event.kind == "ready":
            self.loads[event.worker], self.failed_starts = [], 0
        elif event.kind == "lost":
            self._lost(event)
        else:
            self._answered(event)

    def _answered(self, event: Event) -> None:
        load = self.loads.get(event.worker)
        if load is None:  # it has been given up since
            self.crew.forget(event.answer)
            return
        load.remove(event.number)
        began, now = self.begun.pop((event.worker, event.number), None), self.clock()
        if began is not None:
            self.took.append(now - began)
        if load:
            self.begun.setdefault((event.worker, load[0]), now)
        if event.number in self.open:
            self.open.remove(event.number)
            self.answers[event.number] = event.answer
        else:
            self.crew.forget(event.answer)

    def _lost(self, event: Event) -> None:
        if event.worker not in self.loads:
            self.failed_starts += 1
            if self.failed_starts >= STARTS and not self.loads:
                raise ClusterError(f"No worker of the cluster has started, of {self.failed_starts}: {event.reason}")
            return
        load, doers = self.loads.pop(event.worker), self._doers()
        for number in load:
            self.begun.pop((event.worker, number), None)
            if not doers[number] and number in self.open:
                self.again(number)
        for number in load[:1]:
            self._blame(number, event.reason)

    def _blame(self, number: int, reason: str) -> None:
        self.losses[number] += 1
        if self.losses[number] >= LOSSES:
            raise ClusterError(
                f"{LOSSES} workers were lost while they examined shard {number}: {reason} Where memory was short, give each "
                "more of it: more cores per worker, or a smaller batch."
            )

    def again(self, number: int) -> None:
        """A shard is to be examined once more."""
        if number not in self.todo:
            self.open.add(number)
            heapq.heappush(self.todo, number)

    def due(self) -> Iterator[tuple[int, Any]]:
        """Answers that may be given by now."""
        while self.answers:
            number = self.turns[-1] if self.ordered else next(iter(self.answers))
            if number not in self.answers:
                return
            yield number, self.answers.pop(number)

    def gone(self, number: int) -> None:
        """An answer was lost before it was fetched."""
        self._blame(number, "its answer was gone before it was fetched.")
        self.again(number)

    def given(self, number: int) -> None:
        """An answer has been handed on."""
        self.left -= 1
        if self.ordered:
            self.turns.pop()


def deliver(crew: Crew, numbers: Iterable[int], ordered: bool, clock: Callable[[], float] = time.monotonic) -> Arriving:
    """The outcomes of the shards of these numbers: in their order, or else as they come. Raises `ClusterError`."""
    desk = _Desk(crew, list(numbers), ordered, clock)
    while desk.left:
        for event in crew.wait(PATIENCE):
            desk.take(event)
        desk.deal()
        for number, answer in desk.due():
            try:
                outcome = crew.fetch(answer)
            except Lost:
                desk.gone(number)
                break
            desk.given(number)
            yield number, outcome
        desk.deal()
