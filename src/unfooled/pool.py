"""The pool: trial rows of one attack, refilled as rows end, so that the batch stays full to the end of the work.

Trials are numbered and enter breadth first (number, then example). A success of trial t cancels only later trials, and
the lowest-numbered success is the result, so the answer does not depend on the batch size or on who finished first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from . import rng
from .attacks.base import Attack, State
from .errors import ModelError
from .goals import Goal
from .ledger import Ledger, Trials, join, take, where
from .losses import margin
from .models import memory
from .models.access import Access
from .oracle import QUERIES, Oracle, Sighting
from .threats import Threat


@dataclass(frozen=True)
class Work:
    """One stage's work: the attack, and everything its trials are made from.

    targets:   (N,) classes that the model must answer, or None.
    aims:      (N, T) classes that trial number t of an example pulls towards (t modulo T), or None.
    examples:  (E,) the examples in order;  trials: how many of each;  offset: the number of the first.
    leads:     whether the ledger notes by how much the label leads at every point.
    clean_correct:  (N,) whether the model is right on each image, where that has been judged before.
    """

    attack: Attack
    threat: Threat
    images: Tensor
    labels: Tensor
    targets: Tensor | None
    ids: Tensor | None
    seed: int
    early_stop: bool
    aims: Tensor | None = None
    examples: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    trials: int = 1
    offset: int = 0
    leads: bool = False
    clean_correct: Tensor | None = None

    @property
    def cancels(self) -> bool:
        """Whether a success ends a trial and the later ones of its example."""
        return self.early_stop and not (self.attack.minimal and self.threat.eps == torch.inf)

    def rows(self, example: Tensor, number: Tensor, fresh: Tensor, device: torch.device) -> Trials:
        """The trials of that number of these examples, on the device."""
        x = self.images[example.to(self.images.device)].to(device)
        label = self.labels[example]
        if self.aims is not None:
            toward = self.aims[example, number % self.aims.shape[1]]
        else:
            toward = torch.full_like(label, -1) if self.targets is None else self.targets[example]
        ids = rng.image_ids(x, label.to(device)) if self.ids is None else self.ids[example].to(device)
        number = (number + self.offset).to(device)
        return Trials(example, number, x, label.to(device), toward.to(device), ids, fresh.to(device))

    def goal(self, rows: Trials) -> Goal:
        """What counts as fooled in these rows."""
        if self.aims is not None:
            return Goal(rows.label, aim=rows.toward, firm=self.attack.minimal)
        return Goal(rows.label, target=None if self.targets is None else rows.toward, firm=self.attack.minimal)

    def misjudged(self, oracle: Oracle, x: Tensor, goal: Goal, example: Tensor, logits: Tensor) -> Tensor:
        """On which of these images (M, *shape) the model is wrong; of a random one the logits tell one draw."""
        if self.clean_correct is not None:
            return ~self.clean_correct[example].to(x.device)
        return oracle.confirm(x, goal, example) if oracle.random else goal.fooled(logits)

    def query(self, rows: Trials, oracle: Oracle, seen: Callable[[Sighting], None]) -> Any:
        """What the attack sees of these rows. A minimum-norm attack sees an infinite radius."""
        return QUERIES[self.attack.access](
            x=rows.x,
            goal=self.goal(rows),
            threat=self.threat.within(torch.inf) if self.attack.minimal else self.threat,
            ids=rows.ids,
            trial=rows.number,
            restart=(rows.number - self.offset) // (1 if self.aims is None else self.aims.shape[1]),
            seed=self.seed,
            oracle=oracle,
            example=rows.example,
            seen=seen,
        )


def starts_at_image(work: Work, oracle: Oracle, device: torch.device) -> bool:
    """Whether the attack's first look is at the image itself, by gradient, so that it screens the image in passing."""
    if work.attack.access != Access.GRADIENT:
        return False
    zero = torch.zeros(1, dtype=torch.int64)
    rows = work.rows(zero, zero, zero.bool(), device)
    return work.attack.init(work.query(rows, oracle, lambda _: None), rows.x).x is rows.x


def screen(work: Work, oracle: Oracle, ledger: Ledger, batch: int, device: torch.device) -> Tensor:
    """Find the images that the model gets right; return the clean logits (N, C), on the CPU."""
    logits = []
    for example in torch.arange(len(work.images)).split(batch):
        x = work.images[example.to(work.images.device)].to(device)
        goal = Goal(work.labels[example].to(device))
        answer = oracle.answer(x, example)
        ledger.screen(example, answer, ~work.misjudged(oracle, x, goal, example, answer))
        logits.append(answer.cpu())
    return torch.cat(logits)


@dataclass(frozen=True)
class Progress:
    """How far a stage is: trials ended of all, and the examples fooled so far and right on the clean image."""

    attack: str
    ended: int
    trials: int
    fooled: int
    correct: int


class Pool:
    """Runs one stage's work against an oracle and writes what it finds into a ledger."""

    def __init__(
        self,
        work: Work,
        oracle: Oracle,
        ledger: Ledger,
        batch: int,
        device: torch.device,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.work, self.oracle, self.ledger = work, oracle, ledger
        self.most, self.device, self.progress = batch, device, progress
        self.batch = min(batch, memory.PROBE) if work.attack.access == Access.GRADIENT else batch
        self._grow()
        self.at = 0
        self.parked: list[tuple[Trials, State]] = []  # rows that memory turned out to have no room for
        self.sightings: list[Sighting] = []
        self.wanted = torch.zeros(0, dtype=torch.bool)
        self.waiting: list[tuple[Trials, Tensor]] = []

    def run(self) -> None:
        """Step until every trial has ended."""
        rows, state = self._refill(None, None)
        asked, query = None, None
        while rows is not None and state is not None:
            self.sightings.clear()
            if asked is not rows:
                asked, query = rows, self.work.query(rows, self.oracle, self.sightings.append)
                self.wanted = self._wanted(rows)
            try:
                state = replace(self.work.attack.step(query, state), k=state.k + 1)
            except torch.OutOfMemoryError:
                rows, state = self._halved(rows, state)
                continue
            leave = self._judge(rows)
            ended = state.k >= self.work.attack.steps
            ended = (ended if state.done is None else ended | state.done) & ~leave
            if self._grow() or bool((leave | ended).any()):
                self._finish(where(rows, ended), state.x[ended])
                if self.work.cancels:
                    leave |= (self.ledger.winner[rows.example] < rows.number.cpu()).to(self.device)
                stay = ~(leave | ended)
                rows, state = self._refill(where(rows, stay), where(state, stay))
                self._tell(len(rows) if rows is not None else 0)
        self._flush()

    def _tell(self, running: int) -> None:
        if self.progress is not None:
            total = len(self.work.examples) * self.work.trials
            fooled, correct = int(self.ledger.fooled.sum()), int(self.ledger.correct.sum())
            self.progress(Progress(self.work.attack.name, self.at - running, total, fooled, correct))

    # --- memory -----------------------------------------------------------------------------------

    def _grow(self) -> bool:
        """Once it has been measured what a look needs, let as many rows in as memory has room for."""
        if self.batch == self.most or not self.oracle.row_bytes:
            return False
        fits = memory.fits(self.oracle.row_bytes, self.device)
        if fits < self.most:
            self.ledger.notes.append(f"Memory has room for {fits} rows at a time, where {self.most} were wanted.")
            self.most = fits
        grown, self.batch = self.batch < self.most, self.most
        return grown

    def _halved(self, rows: Trials, state: State) -> tuple[Trials, State]:
        """Half of the rows, after a pass for which memory did not suffice; the others wait."""
        if len(rows) == 1:
            raise ModelError("Memory does not suffice for a gradient of one image with this model.")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.most = self.batch = (len(rows) + 1) // 2
        self.ledger.notes.append(f"Memory ran out with {len(rows)} rows in work; went on with {self.batch} at a time.")
        kept, others = torch.arange(len(rows)).split(self.batch)
        self.parked.append((take(rows, others), take(state, others)))
        return take(rows, kept), take(state, kept)

    # --- rows in ---------------------------------------------------------------------------------

    def _refill(self, rows: Trials | None, state: State | None) -> tuple[Trials | None, State | None]:
        if not (rows is not None and len(rows)) and self.parked:
            return self.parked.pop()
        new = self._next(self.batch - (len(rows) if rows is not None else 0))
        if new is not None:
            begun = self.work.attack.init(self.work.query(new, self.oracle, self.sightings.append), new.x)
            begun = replace(begun, k=torch.zeros(len(new), dtype=torch.int64, device=self.device))
            empty = rows is None or state is None or not len(rows)
            rows, state = (new, begun) if empty else (join(rows, new), join(state, begun))
        return (rows, state) if rows is not None and len(rows) else (None, None)

    def _next(self, want: int) -> Trials | None:
        """The next trials in order, without those that a success or a wrong clean answer has made needless."""
        examples, total = self.work.examples, len(self.work.examples) * self.work.trials
        if not bool(self.ledger.screened[examples].all()):
            total = len(examples)  # a second trial waits until its first has shown whether the model is right at all
        found: list[tuple[Tensor, Tensor]] = []
        while want > 0 and self.at < total:
            place = torch.arange(self.at, min(self.at + want, total))
            self.at += len(place)
            example, number = examples[place % len(examples)], place // len(examples)
            needed = self.ledger.correct[example] | ~self.ledger.screened[example]
            if self.work.cancels:
                needed &= self.ledger.winner[example] > number + self.work.offset
            found.append((example[needed], number[needed]))
            want -= int(needed.sum())
        example = torch.cat([e for e, _ in found]) if found else examples[:0]
        if not len(example):
            return None
        number = torch.cat([n for _, n in found])
        return self.work.rows(example, number, ~self.ledger.screened[example], self.device)

    # --- rows out --------------------------------------------------------------------------------

    def _judge(self, rows: Trials) -> Tensor:
        """Take in what the step has seen; the rows that leave for it: (B,) bools."""
        leave = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        for seen in self.sightings:
            if bool(rows.fresh.any()) and seen.row is None:
                leave |= self._screen(rows, seen)
                rows.fresh.fill_(False)
            if self.work.leads:
                of = rows if seen.row is None else take(rows, seen.row)
                self.ledger.see(of.example, -margin(seen.logits, replace(self.work.goal(of), aim=None)))
            wanted = self.wanted & ~leave
            point = (seen.fooled & (wanted if seen.row is None else wanted[seen.row])).nonzero().squeeze(1)
            if len(point):
                row = point if seen.row is None else seen.row[point]
                fooled = self._accept(take(rows, row), seen.z[point].detach(), seen.by_victim)
                self.wanted = self._wanted(rows)
                if self.work.cancels:
                    leave[row[fooled]] = True
        return leave

    def _wanted(self, rows: Trials) -> Tensor:
        """The rows of which a point that fools is still of use: (B,) bools. Of a fixed budget, a trial that has succeeded
        is asked for no further point but its end."""
        if self.work.attack.minimal:
            return torch.ones(len(rows), dtype=torch.bool, device=self.device)
        return (self.ledger.winner[rows.example] > rows.number.cpu()).to(self.device)

    def _screen(self, rows: Trials, seen: Sighting) -> Tensor:
        """The fresh rows whose image the model gets wrong: it was looked at just now."""
        new = rows.fresh.nonzero().squeeze(1)
        fresh = take(rows, new)
        goal = Goal(fresh.label)
        wrong = self.work.misjudged(self.oracle, fresh.x, goal, fresh.example, seen.logits[new])
        self.ledger.screen(fresh.example, seen.logits[new], ~wrong)
        return torch.zeros_like(rows.fresh).index_copy(0, new, wrong)

    def _accept(self, rows: Trials, z: Tensor, by_victim: bool) -> Tensor:
        """Points that fooled someone: those that are better than what is held, inside, and confirmed. (M,) bools."""
        minimal = self.work.attack.minimal
        good = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        if minimal:
            good = (self.work.threat.size(z - rows.x).cpu() < self.ledger.distance[rows.example]).to(self.device)
        good = self._inside(rows, z, good)
        if bool(good.any()) and not (by_victim and not self.oracle.random):
            at = good.nonzero().squeeze(1)
            some = take(rows, at)
            good[at] = self.oracle.sure(z[at], self.work.goal(some), some.example)
        if bool(good.any()):
            self._offer(where(rows, good), z[good])
        return good

    def _inside(self, rows: Trials, z: Tensor, asked: Tensor) -> Tensor:
        inside = self.work.threat.contains(z, rows.x)
        if not (self.work.attack.minimal or self.work.attack.wanders):
            self.ledger.outside += int((asked & ~inside).sum())
        return asked & inside

    def _finish(self, rows: Trials, z: Tensor) -> None:
        """Rows at their end wait until they fill a batch for one confirming pass of the victim.

        A minimum-norm attack may end outside the set: then at the set's nearest point.
        """
        if len(rows):
            if self.work.attack.minimal:
                z = self.work.threat.project(z, rows.x)
            self.waiting.append((rows, z))
        if sum(len(r) for r, _ in self.waiting) >= self.batch:
            self._flush()

    def _flush(self) -> None:
        while self.waiting:
            rows, z = self.waiting.pop(0)
            while self.waiting and len(rows) + len(self.waiting[0][0]) <= self.batch:
                more, ends = self.waiting.pop(0)
                rows, z = join(rows, more), torch.cat([z, ends])
            fooled = self.oracle.sure(z, self.work.goal(rows), rows.example)
            good = self._inside(rows, z, torch.ones_like(fooled))
            good &= fooled
            self.ledger.end(where(rows, ~good), z[~good])
            if bool(good.any()):
                self._offer(where(rows, good), z[good], final=True)

    def _offer(self, rows: Trials, z: Tensor, final: bool = False) -> None:
        spent = self.oracle.forward[rows.example] + self.oracle.backward[rows.example]
        self.ledger.offer(rows, z, spent, self.work.attack.minimal, final)
