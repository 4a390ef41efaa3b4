"""Bounds against exact answers: closed forms, and mixed-integer programs that are themselves checked by brute force."""

import itertools

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

import unfooled as uf
from milp import ball, exact_margin, exact_margins
from random_networks import Case, Normalize, Sum, case
from unfooled.certificates import bounded, margins
from unsound import F64, attacked, claims, contradictions, lowest

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ("ibp", "crown", "alpha-crown")
NORMS = (uf.Linf, uf.L2, uf.L1)


def draws(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def images_of(seed: int, *size: int) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def layer(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    made.weight.data, made.bias.data = weight, bias
    return made.eval()


# ---- linear networks ----------------------------------------------------------------------------


def least_step(g: np.ndarray, x: np.ndarray, kind: type, eps: float, box: bool) -> float:
    """The least <g, d> over the ball, in the box [0, 1] or not, one row at a time, by plain formulas."""
    if not box:
        return -eps * {uf.Linf: np.abs(g).sum(), uf.L2: np.sqrt((g * g).sum()), uf.L1: np.abs(g).max()}[kind]
    room = np.where(g > 0, x, 1 - x)
    if kind is uf.Linf:
        return float(-(np.abs(g) * np.minimum(room, eps)).sum())
    if kind is uf.L1:
        left, total = eps, 0.0
        for at in np.argsort(-np.abs(g)):
            step = min(left, room[at])
            total, left = total - step * abs(g[at]), left - step
        return total
    if np.sqrt((room * room).sum()) <= eps:
        return float(-(np.abs(g) * room).sum())
    t = optimize.brentq(lambda t: np.sqrt((np.minimum(t * np.abs(g), room) ** 2).sum()) - eps, 0, 1e9, xtol=1e-14)
    return float(-(np.abs(g) * np.minimum(t * np.abs(g), room)).sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("deep", [False, True])
def test_linear_networks_have_a_closed_form(deep, kind, method):
    """Linf with the box to the last digits; L2 and L1 between ball ∩ box and the ball alone. IBP is exact when shallow."""
    w, b, x = draws(1, 4, 7), draws(2, 4), images_of(3, 5, 7)
    y = torch.tensor([0, 1, 2, 3, 0])
    model = layer(w, b)
    if deep:
        v, c = draws(4, 7, 7), draws(5, 7)
        model, w, b = nn.Sequential(layer(v, c), nn.Flatten(), layer(w, b)), w @ v, w @ c + b
    for eps in (1e-6, 0.02, 0.3, 5.0):
        got = margins(model, x, y, kind(eps), method)
        for row, k in itertools.product(range(5), range(4)):
            if k == y[row]:
                assert got[row, k] == torch.inf
                continue
            g, at = (w[y[row]] - w[k]).numpy(), x[row].numpy()
            here = float(g @ at + b[y[row]] - b[k])
            most, least = (here + least_step(g, at, kind, eps, box) for box in (True, False))
            assert got[row, k] <= most + 1e-12
            if method == "ibp" and (deep or kind is not uf.Linf):
                continue
            floor = most if kind is uf.Linf else least
            assert got[row, k] >= floor - 1e-6 * (1 + abs(floor)), f"{kind.__name__} {eps}, row {row}, class {k}"


@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
@pytest.mark.parametrize("kind", NORMS)
def test_affine_layers_of_all_kinds_are_one_linear_map(kind, method):
    """Convolution, batch norm, pooling, normalising, a sum and a constant: the same closed form as their matrix."""
    model = nn.Sequential(
        Normalize(torch.tensor(0.4), torch.tensor(0.3)), nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.BatchNorm2d(4),
        Sum(nn.Conv2d(4, 4, 1), nn.Identity(), "a - b"), nn.AvgPool2d(2, 1, 1), nn.Dropout(), nn.Flatten(), nn.Linear(64, 3),
    ).double().eval()  # fmt: skip
    for at, p in enumerate(model.parameters()):
        p.data = 0.3 * draws(at, *p.shape)
    model[2].running_mean.copy_(draws(9, 4))
    x, y, n = images_of(0, 3, 2, 6, 6), torch.tensor([0, 1, 2]), 72
    with torch.no_grad():
        out = model(torch.cat([torch.zeros(1, n), torch.eye(n)]).double().reshape(n + 1, 2, 6, 6))
    w, b = (out[1:] - out[:1]).T, out[0]
    for eps in (0.01, 0.4):
        got = margins(model, x, y, kind(eps), method)
        for row, k in itertools.product(range(3), range(3)):
            if k != y[row]:
                g, at = (w[y[row]] - w[k]).numpy(), x[row].flatten().numpy()
                here = float(g @ at + b[y[row]] - b[k])
                most, least = (here + least_step(g, at, kind, eps, box) for box in (True, False))
                assert got[row, k] <= most + 1e-12
                assert got[row, k] >= (most if kind is uf.Linf else least) - 1e-6 * (1 + abs(least))


def test_ibp_of_one_layer_is_exact_on_each_logit():
    w, b, x = draws(1, 4, 7), draws(2, 4), images_of(3, 5, 7)
    low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    up, down = w.clamp(min=0), w.clamp(max=0)
    got = bounded(layer(w, b), x, uf.Linf(0.1), "ibp")
    assert torch.allclose(got.lower, low @ up.T + high @ down.T + b, atol=1e-6, rtol=0)
    assert torch.allclose(got.upper, high @ up.T + low @ down.T + b, atol=1e-6, rtol=0)


# ---- one hidden layer ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2)])
def test_stable_units_leave_a_linear_network(activation, method):
    """Every unit is always on or always off: CROWN is exact."""
    v, c, w, b, x = draws(1, 9, 6), draws(2, 9), draws(3, 3, 9), draws(4, 3), images_of(5, 4, 6)
    on = torch.arange(9) % 2 == 0
    c = c + torch.where(on, 30.0, -30.0)
    slope = torch.where(on, 1.0, getattr(activation, "negative_slope", 0.0)).double()
    model, y = nn.Sequential(layer(v, c), activation, layer(w, b)), torch.tensor([0, 1, 2, 0])
    whole, offset = w @ (slope[:, None] * v), w @ (slope * c) + b
    got = margins(model, x, y, uf.Linf(0.2), method)
    for row, k in itertools.product(range(4), range(3)):
        if k != y[row]:
            g, at = (whole[y[row]] - whole[k]).numpy(), x[row].numpy()
            exactly = float(g @ at + offset[y[row]] - offset[k]) + least_step(g, at, uf.Linf, 0.2, True)
            assert exactly - 1e-6 * (1 + abs(exactly)) <= got[row, k] <= exactly + 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_units_of_one_input_each_that_only_hurt(method):
    """Unstable units with negative weights: the chord is the exact upper bound at the end that matters."""
    v, c, x = torch.diag(draws(1, 6).sign()), torch.zeros(6, dtype=F64), images_of(5, 3, 6)
    c = -0.5 * v.sum(1)
    w = torch.stack([-draws(3, 6).abs(), torch.zeros(6)])
    model = nn.Sequential(layer(v, c), nn.ReLU(), layer(w, torch.zeros(2, dtype=F64)))
    low, high = (x - 0.3).clamp(min=0), (x + 0.3).clamp(max=1)
    most = torch.maximum((low @ v.T + c).relu(), (high @ v.T + c).relu())
    got = margins(model, x, torch.zeros(3, dtype=torch.int64), uf.Linf(0.3), method)[:, 1]
    assert torch.allclose(got, most @ w[0], atol=1e-6, rtol=0)


def test_alpha_crown_finds_the_slope_that_crown_misses():
    """relu(x - a) with 1 > u > -l > 0 and a positive weight: CROWN's slope is 1, the best is 0."""
    model = nn.Sequential(layer(torch.ones(1, 1, dtype=F64), torch.tensor([-0.4], dtype=F64)), nn.ReLU())
    model.append(layer(torch.tensor([[1.0], [0.0]], dtype=F64), torch.tensor([0.0, -0.1], dtype=F64)))
    x, y = torch.tensor([[0.5]], dtype=F64), torch.tensor([0])
    assert float(margins(model, x, y, uf.Linf(0.4), "alpha-crown")[0, 1]) == pytest.approx(0.1, abs=1e-3)


# ---- the order ----------------------------------------------------------------------------------


def in_order(c: Case, exact: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """ibp <= crown <= alpha-crown <= exact; each method's margins."""
    got = {method: margins(c.model, c.images, c.labels, c.threat, method) for method in METHODS}
    for looser, tighter in itertools.pairwise(METHODS):
        slack = 1e-9 * (1 + got[looser].abs().nan_to_num(posinf=0.0))
        assert bool((got[tighter] >= got[looser] - slack).all()), f"{c}: {tighter} is looser than {looser}"
    others = torch.arange(got["ibp"].shape[1]) != c.labels[:, None]
    for method in METHODS if exact is not None else ():
        assert bool((got[method] <= exact)[others].all()), f"{c}: {method} is above the exact margin"
    return {method: m[others] for method, m in got.items()}


def test_tighter_in_order_up_to_the_exact_margin():
    """And none for nothing: each is strictly tighter on some of them."""
    gains = dict.fromkeys(METHODS[1:], 0)
    for seed in range(24):
        c = case(seed, count=1, exact=True)
        exact = exact_margins(c)
        got = in_order(c, exact)
        others = exact[torch.arange(exact.shape[1]) != c.labels[:, None]]
        for looser, tighter in itertools.pairwise(METHODS):
            gap = others - got[looser]
            gains[tighter] += bool((got[tighter] - got[looser] > 0.02 * gap + 1e-6).any())
    assert gains["crown"] >= 5, gains
    assert gains["alpha-crown"] >= 2, gains


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in (4, 8))])
def test_tighter_in_order_on_every_layer_and_norm(first):
    for seed in range(first, first + 4):
        in_order(case(seed))


@pytest.mark.slow
def test_many_exact_margins():
    for seed in range(1000, 1200):
        c = case(seed, count=1, exact=True)
        in_order(c, exact_margins(c))


# ---- the exact solver itself --------------------------------------------------------------------


def by_patterns(model: nn.Sequential, x: torch.Tensor, label: int, k: int, threat: uf.Threat) -> float:
    """The least margin of layers Linear, ReLU, Linear, ..., one linear program for each pattern of signs."""
    layers = [
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
        for m in model
        if isinstance(m, nn.Linear)
    ]
    low, high = (side.ravel() for side in ball(x, threat))
    sizes = [len(b) for _, b in layers[:-1]]
    best = np.inf
    for signs in itertools.product((0.0, 1.0), repeat=sum(sizes)):
        matrix, offset, rows, numbers, at = np.eye(len(low)), np.zeros(len(low)), [], [], 0
        for (w, b), n in zip(layers[:-1], sizes, strict=True):
            matrix, offset, on = w @ matrix, w @ offset + b, np.array(signs[at : at + n])
            rows.append((1 - 2 * on)[:, None] * matrix)  # on: matrix t + offset >= 0
            numbers.append((2 * on - 1) * offset)
            matrix, offset, at = on[:, None] * matrix, on * offset, at + n
        aim = (layers[-1][0][label] - layers[-1][0][k]) @ matrix
        constant = (layers[-1][0][label] - layers[-1][0][k]) @ offset + layers[-1][1][label] - layers[-1][1][k]
        found = optimize.linprog(aim, np.concatenate(rows), np.concatenate(numbers), bounds=np.stack([low, high], 1))
        if found.status == 0:
            best = min(best, found.fun + constant)
    return best


@pytest.mark.parametrize("sizes", [(3, 5, 2), (2, 3, 3, 3)])
def test_milp_is_the_least_over_all_patterns_of_signs(sizes):
    for seed in range(3):
        parts = []
        for at, (m, n) in enumerate(itertools.pairwise(sizes)):
            w = draws(10 * seed + at, n, m)
            parts += [layer(w, 0.2 * draws(100 + seed, n) - 0.5 * w.sum(1)), nn.ReLU()]
        model, x, threat = nn.Sequential(*parts[:-1]), images_of(seed, sizes[0]), uf.Linf(0.35)
        exactly = by_patterns(model, x, 0, 1, threat)
        assert exact_margin(model, x, 0, 1, threat) == pytest.approx(exactly, abs=1e-6)


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_milp_is_below_every_sample_and_attained(first):
    """On the random networks themselves: no sample, no attack and no grid goes below; it is one of the model's answers."""
    near = 0
    for seed in range(first, first + 20):
        c = case(seed, count=1, exact=True)
        exact, found = exact_margins(c), lowest(c, attacked(c, 500, 20))
        assert bool((exact <= found + 1e-6 * (1 + found.abs())).all()), str(c)
        near += bool(torch.allclose(exact, found, rtol=1e-3, atol=1e-4))
    assert near >= 14, "the attack is far from the exact answers"


def test_milp_on_a_dense_grid():
    """Two inputs, pooling and a sum: the least on a grid is as near as the Lipschitz constant lets it be."""
    model = nn.Sequential(
        nn.Linear(2, 8), nn.LeakyReLU(0.3), nn.Unflatten(1, (2, 4)), nn.MaxPool1d(3, 1, 1), nn.Flatten(),
        Sum(nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 8)), nn.Identity(), "a - b"), nn.Linear(8, 2),
    ).double()  # fmt: skip
    for at, p in enumerate(model.parameters()):
        p.data = 0.5 * draws(at, *p.shape)
    x, threat = torch.tensor([0.5, 0.6], dtype=F64), uf.Linf(0.3)
    low, high = ball(x, threat)
    steps = np.linspace(0, 1, 401)
    grid = np.stack(np.meshgrid(*(a + (b - a) * steps for a, b in zip(low, high, strict=True))), -1).reshape(-1, 2)
    with torch.no_grad():
        out = model(torch.from_numpy(grid))
    exact, least = exact_margin(model, x, 0, 1, threat), float((out[:, 0] - out[:, 1]).min())
    assert exact - 1e-9 <= least <= exact + 0.02


def test_the_check_by_milp_can_fail():
    """A margin a thousandth above what CROWN proves of a linear network is above the exact one."""
    model, x = layer(draws(1, 3, 4), draws(2, 3)), images_of(3, 1, 4)
    c = Case(0, model, x, torch.tensor([0]), uf.Linf(0.1))
    exact, given = exact_margins(c), claims(c, "crown")
    assert not contradictions(c, given, attacked(c))
    assert bool((given.margins + 0.001 > exact)[0, 1:].all())
    assert bool((given.margins <= exact)[0, 1:].all())
