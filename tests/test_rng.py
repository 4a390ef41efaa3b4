"""Random numbers that belong to an example: invariance, and the statistics of good ones."""

import contextlib
import random

import numpy as np
import pytest
import scipy.stats
import torch

from unfooled import rng
from unfooled.goals import Goal
from unfooled.oracle import GradientQuery
from unfooled.threats import Linf

F64, F32 = torch.float64, torch.float32
SHAPE = torch.Size([40])


def query(count=500, shape=(40,), seed=0, dtype=F64, trial=0):
    rows = torch.arange(count)
    return GradientQuery(
        x=torch.zeros((count, *shape), dtype=dtype), goal=Goal(0 * rows), threat=Linf(0.1), ids=rows,
        trial=0 * rows + trial, restart=0 * rows, seed=seed, oracle=None, example=rows, seen=lambda _: None,
    )  # fmt: skip


def test_a_number_depends_on_its_row_alone():
    ids = torch.arange(30) ** 3
    key = rng.keys(ids, 5, torch.zeros(30, dtype=torch.int64), 2)
    whole = rng.uniform(key, SHAPE, F64)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rng.uniform(key[order], SHAPE, F64), whole[order])
    for row in (0, 17, 29):
        alone = rng.keys(ids[row : row + 1], 5, 0, 2)
        assert torch.equal(rng.uniform(alone, SHAPE, F64)[0], whole[row])
        assert torch.equal(rng.normal(alone, SHAPE, F64)[0], rng.normal(key, SHAPE, F64)[row])


@pytest.mark.parametrize("kind", [rng.uniform, rng.normal])
def test_float32_and_float64_see_the_same_numbers(kind):
    key = rng.keys(torch.arange(50), 1)
    wide, narrow = kind(key, torch.Size([3, 4, 5]), F64), kind(key, torch.Size([3, 4, 5]), F32)
    assert wide.shape == (50, 3, 4, 5)
    assert narrow.dtype == F32
    assert torch.equal(wide.to(F32), narrow)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_uniform_is_uniform_and_open(dtype):
    u = rng.uniform(rng.keys(torch.arange(2000), 3), torch.Size([50]), dtype)
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    flat = u.double().flatten().numpy()
    assert scipy.stats.kstest(flat, "uniform").pvalue > 1e-3
    for column in (0, 1, 49):
        assert scipy.stats.kstest(u[:, column].double().numpy(), "uniform").pvalue > 1e-3
    for row in (0, 1, 1999):
        long = rng.uniform(rng.keys(torch.tensor([row]), 3), torch.Size([20_000]), F64)[0]
        assert scipy.stats.kstest(long.numpy(), "uniform").pvalue > 1e-3
    bits = (u.double() * 2**12).long() % 2
    assert abs(float(bits.double().mean()) - 0.5) < 0.01, "the lower bits too"


def test_normal_is_normal():
    n = rng.normal(rng.keys(torch.arange(2000), 4), torch.Size([50]), F64).flatten()
    assert scipy.stats.kstest(n.numpy(), "norm").pvalue > 1e-3
    assert abs(float(n.mean())) < 0.01
    assert abs(float(n.var()) - 1) < 0.02
    assert abs(float((n**3).mean())) < 0.05
    assert abs(float((n**4).mean()) - 3) < 0.1
    assert bool(torch.isfinite(n).all())


def correlation(a, b):
    return abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))


def test_neighbours_are_independent():
    """Adjacent examples, steps, trials, seeds, salts and components; 20,000 pairs each, so 0.03 is four sigma."""
    q = query()
    u = q.uniform(0)
    others = {
        "rows": (u[:-1], u[1:]),
        "components": (u[:, :-1], u[:, 1:]),
        "steps": (u, q.uniform(1)),
        "salts": (u, q.uniform(0, salt=1)),
        "step and salt": (q.uniform(1, salt=0), q.uniform(0, salt=1)),
        "trials": (u, query(trial=1).uniform(0)),
        "seeds": (u, query(seed=1).uniform(0)),
        "seed and trial": (query(seed=1).uniform(0), query(trial=1).uniform(0)),
        "shifted": (u[:-1, 1:], u[1:, :-1]),
    }
    for name, (a, b) in others.items():
        assert correlation(a, b) < 0.03, name
        assert not torch.equal(a, b), name
        same = float((a == b).double().mean())
        assert same < 1e-3, name


def test_uniform_and_normal_draws_of_one_step_are_independent():
    """`sample` asks for both: were they of the same bits, a random start would not be uniform in the ball."""
    q = query()
    u, n = q.uniform(0), q.normal(0)
    assert correlation(u, n) < 0.03
    assert correlation((u - 0.5).abs(), n.abs()) < 0.03


def test_steps_may_differ_by_row():
    q = query(count=6)
    mixed = q.uniform(torch.tensor([0, 1, 2, 0, 1, 2]))
    for k in range(3):
        assert torch.equal(mixed[k::3], q.uniform(k)[k::3])


def test_no_two_keys_collide():
    ids = torch.arange(300)
    all_keys = torch.cat([rng.keys(ids, seed, trial, k) for seed in range(4) for trial in range(4) for k in range(10)])
    assert len(all_keys.unique()) == len(all_keys)
    assert int(rng.keys(ids, 1, 2)[0]) != int(rng.keys(ids, 2, 1)[0])
    assert len(rng.keys(torch.tensor([-1, 0, 1, 2**62, -(2**63)])).unique()) == 5


def test_image_ids():
    x = torch.rand((40, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 4
    ids = rng.image_ids(x, y)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, rng.image_ids(x.double(), y)), "float32 and float64 copies"
    assert torch.equal(ids, torch.cat([rng.image_ids(x[:7], y[:7]), rng.image_ids(x[7:], y[7:])]))
    assert len(ids.unique()) == 40
    assert not bool((ids == rng.image_ids(x, (y + 1) % 4)).any()), "the label counts"
    moved = x.clone()
    moved[:, 0, 0, 0] = torch.nextafter(moved[:, 0, 0, 0], torch.tensor(2.0))
    assert not bool((ids == rng.image_ids(moved, y)).any()), "one bit counts"
    swapped = x.flip(3)
    assert not bool((ids == rng.image_ids(swapped, y)).any()), "the order counts"
    same = x[:1].expand(3, 3, 5, 5)
    assert len(rng.image_ids(same, torch.zeros(3, dtype=torch.int64)).unique()) == 1
    binary = (torch.arange(1024)[:, None] >> torch.arange(10) & 1).float()
    assert len(rng.image_ids(binary, torch.zeros(1024, dtype=torch.int64)).unique()) == 1024, "black and white images"


def test_image_ids_of_many_images():
    x = torch.rand((2500, 4), generator=torch.Generator().manual_seed(0))
    y = torch.zeros(2500, dtype=torch.int64)
    ids = rng.image_ids(x, y)
    assert torch.equal(ids[2000:2001], rng.image_ids(x[2000:2001], y[:1]))
    assert len(ids.unique()) == 2500


def draws():
    return torch.rand(1).item(), random.random(), np.random.rand()


def test_forked_seeds_and_restores_all_generators():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    want = draws()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    with rng.forked(3, 4):
        first = draws()
    with rng.forked(3, 4):
        again = draws()
    with rng.forked(4, 3):
        other = draws()
    with contextlib.suppress(ZeroDivisionError), rng.forked(3, 4):
        draws()
        raise ZeroDivisionError
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert draws() == want


def test_the_states_see_every_global_generator():
    cpu = torch.device("cpu")
    for draw, state in (
        (lambda: torch.rand(1), lambda: rng.torch_state(cpu)),
        (random.random, rng.other_states),
        (lambda: np.random.rand(), rng.other_states),
    ):
        before = state()
        assert state() == before
        draw()
        assert state() != before
