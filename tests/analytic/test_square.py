"""Square: its schedule, windows and tiles as published, and known optima on linear models."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import helpers
from helpers import Linear, assert_inside, own_size, states
from unfooled.attacks import Square, Targeted, parse
from unfooled.attacks.square import Windows, planes, sides, tile
from unfooled.engine import attack, perturb
from unfooled.errors import ParameterError
from unfooled.ledger import join, take
from unfooled.oracle import Access
from unfooled.threats import L1, L2, Linf

F64 = torch.float64
FREE = (-math.inf, math.inf)
NORMS = (Linf, L2, L1)


def draws(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


query = partial(helpers.query, Access.SCORE)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([2.0, 1.0, 0.0], dtype=x.dtype).expand(len(x), 3)


# ---- the schedule -------------------------------------------------------------------------------


def test_defaults_are_autoattacks():
    assert Square() == Square(steps=5000, p_init=0.8)
    assert isinstance(parse("square"), Square)
    assert parse("square:steps=7,p_init=0.3") == Square(7, 0.3)


@pytest.mark.parametrize(("candidate", "p"), [
    (0, 0.8), (10, 0.8), (11, 0.4), (50, 0.4), (51, 0.2), (200, 0.2), (201, 0.1), (500, 0.1), (501, 0.05), (1000, 0.05),
    (1001, 0.025), (2000, 0.025), (2001, 0.0125), (4000, 0.0125), (4001, 0.8 / 128), (6000, 0.8 / 128),
    (6001, 0.8 / 256), (8000, 0.8 / 256), (8001, 0.8 / 512), (20000, 0.8 / 512),
])  # fmt: skip
def test_p_is_halved_as_published(candidate, p):
    """Candidate i is asked at look i + 1. Sides of 28 × 28 and 32 × 32 as the official round(sqrt(p·n)) gives them."""
    for side in (28, 32):
        x = draws(3, 1, side, side)
        k = torch.tensor([candidate + 1, 1, candidate + 1])  # neighbours of another age do not matter
        even = Windows(query(x, Linf(0.1))[0], k, 0.8).size
        odd = Windows(query(x, L2(1.0))[0], k, 0.8).size
        s = max(round(math.sqrt(p * side * side)), 1)
        assert even[0].tolist() == even[2].tolist() == [s, s]
        s = max(s, 3)
        s += s % 2 == 0
        assert odd[0].tolist() == odd[2].tolist() == [s, s]
        assert even[1].tolist() == [round(math.sqrt(0.8) * side)] * 2


def test_sides_in_the_published_order():
    assert [sides(28, 28, 784 * 0.8 / 2**n, False)[0] for n in range(10)] == [25, 18, 13, 9, 6, 4, 3, 2, 2, 1]
    assert [sides(28, 28, 784 * 0.8 / 2**n, True)[0] for n in range(10)] == [25, 19, 13, 9, 7, 5, 3, 3, 3, 3]


def test_windows_keep_their_area_where_one_side_is_short():
    assert sides(1, 100, 40, False) == (1, 40)
    assert sides(100, 1, 40, False) == (40, 1)
    assert sides(4, 100, 200, False) == (4, 50)
    assert sides(1, 100, 40, True) == (1, 41)
    assert sides(1, 100, 0.3, True) == (1, 3)
    assert sides(2, 2, 3.2, True) == (2, 2)
    assert sides(1, 1, 0.8, False) == sides(1, 1, 0.8, True) == (1, 1)
    assert [planes(torch.Size(s)) for s in ((7,), (2, 7), (3, 4, 5))] == [(1, 1, 7), (2, 1, 7), (3, 4, 5)]


# ---- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3])
def test_windows_reach_the_last_row_and_column_and_lie_anywhere_alike(side):
    """The official index never reaches the last position."""
    height, width, rows = 5, 4, 2000
    q, _ = query(draws(rows, 1, height, width), Linf(0.1))
    w = Windows(q, torch.full((rows,), 1), (side + 0.05) ** 2 / 20)
    assert w.size.unique().tolist() == [side]
    first = w.pixels(0)[:, 0]
    down, right = height - side + 1, width - side + 1
    places = torch.zeros(height, width)
    places.view(-1).index_add_(0, first, torch.ones(rows))
    assert places[:down, :right].sum() == rows
    expected = rows / (down * right)
    chi = float(((places[:down, :right] - expected) ** 2 / expected).sum())
    assert chi < 2.3 * down * right + 10, places
    pixels = w.pixels(0)
    assert pixels.max() == height * width - 1
    r, c = pixels // width, pixels % width
    assert bool(((r.amax(1) - r.amin(1)) == side - 1).all())
    assert bool(((c.amax(1) - c.amin(1)) == side - 1).all())
    assert all(len(p.unique()) == side * side for p in pixels[:20])


def test_with_a_mask_every_window_holds_a_pixel_that_may_change_and_each_gets_its_turn():
    mask = torch.zeros(9, 7, dtype=torch.bool)
    mask[8, 6] = mask[0, 0] = mask[3, 2] = True
    for area in (1, 9):
        q, _ = query(draws(600, 2, 9, 7), Linf(0.1, mask=mask))
        w = Windows(q, torch.ones(600, dtype=torch.int64), area / 3)
        assert w.size.unique().tolist() == [math.sqrt(area)]
        held = mask.flatten()[w.pixels(0)]
        assert bool(held.any(1).all())
        assert held.any(1).sum() > 0
        assert set(w.pixels(0)[held].tolist()) == {0, 3 * 7 + 2, 62}


def test_every_row_draws_its_own_window_and_signs():
    q, _ = query(draws(50, 3, 6, 6), Linf(0.1))
    w = Windows(q, torch.full((50,), 300), 0.8)
    assert len(w.pixels(0)[:, 0].unique()) > 5
    assert len((w.draw[:, 8:] < 0.5).long().unique(dim=0)) == 8
    assert not torch.equal(w.pixels(0), w.pixels(1))


# ---- starts and candidates ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 9), (11,)])
def test_the_linf_start_is_stripes(shape):
    x = 0.5 + 0 * draws(40, *shape)
    start = Square().init(query(x, Linf(0.25))[0], x).x - x
    assert bool((start.abs() == 0.25).all())
    if len(shape) == 3:
        assert torch.equal(start, start[:, :, :1].expand_as(start))
        start = start[:, :, 0]
    assert abs(float(start.mean())) < 0.06
    assert len(start.flatten(1).unique(dim=0)) == 40


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5), (11,)])
def test_linf_candidates_change_one_window_to_the_ends_of_the_ball(shape):
    """Of one channel none is wasted: a window that is already so gets the opposite sign."""
    x = 0.5 + 0.1 * draws(30, *shape)
    threat = Linf(0.25)
    q, _ = query(x, threat, Constant())
    before = None
    for s in states(q, Square(steps=100), 60):
        assert bool(torch.isclose((s.x - x).abs(), torch.tensor(0.25, dtype=F64)).all())
        if before is not None and int(s.k[0]) < 100:
            changed = s.x != s.best
            assert bool(changed.flatten(1).any(1).all())
            size = Windows(q, s.k, 0.8).size.prod(1)
            channels = planes(torch.Size(shape))[0]
            assert bool((changed.view(30, channels, -1).any(1).sum(1) <= size).all())
        before = s


def test_tiles_by_hand():
    """Rings of 1 + 1/4 in the middle and 1/4 round it, of opposite sign in the halves of 1 and 2 rows."""
    ring = torch.tensor([[0.25, 1.25, 0.25], [0.25, 0.25, 0.25], [0.25, 1.25, 0.25]], dtype=F64)
    ring[0] /= ring[0].norm()
    ring[1:] /= -ring[1:].norm()
    torch.testing.assert_close(tile(3, 3, False), ring / math.sqrt(2))
    assert torch.equal(tile(3, 3, True), tile(3, 3, False).T)
    assert torch.equal(tile(1, 1, False).abs(), torch.ones(1, 1, dtype=F64))
    line = tile(1, 5, False)
    assert torch.equal(line, tile(1, 5, True))
    assert line.shape == (1, 5)
    assert bool((line[0, :2] > 0).all())
    assert bool((line[0, 2:] < 0).all())
    assert tile(4, 7, True).shape == (4, 7)
    for h, w in ((1, 1), (1, 9), (2, 2), (5, 3), (25, 25)):
        assert math.isclose(float(tile(h, w, True).norm()), 1)


@pytest.mark.parametrize("side", [3, 5, 7, 13, 25])
def test_tiles_are_the_official_ones(side):
    peer = pytest.importorskip("pyautoattack.square").SquareAttack(nn.Flatten(), norm="L2", eps=1.0, device="cpu")
    state = torch.get_rng_state()
    theirs = peer.eta(side).double()
    torch.set_rng_state(state)
    ours = [tile(side, side, across) for across in (False, True)]
    assert min(float((t - theirs).abs().max()) for t in ours) < 1e-6


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 12, 10), (2, 11), (30,)])
def test_the_l2_start_is_a_grid_of_tiles_of_length_eps(shape):
    x = draws(20, *shape)
    start = Square().init(query(x, L2(1.5, bounds=FREE))[0], x).x - x
    torch.testing.assert_close(own_size(L2, start), torch.full((20,), 1.5, dtype=F64))
    channels, height, width = planes(torch.Size(shape))
    start = start.view(20, channels, height, width)
    assert len(start.flatten(1).unique(dim=0)) == 20
    h, w = height // min(5, height), width // min(5, width)
    top, left = (height - h * min(5, height)) // 2, (width - w * min(5, width)) // 2
    known = torch.stack([tile(h, w, False), tile(h, w, True)]).flatten(1)
    for block in (start[:, :, top : top + h, left : left + w], start[:, :, top + h * (height > 4) :, left + 4 * w :]):
        flat = torch.nn.functional.normalize(block[:, :, :h, :w].flatten(2), dim=2)
        match = (flat @ known.T).abs().amax(2)
        torch.testing.assert_close(match, torch.ones_like(match))


@pytest.mark.parametrize("kind", [L2, L1])
@pytest.mark.parametrize("shape", [(1, 9, 8), (3, 9, 8), (2, 25), (40,)])
def test_l2_and_l1_candidates_move_mass_between_two_windows_and_keep_the_length(shape, kind):
    """Nothing changes outside the windows; the second is emptied; each channel keeps its length."""
    x = draws(16, *shape)
    q, _ = query(x, kind(1.5, bounds=FREE), Constant())
    p = 2 if kind is L2 else 1
    channels = planes(torch.Size(shape))[0]
    for s in states(q, Square(steps=300), 40):
        torch.testing.assert_close(own_size(kind, s.x - x), torch.full((16,), 1.5, dtype=F64))
        if int(s.k[0]) == 0:
            continue
        new, old = ((z - x).view(16, channels, -1) for z in (s.x, s.best))
        torch.testing.assert_close(new.norm(p, dim=2), old.norm(p, dim=2), rtol=1e-6, atol=1e-9)
        w = Windows(q, s.k, 0.8)
        into, out = (torch.zeros(16, new.shape[2], dtype=torch.bool).scatter(1, w.pixels(n), True) for n in (0, 1))
        same = (~(into | out))[:, None].expand_as(new)
        torch.testing.assert_close(new[same], old[same], rtol=1e-6, atol=1e-9)
        gone = (out & ~into)[:, None].expand_as(new)
        assert float(new[gone].abs().max() if bool(gone.any()) else 0) < 1e-9
        most = torch.tensor(planes(torch.Size(shape))[1:])
        assert bool(((w.size % 2 == 1) | (w.size == most)).all())


@pytest.mark.parametrize(("kind", "p"), [(L2, 2), (L1, 1)])
def test_the_mix_is_the_published_formula(kind, p):
    """(tile ± + old/|old|) scaled to the length of the union of the windows, channel by channel."""
    x = draws(12, 2, 9, 9)
    q, _ = query(x, kind(2.0, bounds=FREE), Constant())
    s = list(states(q, Square(steps=300), 3))[-1]
    w = Windows(q, s.k, 0.8)
    side = int(w.size[0, 0])
    kinds = [tile(side, side, across) for across in (False, True)]
    for row in range(12):
        old, new = (s.best - x)[row], (s.x - x)[row]
        (r, c), (r2, c2) = (divmod(int(w.pixels(n)[row, 0]), 9) for n in (0, 1))
        union = torch.zeros(9, 9)
        union[r : r + side, c : c + side] = union[r2 : r2 + side, c2 : c2 + side] = 1
        for channel in range(2):
            there = old[channel, r : r + side, c : c + side]
            got = new[channel, r : r + side, c : c + side]
            wanted = []
            for sign in (-1, 1):
                for kind in kinds:
                    mix = sign * kind + there / there.norm(p)
                    wanted.append(mix / mix.norm(p) * (old[channel] * union).norm(p))
            assert min(float((got - v).abs().max()) for v in wanted) < 1e-9


def test_what_the_box_cuts_off_is_used_elsewhere():
    """At an image full of zeros half of every tile is cut off; the length is eps all the same."""
    x = torch.zeros(8, 1, 10, 10, dtype=F64)
    q, _ = query(x, L2(1.0), Constant())
    for s in states(q, Square(steps=100), 20):
        torch.testing.assert_close(own_size(L2, s.x - x), torch.ones(8, dtype=F64))


# ---- the search ---------------------------------------------------------------------------------


def linear(size=12, count=30, classes=2, shape=None):
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn((classes, size), generator=draw, dtype=F64)
    x = draws(count, size, seed=5)
    model = Linear(weight, -(x @ weight.T).mean(0))
    with torch.no_grad():
        z = model(x)
    y = z.argmax(1)
    return model, x if shape is None else x.view(count, *shape), y, z, weight


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 3, 4), (3, 2, 2)])
def test_it_reaches_the_linf_optimum_of_a_linear_model(shape):
    """x - eps·sign(w) is a corner that windows of one pixel reach: fooled exactly where eps exceeds the distance."""
    model, x, y, z, weight = linear(shape=shape)
    needed = (z[:, 0] - z[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()
    eps = float(needed.quantile(0.5)) * (1 + 1e-9)
    result = attack(model, x, y, Linf(eps, bounds=FREE), Square(steps=400))
    assert torch.equal(result.success, needed < eps)
    assert 10 < int(result.success.sum()) < 20


@pytest.mark.parametrize(("shape", "steps"), [((12,), 500), ((1, 8, 8), 2000)])
def test_it_comes_near_the_l2_optimum_of_a_linear_model(shape, steps):
    """Where windows of three pixels are small beside the image; on 3 × 4 pixels they leave a few rows at 1.35 times."""
    model, x, y, z, weight = linear(size=math.prod(shape), shape=shape)
    needed = (z[:, 0] - z[:, 1]).abs() / (weight[0] - weight[1]).norm()
    eps = float(needed.quantile(0.7))
    result = attack(model, x, y, L2(eps, bounds=FREE), Square(steps=steps))
    assert not bool(result.success[needed > eps].any())
    assert bool(result.success[needed < eps / 1.15].all())
    assert int((needed < eps / 1.15).sum()) > 12


@pytest.mark.parametrize("kind", NORMS)
def test_the_margin_never_falls_and_the_end_is_the_best_point(kind):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Tanh(), nn.Linear(20, 4)).double()
    x = draws(6, 1, 6, 6)
    y = net(x).argmax(1)
    q, seen = query(x, kind(1e-3), net, y)
    *_, before, end = states(q, Square(steps=50), 50)
    z = torch.stack([v.logits for v in seen]).detach()
    true = z.gather(2, y.expand(50, 6)[:, :, None])[:, :, 0]
    margins = z.scatter(2, y.expand(50, 6)[:, :, None], -math.inf).amax(2) - true
    torch.testing.assert_close(end.loss, margins.amax(0))
    assert bool((end.loss >= before.loss).all())
    torch.testing.assert_close(net(end.x), z[margins.argmax(0), torch.arange(6)], rtol=0, atol=1e-12)
    with torch.no_grad():
        last = perturb(net, x, y, kind(1e-3), Square(steps=50))
    assert_inside(kind(1e-3), last, x)


@pytest.mark.parametrize("kind", NORMS)
def test_rows_of_different_ages_do_not_disturb_each_other(kind):
    net = nn.Sequential(nn.Flatten(), nn.Linear(100, 4)).double()
    x = draws(8, 1, 10, 10)
    y = net(x).argmax(1)
    q, _ = query(x, kind(0.01), net, y)
    young, old = (replace(s, k=s.k + add) for s, add in zip(list(states(q, Square(), 2))[1:], (0, 4500), strict=True))
    mixed = torch.arange(8) % 2 == 1
    index = torch.arange(8)
    both = join(take(young, index[~mixed]), take(old, index[mixed]))
    order = torch.cat([index[~mixed], index[mixed]])
    q2 = replace(q, x=x[order], goal=q.goal.rows(order), ids=order, example=order)
    got, a, b = Square().step(q2, both), Square().step(q, young), Square().step(q, old)
    for at, row in enumerate(order.tolist()):
        alone = b if row % 2 else a
        torch.testing.assert_close(got.x[at], alone.x[row], rtol=0, atol=1e-12)
        torch.testing.assert_close(got.best[at], alone.best[row], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", NORMS)
def test_one_query_for_each_row_and_step(kind):
    x = draws(7, 1, 4, 4)
    y = torch.zeros(7, dtype=torch.int64)
    q, seen = query(x, kind(0.1), Constant())
    for n, s in enumerate(states(q, Square(steps=9), 9)):
        assert len(seen) == n
        if n < 9:
            asked = s.x
            continue
    assert torch.equal(seen[-1].z, asked)
    assert all(v.row is None and v.z.shape == x.shape for v in seen)
    result = attack(Constant(), x, y, kind(0.1), Square(steps=9))
    assert result.forward.tolist() == [1 + 9 + 1] * 7  # screening, steps, and a confirming pass at the end
    assert not bool(result.backward.any())


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(
    "shape", [(1,), (2,), (1, 1), (2, 3), (1, 1, 1), (3, 1, 1), (1, 2, 2), (2, 1, 5), (2, 5, 1), (1, 3, 9)]
)
def test_small_and_oblong_images(kind, shape):
    """Nothing but finite points of the set; where one component decides, both of its ends are tried."""
    size = math.prod(shape)
    x = draws(12, *shape)
    threat = kind(0.3, bounds=(-1.0, 2.0))
    q, seen = query(x, threat, Constant())
    list(states(q, Square(steps=40), 40))
    for v in seen:
        assert_inside(threat, v.z, x)
    weight = torch.zeros(2, size, dtype=F64)
    weight[1, -1], weight[0, -1] = 1, -1
    for sign in (1, -1):
        middle = float(x.flatten(1)[:, -1].mean())
        model = Linear(sign * weight, sign * torch.tensor([middle, -middle], dtype=F64))
        y = model(x).argmax(1)
        eps = 12.0 if kind is L1 else 3.0  # of which a window of three pixels may have the least share at its edge
        result = attack(model, x, y, kind(eps, bounds=(-4.0, 5.0)), Square(steps=200))
        assert bool(result.success.all())


@pytest.mark.parametrize("kind", NORMS)
def test_a_model_of_constant_scores(kind):
    x, y = draws(5, 1, 4, 4), torch.zeros(5, dtype=torch.int64)
    result = attack(Constant(), x, y, kind(0.2), Square(steps=30))
    assert not bool(result.success.any())
    assert_inside(kind(0.2), result.adversarial, x)


@pytest.mark.parametrize("kind", NORMS)
def test_masks(kind):
    """Two pixels of a hundred may change: found in a few queries. No pixel at all: nothing moves."""
    x = 0.5 + 0 * draws(20, 1, 10, 10)
    weight = torch.zeros(2, 100, dtype=F64)
    weight[1, 37], weight[1, 99] = 1, -1
    model = Linear(weight, torch.tensor([0.05, 0], dtype=F64))
    y = torch.zeros(20, dtype=torch.int64)
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask.view(-1)[[37, 99]] = True
    threat = kind(0.2, mask=mask)
    result = attack(model, x, y, threat, Square(steps=100), ids=torch.arange(20))
    assert bool(result.success.all())
    assert_inside(threat, result.adversarial, x)
    frozen = attack(model, x, y, kind(0.2, mask=torch.zeros_like(mask)), Square(steps=10))
    assert torch.equal(frozen.adversarial, x)


@pytest.mark.parametrize("kind", NORMS)
def test_the_scale_of_the_inputs_does_not_matter(kind):
    """Images in [-255, 0] with eps 255 times as large: the same search."""
    model, x, y, _, weight = linear(shape=(1, 3, 4))
    other = Linear(weight / 255, model.bias.detach() + weight.sum(1))
    eps = 0.1 if kind is Linf else 0.3
    ids = torch.arange(len(x))
    small = attack(model, x, y, kind(eps), Square(steps=60), ids=ids)
    large = attack(other, 255 * x - 255, y, kind(255 * eps, bounds=(-255.0, 0.0)), Square(steps=60), ids=ids)
    assert torch.equal(small.success, large.success)
    assert 3 < int(small.success.sum()) < 28
    torch.testing.assert_close(large.adversarial / 255 + 1, small.adversarial, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", NORMS)
def test_bounds_may_be_infinite(kind):
    model, x, y, _, _ = linear(shape=(1, 3, 4))
    result = attack(model, 1e3 * x, y, kind(1e4, bounds=FREE), Square(steps=200))
    assert bool(result.success[result.clean_correct].all())


def test_targets_and_aims_steer_the_loss():
    model, x, y, _, weight = linear(classes=4, count=20)
    targets = (y + 1) % 4
    result = attack(model, x, y, Linf(0.6, bounds=FREE), Square(steps=300), targets=targets)
    assert bool((model(result.adversarial).argmax(1) == targets)[result.success].all())
    assert float(result.success.double().mean()) > 0.8
    aims = (y + 2) % 4
    q, _ = query(x, Linf(0.02, bounds=FREE), model, y, aim=aims)
    *_, end = states(q, Square(steps=400), 400)
    wanted = weight.gather(0, aims[:, None].expand(-1, 12)) - weight.gather(0, y[:, None].expand(-1, 12))
    torch.testing.assert_close(end.x, x + 0.02 * wanted.sign())
    most = attack(model, x, y, Linf(0.3, bounds=FREE), Targeted(Square(steps=200), k=3))
    assert bool(most.success.any())


@pytest.mark.parametrize("kind", NORMS)
def test_a_constant_added_to_the_logits_does_not_matter(kind):
    model, x, y, _, _ = linear(shape=(1, 3, 4))
    eps = {Linf: 0.05, L2: 0.2, L1: 0.5}[kind]
    plain = attack(model, x, y, kind(eps), Square(steps=80))
    moved = attack(lambda v: model(v) + 1e6, x, y, kind(eps), Square(steps=80))
    assert torch.equal(plain.success, moved.success)
    assert 3 < int(plain.success.sum()) < 28


@pytest.mark.parametrize("kind", NORMS)
def test_every_trial_and_seed_draws_anew(kind):
    x = draws(3, 1, 6, 6)
    q, _ = query(x, kind(0.2), Constant())
    others = [replace(q, trial=q.trial + 1), replace(q, seed=1), replace(q, ids=q.ids + 10)]
    first, *rest = (list(states(v, Square(steps=9), 3)) for v in (q, *others))
    for other in rest:
        assert not torch.equal(first[0].x, other[0].x)
        assert not torch.equal((first[3].x - x).sign(), (other[3].x - x).sign())


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"steps": 1.5}, {"p_init": 0}, {"p_init": 1.1}, {"p_init": True}, {"p_init": "a"}]
)
def test_options_are_checked(bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        Square(**bad)
