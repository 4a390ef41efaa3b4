"""Linear models, whose nearest adversarial example is known in every norm."""

import pytest
import torch

from helpers import CONVEX, NORMS, Linear, own_size
from unfooled.attacks import BIM, FGSM, PGD, Restarts, Targeted
from unfooled.engine import attack
from unfooled.threats import L0, L1, L2, Linf

F64 = torch.float64


def images(count, size, seed=0):
    return 0.3 + 0.4 * torch.rand((count, size), generator=torch.Generator().manual_seed(seed), dtype=F64)


def distance(kind, weight, margin, x):
    """The smallest change in the box [0, 1] that lowers <weight, x> by the margin: each (N, D), (N,), (N, D)."""
    if kind is Linf:
        return margin / weight.abs().sum(1)
    if kind is L2:
        return margin / weight.norm(dim=1)
    room = torch.where(weight > 0, x, 1 - x)  # against the weight
    gain, order = (weight.abs() if kind is L1 else weight.abs() * room).sort(1, descending=True)
    room = room.gather(1, order)
    least = []
    for row in range(len(x)):
        left, spent = float(margin[row]), 0.0
        for g, most in zip(gain[row].tolist(), room[row].tolist(), strict=True):
            if kind is L0:
                left, spent = left - g, spent + 1
                if left < 0:
                    break
            else:
                step = min(most, left / g)
                left, spent = left - g * step, spent + step
                if left <= 1e-15:
                    break
        least.append(spent if left <= 1e-15 else float("inf"))
    return torch.tensor(least, dtype=F64)


def binary(size=6, count=40, seed=0, offset=0.0):
    draw = torch.Generator().manual_seed(seed)
    w = torch.randn((1, size), generator=draw, dtype=F64)
    x = images(count, size)
    model = Linear(w, offset - (x @ w[0]).mean()[None])
    z = model(x).detach()[:, 0]
    y = (z > 0).long()
    return model, x, y, z.abs(), w * (2 * y[:, None] - 1)


@pytest.mark.parametrize("kind", NORMS)
def test_fgsm_on_a_binary_model_fools_exactly_beyond_the_distance(kind):
    """One logit z = w·x + b: fooled iff eps > |z| / dual norm of w (greedy in the box for L1 and L0)."""
    model, x, y, margin, toward = binary(offset=1.5 if kind in (L1, L0) else 0)
    needed = distance(kind, toward, margin, x)
    grid = [1, 2, 3] if kind is L0 else [float(needed.quantile(q)) for q in (0.05, 0.33, 0.62, 0.9)]
    some = 0
    for eps in grid:
        result = attack(model, x, y, kind(eps), FGSM())
        assert bool(result.clean_correct.all())
        assert torch.equal(result.success, needed < eps if kind is not L0 else needed <= eps), (kind, eps)
        assert bool((result.distance[result.success] >= needed[result.success] - 1e-12).all())
        some += int(result.success.sum())
        assert result.robust_accuracy == float((~result.success).double().mean())
    assert 0 < some < len(grid) * len(x)


@pytest.mark.parametrize("kind", CONVEX)
def test_the_boundary_is_sharp(kind):
    """For one image: a 1e-6 more than its distance fools, a 1e-6 less does not."""
    model, x, y, margin, toward = binary()
    needed = distance(kind, toward, margin, x)
    for row in range(0, 40, 8):
        if needed[row] > 0.25:
            continue
        for factor, fooled in ((1 - 1e-6, False), (1 + 1e-6, True)):
            result = attack(model, x[row : row + 1], y[row : row + 1], kind(float(needed[row]) * factor), FGSM())
            assert bool(result.success[0]) is fooled


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("method", [PGD(), BIM(), Restarts(PGD(steps=40), 2)], ids=str)
def test_iterated_attacks_reach_the_same_optimum(kind, method):
    """On a linear model, no attack succeeds below the distance, and iterated ones do at 1.5 times of it."""
    if not issubclass(kind, method.stages()[0].attack.norms):
        pytest.skip(f"{method} does not claim {kind.__name__}")
    model, x, y, margin, toward = binary()
    needed = distance(kind, toward, margin, x)
    eps = 4 if kind is L0 else float(needed.quantile(0.6))
    result = attack(model, x, y, kind(eps), method)
    beyond = needed > eps
    assert not bool(result.success[beyond].any()), "fooled from below the smallest distance there is"
    easy = needed <= eps / (2 if kind is L0 else 1.5)
    assert int(easy.sum()) > 5
    assert bool(result.success[easy].all()), f"{int((~result.success[easy]).sum())} of {int(easy.sum())} missed"


@pytest.mark.parametrize("kind", [Linf, L2])
def test_several_classes_each_aimed_at(kind):
    """Targeted FGSM over all wrong classes finds the nearest of the C - 1 hyperplanes: fooled iff eps > min distance."""
    draw = torch.Generator().manual_seed(5)
    w, x = torch.randn((5, 7), generator=draw, dtype=F64), images(40, 7)
    model = Linear(w, -(x @ w.T).mean(0))
    z = model(x).detach()
    y = z.argmax(1)
    per_class = []
    for c in range(5):
        toward = w[y] - w[c]
        d = distance(kind, toward, z.gather(1, y[:, None])[:, 0] - z[:, c], x)
        per_class.append(torch.where(y == c, torch.inf, d.nan_to_num(nan=torch.inf)))
    needed = torch.stack(per_class, 1)
    least = needed.min(1).values
    eps = float(least.median())
    result = attack(model, x, y, kind(eps), Targeted(FGSM(loss="margin"), k=4))
    assert torch.equal(result.success, least < eps)
    fewer = attack(model, x, y, kind(eps), Targeted(FGSM(loss="margin"), k=1))
    runner_up = z.scatter(1, y[:, None], -torch.inf).argmax(1)
    reach = needed.gather(1, runner_up[:, None])[:, 0]
    assert bool(fewer.success[reach < eps].all())
    assert int(fewer.success.sum()) <= int(result.success.sum())


@pytest.mark.parametrize("kind", CONVEX)
def test_a_given_target_on_three_classes(kind):
    """Target t is reached by one step iff the point x + eps·d, d the best towards t, gives t: by own formula."""
    draw = torch.Generator().manual_seed(6)
    w, x = torch.randn((3, 6), generator=draw, dtype=F64), images(30, 6)
    model = Linear(w, -(x @ w.T).mean(0))
    y = model(x).argmax(1)
    targets = (y + 1) % 3
    for eps in (0.05, 0.1, 0.2):
        z = x.clone().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(model(z), targets, reduction="sum")
        (g,) = torch.autograd.grad(-loss, z)
        if kind is Linf:
            point = x + eps * g.sign()
        elif kind is L2:
            point = x + eps * g / g.norm(dim=1, keepdim=True)
        else:
            point = x.clone()  # eps is below the room of any component: all of it goes to the steepest
            best = g.abs().argmax(1)
            point[torch.arange(30), best] += eps * g.gather(1, best[:, None])[:, 0].sign()
        result = attack(model, x, y, kind(eps), FGSM(), targets=targets, early_stop=False)
        torch.testing.assert_close(result.adversarial, point, rtol=0, atol=1e-12)
        assert torch.equal(result.success, model(point).argmax(1) == targets)


def test_l1_and_l0_fill_the_box_greedily():
    """The steepest components go to the wall one after the other; a component at its wall gives nothing."""
    w = torch.tensor([[4.0, -3.0, 2.0, 1.0]], dtype=F64)
    x = torch.tensor([[0.75, 0.75, 0.5, 0.5]], dtype=F64)
    model, y = Linear(w, torch.zeros(1, dtype=F64)), torch.tensor([1])
    model.bias.data -= 0.1
    # lowering the logit: component 0 down by at most .75, 1 up by at most .25, 2 down by .5
    for eps, want in ((0.5, [0.25, 0.75, 0.5, 0.5]), (0.9, [0, 0.9, 0.5, 0.5]), (1.2, [0, 1, 0.3, 0.5])):
        got = attack(model, x, y, L1(eps), FGSM(), early_stop=False).adversarial
        torch.testing.assert_close(got, torch.tensor([want], dtype=F64))
    # gains: 3, .75, 1, .5
    for eps, want in ((1, [0, 0.75, 0.5, 0.5]), (2, [0, 0.75, 0, 0.5]), (3, [0, 1, 0, 0.5])):
        got = attack(model, x, y, L0(eps), FGSM(), early_stop=False).adversarial
        torch.testing.assert_close(got, torch.tensor([want], dtype=F64))


def test_distance_is_the_size_of_the_change():
    model, x, y, _, _ = binary()
    for kind in NORMS:
        method = FGSM() if kind is L0 else PGD(steps=5)
        result = attack(model, x, y, kind(3 if kind is L0 else 0.3), method)
        size = own_size(kind, result.adversarial - x)
        won = result.success
        torch.testing.assert_close(result.distance[won], size[won], rtol=1e-12, atol=0)
