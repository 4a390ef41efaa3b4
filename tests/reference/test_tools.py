"""The tools that the comparisons rest on: the judge, the counted passes, the watched model, the measure of quality."""

import math

import pytest
import torch
from benchmarks import attacks, autoattack, common, libraries, quality
from torch import nn

from helpers import Linear

EPS = 0.125


@pytest.fixture
def task():
    """Class 1 where the sum of 4 components is above 2; all images are class 0 and need 0.1 in each component."""
    model = Linear(torch.stack([torch.zeros(4), torch.ones(4)]), torch.tensor([2.0, 0.0]))
    pattern = torch.tensor([[0.1, -0.1], [0.1, -0.1]])  # sums to 0, and tells the images apart
    x = 0.4 + torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1) * pattern
    return model, x, torch.zeros(3, dtype=torch.int64)


def test_the_judge_counts_what_is_inside_and_wrong_and_nothing_else(task):
    model, x, y = task
    y[2] = 1  # wrong on the image
    z = x + EPS
    verdict = common.judge(model, x, y, z, "linf", EPS)
    assert verdict.correct.tolist() == [True, True, False]
    assert verdict.fooled.tolist() == [True, True, False]
    assert verdict.distance.tolist() == pytest.approx([EPS, EPS, 0])
    assert verdict.robust_accuracy == 0
    assert not common.judge(model, x, y, x, "linf", EPS).fooled.any()
    assert common.judge(model, x, y, x, "linf", EPS).distance.tolist() == [math.inf, math.inf, 0]


@pytest.mark.parametrize(
    ("change", "good"),
    [
        (lambda z: z + 0.9e-5 * EPS, True),
        (lambda z: z + 1e-4 * EPS, False),
        (lambda z: z.index_fill(3, torch.tensor(0), math.nan), False),
        (lambda z: z.index_fill(3, torch.tensor(0), math.inf), False),
    ],
    ids=["rounding", "outside the ball", "nan", "inf"],
)
def test_the_judge_takes_rounding_and_no_more(task, change, good):
    model, x, y = task
    assert bool(common.judge(model, x, y, change(x + EPS), "linf", EPS).fooled.all()) == good


def test_the_judge_wants_the_box(task):
    model, x, y = task
    z = x + EPS
    z[:, 0, 0, 0] = 1.001
    assert not common.judge(model, x, y, z, "linf").fooled.any()
    z[:, 0, 0, 0] = 1.0
    assert common.judge(model, x, y, z, "linf").fooled.all()


def test_sizes():
    delta = torch.tensor([[0.0, 3.0, -4.0, 1e-8]])
    assert [float(common.size(n, delta)) for n in ("linf", "l2", "l1", "l0")] == pytest.approx([4, 5, 7, 2])


def test_passes_are_counted_for_each_image(task):
    model, x, y = task
    with common.counted(model) as passes:
        attacks.bare("pgd-linf", model, x, y, EPS, 5, 2, 0)
    assert (passes.forward, passes.backward) == (15, 15)
    with common.counted(model) as passes, torch.no_grad():
        model(x)
    assert (passes.forward, passes.backward) == (3, 0)
    with common.counted(model) as passes:
        z = x.clone().requires_grad_(True)
        for logit in model(z).sum(0):
            torch.autograd.grad(logit, z, retain_graph=True)
    assert (passes.forward, passes.backward) == (3, 6)


def test_the_watched_model_keeps_the_best_point_and_stops_in_time(task):
    model, x, y = task
    watched = quality.Watched(model, x, y, "linf", passes=4)
    order = torch.tensor([2, 0, 1])  # rows come in any order
    for change in (0.4, 0.2, 0.05):
        watched((x + change)[order])
    assert watched.best.tolist() == pytest.approx([0.2, 0.2, 0.2])
    z = (x[:1] + 0.15).repeat(3, 1, 1, 1).requires_grad_(True)
    logits = watched(z)  # the first image has one pass left: one row of three gets an answer
    assert (logits.argmax(1) != 0).tolist() == [True, False, False]
    assert watched.best.tolist() == pytest.approx([0.15, 0.2, 0.2])
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), z)
    assert not gradient.any()  # none was left for the backward pass
    assert watched.forwards.tolist() == [4, 3, 3]
    watched(x[1:] + 0.15)
    with pytest.raises(quality.Spent):
        watched(x)


def test_the_search_finds_the_smallest_eps(task):
    model, x, y = task
    watched = quality.Watched(model, x, y, "linf", passes=10_000)
    quality.search("linf", quality.one_by_one(lambda m, a, b, eps: (a + eps).clamp(0, 1)), watched, x, y)
    assert watched.best.tolist() == pytest.approx([0.1] * 3, rel=1e-3)


def test_optimality():
    best = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert quality.optimality(best, best) == 1
    assert quality.optimality(torch.tensor([0.0, math.inf, math.inf, math.inf]), best) == 0
    # area of the best 6/4, of the other (1 + 3 + 3)/4, of none at all 9/4
    assert quality.optimality(torch.tensor([0.0, 1.0, 7.0, 3.0]), best) == pytest.approx(1 - (7 - 6) / (9 - 6))


def test_a_missing_peer_says_why(monkeypatch):
    monkeypatch.setitem(libraries.MODULES, "foolbox", "no_such_peer")
    with pytest.raises(libraries.Missing, match="no_such_peer cannot be imported"):
        libraries.check("foolbox")


def test_a_peer_leaves_the_callers_generators_alone():
    before = torch.get_rng_state()
    with libraries.quiet(3):
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_table_compares_what_every_arm_has_done():
    def line(arm, first, fooled, seconds):
        return autoattack.Line("m", "linf", 0.1, arm, first, (True,) * 2, fooled, seconds, 20, 10, {}, "here")

    text = autoattack.report(
        [
            line("pyautoattack", 0, (True, False), 10.0),
            line("fast", 0, (False, True), 1.0),
            line("fast", 2, (True, True), 1.0),  # not compared: the other has not been there
        ]
    )
    assert "| m | linf 0.1 | pyautoattack | 2 | 1.0000 | 0.5000 | 10.0 |  | 10 | 5 |  |  |" in text
    assert "| m | linf 0.1 | fast | 2 | 1.0000 | 0.5000 | 1.0 | 0.100 | 10 | 5 | 1 | 1 |" in text


def test_a_section_of_the_docs_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nText.\n")
    common.write_section("one", "first", page)
    common.write_section("two", "other", page)
    common.write_section("one", r"second \1", page)
    assert page.read_text() == (
        "# Title\n\nText.\n\n<!-- one: begin -->\nsecond \\1\n<!-- one: end -->\n\n"
        "<!-- two: begin -->\nother\n<!-- two: end -->\n"
    )


def test_the_bare_loop_is_what_it_says(task):
    model, x, y = task
    assert isinstance(model, nn.Module)
    z = attacks.bare("fgsm-linf", model, x, y, EPS, 1, 3, 0)
    assert torch.allclose(z, x + EPS)
    assert all(p.grad is None for p in model.parameters())
