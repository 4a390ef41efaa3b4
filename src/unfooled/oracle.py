"""The only door to a model.

An `Oracle` holds the **victim**, the caller's model as handed in, which alone confirms, the **surrogate** that gradients
come from, and the **scorer** that scores and decisions come from (by default the victim itself; a faster form of it where
that pays). It counts passes per example and refuses non-finite logits. An
attack sees a query on some rows of it, of a type that lacks what the attack's access does not allow.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from . import rng
from .errors import InternalError, ModelError, NotFinite, UnfooledError
from .goals import Goal
from .losses import Loss, named, shifted
from .models import memory
from .models.access import Access
from .models.classifier import Classifier
from .models.generators import state_of
from .threats import Threat

Classes = Tensor | Callable[[Tensor], Tensor]
WATCHED = 8  # passes in which the generators of numpy and Python are watched
DRAWS = 20  # forward passes at most that decide, by majority, what a random model answers
AGAIN = 100  # the same, afterwards, for a point that an attack has found


@dataclass(frozen=True)
class Look:
    """What a look at N points shows: gradient (N, *shape), loss (N,), logits (N, C), fooled (N,)."""

    gradient: Tensor
    loss: Tensor
    logits: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class Sighting:
    """Points that an attack has asked about: z (M, *shape), of which query row, with which answer, and from whom."""

    z: Tensor
    row: Tensor | None  # (M,); None: one point for each row of the query, in order
    logits: Tensor
    fooled: Tensor
    by_victim: bool


Observer = Callable[["Seen"], None]


@dataclass(frozen=True)
class Seen:
    """What a look by gradient has shown, for whoever watches the run.

    example:  (M,) whose points they are;  first: (M,) whether in its first trial of the plan's part.
    z:        (M, *shape) the points;  look: what it showed.
    """

    example: Tensor
    first: Tensor
    z: Tensor
    look: Look


class Oracle:
    """Victim and surrogate, their counted passes, and whether the victim is random."""

    def __init__(
        self,
        victim: Classifier,
        surrogate: Classifier | None,
        called: Tensor,
        draws: int = 1,
        first: Callable[[Tensor], None] = lambda logits: None,
        observer: Observer | None = None,
    ) -> None:
        self.victim = victim
        self.surrogate = surrogate or victim
        self.scorer = victim
        self.called = called  # (N,) what errors call each example
        self.draws = draws
        self.random = draws > 1
        self.observer = observer
        self.first = first  # judges the first answer of each model
        self.known: set[Classifier] = set()
        self.passes = 0
        self.row_bytes = 0  # what a look needs for each row, by measurement at the first one
        self.forward = torch.zeros(len(called), dtype=torch.int64)
        self.backward = torch.zeros(len(called), dtype=torch.int64)

    def shows_victim(self, access: Access) -> bool:
        """Whether what an attack of that access sees comes from the victim itself."""
        return (self.surrogate if access == Access.GRADIENT else self.scorer) is self.victim

    def count(self, example: Tensor, model: Classifier, backward: bool = False) -> None:
        """Add a pass of the model to each example (M,) of a batch."""
        counter = self.backward if backward else self.forward
        counter.index_add_(0, example, torch.full_like(example, model.cost[backward]))

    def answer(self, z: Tensor, example: Tensor, model: Classifier | None = None) -> Tensor:
        """The victim's logits (M, C), or another model's, without a gradient: one forward pass for each point."""
        with torch.no_grad():
            try:
                return self.run(model or self.victim, z, example)
            except torch.OutOfMemoryError:
                if len(z) == 1:
                    raise
        halves = zip(z.split(len(z) // 2), example.split(len(z) // 2), strict=True)
        return torch.cat([self.answer(points, of, model) for points, of in halves])

    def run(self, model: Classifier, z: Tensor, example: Tensor) -> Tensor:
        """One counted forward pass of victim or surrogate: logits (M, C), all of them finite."""
        before = None if self.random else self._states(model, z)
        logits = model(z)
        if model not in self.known:
            self.first(logits)
            self.known.add(model)
        self.random = self.random or before != self._states(model, z)
        self.passes += 1
        self.count(example, model)
        self._finite(logits, "logits", z, example)
        return logits

    def _states(self, model: Classifier, z: Tensor) -> tuple[object, ...]:
        """The states of the generators that a model may draw from: if a pass changes them, the model is random.

        Those outside torch are watched in the first passes only.
        """
        own = tuple(state_of(generator) for generator in model.generators)
        return (rng.torch_state(z.device), *own, *(rng.other_states() if self.passes < WATCHED else ()))

    def _finite(self, values: Tensor, what: str, z: Tensor, example: Tensor) -> None:
        if math.isfinite(values.sum().item()):  # one reduction tells, but for sums that overflow
            return
        bad = (~torch.isfinite(values)).flatten(1).any(1)
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            name = int(self.called[example[at]])
            if not bool(torch.isfinite(z[at]).all()):
                raise InternalError(f"The attack made a point that is not finite, for example {name}.")
            raise NotFinite(
                f"The model's {what} for example {name} are not finite. "
                "A model that answers NaN or inf cannot be judged: find where it overflows.",
                tuple(dict.fromkeys(self.called[example[bad.cpu()]].tolist())),
                gradients=what == "gradients",
            )

    def look(self, z: Tensor, goal: Goal, loss: Loss, example: Tensor) -> Look:
        """Gradient of the loss, loss, logits and verdict of the surrogate; means and majority over the draws."""
        looks = [self._look(z, goal, loss, example) for _ in range(self.draws)]
        if len(looks) == 1:
            return looks[0]
        votes = torch.stack([look.fooled for look in looks]).sum(0)
        mean = [torch.stack([getattr(look, name) for look in looks]).mean(0) for name in ("gradient", "loss", "logits")]
        return Look(mean[0], mean[1], mean[2], 2 * votes > len(looks))

    def _look(self, z: Tensor, goal: Goal, loss: Loss, example: Tensor) -> Look:
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            logits = self._measured(z, example)
            values = loss(shifted(logits), goal)
            gradient = self._gradient(values, z)
        self.count(example, self.surrogate, backward=True)
        self._finite(gradient, "gradients", z, example)
        logits = logits.detach()
        return Look(gradient, values.detach(), logits, goal.fooled(logits))

    def jacobian(self, z: Tensor, classes: Classes, example: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of some of the surrogate's logits: (M, *shape), (M, K) to (M, K, *shape), and the logits (M, C)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            logits = self.run(self.surrogate, z, example)
            rows: list[Tensor] = []
            chosen = classes if isinstance(classes, Tensor) else classes(logits.detach())
            for picked in logits.gather(1, chosen).unbind(1):
                rows.append(self._gradient(picked, z, retain_graph=True))
                self.count(example, self.surrogate, backward=True)
        gradients = torch.stack(rows, 1)
        self._finite(gradients, "gradients", z, example)
        return gradients, logits.detach()

    def _gradient(self, values: Tensor, z: Tensor, retain_graph: bool = False) -> Tensor:
        """The gradient of each value (M,) to its point."""
        if not values.requires_grad:
            raise ModelError(
                "The model's output carries no gradient to its input: something in it leaves torch or detaches. "
                "Give a differentiable surrogate=, or wrap the part as a defense with backward='identity'."
            )
        try:
            (gradient,) = torch.autograd.grad(values.sum(), z, retain_graph=retain_graph, allow_unused=True)
        except (UnfooledError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a user's backward pass may raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"The model's backward pass failed: {reason}") from error
        if gradient is None:
            raise ModelError("The model's output does not depend on its input, so it has no gradient to attack with.")
        return gradient

    def _measured(self, z: Tensor, example: Tensor) -> Tensor:
        """The surrogate's logits; the first time also what they keep in memory for each row."""
        if self.row_bytes:
            return self.run(self.surrogate, z, example)
        module = self.victim.module
        known = set() if module is None else {p.untyped_storage().data_ptr() for p in module.parameters()}
        with memory.watched(known) as need:
            logits = self.run(self.surrogate, z, example)
        self.row_bytes = max(1, need.row(len(z)))
        return logits

    def confirm(self, z: Tensor, goal: Goal, example: Tensor) -> Tensor:
        """Whether the victim is fooled at each point (M,); a random one by the majority of at most 20 draws."""
        fooled = goal.fooled(self.answer(z, example))
        return self._majority(z, goal, example, DRAWS, fooled) if self.random else fooled

    def sure(self, z: Tensor, goal: Goal, example: Tensor) -> Tensor:
        """The same for points (M,) that were searched for: a random victim is heard again, in more draws.

        A search that tests point after point finds one that most of 20 draws happen to be fooled by, though most are not.
        """
        fooled = self.confirm(z, goal, example)
        found = fooled.nonzero().squeeze(1)
        if self.random and len(found):
            fooled[found] = self._majority(z[found], goal.rows(found), example[found.cpu()], AGAIN)
        return fooled

    def _majority(self, z: Tensor, goal: Goal, example: Tensor, draws: int, first: Tensor | None = None) -> Tensor:
        """Whether more than half of so many draws are fooled (M,), each point heard until that is certain."""
        yes = torch.zeros(len(z), dtype=torch.int64, device=z.device) if first is None else first.long()
        no = torch.zeros_like(yes) if first is None else (~first).long()
        while len(open_ := ((2 * yes <= draws) & (2 * no < draws)).nonzero().squeeze(1)):
            fooled = goal.rows(open_).fooled(self.answer(z[open_], example[open_.cpu()]))
            yes[open_] += fooled.long()
            no[open_] += (~fooled).long()
        return 2 * yes > draws


@dataclass(frozen=True)
class Query(ABC):
    """What every attack sees of its B rows, whatever its access.

    x:        (B, *shape) the images.
    goal:     what counts as fooled, row by row.
    threat:   the set to stay in (a minimum-norm attack sees an infinite radius).
    ids, trial, seed:  what random numbers are made from.
    restart:  (B,) how often the plan has tried the same before: 0 in a row's first trial (for each target).
    """

    x: Tensor
    goal: Goal
    threat: Threat
    ids: Tensor
    trial: Tensor
    restart: Tensor
    seed: int
    oracle: Oracle = field(repr=False)
    example: Tensor = field(repr=False)
    seen: Callable[[Sighting], None] = field(repr=False)

    def uniform(self, k: Tensor | int = 0, salt: int = 0, shape: Sequence[int] | None = None) -> Tensor:
        """Uniform draws in (0, 1) for step k (an int or (B,)); the salt tells draws of one step apart.

        (B, *shape), of x's shape by default.
        """
        return rng.uniform(self._key(k, 2 * salt), self._shape(shape), self.x.dtype)

    def normal(self, k: Tensor | int = 0, salt: int = 0, shape: Sequence[int] | None = None) -> Tensor:
        """Standard normal draws; see `uniform`."""
        return rng.normal(self._key(k, 2 * salt + 1), self._shape(shape), self.x.dtype)

    def _shape(self, shape: Sequence[int] | None) -> torch.Size:
        return self.x.shape[1:] if shape is None else torch.Size(shape)

    def _key(self, k: Tensor | int, salt: int) -> Tensor:
        return rng.further(self._stem, k, salt)

    @cached_property
    def _stem(self) -> Tensor:
        return rng.keys(self.ids, self.seed, self.trial)

    def _example(self, row: Tensor | None) -> Tensor:
        return self.example if row is None else self.example[row.cpu()]

    def decide(self, z: Tensor, row: Tensor | None = None) -> Tensor:
        """Whether each point fools the victim: (M, *shape) to (M,). One forward pass each."""
        return self._ask(z, row).fooled

    def _ask(self, z: Tensor, row: Tensor | None) -> Sighting:
        logits = self.oracle.answer(z, self._example(row), self.oracle.scorer)
        goal = self.goal if row is None else self.goal.rows(row)
        sighting = Sighting(z, row, logits, goal.fooled(logits), self.oracle.shows_victim(Access.SCORE))
        self.seen(sighting)
        return sighting


@dataclass(frozen=True)
class DecisionQuery(Query):
    """Decisions only."""


@dataclass(frozen=True)
class ScoreQuery(Query):
    """Decisions and scores."""

    def scores(self, z: Tensor, row: Tensor | None = None) -> Tensor:
        """The victim's logits: (M, *shape) to (M, C). One forward pass each."""
        return self._ask(z, row).logits


@dataclass(frozen=True)
class GradientQuery(Query):
    """Decisions, scores and gradients."""

    def scores(self, z: Tensor, row: Tensor | None = None) -> Tensor:
        """The victim's logits: (M, *shape) to (M, C). One forward pass each."""
        return self._ask(z, row).logits

    def look(self, z: Tensor, loss: str | Loss = "cross_entropy", row: Tensor | None = None) -> Look:
        """Look at points (M, *shape): a forward and a backward pass of the surrogate for each."""
        goal = self.goal if row is None else self.goal.rows(row)
        example = self._example(row)
        look = self.oracle.look(z, goal, named(loss) if isinstance(loss, str) else loss, example)
        self.seen(Sighting(z, row, look.logits, look.fooled, self.oracle.shows_victim(Access.GRADIENT)))
        if self.oracle.observer is not None:
            first = self.restart == 0 if row is None else self.restart[row] == 0
            self.oracle.observer(Seen(example, first, z, look))
        return look

    def jacobian(self, z: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        """Gradients of some logits: points (B, *shape), classes (B, K) to (B, K, *shape), and the logits (B, C).

        `classes` may be a function from the logits there to the classes. One forward pass, and one backward pass for
        each of the K classes; means over the draws of a random model.
        """
        pairs = [self.oracle.jacobian(z, classes, self.example) for _ in range(self.oracle.draws)]
        gradients, logits = pairs[0]
        if len(pairs) > 1:
            gradients, logits = (torch.stack(part).mean(0) for part in zip(*pairs, strict=True))
        self.seen(
            Sighting(z.detach(), None, logits, self.goal.fooled(logits), self.oracle.shows_victim(Access.GRADIENT))
        )
        return gradients, logits


QUERIES: dict[Access, type[Query]] = {
    Access.DECISION: DecisionQuery,
    Access.SCORE: ScoreQuery,
    Access.GRADIENT: GradientQuery,
}
