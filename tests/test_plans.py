"""Targets in MALT's order, escalation, parts, who fooled, and the trace of improvements."""

import itertools
import math

import pytest
import torch

import unfooled as uf
from helpers import Linear, counted, problem
from unfooled.attacks import APGD, BIM, FGSM, PGD, Cascade, Escalate, Restarts, Square, Targeted, parse
from unfooled.engine import attack
from unfooled.threats import L2, Linf

F64 = torch.float64


def skewed():
    """Three wrong classes: the runner-up in logits is far by distance, since its boundary is flat."""
    w = torch.tensor([[0.0, 0, 0, 0], [1e-3, 0, 0, 0], [0, 1, 0, 0], [0, 0, 5, 0]], dtype=F64)
    b = torch.tensor([0.0, -0.1, -0.2, -0.3], dtype=F64)
    return Linear(w, b), torch.zeros((4, 4), dtype=F64), torch.zeros(4, dtype=torch.int64)


def test_malt_aims_at_the_nearest_boundary_not_at_the_largest_logit():
    """Distances for Linf: 0.1/1e-3, 0.2/1, 0.3/5: class 3 is nearest, class 2 next, class 1 far away."""
    model, x, y = skewed()
    threat = Linf(0.1, bounds=(-1.0, 1.0))
    by_logits = attack(model, x, y, threat, Targeted(FGSM(loss="margin"), 1))
    by_malt = attack(model, x, y, threat, Targeted(FGSM(loss="margin"), 1, "malt"))
    assert not bool(by_logits.success.any())
    assert bool(by_malt.success.all())
    assert bool((model(by_malt.adversarial).argmax(1) == 3).all())


def test_malts_order_costs_one_forward_and_a_backward_pass_for_each_class():
    p = problem((8,), dtype=F64)
    threat = p.threat(Linf, 0.01)
    with counted(p.model) as seen:
        result = attack(p.model, p.x, p.y, threat, Targeted(FGSM(), 2, "malt"))
    plain = attack(p.model, p.x, p.y, threat, Targeted(FGSM(), 2))
    assert int(result.forward.sum()) == seen.forward
    open_ = p.correct & ~result.success
    assert bool((result.forward - plain.forward == 1)[open_].all())
    assert bool((result.backward - plain.backward == 4)[open_].all())
    assert bool((result.backward[~p.correct] == 0).all())


def test_malt_within_a_budget():
    p = problem((8,), dtype=F64)
    for budget in (9, 12, 20, 41):
        result = attack(p.model, p.x, p.y, p.threat(Linf, 0.01), Targeted(BIM(steps=5), 3, "malt"), budget=budget)
        assert bool((result.forward + result.backward <= budget).all())
    with pytest.raises(uf.errors.ParameterError, match="'budget' parameter of attack must be at least 9"):
        attack(p.model, p.x, p.y, Linf(0.1), Targeted(BIM(steps=5), 3, "malt"), budget=7)


def test_escalation_runs_only_after_a_success():
    p = problem((8,), dtype=F64)
    plan = Escalate(FGSM(), Cascade(BIM(steps=7), PGD(steps=3)))
    weak = attack(p.model, p.x, p.y, p.threat(Linf, 1e-6), plan)
    assert [part.examples for part in weak.parts] == [24, 0, 0]
    some = attack(p.model, p.x, p.y, p.threat(Linf, 1.0), plan)
    left = int((some.clean_correct).sum()) - some.parts[0].fooled
    assert some.parts[0].fooled > 0
    assert some.parts[1].examples == left
    assert some.parts[2].examples == left - some.parts[1].fooled
    assert parse(str(plan)) == plan


class Shattered(torch.nn.Module):
    """A ripple on the input, too fast and too low to matter to an answer: its slope is all that a gradient shows."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.002 * torch.sin(10_000 * x))


def test_escalation_also_runs_where_gradients_are_left_behind():
    """Nobody is fooled here; without gradients one gets nearer than with them only where they are masked."""
    draw = torch.Generator().manual_seed(0)
    net = Linear(torch.randn((2, 36), generator=draw, dtype=F64), torch.tensor([50.0, 0], dtype=F64))
    x, y = 0.3 + 0.4 * torch.rand((8, 1, 6, 6), generator=draw, dtype=F64), torch.zeros(8, dtype=torch.int64)
    plan = Cascade(PGD(steps=10, step_size=0.3), Escalate(Square(steps=60), Square(steps=7)))
    for model, further in ((net, 0), (Shattered(net), 8)):
        result = attack(model, x, y, Linf(0.1), plan)
        assert not bool(result.success.any())
        assert [part.examples for part in result.parts] == [8, 8, further]


def test_the_parts_add_up_and_name_who_fooled():
    p = problem((8,), dtype=F64)
    plan = Cascade(FGSM(), Restarts(PGD(steps=5, step_size=0.3), 2), Targeted(APGD(steps=10), 3))
    result = attack(p.model, p.x, p.y, p.threat(Linf, 1.2), plan)
    assert [part.attack for part in result.parts] == [str(stage) for stage in plan.stages()]
    assert sum(part.fooled for part in result.parts) == int(result.success.sum())
    assert torch.equal(result.fooled_by >= 0, result.success)
    for number, part in enumerate(result.parts):
        assert int((result.fooled_by == number).sum()) == part.fooled
    screened = len(p.x)  # the clean pass that targets need belongs to no part
    assert sum(part.forward for part in result.parts) == int(result.forward.sum()) - screened
    assert sum(part.backward for part in result.parts) == int(result.backward.sum())
    assert all(part.seconds >= 0 for part in result.parts)
    assert torch.equal(result.clean_prediction == p.y, result.clean_correct)


def test_the_trace_holds_every_improvement_of_a_minimum_norm_attack():
    p = problem((8,), dtype=F64)
    result = attack(p.model, p.x, p.y, L2(torch.inf), "ddn:steps=40")
    last = result.trace.at(10**9, len(p.x))
    hit = result.success
    assert int(hit.sum()) > 10
    torch.testing.assert_close(last[hit], result.distance[hit])
    assert bool(last[~hit].isinf().all())
    assert len(result.trace.example) > int(hit.sum())
    earlier = [result.trace.at(passes, len(p.x)) for passes in (0, 20, 40, 60, 82)]
    assert bool(earlier[0].isinf().all())
    for soon, later in itertools.pairwise(earlier):
        assert bool((later <= soon).all())
    assert bool((result.trace.passes <= (result.forward + result.backward)[result.trace.example]).all())


def test_a_budget_knows_what_a_step_towards_one_class_costs():
    """FAB-T takes a look for each step, FAB a backward pass for each class."""
    p = problem((8,), dtype=F64)
    threat = p.threat(Linf, 1e-6)
    aimed = attack(p.model, p.x, p.y, threat, "targeted:k=3,order=logits(fab:steps=20)", budget=124)
    assert bool((aimed.forward[p.correct] == 64).all())  # the image, and three times 20 steps and an end
    assert bool((aimed.forward + aimed.backward <= 124).all())
    free = attack(p.model, p.x, p.y, threat, "fab:steps=20", budget=124)
    assert bool((free.forward + free.backward <= 124).all())


@pytest.mark.parametrize(
    ("text", "each", "runs"),
    [
        ("ddn:steps=499", 499, 1), ("ddn:steps=500", 250, 2), ("ddn:steps=1000", 250, 4), ("sigma-zero", 500, 2),
        ("sigma-zero:steps=999", 999, 1), ("pdpgd", 500, 1), ("pdpgd:steps=1500", 500, 3), ("fmn:steps=1000", 1000, 1),
        ("restarts:count=3(ddn:steps=1000)", 250, 12), ("targeted:k=2(ddn:steps=1000)", 250, 4),
    ],
)  # fmt: skip
def test_minimum_norm_attacks_share_many_looks_out_over_runs(text, each, runs):
    (stage,) = parse(text).stages()
    assert (stage.attack.steps, stage.restarts) == (each, runs)
    assert str(parse(text)) == str(parse(str(parse(text))))


def test_runs_find_what_one_does_not():
    p = problem((8,), count=40)
    steps = 2 * uf.attacks.DDN.enough
    short = attack(p.model, p.x, p.y, uf.L2(math.inf), uf.attacks.DDN(steps=steps // 2))
    whole = attack(p.model, p.x, p.y, uf.L2(math.inf), uf.attacks.DDN(steps=steps))
    assert bool((whole.distance <= short.distance).all())
    assert bool((whole.distance < short.distance).any())
    assert bool((whole.forward <= 1 + steps + 2).all())


def test_a_budget_gives_fewer_runs_not_shorter_ones():
    p = problem((8,))
    method = uf.attacks.DDN(steps=1000)
    seen = []
    for budget in (2002, 1200, 600, 90):
        result = attack(p.model, p.x, p.y, uf.L2(math.inf), method, budget=budget)
        assert int((result.forward + result.backward).max()) <= budget
        seen.append(result.parts[0].attack)
    assert seen == [
        "restarts:count=4(ddn:steps=249)",
        "restarts:count=2(ddn:steps=299)",
        "ddn:steps=299",
        "ddn:steps=44",
    ]
