"""Plans, trials, early stops, and the passes that they cost."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

import unfooled as uf
from helpers import Linear, assert_same, counted, problem, snapshot
from unfooled.attacks import APGD, BIM, FGSM, PGD, Attack, Cascade, Escalate, Restarts, Square, State, Targeted
from unfooled.engine import Result, attack, perturb
from unfooled.models import Compute
from unfooled.oracle import Access
from unfooled.threats import L1, L2, Linf, Threat

F64 = torch.float64


def setting(count=24, dtype=F64, factor=1.0):
    p = problem((2, 3, 3), dtype=dtype, count=count)
    return p, p.threat(Linf, factor)


def run(p, threat, method, **more):
    return attack(p.model, p.x, p.y, threat, method, **more)


# ---- the floor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_fgsm_costs_what_it_needs(batch_size):
    """Right: a clean gradient (forward and backward) and a confirming forward. Wrong: the clean gradient alone."""
    p, threat = setting()
    result = run(p, threat, FGSM(), batch_size=batch_size)
    right = p.correct
    assert bool((result.forward[right] == 2).all())
    assert bool((result.backward[right] == 1).all())
    assert bool((result.forward[~right] == 1).all())
    assert bool((result.backward[~right] <= 1).all())


def test_early_stop_saves_passes_and_never_changes_who_is_fooled():
    p, threat = setting(factor=1.5)
    method = BIM(steps=12, step_size=0.25)
    soon, full = run(p, threat, method), run(p, threat, method, early_stop=False)
    assert torch.equal(soon.success, full.success)
    won = soon.success
    assert int(won.sum()) > 5
    assert float(soon.forward[won].double().mean()) < 0.7 * float(full.forward[won].double().mean())
    assert bool((full.backward[p.correct] == 12).all())
    assert torch.equal(soon.forward[~won], full.forward[~won])


def test_earlier_successes_are_not_lost():
    """FB PGD, ART APGD: only the last iterate was tested."""

    @dataclass(frozen=True)
    class There(Attack):
        """Goes to a fooling point and comes back."""

        steps: int = 4
        name: ClassVar[str] = "there"
        access: ClassVar[Access] = Access.GRADIENT
        norms: ClassVar = (Linf,)

        def init(self, q, x):
            return State(x=x)

        def step(self, q, s):
            g = q.look(s.x).gradient
            away = (s.k < 2).view(-1, *[1] * (s.x.dim() - 1))
            return replace(s, x=torch.where(away, q.threat.project(q.x + q.threat.eps * g.sign(), q.x), q.x))

    p, threat = setting(factor=1.5)
    reference = run(p, threat, FGSM())
    for early_stop in (True, False):
        result = run(p, threat, There(), early_stop=early_stop)
        assert torch.equal(result.success & reference.success, reference.success)


# ---- plans --------------------------------------------------------------------------------------


def test_restarts_go_on_with_survivors_only():
    p, threat = setting(factor=0.9)
    method = PGD(steps=4, step_size=0.5)
    once = run(p, threat, method, batch_size=1)
    more = run(p, threat, Restarts(method, 4), batch_size=1)
    won = once.success
    assert 0 < int(won.sum()) < int(p.correct.sum())
    assert torch.equal(more.adversarial[won], once.adversarial[won])
    assert torch.equal(more.backward[won], once.backward[won]), "a fooled image was attacked again"
    left = p.correct & ~more.success
    assert int(left.sum()) > 0
    assert bool((more.backward[left] == 16).all())
    assert bool(more.success[won].all())
    assert bool((more.forward[~p.correct] == 1).all())


@pytest.mark.parametrize("early_stop", [True, False])
def test_the_lowest_numbered_success_wins_whatever_the_batch(early_stop):
    p, threat = setting(factor=2.5)
    plan = Restarts(PGD(steps=3, step_size=0.02), 6)  # weak: the random start decides
    first = run(p, threat, plan, batch_size=1, early_stop=early_stop)
    once = run(p, threat, PGD(steps=3, step_size=0.02), early_stop=early_stop)
    assert int(first.success.sum()) > int(once.success.sum()), "no later trial succeeds: the test shows nothing"
    assert torch.equal(first.adversarial[once.success], once.adversarial[once.success])
    order = torch.randperm(len(p.x), generator=torch.Generator().manual_seed(1))
    for size in (3, 17, 64, 500):
        other = run(p, threat, plan, batch_size=size, early_stop=early_stop)
        assert torch.equal(first.success, other.success)
        torch.testing.assert_close(first.adversarial, other.adversarial, rtol=0, atol=1e-9)
        mixed = attack(p.model, p.x[order], p.y[order], threat, plan, batch_size=size, early_stop=early_stop)
        torch.testing.assert_close(mixed.adversarial, first.adversarial[order], rtol=0, atol=1e-9)


def test_a_random_plan_with_a_misclassified_image_costs_one_look_at_it():
    p, threat = setting()
    result = run(p, threat, Restarts(PGD(steps=3), 5))
    assert bool((result.forward[~p.correct] == 1).all())
    assert bool((result.backward[~p.correct] == 0).all())


@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_a_plan_from_the_image_never_attacks_misclassified_images(batch_size):
    p, threat = setting()
    result = run(p, threat, Restarts(FGSM(), 3), batch_size=batch_size)
    assert bool((result.forward[~p.correct] == 1).all()), result.forward[~p.correct]


def test_a_cascades_later_stage_sees_survivors_only():
    p, threat = setting(factor=0.9)
    cheap = run(p, threat, FGSM())
    both = run(p, threat, Cascade(FGSM(), PGD(steps=5, step_size=0.4)))
    won = cheap.success
    assert 0 < int(won.sum()) < int(p.correct.sum())
    assert torch.equal(both.adversarial[won], cheap.adversarial[won])
    assert bool((both.backward[won] == 1).all())
    assert bool((both.forward[won] == 2).all())
    left = p.correct & ~both.success
    assert bool((both.backward[left] == 6).all())
    assert bool(both.success[won].all())
    assert bool((both.forward[~p.correct] == 1).all())
    every = run(p, threat, Cascade(FGSM(), PGD(steps=5, step_size=0.4)), early_stop=False)
    assert bool((every.backward[won] == 1).all()), "every step is taken, but a later stage has no work with the fooled"
    nothing_left = run(p, p.threat(Linf, 50), Cascade(FGSM(), PGD(), PGD()), early_stop=True)
    assert nothing_left.robust_accuracy <= run(p, p.threat(Linf, 50), FGSM()).robust_accuracy


@dataclass(frozen=True)
class Spy(Attack):
    """Notes which class each trial is aimed at; makes no progress."""

    steps: int = 1
    name: ClassVar[str] = "spy"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar = (Linf,)
    log: ClassVar[list] = []

    def init(self, q, x):
        return State(x=x)

    def step(self, q, s):
        self.log.extend(zip(q.example.tolist(), q.trial.tolist(), q.goal.aim.tolist(), strict=True))
        q.look(s.x)
        return s


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_targeted_aims_at_distinct_wrong_classes_by_falling_clean_logit(batch_size):
    p = problem((2, 3, 3), classes=6, dtype=F64)
    Spy.log.clear()
    run(p, Linf(0.1), Targeted(Spy(), k=3), batch_size=batch_size)
    with torch.no_grad():
        logits = p.model(p.x)
    seen = {}
    for example, trial, aim in Spy.log:
        assert (example, trial) not in seen
        seen[example, trial] = aim
    for example in range(len(p.x)):
        mine = [seen[e, t] for e, t in sorted(seen) if e == example]
        if not p.correct[example]:
            assert mine == []
            continue
        order = logits[example].argsort(descending=True).tolist()
        order.remove(int(p.y[example]))
        assert mine == order[:3]


def test_targeted_with_more_targets_than_wrong_classes():
    p = problem((6,), classes=3, dtype=F64)
    Spy.log.clear()
    run(p, Linf(0.1), Targeted(Spy()))
    each = [sum(e == example for e, _, _ in Spy.log) for example in range(len(p.x))]
    assert set(each) <= {0, 2}
    Spy.log.clear()
    run(p, Linf(0.1), Restarts(Targeted(Spy(), k=2), 3))
    first = [aim for e, t, aim in sorted(Spy.log) if e == Spy.log[0][0]]
    assert len(first) == 6
    assert first[:2] == first[2:4] == first[4:], "targets run within a restart"


def test_any_wrong_class_counts_for_targeted():
    p, threat = setting(factor=1.5)
    plain, aimed = run(p, threat, BIM(steps=5, step_size=0.5)), run(p, threat, Targeted(BIM(steps=5, step_size=0.5), 3))
    assert int(aimed.success.sum()) >= int(plain.success.sum())


def test_restarts_inside_cascade_and_targeted_agree_across_batches():
    p, threat = setting(factor=0.9)
    plan = Cascade(FGSM(), Restarts(Targeted(PGD(steps=2, step_size=0.7), 2), 2), BIM(steps=3))
    whole = run(p, threat, plan)
    for size in (1, 10):
        part = run(p, threat, plan, batch_size=size)
        assert torch.equal(part.success, whole.success)
        torch.testing.assert_close(part.adversarial, whole.adversarial, rtol=0, atol=1e-9)


def test_stages_draw_different_numbers():
    """The second PGD of a cascade is not a copy of the first."""
    p, threat = setting()
    draws = []

    @dataclass(frozen=True)
    class Draws(Attack):
        steps: int = 1
        name: ClassVar[str] = "draws"
        access: ClassVar[Access] = Access.DECISION
        norms: ClassVar = (Linf,)

        def init(self, q, x):
            draws.append(q.uniform()[0, 0, 0, 0].item())
            return State(x=x)

        def step(self, q, s):
            q.decide(s.x)
            return s

    one = replace(p, x=p.x[p.correct][:1], y=p.y[p.correct][:1])
    run(one, threat, Cascade(Draws(), Restarts(Draws(), 2)), batch_size=1)
    assert len(set(draws)) == 3


# ---- steps and states ---------------------------------------------------------------------------


def test_done_ends_a_row_early_and_k_is_counted_by_the_engine():
    seen = []

    @dataclass(frozen=True)
    class Short(Attack):
        steps: int = 9
        name: ClassVar[str] = "short"
        access: ClassVar[Access] = Access.GRADIENT
        norms: ClassVar = (Linf,)

        def init(self, q, x):
            return State(x=x, done=torch.zeros(len(x), dtype=torch.bool))

        def step(self, q, s):
            q.look(s.x)
            seen.append(s.k.max().item())
            return replace(s, done=s.k >= 2)

    p, threat = setting()
    for size in (3, None):
        seen.clear()
        result = run(p, threat, Short(), batch_size=size)
        assert bool((result.backward[p.correct] == 3).all())
        assert max(seen) == 2


def test_a_random_model_is_not_screened_by_one_draw_and_passes_are_counted():
    p = problem((8,), dtype=F64)

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = p.model

        def forward(self, x):
            return self.net(x) + 0.05 * torch.randn(len(x), 1, dtype=x.dtype) * torch.ones(4, dtype=x.dtype)

    model = Noisy()
    with counted(model) as seen:
        result = attack(model, p.x, p.y, p.threat(Linf), PGD(steps=3), draws=2)
    assert int(result.forward.sum()) == seen.forward
    assert int(result.backward.sum()) == seen.backward
    assert torch.equal(result.clean_correct, p.correct)


def test_a_model_with_a_generator_of_its_own_gets_no_lucky_draws():
    """Its randomness does not show in the global generators."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.draw = torch.Generator().manual_seed(0)

        def forward(self, x):
            z = torch.stack([1 + 1e-3 * x.sum(1), 0 * x.sum(1)], 1)
            unlucky = torch.rand(len(x), generator=self.draw) < 0.1
            return torch.where(unlucky[:, None], z.flip(1), z)

    x = torch.rand((40, 4), generator=torch.Generator().manual_seed(0))
    result = attack(Own(), x, torch.zeros(40, dtype=torch.int64), Linf(0.1), PGD(steps=8))
    assert not bool(result.success.any()), f"{int(result.success.sum())} lucky draws count as successes"


def test_a_long_search_does_not_turn_luck_into_success():
    """A draw in three is wrong, wherever one looks: no point fools it, though 11 of 20 draws are wrong at some."""

    class Fickle(nn.Module):
        def forward(self, x):
            z = torch.stack([1 + 1e-3 * x.sum(1), 0 * x.sum(1)], 1)
            return torch.where((torch.rand(len(x)) < 0.33)[:, None], z.flip(1), z)

    x = torch.rand((40, 4), generator=torch.Generator().manual_seed(0))
    result = attack(Fickle(), x, torch.zeros(40, dtype=torch.int64), Linf(0.1), PGD(steps=60), draws=2)
    assert int(result.success.sum()) <= 1, f"{int(result.success.sum())} lucky points count as successes"


class Coin(nn.Module):
    """Right on every image half of the time, wherever one looks."""

    def forward(self, x):
        z = torch.stack([1 + 1e-3 * x.sum(1), 0 * x.sum(1)], 1)
        return torch.where((torch.rand(len(x)) < 0.5)[:, None], z.flip(1), z)


@pytest.mark.parametrize("method", [PGD(steps=3), Targeted(APGD(steps=3), 1)])
def test_an_earlier_judgement_of_the_images_stands(method):
    x, y = torch.rand((40, 4), generator=torch.Generator().manual_seed(0)), torch.zeros(40, dtype=torch.int64)
    assert 5 < int(attack(Coin(), x, y, Linf(0.1), method, draws=2).clean_correct.sum()) < 35
    right = torch.arange(40) < 20
    result = attack(Coin(), x, y, Linf(0.1), method, draws=2, clean_correct=right)
    assert torch.equal(result.clean_correct, right)
    assert not bool(result.backward[~right].any())
    with pytest.raises(uf.errors.ParameterError, match="40 bools"):
        attack(Coin(), x, y, Linf(0.1), method, clean_correct=right[:3])


def test_luck_does_not_call_for_the_long_search():
    """The label's lead falls by chance at every further point of a random model: that promises nothing."""

    class Noisy(nn.Module):
        def forward(self, x):
            lead = 1 + 1e-3 * x.sum(1) + 0.1 * torch.randn(len(x), dtype=x.dtype)
            return torch.stack([lead, 0 * lead], 1)

    x, y = torch.rand((40, 4), generator=torch.Generator().manual_seed(0)), torch.zeros(40, dtype=torch.int64)
    result = attack(
        Noisy(), x, y, Linf(0.1), Cascade(PGD(steps=2), Escalate(Square(steps=20), Square(steps=30))), draws=2
    )
    assert [part.examples for part in result.parts] == [40, 40, 0]


# ---- surrogates, layouts ------------------------------------------------------------------------


def test_gradients_from_here_verdict_from_there():
    """The non-adaptive attack: FGSM's point is the formula with the surrogate's gradient."""
    draw = torch.Generator().manual_seed(0)
    w = torch.randn((3, 6), generator=draw, dtype=F64)
    victim, helper = Linear(w, torch.zeros(3, dtype=F64)), Linear(-w, torch.zeros(3, dtype=F64))
    x = 0.3 + 0.4 * torch.rand((12, 6), generator=draw, dtype=F64)
    y = victim(x).argmax(1)
    result = attack(victim, x, y, Linf(0.2), FGSM(), surrogate=helper, early_stop=False)
    z = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(helper(z), y, reduction="sum"), z)
    torch.testing.assert_close(result.adversarial, x + 0.2 * g.sign(), rtol=0, atol=1e-15)
    assert torch.equal(result.success, victim(result.adversarial).argmax(1) != y)
    assert bool(result.clean_correct.all()), "clean accuracy is the victim's"


def test_a_surrogate_of_another_dtype_and_with_wrong_clean_answers():
    p, other = problem((8,)), problem((8,), seed=5)
    result = attack(p.model, p.x, p.y, p.threat(Linf), BIM(steps=3), surrogate=other.model.double())
    assert torch.equal(result.clean_correct, p.correct)
    assert result.adversarial.dtype == torch.float32


def test_long_runs_count_what_hooks_see():
    """With `layout="auto"` a long run measures its layouts first; hooks on the caller's model must not see that."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    x = torch.rand(520, 2, 4, 4)
    y = model(x).argmax(1)
    before = snapshot(model)
    with counted(model) as seen:
        result = attack(model, x, y, Linf(1e-5), BIM(steps=100), early_stop=False)
    assert bool((result.backward == 100).all())
    assert int(result.forward.sum()) == seen.forward, (int(result.forward.sum()), seen.forward)
    assert int(result.backward.sum()) == seen.backward
    assert_same(before, snapshot(model))


@pytest.mark.parametrize(
    ("method", "radius"), [("pgd:steps=5,step_size=0.4", 1.0), ("square:steps=60", 1.5), ("hopskipjump:steps=150", 3.0)]
)
def test_layouts_agree(method, radius):
    """Whatever scores and gradients come from, the victim has confirmed what counts, and every pass is counted."""
    p = problem((3, 6, 6), count=100)
    threat = p.threat(Linf, radius)
    same = run(p, threat, method, compute=Compute(layout="same"))
    seen = []
    p.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    with counted(p.model) as passes:
        last = run(p, threat, method, compute=Compute(layout="channels-last"))
    assert float((same.success == last.success).double().mean()) >= 0.98
    assert int(last.success.sum()) > 10
    assert True in seen
    assert False in seen, "the other layout was not used"
    assert int(last.forward.sum()) == passes.forward
    assert bool((p.model(last.adversarial).argmax(1) != p.y)[last.success].all())


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_layout_that_was_asked_for_is_used(early_stop):
    seen = []

    class Sees(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(16, 3)

        def forward(self, x):
            seen.append((torch.is_grad_enabled(), x.is_contiguous(memory_format=torch.channels_last)))
            return self.head(self.conv(x).flatten(1))

    torch.manual_seed(0)
    model, x = Sees(), torch.rand(12, 3, 4, 4)
    y = model(x).argmax(1)
    seen.clear()
    attack(model, x, y, Linf(0.01), BIM(steps=3), compute=Compute(layout="channels-last"), early_stop=early_stop)
    assert {last for grad, last in seen if grad} == {True}, "gradients were not taken in channels-last"
    assert {last for grad, last in seen if not grad} == {False}, "the verdict is the model's as handed in"


# ---- float32, inside other contexts, restoring --------------------------------------------------


def test_float32_agrees_on_nearly_all_examples_whatever_the_batch():
    p = problem((2, 4, 4), count=1000)
    threat = p.threat(Linf)
    method = PGD(steps=6, step_size=0.4)
    results = [run(p, threat, method, batch_size=size).success for size in (37, 512)]
    assert float((results[0] == results[1]).double().mean()) >= 0.995
    wide = attack(p.model.double(), p.x.double(), p.y, threat, method).success
    assert float((results[0] == wide).double().mean()) >= 0.995


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_inside_other_grad_modes(context):
    p, threat = setting()
    want = run(p, threat, PGD(steps=3))
    with context():
        got = run(p, threat, PGD(steps=3))
    assert torch.equal(got.adversarial, want.adversarial)
    x = p.x.clone().requires_grad_(True)
    got = attack(p.model, x, p.y, threat, PGD(steps=3))
    assert torch.equal(got.adversarial, want.adversarial)
    assert not got.adversarial.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("in_place", [True, False])
def test_buffers_that_a_forward_pass_changes_are_restored(in_place):
    """BatchNorm's statistics change in place, and some models let them in eval mode too; others make new tensors."""

    class Counts(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(2, dtype=F64))
            self.register_buffer("var", torch.ones(2, dtype=F64))

        def forward(self, x):
            if in_place:
                self.calls += 1
                nn.functional.batch_norm(x, self.mean, self.var, training=True)
            else:
                self.calls = self.calls + 1
            return self.net(x)

    p, threat = setting()
    model = Counts(p.model)
    before = snapshot(model)
    attack(model, p.x, p.y, threat, FGSM())
    assert_same(before, snapshot(model))


def test_shared_parameters_of_victim_and_surrogate_are_restored():
    p, threat = setting()
    helper = nn.Sequential(p.model)
    before = snapshot(p.model)
    run(p, threat, FGSM(), surrogate=helper)
    assert_same(before, snapshot(p.model))
    assert all(q.requires_grad for q in p.model.parameters())


def test_custom_train_methods_are_respected():
    """A module that keeps its BatchNorm frozen in train(): flags come back one by one."""

    class Frozen(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def train(self, mode=True):
            super().train(mode)
            self.net.body[1].eval()
            return self

        def forward(self, x):
            return self.net(x)

    p, threat = setting()
    model = Frozen(p.model).train()
    before = snapshot(model)
    attack(model, p.x, p.y, threat, FGSM())
    assert_same(before, snapshot(model))


def test_dropout_in_train_mode_is_off_during_the_attack():
    p, threat = setting()
    want = run(p, threat, PGD(steps=3))
    p.model.train()
    got = run(p, threat, PGD(steps=3))
    assert torch.equal(want.adversarial, got.adversarial)
    assert p.model.training


# ---- results, sweeps of eps, perturb ------------------------------------------------------------


def test_result_says_what_was_done():
    p, threat = setting()
    result = run(p, threat, Restarts(PGD(steps=2), 2))
    assert isinstance(result, Result)
    assert result.threat == threat
    assert uf.attacks.parse(result.method) == Restarts(PGD(steps=2), 2)
    assert result.notes == ()
    assert result.clean_accuracy == float(p.correct.double().mean())
    assert result.success.dtype == result.clean_correct.dtype == torch.bool


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_success_grows_with_eps(kind):
    p, _ = setting(count=40)
    rates = [run(p, p.threat(kind, f), BIM(steps=8, step_size=0.3)).robust_accuracy for f in (0.1, 0.7, 1.5, 5, 100)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.5
    assert rates[-1] <= 0.2


def test_iterating_is_no_weaker_than_one_step():
    p, threat = setting(count=40)
    one, many = run(p, threat, FGSM()), run(p, threat, BIM(steps=20, step_size=0.2))
    assert int(many.success.sum()) >= int(one.success.sum())


def test_mask_of_one_component():
    p, _ = setting()
    mask = torch.zeros((2, 3, 3), dtype=torch.bool)
    mask[1, 2, 2] = True
    result = run(p, Linf(1.0, mask=mask), PGD(steps=4, step_size=0.5), early_stop=False)
    moved = (result.adversarial != p.x).flatten(1).sum(1)
    assert int(moved.max()) <= 1
    assert bool((moved[p.correct] == 1).any())


@pytest.mark.parametrize("method", [FGSM(), BIM(steps=3), PGD(steps=3)], ids=str)
@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_perturb_is_the_bare_loop(method, kind):
    p, _ = setting()
    threat = p.threat(kind)
    p.model.train()
    modes = [m.training for m in p.model.modules()]
    z = perturb(p.model, p.x, p.y, threat, method, seed=3)
    assert z.shape == p.x.shape
    assert not z.requires_grad
    assert bool(threat.contains(z, p.x).all())
    assert [m.training for m in p.model.modules()] == modes
    assert all(q.grad is None and q.requires_grad for q in p.model.parameters())
    p.model.eval()
    again = perturb(p.model, p.x, p.y, threat, method, seed=3)
    assert torch.equal(again, perturb(p.model, p.x, p.y, threat, method, seed=3))
    if isinstance(method, PGD):
        assert not torch.equal(again, perturb(p.model, p.x, p.y, threat, method, seed=4))


def test_perturb_goes_the_way_of_attack_where_ids_agree():
    p, threat = setting(factor=0.3)
    result = run(p, threat, PGD(steps=4), ids=range(24), early_stop=False)
    z = perturb(p.model, p.x, p.y, threat, PGD(steps=4))
    lost = p.correct & ~result.success
    assert int(lost.sum()) > 3
    torch.testing.assert_close(z[lost], result.adversarial[lost], rtol=0, atol=1e-9)


def test_public_names_of_the_core():
    assert uf.attack is attack
    assert uf.Linf is Linf
    assert issubclass(uf.L1, uf.Threat)
    assert uf.Threat.parse("linf:8/255") == uf.Linf(8 / 255)
    assert uf.Threat is Threat
    assert uf.attacks.FGSM() == FGSM()
    assert issubclass(uf.errors.DataError, uf.errors.UnfooledError)
    assert L1 is uf.L1
