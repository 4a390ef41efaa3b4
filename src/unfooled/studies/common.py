"""What every study needs: where it was made, its pictures, and a word on how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..results import Cost

Say = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""


@dataclass
class Clock:
    """Adds up what the parts of a study cost."""

    costs: list[Cost] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[Spent]:
        """Time a part; add its passes to what is yielded."""
        spent, start = Spent(), time.perf_counter()
        yield spent
        seconds = time.perf_counter() - start
        self.costs.append(Cost(part=name, forward=spent.forward, backward=spent.backward, seconds=round(seconds, 2)))


@dataclass
class Spent:
    """Passes of a part."""

    forward: int = 0
    backward: int = 0

    def add(self, forward: int, backward: int = 0) -> None:
        """Add passes."""
        self.forward += forward
        self.backward += backward
