"""DeepFool, SuperDeepFool, FAB and C&W on models whose nearest adversarial example is known; the bugs of their peers."""

import itertools
from dataclasses import replace

import pytest
import scipy.optimize
import torch
from torch import nn

from helpers import CONVEX, Linear, own_size
from unfooled.attacks import ATTACKS, FAB, CarliniWagner, DeepFool, Restarts, SuperDeepFool, Targeted
from unfooled.engine import attack
from unfooled.errors import ParameterError
from unfooled.goals import Goal, pick, rival
from unfooled.norms import fill, fill_first
from unfooled.oracle import GradientQuery
from unfooled.threats import L1, L2, Linf

F64 = torch.float64
DUAL = {Linf: 1, L2: 2, L1: torch.inf}
EXACT = [  # attack, norm, what it reaches as a multiple of the optimum on a linear model
    (DeepFool(), Linf, 1.02),
    (DeepFool(), L2, 1.02),
    (SuperDeepFool(steps=20), L2, 1.0),
    (FAB(steps=30), Linf, 1.0),
    (FAB(steps=30), L2, 1.0),
    (FAB(steps=30), L1, 1.0),
    (Targeted(FAB(steps=30), k=4), L2, 1.0),
]
MINIMAL = [(DeepFool(), L2), (SuperDeepFool(steps=30), L2), (FAB(steps=40), L2), (CarliniWagner(steps=450), L2)]


def task(classes=5, size=8, count=16, bounds=(-4.0, 4.0), dtype=F64, seed=0, spread=0.1):
    """A linear model that is right on all images, which are far from the box's walls in units of their distance.

    C&W's needs more spread: Adam's first step is as long as most distances are here without it.
    """
    draw = torch.Generator().manual_seed(seed)
    low, high = (torch.as_tensor(b, dtype=F64) for b in bounds)
    x = low + (high - low) * (0.5 + spread * (torch.rand((count, size), generator=draw, dtype=F64) - 0.5))
    w = torch.randn((classes, size), generator=draw, dtype=F64) / (high - low)
    model = Linear(w.to(dtype), -(x @ w.T).mean(0).to(dtype))
    x = x.to(dtype)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y


def spread(method):
    """How far apart the images of a task for this attack lie; see `task`."""
    return 0.5 if method.name == "cw" else 0.1


def nearest(model, x, y, kind, classes=None):
    """The distance to the nearest of the boundaries to these classes (all), in a linear model without a box."""
    w, z = model.weight.detach().double(), model(x).detach().double()
    every = range(len(w)) if classes is None else classes
    gaps = torch.stack([pick(z, y) - z[:, c] for c in every], 1)
    norms = torch.stack([torch.linalg.vector_norm(w[c] - w[y], DUAL[kind], dim=1) for c in every], 1)
    distance = torch.where(norms > 0, gaps / norms, torch.inf)
    return distance.min(1).values


def with_answer(model, x, y, target):
    """The L2 distance of each image to the region where a linear model answers the target, by scipy."""
    w, b = (t.detach().double().numpy() for t in (model.weight, model.bias))
    found = []
    for at, t in zip(x.double().numpy(), target.tolist(), strict=True):
        a, c = w[t] - w, b[t] - b
        best = scipy.optimize.minimize(
            lambda d: d @ d, 0 * at, jac=lambda d: 2 * d, method="SLSQP", options={"ftol": 1e-14},
            constraints={"type": "ineq", "fun": lambda d, a=a, c=c, at=at: a @ (at + d) + c, "jac": lambda d, a=a: a},
        )  # fmt: skip
        assert best.success
        found.append(best.fun**0.5)
    return torch.tensor(found)


def watched(monkeypatch):
    """The points that attacks ask for from now on, as (restart, k, size of the change), look by look."""
    looks = []
    for name in ("look", "jacobian", "scores", "decide"):
        asked = getattr(GradientQuery, name)

        def spy(self, z, *args, asked=asked, **more):
            if "row" not in more:
                looks.append((self.restart.clone(), z.detach().clone(), self.x.clone()))
            return asked(self, z, *args, **more)

        monkeypatch.setattr(GradientQuery, name, spy)
    return looks


# ---- known optima -------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "kind", "ratio"), EXACT, ids=str)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_linear_models_are_solved_to_a_thousandth(method, kind, ratio, classes):
    model, x, y = task(classes)
    found = attack(model, x, y, kind(torch.inf, bounds=(-4.0, 4.0)), method)
    best = nearest(model, x, y, kind)
    assert bool(found.success.all())
    assert float((found.distance / best / ratio - 1).abs().max()) < 1e-3


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_carlini_wagner_comes_within_three_percent(classes):
    """Adam's steps are a hundredth of the box's width long, so its points lie scattered round the boundary."""
    model, x, y = task(classes, bounds=(0.0, 1.0), count=8, spread=0.5)
    found = attack(model, x, y, L2(torch.inf), CarliniWagner(steps=900))
    ratio = found.distance / nearest(model, x, y, L2)
    assert bool(found.success.all())
    assert float(ratio.min()) > 1 - 1e-9
    assert float(ratio.median()) < 1.03


@pytest.mark.parametrize(("method", "kind"), [(FAB(steps=30), Linf), (FAB(steps=30), L2), (DeepFool(), L2)], ids=str)
def test_within_a_few_steps(method, kind):
    """A linear model's boundary is reached by the second look; DeepFool needs no third."""
    model, x, y = task()
    few = replace(method, steps=3)
    found = attack(model, x, y, kind(torch.inf, bounds=(-4.0, 4.0)), few)
    assert float((found.distance / nearest(model, x, y, kind)).max()) < (1.0201 if few.name == "deepfool" else 1.06)
    if few.name == "deepfool":
        assert bool((found.forward <= 4).all()), "a pass to screen, two to move, one to confirm"


@pytest.mark.parametrize("kind", CONVEX)
def test_fab_is_exact_where_the_walls_are_in_the_way(kind):
    """Images near the walls of [0, 1]: the optimum within the box is scipy's."""
    draw = torch.Generator().manual_seed(3)
    x = torch.rand((40, 6), generator=draw, dtype=F64).round(decimals=1)
    w = torch.randn((1, 6), generator=draw, dtype=F64)
    model = Linear(w, -(x @ w[0]).mean()[None])
    z = model(x).detach()[:, 0]
    y = (z > 0).long()
    found = attack(model, x, y, kind(torch.inf), FAB(steps=40))
    free = attack(model, x, y, kind(torch.inf, bounds=(-9.0, 9.0)), FAB(steps=40))
    assert bool((found.distance > free.distance * 1.01).any()), "no wall is in the way"
    for row in range(len(x)):
        g, at, gap = (w[0] * (1 - 2 * y[row])).numpy(), x[row].numpy(), float(z[row].abs())
        n, limits = len(at), [(0, 1 - v) for v in at] + [(0, v) for v in at]
        if kind is L1:
            best = scipy.optimize.linprog([1] * (2 * n), A_eq=[[*g, *-g]], b_eq=[gap], bounds=limits)
        elif kind is Linf:
            sides = [[*[float(i == j) for j in range(2 * n)], -1.0] for i in range(2 * n)]
            best = scipy.optimize.linprog(
                [0] * (2 * n) + [1], A_ub=sides, b_ub=[0] * (2 * n), A_eq=[[*g, *-g, 0]], b_eq=[gap],
                bounds=[*limits, (0, None)],
            )  # fmt: skip
        else:
            best = scipy.optimize.minimize(
                lambda d: d @ d, 0 * at, jac=lambda d: 2 * d, bounds=[(-v, 1 - v) for v in at], method="SLSQP",
                constraints={"type": "eq", "fun": lambda d, g=g, gap=gap: g @ d - gap, "jac": lambda d, g=g: g},
                options={"ftol": 1e-15},
            )  # fmt: skip
        if best.success:
            want = best.fun**0.5 if kind is L2 else best.fun
            assert float(found.distance[row]) == pytest.approx(want, rel=2e-3)
        else:
            assert not bool(found.success[row])


@pytest.mark.parametrize(("method", "kind"), MINIMAL, ids=str)
def test_targets_are_honoured(method, kind):
    """The answer is the target, about as near as its region is; another target, another point."""
    model, x, y = task(4, bounds=(0.0, 1.0), count=10, spread=spread(method))
    for more in (1, 2):
        target = (y + more) % 4
        found = attack(model, x, y, kind(torch.inf), method, targets=target)
        assert bool(found.success.all())
        assert bool((model(found.adversarial).argmax(1) == target).all())
        ratio = found.distance / with_answer(model, x, y, target)
        assert float(ratio.min()) > 1 - 1e-6
        assert float(ratio.median()) < 1.06, "far from the nearest point of that class"


@pytest.mark.parametrize("method", [DeepFool(), SuperDeepFool(), FAB()], ids=str)
def test_an_aim_costs_one_gradient_and_finds_its_own_boundary(method):
    """Towards a class one look is one forward and one backward pass, and the boundary is that class's."""
    model, x, y = task(5)
    steps = min(method.steps, 20)
    found = attack(model, x, y, L2(torch.inf, bounds=(-4.0, 4.0)), Targeted(replace(method, steps=steps), k=1))
    assert bool((found.backward <= steps).all())
    runner_up = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    best = torch.stack([nearest(model, x[i, None], y[i, None], L2, [int(runner_up[i])]) for i in range(len(x))])[:, 0]
    assert float((found.distance / best).max()) < 1.021
    alone = attack(model, x, y, L2(torch.inf, bounds=(-4.0, 4.0)), replace(method, steps=steps))
    assert bool((found.distance > 1.03 * alone.distance).any()), (
        "in no image is another class nearer than the runner-up"
    )


def test_superdeepfool_comes_nearer_than_deepfool_to_a_curved_boundary():
    """Inside an ellipsoid: it ends at its first projection that fools, which is close to the nearest point (by scipy)."""
    axes = torch.tensor([1.0, 2.0, 4.0], dtype=F64)

    class Ellipsoid(nn.Module):
        def forward(self, x):
            inside = 1 - (x / axes).square().sum(1)
            return torch.stack([inside, 0 * inside], 1)

    x = (
        0.6
        * axes
        * torch.nn.functional.normalize(torch.randn((12, 3), generator=torch.Generator().manual_seed(1)).double())
    )
    y = torch.zeros(12, dtype=torch.int64)
    threat = L2(torch.inf, bounds=(-9.0, 9.0))
    best = torch.tensor([
        scipy.optimize.minimize(
            lambda d: d @ d, 0.1 + 0 * at, jac=lambda d: 2 * d, method="SLSQP", options={"ftol": 1e-13, "maxiter": 500},
            constraints={"type": "eq", "fun": lambda d, at=at: (((at + d) / axes.numpy()) ** 2).sum() - 1},
        ).fun ** 0.5
        for at in x.numpy()
    ])  # fmt: skip
    deepfool, found = (attack(Ellipsoid(), x, y, threat, m) for m in (DeepFool(), SuperDeepFool(steps=80)))
    assert bool((deepfool.distance > 1.05 * best).any())
    assert bool((found.distance < deepfool.distance).all())
    assert float((found.distance / best).median()) < 1.02
    assert float((found.distance / best).max()) < 1.1
    assert float((found.distance / best).min()) > 1 - 1e-6


# ---- the geometry that FAB rests on -------------------------------------------------------------


@pytest.mark.parametrize("kind", CONVEX)
def test_the_projection_on_a_hyperplane_of_images(kind):
    """Many components, exact walls: reaches the plane (in float32 to its rounding), as cheaply as in float64."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand((40, 500), generator=draw, dtype=F64)
    x[:, ::3] = x[:, ::3].round()
    w = torch.randn((40, 500), generator=draw, dtype=F64)
    reach = (w.abs() * torch.where(w > 0, 1 - x, x)).sum(1)
    offset = reach * torch.linspace(0.001, 1.2, 40, dtype=F64)
    d = kind(1).hyperplane(x, w, offset)
    torch.testing.assert_close((w * d).sum(1), torch.minimum(offset, reach), rtol=1e-9, atol=1e-9)
    assert bool(((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all())
    single = kind(1).hyperplane(x.float(), w.float(), offset.float()).double()
    torch.testing.assert_close((w * single).sum(1), torch.minimum(offset, reach), rtol=3e-5, atol=1e-4)
    torch.testing.assert_close(own_size(kind, single), own_size(kind, d), rtol=3e-4, atol=1e-6)
    back = kind(1).hyperplane(x, -w, -offset)
    torch.testing.assert_close(back, d, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", CONVEX)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_projection_does_not_depend_on_the_scale_of_the_weights(kind, scale):
    """Squares of 1e-30 vanish in float32: steps along tiny gradients must not."""
    draw = torch.Generator().manual_seed(0)
    x, w = torch.rand((6, 9), generator=draw), torch.randn((6, 9), generator=draw)
    offset = torch.linspace(0.1, 1, 6)
    want = kind(1).hyperplane(x, w, offset)
    torch.testing.assert_close(kind(1).hyperplane(x, w * scale, offset * scale), want, rtol=1e-4, atol=1e-5)
    free = kind(1, bounds=(-torch.inf, torch.inf)).hyperplane(x, w * scale, offset * scale)
    torch.testing.assert_close((w * free).sum(1), offset, rtol=1e-4, atol=1e-5)


def test_filling_from_the_highest_scores_alone_is_filling():
    draw = torch.Generator().manual_seed(0)
    score, cost = (torch.rand((30, 200), generator=draw, dtype=F64) for _ in range(2))
    budget = torch.linspace(0.01, 1.3, 30, dtype=F64) * cost.sum(1)
    assert bool((cost.gather(1, score.topk(64, dim=1).indices).sum(1) < budget).any())
    torch.testing.assert_close(fill_first(score, cost, budget), fill(score, cost, budget), rtol=0, atol=0)


# ---- the bugs of their peers (pitfalls, section 2) ----------------------------------------------


@pytest.mark.parametrize(("method", "kind"), MINIMAL, ids=str)
def test_misclassified_inputs_are_never_changed(method, kind):
    """TA #51, FB #663, AA #81: also where all of them are."""
    model, x, y = task(3, bounds=(0.0, 1.0), count=8, spread=spread(method))
    for wrong in (torch.arange(8) % 2 == 0, torch.ones(8, dtype=torch.bool)):
        given = torch.where(wrong, (y + 1) % 3, y)
        found = attack(model, x, given, kind(torch.inf), method)
        assert torch.equal(found.adversarial[wrong], x[wrong])
        assert bool((found.distance[wrong] == 0).all())
        assert bool((found.forward[wrong] == 1).all())
        screened = 1 if method.name == "cw" else 0  # its first look, at the image, tells; theirs would be dear
        assert bool((found.backward[wrong] == screened).all())
        assert bool(found.success[~wrong].all())


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("overshoot", [0.02, 0.1])
def test_deepfool_overshoots(kind, overshoot):
    """ART #219: overshooting a tensor that shares the image's memory does nothing."""
    model, x, y = task(2)
    before = x.clone()
    found = attack(model, x, y, kind(torch.inf, bounds=(-4.0, 4.0)), DeepFool(overshoot=overshoot))
    assert torch.equal(x, before)
    torch.testing.assert_close(found.distance, (1 + overshoot) * nearest(model, x, y, kind), rtol=1e-4, atol=0)


def test_deepfool_compares_the_candidates_with_the_largest_logits():
    """FB #62: random ones. With two candidates there is but the runner-up; with more, the nearest of those."""
    model, x, y = task(12, size=6, count=30)
    threat = L2(torch.inf, bounds=(-4.0, 4.0))
    order = model(x).detach().scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
    for candidates in (2, 3, 6, 12, 40):
        found = attack(model, x, y, threat, DeepFool(candidates=candidates))
        again = attack(model, x, y, threat, DeepFool(candidates=candidates), seed=7, batch_size=4)
        torch.testing.assert_close(again.adversarial, found.adversarial, rtol=0, atol=1e-9)
        some = order[:, : min(candidates, 12) - 1]
        want = torch.stack([nearest(model, x[i, None], y[i, None], L2, some[i].tolist()) for i in range(30)])[:, 0]
        assert bool((found.distance <= 1.0201 * want).all()), candidates
        aimed = (model(found.adversarial).argmax(1)[:, None] == some).any(1)
        torch.testing.assert_close(found.distance[aimed], 1.02 * want[aimed], rtol=1e-3, atol=0)
        assert int(found.backward.max()) <= 2 * min(candidates, 12), "one look moves, one sees that it fools"


@pytest.mark.parametrize(("method", "kind"), MINIMAL, ids=str)
@pytest.mark.parametrize("shift", [-100.0, 1e6])
def test_a_constant_in_the_logits_changes_nothing(method, kind, shift):
    """TA, FB #387: the best other logit is not 0 where all others are negative; advertorch #63: large constants."""
    model, x, y = task(4, bounds=(0.0, 1.0), count=8)
    moved = Linear(model.weight.detach(), model.bias.detach() + shift)
    assert shift > 0 or bool((moved(x) < 0).all())
    found, again = (attack(m, x, y, kind(torch.inf), method) for m in (model, moved))
    assert bool(again.success.all())
    torch.testing.assert_close(again.distance, found.distance, rtol=1e-3, atol=0)


def test_carlini_wagner_moves_components_at_the_walls():
    """CH, TA, FB, adv-lib: atanh(±1) is infinite, and tanh is flat there. Binary images, each within 3 % of the optimum."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randint(0, 2, (10, 12), generator=draw).double()
    w = torch.rand((1, 12), generator=draw, dtype=F64) + 0.5
    model = Linear(w, -(x @ w[0]).mean()[None] * 1.0)
    z = model(x).detach()[:, 0]
    y = (z > 0).long()
    found = attack(model, x, y, L2(torch.inf), CarliniWagner(steps=900))
    assert bool(found.success.all())
    inward = torch.where(y[:, None] == 1, x == 1, x == 0)  # the others are at the wall that the gradient points at
    assert bool((found.adversarial[inward] != x[inward]).all())
    best = z.abs() / (w.square() * inward).sum(1).sqrt()
    assert float((found.distance / best).min()) > 1 - 1e-9
    assert float((found.distance / best).median()) < 1.03


@pytest.mark.parametrize("confidence", [0.5, 2.0])
def test_carlini_wagner_keeps_its_confidence(confidence):
    """CH #1228, ART #1374: every point that counts has the margin, and lies about where that margin begins."""
    model, x, y = task(2, bounds=(-4.0, 4.0), count=8, spread=0.5)
    threat = L2(torch.inf, bounds=(-4.0, 4.0))
    found = attack(model, x, y, threat, CarliniWagner(steps=900, confidence=confidence))
    assert bool(found.success.all())
    z = model(found.adversarial)
    margin = rival(z, y) - pick(z, y)
    assert float(margin.min()) >= confidence
    assert float(margin.median()) < 1.2 * confidence
    plain = attack(model, x, y, threat, CarliniWagner(steps=900))
    assert bool((found.distance > plain.distance).all())
    never = attack(model, x, y, L2(torch.inf, bounds=(-4.0, 4.0)), CarliniWagner(steps=60, confidence=1e6))
    assert not bool(never.success.any()), "points without the confidence count"


@pytest.mark.parametrize(("method", "kind"), MINIMAL, ids=str)
def test_nothing_is_reduced_over_the_batch(method, kind):
    """TA #12 #33, FB #439; C&W's early stop. Rows alone, in any order and of any age, with all schedules at work."""
    model, x, y = task(3, bounds=(0.0, 1.0), count=9, spread=spread(method))
    whole = attack(model, x, y, kind(torch.inf), method)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    part = attack(model, x[order], y[order], kind(torch.inf), method, batch_size=4)
    torch.testing.assert_close(part.distance, whole.distance[order], rtol=1e-9, atol=0)
    assert torch.equal(part.forward, whole.forward[order])
    assert torch.equal(part.backward, whole.backward[order])


@pytest.mark.parametrize(("method", "kind"), MINIMAL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_other_bounds(method, kind, dtype):
    """(-1, 1), (0, 255), one per column, none: the same as in [0, 1], scaled."""
    model, x, y = task(3, bounds=(0.0, 1.0), count=8, spread=spread(method))
    want = attack(model, x, y, kind(torch.inf), method).distance
    slack = 1e-6 if dtype == F64 else 2e-2
    for low, width in ((-1.0, 2.0), (0.0, 255.0)):
        scaled = Linear((model.weight / width).to(dtype), (model.bias - low / width * model.weight.sum(1)).to(dtype))
        found = attack(scaled, (low + width * x).to(dtype), y, kind(torch.inf, bounds=(low, low + width)), method)
        assert bool(found.success.all())
        torch.testing.assert_close(found.distance / width, want, rtol=slack, atol=0)
    low, high = torch.tensor([0.0, -1.0, 3.0] * 4)[:8], torch.tensor([1.0, 1.0, 255.0] * 4)[:8]
    model, x, y = task(3, bounds=(low, high), count=8, dtype=dtype, spread=spread(method))
    found = attack(model, x, y, kind(torch.inf, bounds=(low, high)), method)
    assert bool(found.success.all())
    assert bool(((found.adversarial >= low) & (found.adversarial <= high)).all())
    for bounds in ((-torch.inf, torch.inf), (0.0, torch.inf)):
        model, x, y = task(3, bounds=(0.0, 1.0), count=8, dtype=dtype, spread=spread(method))
        found = attack(model, x, y, kind(torch.inf, bounds=bounds), method)
        ratio = found.distance / nearest(model, x, y, kind)
        assert float(ratio.median()) < 1.03
        assert method.name == "cw" or float(ratio.max()) < 1.021


@pytest.mark.parametrize(
    ("method", "kind"), [*MINIMAL, (DeepFool(), Linf), (FAB(steps=40), Linf), (FAB(steps=40), L1)], ids=str
)
def test_masks(method, kind):
    """Masked components stay, and the rest finds the optimum of the smaller problem."""
    model, x, y = task(3, bounds=(-4.0, 4.0), count=8)
    mask = torch.tensor([True, False] * 4)
    found = attack(model, x, y, kind(torch.inf, bounds=(-4.0, 4.0), mask=mask), method)
    assert torch.equal(found.adversarial[:, ~mask], x[:, ~mask])
    assert bool(found.success.all())
    part = Linear(model.weight.detach()[:, mask], model.bias.detach())
    offset = x[:, ~mask] @ model.weight.detach()[:, ~mask].T
    gaps = torch.stack([pick(model(x), y) - model(x)[:, c] for c in range(3)], 1).detach()
    norms = torch.stack(
        [torch.linalg.vector_norm(part.weight[c] - part.weight[y], DUAL[kind], dim=1) for c in range(3)], 1
    )
    best = torch.where(norms > 0, gaps / norms, torch.inf).min(1).values.detach()
    assert offset.shape == (8, 3)
    ratio = found.distance / best
    assert float(ratio.min()) > 1 - 1e-6
    assert float(ratio.median()) < (1.05 if method.name == "cw" else 1.021)


# ---- where a gradient says nothing --------------------------------------------------------------


class Plateau(nn.Module):
    """No gradient within 0.05 of the middle of [0, 1]; beyond, the first component decides."""

    def forward(self, x):
        far = (x[:, 0] - 0.55).clamp(min=0)
        return torch.stack([0.01 + 0 * far, 10 * far], 1)


@pytest.mark.parametrize(
    "method", [DeepFool(steps=60), SuperDeepFool(steps=60), FAB(steps=60), CarliniWagner(steps=200)], ids=str
)
@pytest.mark.parametrize("aimed", [False, True])
def test_zero_gradients_are_no_stall(method, aimed, monkeypatch):
    """No NaN, no point asked for twice in a row; and off the plateau in the end."""
    x = torch.full((6, 2), 0.5, dtype=F64) + 1e-3 * torch.arange(6)[:, None]
    looks = watched(monkeypatch)
    found = attack(
        Plateau(), x, torch.zeros(6, dtype=torch.int64), L2(torch.inf), Targeted(method, k=1) if aimed else method
    )
    assert bool(torch.isfinite(found.adversarial).all())
    assert len(looks) > 5
    for (_, before, _), (_, z, _) in list(itertools.pairwise(looks))[2:8]:
        if len(before) == len(z) == 6:
            assert bool((before != z).any(1).all()), "the same point again"
    assert int(found.success.sum()) >= 3


def test_a_tie_is_crossed():
    """Two equal logits: the label wins the tie, and the boundary is right here."""
    w = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x, y = torch.full((1, 2), 0.5), torch.tensor([0])
    for method in (DeepFool(), SuperDeepFool(), FAB(), CarliniWagner(steps=900)):
        found = attack(Linear(w, torch.zeros(2)), x, y, L2(torch.inf), method)
        assert bool(found.success.all()), method
        assert float(found.distance) < 0.02


# ---- options, restarts, budgets -----------------------------------------------------------------


def test_restarts_of_fab_begin_near_the_image(monkeypatch):
    """At most half as far as the first look's linear boundary is; other points in each restart."""
    model, x, y = task(4, count=5)
    best = nearest(model, x, y, L2)
    looks = watched(monkeypatch)
    plan = Targeted(Restarts(FAB(steps=5), 3), k=1)
    attack(model, x, y, L2(torch.inf, bounds=(-4.0, 4.0)), plan, batch_size=5)
    trials = [looks[at : at + 5] for at in range(0, len(looks), 5)]
    assert [int(trial[0][0][0]) for trial in trials] == [0, 1, 2]
    seconds = [trial[1][1] for trial in trials]
    for _, z, image in (trial[0] for trial in trials):
        assert torch.equal(z, image), "the first look is at the image"
    reach = [own_size(L2, z - trials[0][0][2]) for z in seconds]
    runner_up = torch.stack([
        nearest(model, x[i, None], y[i, None], L2, [int(model(x).scatter(1, y[:, None], -torch.inf).argmax(1)[i])])
        for i in range(5)
    ])[:, 0]  # fmt: skip
    assert bool((reach[0] > best * 0.99).all())
    for restart in (1, 2):
        assert bool((reach[restart] <= runner_up / 2 * (1 + 1e-6)).all())
        assert bool((reach[restart] > 0).all())
    assert bool((seconds[1] != seconds[2]).any(1).all())


@pytest.mark.parametrize("method", [DeepFool(), SuperDeepFool(), FAB(), CarliniWagner()], ids=str)
def test_short_budgets_still_fool(method):
    """Steps cut to a budget still make sense: a linear model is fooled in 8 looks, and never by more than is right."""
    model, x, y = task(3, bounds=(0.0, 1.0), count=12, spread=spread(method))
    steps = 450 if method.name == "cw" else 8  # the fewest for nine search steps
    found = attack(model, x, y, L2(torch.inf), replace(method, steps=steps))
    assert bool(found.success.all())
    assert float((found.distance / nearest(model, x, y, L2)).median()) < (1.3 if method.name == "cw" else 1.06)
    budget = 1 + method.passes * steps + 1
    spent = attack(model, x, y, L2(torch.inf), method, budget=budget)
    assert bool((spent.forward + spent.backward <= budget).all())
    assert bool(spent.success.all())
    one = attack(model, x, y, L2(torch.inf), replace(method, steps=1))
    assert bool(torch.isfinite(one.adversarial).all())
    if method.name in ("deepfool", "fab"):
        assert int(one.success.sum()) >= 6, "one look moves to the runner-up's boundary"


def test_how_carlini_wagner_divides_its_looks():
    """Nine search steps of at least 50 looks, else fewer that begin with a larger c."""
    divided = {
        n: (CarliniWagner(steps=n).searches, CarliniWagner(steps=n).first_c) for n in (1, 100, 300, 449, 450, 9000)
    }
    want = {1: (1, 10), 100: (2, 10), 300: (6, 1), 449: (8, 0.01), 450: (9, 0.001), 9000: (9, 0.001)}
    assert divided == {n: (searches, pytest.approx(c)) for n, (searches, c) in want.items()}
    model, x, y = task(3, bounds=(0.0, 1.0), count=4)
    for n in (7, 120, 470):
        found = attack(model, x, y, L2(torch.inf), CarliniWagner(steps=n, abort_early=False))
        each = n // CarliniWagner(steps=n).searches
        assert bool((found.backward == each * CarliniWagner(steps=n).searches).all())
    early = attack(model, x, y, L2(torch.inf), CarliniWagner(steps=470))
    assert bool((early.backward < found.backward).any())


def test_the_query_of_some_rows_keeps_them_apart():
    """Rows of different ages in one batch look at other boundaries: nothing of one row may reach another."""
    model, x, y = task(5, count=12)
    threat = L2(torch.inf, bounds=(-4.0, 4.0))
    for method in (DeepFool(), SuperDeepFool(steps=30), FAB(steps=30)):
        whole = attack(model, x, y, threat, Restarts(method, 2))
        small = attack(model, x, y, threat, Restarts(method, 2), batch_size=5)
        torch.testing.assert_close(small.adversarial, whole.adversarial, rtol=0, atol=1e-9)
        assert torch.equal(small.backward, whole.backward)


def test_defaults_are_as_published():
    """DeepFool: the authors' code. FAB: section 4. C&W: the authors' code, but for its 10,000 iterations."""
    assert DeepFool() == DeepFool(steps=50, overshoot=0.02, candidates=10)
    assert SuperDeepFool() == SuperDeepFool(steps=100, overshoot=0.02, candidates=10, search=10)
    assert FAB() == FAB(steps=100, alpha_max=0.1, eta=1.05, beta=0.9, candidates=10)
    assert CarliniWagner() == CarliniWagner(
        steps=9000, search_steps=9, learning_rate=0.01, initial_c=1e-3, confidence=0.0, abort_early=True
    )
    assert {"deepfool", "superdeepfool", "fab", "cw"} <= set(ATTACKS)
    assert FAB().passes == DeepFool().passes == SuperDeepFool().passes == 11
    assert CarliniWagner().passes == 2
    assert Goal(torch.zeros(1, dtype=torch.int64)).confidence == 0


@pytest.mark.parametrize(("kind", "options"), [
    (DeepFool, {"steps": 0}), (DeepFool, {"overshoot": -0.1}), (DeepFool, {"candidates": 1}),
    (SuperDeepFool, {"search": -1}), (SuperDeepFool, {"overshoot": True}),
    (FAB, {"alpha_max": 1.5}), (FAB, {"eta": 0.9}), (FAB, {"beta": -1}), (FAB, {"candidates": 2.5}), (FAB, {"steps": 1.0}),
    (CarliniWagner, {"learning_rate": 0}), (CarliniWagner, {"initial_c": float("nan")}),
    (CarliniWagner, {"confidence": -1}), (CarliniWagner, {"search_steps": 0}), (CarliniWagner, {"abort_early": 1}),
], ids=str)  # fmt: skip
def test_options_are_checked(kind, options):
    (name,) = options
    with pytest.raises(ParameterError, match=f"The '{name}' parameter of {kind.__name__} must be"):
        kind(**options)
