"""What every study needs: where it was made, its pictures, and a word on how far it is."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from ..evaluation import judge
from ..results import Cost, Picture
from ..threats import Threat

Say = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""


def command_line() -> str:
    """How this program was called, so that a report says how to repeat it."""
    return shlex.join(["unfooled", *sys.argv[1:]])


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


class Album:
    """Collects the pictures of a report: their arrays, and what the models say of them."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.clean: list[np.ndarray] = []
        self.adversarial: list[np.ndarray] = []

    def add(
        self,
        model: nn.Module,
        clean: Tensor,
        adversarial: Tensor,
        labels: Tensor,
        examples: Tensor,
        threat: Threat,
        attack: str,
        name: str,
    ) -> list[Picture]:
        """Add images (K, C, H, W) with what fooled `model` on them."""
        before, after = judge(model, clean, labels), judge(model, adversarial, labels)
        size = threat.size(adversarial.double() - clean.double())
        pictures = []
        for k in range(len(clean)):
            pictures.append(
                Picture(
                    row=len(self.clean),
                    example=int(examples[k]),
                    label=self._name(labels[k]),
                    clean_prediction=self._name(before.prediction[k]),
                    clean_confidence=float(before.confidence[k]),
                    adversarial_prediction=self._name(after.prediction[k]),
                    adversarial_confidence=float(after.confidence[k]),
                    threat=type(threat).__name__,
                    attack=attack,
                    size=float(size[k]),
                    model=name,
                )
            )
            self.clean.append(clean[k].float().numpy())
            self.adversarial.append(adversarial[k].float().numpy())
        return pictures

    def _name(self, index: Tensor) -> str:
        return self.classes[int(index)] if int(index) < len(self.classes) else str(int(index))

    def arrays(self) -> dict[str, np.ndarray]:
        """What `pictures.safetensors` holds."""
        return {"clean": np.stack(self.clean), "adversarial": np.stack(self.adversarial)}
