"""The conformance suite over every registered attack, and proof that it catches broken ones."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import checks
import pytest
import torch

from helpers import NORMS
from unfooled.attacks import ATTACKS, PGD, Attack, State
from unfooled.errors import UnfooledError
from unfooled.oracle import Access
from unfooled.threats import L2, Linf


def shortened(kind):
    """An attack with its default options, in few steps."""
    method = kind()
    if any(f.name == "steps" for f in fields(method)):
        return replace(method, steps=min(method.steps, 5))
    return method


def norms(kind):
    return [norm for norm in NORMS if issubclass(norm, kind.norms)]


BY_NORM = [(kind, norm) for kind in ATTACKS.values() for norm in norms(kind)]
DEAR = ("HopSkipJump-Linf", "Square-L2")  # with their own options: what they find is tested in the other norms, too


@pytest.mark.parametrize("check", [c for c in checks.PER_NORM if c is not checks.effective], ids=lambda c: c.__name__)
@pytest.mark.parametrize(("kind", "norm"), BY_NORM, ids=lambda t: t.__name__)
def test_every_norm(check, kind, norm):
    check(shortened(kind), norm)


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        pytest.param(kind, norm, marks=[pytest.mark.slow] * (f"{kind.__name__}-{norm.__name__}" in DEAR))
        for kind, norm in BY_NORM
    ],
    ids=lambda t: t.__name__,
)
def test_every_norm_is_effective(kind, norm):
    checks.effective(kind(), norm)


@pytest.mark.parametrize("check", checks.PER_ATTACK, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", ATTACKS.values(), ids=lambda k: k.__name__)
def test_every_attack(check, kind):
    check(shortened(kind), norms(kind)[0])


def test_the_registry_is_whole():
    assert {"fgsm", "bim", "pgd"} <= set(ATTACKS)
    for name, kind in ATTACKS.items():
        assert kind.name == name
        assert norms(kind), f"{name} works for no norm known here"
        assert kind.__doc__


# ---- broken on purpose --------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken(Attack):
    """A correct Linf sign method, for the others to break."""

    steps: int = 3
    name: ClassVar[str] = "broken"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar = (Linf, L2)

    def init(self, q, x):
        return State(x=x)

    def move(self, q, x, g):
        z = x + 0.5 * q.threat.eps * q.threat.steepest(g, x)
        return q.threat.project(z, q.x)

    def step(self, q, s):
        return replace(s, x=self.move(q, s.x, q.look(s.x).gradient))


class OverBudget(Broken):
    """1 % too far."""

    def move(self, q, x, g):
        return q.threat.project(q.x + 1.01 * q.threat.eps * g.sign(), q.x, 1.01 * q.threat.eps)


class NoOp(Broken):
    def move(self, q, x, g):
        return x


class Nan(Broken):
    def move(self, q, x, g):
        return x * torch.nan


class LeavesBox(Broken):
    def move(self, q, x, g):
        return q.x + q.threat.eps * g.sign()


class MovesMasked(Broken):
    def move(self, q, x, g):
        return q.threat.with_mask(None).project(x + q.threat.eps * g.sign(), q.x)


class BatchMean(Broken):
    """The gradient measured against the whole batch instead of row by row."""

    def move(self, q, x, g):
        return q.threat.project(x + q.threat.eps * g / g.abs().mean(), q.x)


class GlobalRandom(Broken):
    def init(self, q, x):
        return State(x=q.threat.project(x + q.threat.eps * (2 * torch.rand_like(x) - 1), x))


class TwoLooks(Broken):
    """Says one look for each step and takes two."""

    def step(self, q, s):
        q.look(s.x)
        return super().step(q, s)


class BehindTheDoor(Broken):
    """Asks the model past the oracle."""

    def move(self, q, x, g):
        q.oracle.victim(x)
        return super().move(q, x, g)


class Untargeted(Broken):
    """Ignores its target."""

    def step(self, q, s):
        def loss(logits, goal):
            return torch.nn.functional.cross_entropy(logits, goal.label, reduction="none")

        return replace(s, x=self.move(q, s.x, q.look(s.x, loss).gradient))


class Reaches(Broken):
    """Says that it needs decisions only, and looks at the gradient."""

    access: ClassVar[Access] = Access.DECISION


class PassInInit(Broken):
    def init(self, q, x):
        q.look(x)
        return State(x=x)


BROKEN = [
    (OverBudget, checks.inside_and_true),
    (NoOp, checks.effective),
    (Nan, checks.inside_and_true),
    (LeavesBox, checks.bounds),
    (MovesMasked, checks.masked),
    (BatchMean, checks.batch_invariant),
    (GlobalRandom, checks.batch_invariant),
    (TwoLooks, checks.every_step),
    (BehindTheDoor, checks.passes_counted),
    (Untargeted, checks.target_reached),
    (Reaches, checks.passes_counted),
    (PassInInit, checks.access_respected),
]


@pytest.mark.filterwarnings("ignore:.*lay outside")
@pytest.mark.parametrize(("kind", "check"), BROKEN, ids=lambda t: t.__name__)
def test_broken_attacks_are_caught(kind, check):
    with pytest.raises((AssertionError, UnfooledError, AttributeError)):
        check(kind(), Linf)


@pytest.mark.parametrize("check", [*checks.PER_NORM, *checks.PER_ATTACK], ids=lambda c: c.__name__)
def test_the_unbroken_one_passes(check):
    check(Broken(), Linf)


def test_what_is_over_budget_is_no_success():
    """The engine's own guard: points outside the set are never successes, and a note says so."""
    p = checks.problem((2, 3, 3))
    with pytest.warns(UserWarning, match="outside"):
        result = checks.run(OverBudget(), p, p.threat(Linf, 3))
    assert not bool(result.success.any())


def test_defaults_are_as_published():
    """Madry et al. 2018: 40 steps of 0.01 at eps 0.3. Kurakin et al. 2017: steps of 1/255, an eighth of eps 8/255."""
    assert PGD() == PGD(steps=40, step_size=0.01 / 0.3, loss="cross_entropy")
    assert ATTACKS["bim"]().step_size == 1 / 8
    assert ATTACKS["bim"]().steps == 10
    assert ATTACKS["fgsm"].steps == 1
