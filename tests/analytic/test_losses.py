"""Losses against plain formulas, one number at a time."""

import math

import pytest
import torch

from helpers import Wrapped, problem
from unfooled.attacks import FGSM
from unfooled.engine import attack
from unfooled.errors import ParameterError, UnknownName
from unfooled.goals import Goal
from unfooled.losses import LOSSES, named, shifted
from unfooled.threats import Linf

F64 = torch.float64


def rows(count=12, classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn((count, classes), generator=g, dtype=F64)
    y = torch.randint(0, classes, (count,), generator=g)
    return z, y, (y + 1 + torch.randint(0, classes - 1, (count,), generator=g)) % classes


def probability(z):
    total = sum(math.exp(v) for v in z)
    return [math.exp(v) / total for v in z]


def by_hand(name, z, y, t=None):
    """One row; t: a target."""
    p, order = probability(z), sorted(z, reverse=True)
    wanted = y if t is None else t
    if name == "cross_entropy":
        return -math.log(p[y]) if t is None else math.log(p[t])
    if name == "mse":
        error = sum((q - (c == wanted)) ** 2 for c, q in enumerate(p)) / len(p)
        return error if t is None else -error
    others = max(v for c, v in enumerate(z) if c != wanted)
    if name == "probability_margin":
        others = max(v for c, v in enumerate(p) if c != wanted)
        return others - p[y] if t is None else p[t] - others
    if name == "margin" or len(z) < 4:
        return others - z[y] if t is None else z[t] - others
    if t is None:
        third = order[3] if z[y] == order[2] else order[2]
        return -(z[y] - others) / (order[0] - third)
    return -(z[y] - z[t]) / (order[0] - (order[2] + order[3]) / 2)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "margin", "probability_margin", "dlr"])
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10])
@pytest.mark.parametrize("targeted", [False, True])
def test_each_loss_is_its_formula(name, classes, targeted):
    z, y, t = rows(classes=classes)
    got = LOSSES[name](shifted(z), Goal(y, target=t if targeted else None))
    want = [by_hand(name, a, int(b), int(c) if targeted else None) for a, b, c in zip(z.tolist(), y, t, strict=True)]
    torch.testing.assert_close(got, torch.tensor(want, dtype=F64), rtol=1e-9, atol=1e-12)


def test_aims_pull_towards_a_class_though_any_counts():
    z, y, t = rows()
    aim, target = Goal(y, aim=t), Goal(y, target=t)
    for name in ("cross_entropy", "mse", "dlr"):
        torch.testing.assert_close(LOSSES[name](z, aim), LOSSES[name](z, target))
    at = torch.arange(len(z))
    torch.testing.assert_close(LOSSES["margin"](z, aim), z[at, t] - z[at, y])
    assert torch.equal(aim.fooled(z), z.argmax(1) != y)
    assert torch.equal(target.fooled(z), z.argmax(1) == t)


@pytest.mark.parametrize("name", list(LOSSES))
def test_higher_is_nearer_to_the_goal(name):
    """Lowering the true class, or raising the target, raises the loss."""
    z, y, t = rows()
    at = torch.arange(len(z))
    z[at, y] = z.max(1).values + 1
    nearer = z.clone()
    nearer[at, y] -= 0.5
    assert bool((LOSSES[name](nearer, Goal(y)) >= LOSSES[name](z, Goal(y)) - 1e-12).all())
    nearer = z.clone()
    nearer[at, t] += 0.4
    assert bool((LOSSES[name](nearer, Goal(y, target=t)) >= LOSSES[name](z, Goal(y, target=t)) - 1e-12).all())


def test_dlr_is_blind_to_scale_and_shift_and_small_class_counts_take_the_margin():
    z, y, t = rows()
    for goal in (Goal(y), Goal(y, target=t)):
        torch.testing.assert_close(LOSSES["dlr"](37 * z + 5, goal), LOSSES["dlr"](z, goal))
        assert not torch.allclose(LOSSES["dlr"](z, goal), LOSSES["margin"](z, goal))
    for classes in (2, 3):
        z, y, t = rows(classes=classes)
        for goal in (Goal(y), Goal(y, target=t)):
            torch.testing.assert_close(LOSSES["dlr"](z, goal), LOSSES["margin"](z, goal))


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("classes", [2, 3, 4, 6])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_are_finite_on_ties_and_extremes(name, classes, dtype):
    tied = torch.zeros((1, classes))
    pair = tied.clone()
    pair[:, :2] = 1
    huge = 1e4 * torch.randn((3, classes), generator=torch.Generator().manual_seed(0))
    near = 1e-7 * torch.randn((3, classes), generator=torch.Generator().manual_seed(0))
    z = torch.cat([tied, pair, huge, near]).to(dtype).requires_grad_(True)
    y = torch.zeros(8, dtype=torch.int64)
    for goal in (Goal(y), Goal(y, target=y + 1), Goal(y, aim=y + 1)):
        values = LOSSES[name](shifted(z), goal)
        assert bool(torch.isfinite(values).all())
        (g,) = torch.autograd.grad(values.sum(), z)
        assert bool(torch.isfinite(g).all())


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_constant_in_the_logits_changes_nothing(name):
    """advertorch #63: 1e10 added to all logits changed FGSM's success."""
    p = problem((2, 3, 3), dtype=F64)
    threat = p.threat(Linf, 1.2)
    plain = attack(p.model, p.x, p.y, threat, FGSM(loss=name))
    moved = attack(Wrapped(p.model, lambda z: z + 1e10), p.x, p.y, threat, FGSM(loss=name))
    assert torch.equal(plain.success, moved.success)
    assert 0 < int(plain.success.sum()) < int(plain.clean_correct.sum())
    single = problem((2, 3, 3))
    plain = attack(single.model, single.x, single.y, threat, FGSM(loss=name))
    moved = attack(Wrapped(single.model, lambda z: z + 1e3), single.x, single.y, threat, FGSM(loss=name))
    assert float((plain.success == moved.success).double().mean()) >= 0.95


def test_names():
    assert named("ce") is LOSSES["cross_entropy"]
    assert named("cw") is LOSSES["margin"]
    with pytest.raises(UnknownName, match=r"no loss named 'cross_entrpy'. Did you mean 'cross_entropy'\?"):
        FGSM(loss="cross_entrpy")


def test_confidence_is_enforced():
    """C&W's pitfall: a success must lead by the margin, also when all other logits are negative."""
    z = torch.tensor([[1.0, 2.0, -3.0], [1.0, 1.2, 0.0], [-1.0, -5.0, -9.0]])
    y = torch.tensor([0, 0, 1])
    assert Goal(y, confidence=0.5).fooled(z).tolist() == [True, False, True]
    assert Goal(y, target=torch.tensor([1, 1, 0]), confidence=0.5).fooled(z).tolist() == [True, False, True]
    with pytest.raises(ParameterError, match="confidence"):
        Goal(y, confidence=-1)
