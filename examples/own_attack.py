"""Write your own attack in 25 lines: PGD whose step halves a few times on the way, with the loss of your choice.

.venv/bin/python examples/own_attack.py
"""

# --- the attack ---
from dataclasses import dataclass, replace
from typing import ClassVar

import unfooled as uf
from unfooled.attacks import Attack, State
from unfooled.oracle import Access


@dataclass(frozen=True)
class Halving(Attack):
    """PGD with a step of eps/2 that halves with every quarter of the steps."""

    steps: int = 40
    loss: str = "margin"
    name: ClassVar[str] = "halving"
    access, norms = Access.GRADIENT, (uf.Linf, uf.L2, uf.L1)

    def init(self, q, x):
        return State(x=q.threat.sample(x, q.uniform, q.normal))

    def step(self, q, s):
        size = q.threat.eps * 0.5 ** (1 + 4 * s.k // self.steps)  # (B,): rows of one batch may be at different steps
        size = size.to(s.x).view(-1, *(1,) * (s.x.dim() - 1))
        direction = q.threat.steepest(q.look(s.x, self.loss).gradient, s.x, size.flatten())
        return replace(s, x=q.threat.project(s.x + size * direction, q.x))


# --- and that is all: batches, early stop, restarts, targets, counting and confirming are the engine's ---
if __name__ == "__main__":
    model, data = uf.models.load("fashion-mnist/hardened"), uf.data.load("fashion-mnist-sample[0:100]")
    for attack in (uf.attacks.PGD(), Halving(), uf.attacks.Targeted(Halving(), k=3)):
        found = uf.attack(model, data.floats(), data.labels, uf.Linf(0.1), attack)
        print(f"{attack!s:24} robust accuracy {found.robust_accuracy:.2f}")
