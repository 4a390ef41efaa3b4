"""The geometry of each norm against references: bisection, scipy, brute force, sampling."""

from itertools import combinations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import CONVEX, NORMS, own_size
from unfooled import rng
from unfooled.attacks import PGD
from unfooled.goals import Goal
from unfooled.oracle import GradientQuery
from unfooled.threats import L0, L1, L2, Linf

F64 = torch.float64
BOX = (-0.2, 0.9)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def points(count=60, size=7, seed=0, spread=1.5):
    """Images in the box, some components at its walls, and points far and near."""
    g = draw(seed)
    x = BOX[0] + (BOX[1] - BOX[0]) * torch.rand((count, size), generator=g, dtype=F64)
    x[:, 0] = BOX[0]
    x[::2, 1] = BOX[1]
    z = x + spread * torch.randn((count, size), generator=g, dtype=F64) * torch.rand((count, 1), generator=g, dtype=F64)
    z[::5, 3] = x[::5, 3]
    return x, z


def radii(kind, count, seed=1):
    if kind is L0:
        return torch.randint(1, 5, (count,), generator=draw(seed)).double()
    return 0.05 + 1.2 * torch.rand(count, generator=draw(seed), dtype=F64)


def inside(kind, p, x, radius, low=BOX[0], high=BOX[1]):
    assert bool((own_size(kind, p - x) <= radius * (1 + 1e-9) + 1e-12).all())
    assert bool(((p >= low) & (p <= high)).all())


# ---- project ------------------------------------------------------------------------------------


def reference_projection(kind, z, x, radius, low, high):
    """One row, by bisection on the multiplier of the ball's constraint (float64 numpy)."""
    d = z - x

    def at(t):
        if kind is L2:
            step = d / (1 + t)
        elif kind is L1:
            step = np.sign(d) * np.maximum(np.abs(d) - t, 0)
        else:
            step = np.clip(d, -radius, radius)
        return np.clip(x + step, low, high)

    size = {L2: lambda v: np.sqrt((v * v).sum()), L1: lambda v: np.abs(v).sum(), Linf: lambda v: 0.0}[kind]
    if size(at(0.0) - x) <= radius:
        return at(0.0)
    least, most = 0.0, 1.0
    while size(at(most) - x) > radius:
        most *= 2
    for _ in range(200):
        middle = (least + most) / 2
        least, most = (middle, most) if size(at(middle) - x) > radius else (least, middle)
    return at(most)


@pytest.mark.parametrize("kind", CONVEX)
@pytest.mark.parametrize("spread", [0.3, 1.5, 30])
def test_projection_is_the_reference(kind, spread):
    x, z = points(spread=spread)
    radius = radii(kind, len(x))
    got = kind(9.0, bounds=BOX).project(z, x, radius)
    inside(kind, got, x, radius)
    want = [reference_projection(kind, *(v.numpy() for v in row), *BOX) for row in zip(z, x, radius, strict=True)]
    torch.testing.assert_close(got, torch.tensor(np.array(want)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", CONVEX)
def test_projection_is_scipys_optimum(kind):
    """SLSQP (L2) and the linear-programming certificate of optimality: no point of the set lies further along z - p."""
    x, z = points(12, 4, seed=4)
    radius = radii(kind, len(x))
    got = kind(1.0, bounds=BOX).project(z, x, radius)
    for p, c, image, r in zip(got.numpy(), z.numpy(), x.numpy(), radius.numpy(), strict=True):
        if kind is L2:
            found = scipy.optimize.minimize(
                lambda v, c=c: ((v - c) ** 2).sum(),
                image,
                jac=lambda v, c=c: 2 * (v - c),
                bounds=[BOX] * len(c),
                constraints={"type": "ineq", "fun": lambda v, r=r, image=image: r * r - ((v - image) ** 2).sum()},
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 300},
            )
            assert ((p - c) ** 2).sum() <= found.fun + 1e-7
            np.testing.assert_allclose(p, found.x, atol=2e-4)
        else:
            best = -linear_maximum(kind, c - p, image, r)
            assert (c - p) @ (p - image) >= -best - 1e-9


def linear_maximum(kind, g, x, radius):
    """Minus the maximum of <g, d> over ball ∩ box, by linprog in d = up - down."""
    n = len(g)
    limit = [(0, BOX[1] - v) for v in x] + [(0, v - BOX[0]) for v in x]
    if kind is Linf:
        limit = [(0, min(most, radius)) for _, most in limit]
        return scipy.optimize.linprog(np.concatenate([-g, g]), bounds=limit).fun
    found = scipy.optimize.linprog(np.concatenate([-g, g]), A_ub=np.ones((1, 2 * n)), b_ub=[radius], bounds=limit)
    return found.fun


@pytest.mark.parametrize("pixels", [False, True])
def test_l0_projection_by_brute_force(pixels):
    shape = (2, 2, 2) if pixels else (6,)
    groups = [[i, i + 4] for i in range(4)] if pixels else [[i] for i in range(6)]
    x, z = points(20, int(np.prod(shape)), seed=2)
    radius = torch.randint(1, 4, (20,), generator=draw(3)).double()
    threat = L0(3, bounds=BOX, pixels=pixels)
    got = threat.project(z.view(-1, *shape), x.view(-1, *shape), radius).flatten(1)
    near = z.clamp(*BOX)
    for row in range(20):
        best = min(
            float(((torch.where(chosen, near[row], x[row]) - z[row]) ** 2).sum())
            for some in combinations(groups, int(radius[row]))
            for chosen in [torch.tensor([any(i in group for group in some) for i in range(x.shape[1])])]
        )
        assert float(((got[row] - z[row]) ** 2).sum()) == pytest.approx(best, abs=1e-12)
        assert int(((got[row] != x[row]).view(shape[0] if pixels else 1, -1).any(0)).sum()) <= radius[row]


@pytest.mark.parametrize("kind", NORMS)
def test_projection_with_mask_and_tensor_bounds(kind):
    x, z = points(30, 8)
    low, high = torch.linspace(-0.4, -0.2, 8, dtype=F64), torch.linspace(0.9, 1.4, 8, dtype=F64)
    mask = torch.tensor([True, False] * 4)
    radius = radii(kind, 30)
    got = kind(1, bounds=(low, high), mask=mask).project(z, x, radius)
    assert torch.equal(got[:, ~mask], x[:, ~mask])
    inside(kind, got, x, radius, low, high)
    free = kind(1, bounds=(low[mask], high[mask])).project(z[:, mask], x[:, mask], radius)
    torch.testing.assert_close(got[:, mask], free, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", NORMS)
def test_projection_is_idempotent_and_leaves_the_inside_alone(kind):
    x, z = points()
    radius = radii(kind, len(x))
    threat = kind(1, bounds=BOX)
    once = threat.project(z, x, radius)
    torch.testing.assert_close(threat.project(once, x, radius), once, rtol=0, atol=1e-14)
    assert torch.equal(threat.project(x, x, radius), x)
    middle = x + 0.5 * (once - x)
    torch.testing.assert_close(threat.project(middle, x, radius), middle, rtol=0, atol=0)
    wide = kind(1 if kind is L0 else 1.0, bounds=BOX).project(z, x, torch.inf)
    assert torch.equal(wide, z.clamp(*BOX))


@pytest.mark.parametrize("kind", CONVEX)
@given(st.integers(1, 30), st.integers(0, 10**6), st.floats(1e-3, 1e3), st.sampled_from(["float32", "float64"]))
def test_projection_never_expands_and_stays_inside(kind, size, seed, scale, dtype):
    dtype = getattr(torch, dtype)
    g = draw(seed)
    x = torch.rand((9, size), generator=g, dtype=F64).to(dtype)
    a, b = (x + (scale * torch.randn((9, size), generator=g, dtype=F64)).to(dtype) for _ in range(2))
    eps = float(torch.rand(1, generator=g)) * size ** {Linf: 0, L2: 0.5, L1: 1}[kind] + 1e-3
    threat = kind(eps)
    p, q = threat.project(a, x), threat.project(b, x)
    assert bool(threat.contains(p, x).all())
    assert bool(threat.contains(q, x).all())
    assert bool(((p >= 0) & (p <= 1)).all())
    slack = 1e-4 if dtype == torch.float32 else 1e-9
    assert bool(((p - q).norm(dim=1) <= (a - b).norm(dim=1) * (1 + slack) + slack).all())


@pytest.mark.parametrize("kind", NORMS)
def test_projection_of_equal_components_and_huge_points(kind):
    x = torch.full((3, 5), 0.5, dtype=F64)
    z = x + torch.tensor([[1.0], [1e6], [-1e-300]], dtype=F64) * torch.ones(5, dtype=F64)
    got = kind(1).project(z, x)
    assert bool(torch.isfinite(got).all())
    inside(kind, got, x, 1.0, 0, 1)
    if kind is L1:
        torch.testing.assert_close(got[1], torch.full((5,), 0.7, dtype=F64))
    far = kind(1).project(x + 1e30, x)
    assert bool(torch.isfinite(far).all())
    inside(kind, far, x, 1.0, 0, 1)


# ---- steepest, dual, support --------------------------------------------------------------------


@pytest.mark.parametrize("kind", NORMS)
def test_steepest_is_the_best_direction(kind):
    """Better than 20,000 random feasible ones; for L1 (with the box) linprog's optimum; L0 by brute force."""
    x, z = points(6, 5, seed=8)
    g = z - x
    g[0, 2] = 0
    radius = torch.tensor([1.0, 2, 3, 1, 2, 3], dtype=F64) if kind is L0 else radii(kind, 6)
    threat = kind(1, bounds=BOX)
    d = threat.steepest(g, x, radius)
    gain = (g * d).sum(1)
    if kind in (Linf, L2):
        assert bool((own_size(kind, d) <= 1 + 1e-12).all())
        torch.testing.assert_close(gain, g.abs().sum(1) if kind is Linf else g.norm(dim=1))
        trial = 2 * torch.rand((20_000, 5), generator=draw(9), dtype=F64) - 1
        trial = trial if kind is Linf else trial / trial.norm(dim=1, keepdim=True)
        assert bool((g @ trial.T <= gain[:, None] + 1e-12).all())
    else:
        step = x + radius[:, None] * d
        inside(kind, step, x, radius, BOX[0] - 1e-15, BOX[1] + 1e-15)
        for row in range(6):
            if kind is L1:
                best = -linear_maximum(kind, g[row].numpy(), x[row].numpy(), float(radius[row]))
            else:
                room = torch.where(g[row] > 0, BOX[1] - x[row], x[row] - BOX[0])
                each = (g[row].abs() * room).tolist()
                best = max(sum(some) for some in combinations(each, int(radius[row])))
            assert float(gain[row] * radius[row]) == pytest.approx(best, abs=1e-9)


def test_steepest_counts_pixels_and_keeps_to_the_mask():
    x, z = points(10, 12, seed=5)
    threat = L0(2, bounds=BOX, pixels=True)
    d = threat.steepest((z - x).view(10, 3, 2, 2), x.view(10, 3, 2, 2))
    assert int((d != 0).any(1).flatten(1).sum(1).max()) == 2
    for kind in NORMS:
        mask = torch.rand(12, generator=draw(2)) < 0.5
        step = kind(2, bounds=BOX, mask=mask).steepest(z - x, x)
        assert not bool(step[:, ~mask].any()), kind
        assert bool(step[:, mask].any(1).all()), kind


@pytest.mark.parametrize("kind", NORMS)
def test_dual_and_support_have_their_closed_forms(kind):
    x, z = points(30, 6, seed=3)
    g = z - x
    threat = kind(2, bounds=BOX)
    width = BOX[1] - BOX[0]
    dual = {
        Linf: g.abs().sum(1),
        L2: (g * g).sum(1).sqrt(),
        L1: g.abs().max(1).values,
        L0: g.abs().max(1).values * width,
    }[kind]
    torch.testing.assert_close(threat.dual(g), dual)
    support = (g.abs() * width).sort(1).values[:, -2:].sum(1) if kind is L0 else 2 * dual
    torch.testing.assert_close(threat.support(g), support)
    radius = radii(kind, 30)
    if kind is not L0:
        torch.testing.assert_close(threat.support(g, radius), radius * dual)
    mask = torch.tensor([True] * 3 + [False] * 3)
    torch.testing.assert_close(kind(2, bounds=BOX, mask=mask).support(g), kind(2, bounds=BOX).support(g * mask))


@pytest.mark.parametrize("kind", NORMS)
def test_support_bounds_every_point_of_the_set_and_is_reached(kind):
    count = 4000
    g = torch.randn(5, generator=draw(1), dtype=F64).expand(count, 5)
    x = torch.full((count, 5), 0.4, dtype=F64)
    eps = 2 if kind is L0 else 0.3
    threat = kind(eps, bounds=(0.0, 0.8))
    z = threat.project(x + torch.randn((count, 5), generator=draw(2), dtype=F64), x)
    reached = (g * (z - x)).sum(1)
    bound = threat.support(g)
    assert bool((reached <= bound + 1e-12).all())
    if kind is not L0:  # its box is measured from wall to wall, so only half of it is here to be reached
        assert float(reached.max()) > 0.8 * float(bound[0])
        best = x + eps * threat.steepest(g, x)
        torch.testing.assert_close((g * (best - x)).sum(1), bound)


# ---- prox ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("weight", [0.02, 0.4, 5.0])
def test_prox_is_the_minimum(kind, weight):
    v = torch.randn((4, 3), generator=draw(6), dtype=F64)
    got = kind(1, bounds=BOX).prox(v, weight)

    def objective(u, row):
        u = torch.as_tensor(u, dtype=F64).view(1, -1)
        return float(((u - v[row]) ** 2).sum() / 2 + weight * own_size(kind, u)[0])

    for row in range(4):
        reached = objective(got[row], row)
        others = [torch.where(torch.tensor(keep, dtype=torch.bool), v[row], 0.0) for keep in np.ndindex(2, 2, 2)]
        best = min(objective(u, row) for u in others)
        if kind is not L0:
            for start in (v[row], got[row]):
                found = scipy.optimize.minimize(
                    objective, start.numpy() + 0.01, args=(row,), method="Nelder-Mead",
                    options={"xatol": 1e-8, "fatol": 1e-11, "maxiter": 250},
                )  # fmt: skip
                best = min(best, found.fun)
        assert reached <= best + 1e-8


def test_prox_takes_a_weight_for_each_row_and_zeros():
    v = torch.randn((4, 3), generator=draw(6), dtype=F64)
    v[3] = 0
    weight = torch.tensor([0.1, 0.5, 3, 1], dtype=F64)
    for kind in NORMS:
        got = kind(1).prox(v, weight)
        for row in range(4):
            torch.testing.assert_close(got[row : row + 1], kind(1).prox(v[row : row + 1], float(weight[row])))
        assert bool(torch.isfinite(got).all())


def test_prox_of_l0_counts_pixels():
    v = torch.tensor([[[[0.6, 0.1]], [[0.6, 0.1]]]])  # squares per pixel: 0.72, 0.02
    got = L0(1, pixels=True).prox(v, 0.3)
    assert torch.equal(got != 0, torch.tensor([[[[True, False]], [[True, False]]]]))


# ---- hyperplane ---------------------------------------------------------------------------------


def smallest_step(kind, x, w, offset):
    """The least size of d with <w, d> = offset and x + d in the box; None if none reaches."""
    n = len(x)
    limits = [(BOX[0] - v, BOX[1] - v) for v in x]
    most = sum(max(c * low, c * high) for c, (low, high) in zip(w * np.sign(offset), limits, strict=True))
    if most < abs(offset) - 1e-12:
        return None
    if kind is L1:
        found = scipy.optimize.linprog(
            np.ones(2 * n),
            A_eq=np.concatenate([w, -w])[None],
            b_eq=[offset],
            bounds=[(0, h) for _, h in limits] + [(0, -low) for low, _ in limits],
        )
        return found.fun
    if kind is Linf:
        eye = np.eye(n)
        found = scipy.optimize.linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.r_[np.c_[eye, -np.ones(n)], np.c_[-eye, -np.ones(n)]],
            b_ub=np.zeros(2 * n),
            A_eq=np.r_[w, 0][None],
            b_eq=[offset],
            bounds=[*limits, (0, None)],
        )
        return found.fun
    if kind is L2:
        found = scipy.optimize.minimize(
            lambda d: (d * d).sum(), np.zeros(n), jac=lambda d: 2 * d, bounds=limits, method="SLSQP",
            constraints={"type": "eq", "fun": lambda d: w @ d - offset, "jac": lambda d: w},
            options={"ftol": 1e-15, "maxiter": 500},
        )  # fmt: skip
        return np.sqrt(found.fun)
    gains = sorted((max(c * low, c * high) for c, (low, high) in zip(w * np.sign(offset), limits, strict=True)))[::-1]
    return next(k for k in range(n + 1) if sum(gains[:k]) >= abs(offset) - 1e-12)


@pytest.mark.parametrize("kind", NORMS)
def test_hyperplane_is_the_smallest_step(kind):
    count, size = 40, 5
    x, z = points(count, size, seed=11)
    w = z - x + 0.01
    w[::4, 2] = 0
    room = torch.where(w > 0, BOX[1] - x, x - BOX[0])
    back = torch.where(w < 0, BOX[1] - x, x - BOX[0])
    share = torch.rand(count, generator=draw(1), dtype=F64) * 1.3 + 0.05  # above 1: out of reach
    sign = torch.where(torch.rand(count, generator=draw(2)) < 0.5, -1.0, 1.0).double()
    reach = torch.where(sign > 0, (w.abs() * room).sum(1), (w.abs() * back).sum(1))
    offset = sign * share * reach
    d = kind(1, bounds=BOX).hyperplane(x, w, offset)
    assert bool(((x + d >= BOX[0] - 1e-12) & (x + d <= BOX[1] + 1e-12)).all())
    got = (w * d).sum(1)
    torch.testing.assert_close(got, sign * share.clamp(max=1) * reach, rtol=0, atol=1e-9)
    assert int((share > 1).sum()) > 3
    for row in range(count):
        want = smallest_step(kind, x[row].numpy(), w[row].numpy(), float(offset[row]))
        if want is not None:
            slack = 1e-5 if kind is L2 else 1e-8
            assert float(own_size(kind, d[row : row + 1])[0]) <= want + slack, (row, float(share[row]))


@pytest.mark.parametrize("kind", NORMS)
def test_hyperplane_at_the_edges(kind):
    x = torch.full((4, 3), 0.5, dtype=F64)
    w = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 2, 3], [1e-200, 0, 0]], dtype=F64)
    offset = torch.tensor([1.0, 0.25, 0.0, 1.0], dtype=F64)
    d = kind(1).hyperplane(x, w, offset)
    assert bool(torch.isfinite(d).all())
    assert not bool(d[0].any()), "no weight, no way"
    torch.testing.assert_close((w * d).sum(1)[1], offset[1])
    assert not bool(d[2].any()), "already there"
    masked = kind(1, mask=torch.tensor([False, True, True])).hyperplane(x, w, offset)
    assert not bool(masked[:, 0].any())
    boundless = kind(1, bounds=(-torch.inf, torch.inf)).hyperplane(x[1:2], w[2:3], torch.tensor([2.0], dtype=F64))
    assert float((w[2] * boundless[0]).sum()) == pytest.approx(2)
    if kind is not L0:
        least = {Linf: 2 / 6, L2: 2 / 14**0.5, L1: 2 / 3}[kind]
        assert float(own_size(kind, boundless)[0]) == pytest.approx(least)


# ---- sample -------------------------------------------------------------------------------------


def assert_uniform_in_ball(kind, step, eps):
    """The size to the power of the dimension is uniform; directions are even; the parts have the right law."""
    size = step.shape[1]
    share = (own_size(kind, step) / eps) ** size
    assert scipy.stats.kstest(share.numpy(), "uniform").pvalue > 1e-4, "radii"
    g = np.random.default_rng(0)
    count = 40_000
    if kind is Linf:
        ball = g.uniform(-1, 1, (count, size))
    elif kind is L2:
        ball = g.normal(size=(count, size))
        ball *= g.uniform(size=(count, 1)) ** (1 / size) / np.linalg.norm(ball, axis=1, keepdims=True)
    else:
        ball = g.laplace(size=(count, size))
        ball *= g.uniform(size=(count, 1)) ** (1 / size) / np.abs(ball).sum(1, keepdims=True)
    want = ball[:, 0] * eps
    for component in range(size):
        p = scipy.stats.ks_2samp(step[:, component].numpy(), want).pvalue
        assert p > 1e-4, f"component {component} has another law than uniform in the ball (p = {p:.1e})"
    corner = scipy.stats.ks_2samp(step.sum(1).numpy(), ball.sum(1) * eps).pvalue
    assert corner > 1e-4, f"the sum of the components (p = {corner:.1e})"


@pytest.mark.parametrize("kind", CONVEX)
def test_sample_is_uniform_in_the_ball(kind):
    count, size = 4000, 3
    x = torch.zeros((count, size), dtype=F64)
    g = draw(4)
    threat = kind(0.7, bounds=(-5.0, 5.0))
    z = threat.sample(
        x,
        lambda: torch.rand((count, size), generator=g, dtype=F64),
        lambda: torch.randn((count, size), generator=g, dtype=F64),
    )
    assert_uniform_in_ball(kind, z - x, 0.7)


def query(x, threat, seed=0):
    rows = torch.arange(len(x))
    return GradientQuery(
        x=x, goal=Goal(0 * rows), threat=threat, ids=rows, trial=0 * rows, restart=0 * rows, seed=seed,
        oracle=None, example=rows, seen=lambda _: None,
    )  # fmt: skip


@pytest.mark.parametrize("kind", CONVEX)
def test_an_attacks_random_start_is_uniform_in_the_ball(kind):
    """The draws that a query hands to `sample` must be independent of each other."""
    x = torch.zeros((4000, 3), dtype=F64)
    threat = kind(0.7, bounds=(-5.0, 5.0))
    start = PGD().init(query(x, threat), x).x
    assert_uniform_in_ball(kind, start - x, 0.7)


def test_an_attacks_random_start_in_l0_goes_both_ways():
    x = torch.full((3000, 6), 0.5, dtype=F64)
    step = PGD().init(query(x, L0(2)), x).x - x
    assert int((step != 0).sum(1).max()) <= 2
    up = float((step > 0).sum() / (step != 0).sum())
    assert 0.47 < up < 0.53, f"{up:.0%} of the changes go up"
    each = (step != 0).double().mean(0)
    assert bool(((each - 1 / 3).abs() < 0.04).all()), "every component as often"


@pytest.mark.parametrize("kind", NORMS)
def test_samples_lie_inside(kind):
    x, _ = points(200, 12)
    mask = torch.tensor([True, True, False] * 4)
    for threat in (kind(2, bounds=BOX), kind(2, bounds=BOX, mask=mask)):
        key = rng.keys(torch.arange(200))
        z = threat.sample(
            x, lambda key=key: rng.uniform(key, x.shape[1:], F64), lambda key=key: rng.normal(key + 1, x.shape[1:], F64)
        )
        assert bool(threat.contains(z, x).all())
        inside(kind, z, x, 2.0)
        if threat.mask is not None:
            assert torch.equal(z[:, ~mask], x[:, ~mask])
        per_row = threat.sample(
            x,
            lambda key=key: rng.uniform(key, x.shape[1:], F64),
            lambda key=key: rng.normal(key + 1, x.shape[1:], F64),
            radii(kind, 200),
        )
        inside(kind, per_row, x, radii(kind, 200))


def test_l2_and_linf_and_l1_samples_are_not_all_on_the_sphere():
    x = torch.full((500, 2), 0.5)
    for kind in CONVEX:
        size = own_size(kind, PGD().init(query(x, kind(0.3)), x).x - x)
        assert 0.02 < float((size < 0.15).double().mean()) < 0.6
        assert float(size.max()) > 0.29


def test_l1_and_l2_are_exported():
    assert L1(1).norm(torch.Size([2])) == L1(2).norm(torch.Size([3]))
    assert L2(1) != L1(1)


@pytest.mark.parametrize("eps", [1e-5, 1e-2, 1.0, 100.0])
def test_an_l1_projection_takes_few_newton_steps_however_far_the_points(eps, monkeypatch):
    """In float32 rounding may leave more than the last step asks for: that must not make it go on for ever."""
    steps, sub = [], torch.sub
    monkeypatch.setattr(torch, "sub", lambda *args, **kwargs: (steps.append(1), sub(*args, **kwargs))[1])
    x = torch.rand((16, 784), generator=draw())
    z = x + torch.randn((16, 784), generator=draw(1))
    near = L1(eps).project(z, x)
    assert 1 <= len(steps) <= 20
    assert bool(L1(eps).contains(near, x).all())
