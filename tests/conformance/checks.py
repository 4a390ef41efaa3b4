"""What every attack must keep, as functions of (attack, kind of threat) that raise where it does not."""

import contextlib
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import Linear, Wrapped, assert_inside, assert_same, counted, problem, snapshot
from unfooled.engine import attack
from unfooled.errors import DataError, ModelError, ParameterError
from unfooled.goals import Goal
from unfooled.models import Compute
from unfooled.oracle import QUERIES, Access, GradientQuery, Oracle, Query, ScoreQuery
from unfooled.threats import L0

F64 = torch.float64


def run(method, p, threat, **more):
    return attack(p.model, p.x, p.y, threat, method, **more)


def answers(model, x):
    with torch.no_grad():
        return model(x)


@contextlib.contextmanager
def draws_recorded():
    """The random numbers that the attack asks for while this lasts."""
    asked, kept = [], (Query.uniform, Query.normal)

    def spy(method):
        def spied(self, *args, **more):
            asked.append(method(self, *args, **more))
            return asked[-1]

        return spied

    Query.uniform, Query.normal = map(spy, kept)
    try:
        yield asked
    finally:
        Query.uniform, Query.normal = kept


def assert_bookkeeping(p, threat, result, correct=None):
    """All that a result says of itself, by own formulas."""
    correct = p.correct if correct is None else correct
    x, adv = p.x, result.adversarial
    assert_inside(threat, adv, x)
    assert torch.equal(result.clean_correct, correct), "clean_correct is not what the model says"
    assert torch.equal(adv[~correct], x[~correct]), "a misclassified image has changed"
    assert bool((result.distance[~correct] == 0).all()), "distance of a misclassified image"
    assert not bool(result.success[~correct].any()), "a misclassified image counts as a success"
    lost = correct & ~result.success
    assert bool(torch.isinf(result.distance[lost]).all()), "distance of an image that was not fooled"
    won = result.success
    size = threat.size(adv.double() - x.double())[won].clamp(max=threat.eps)
    torch.testing.assert_close(result.distance[won], size, rtol=1e-6, atol=1e-12)
    assert bool((result.distance[won] <= threat.eps).all())
    assert (result.distance > threat.eps).double().mean().item() == result.robust_accuracy
    assert result.robust_accuracy == (correct & ~won).double().mean().item()
    assert result.distance.dtype == F64
    for counter in (result.forward, result.backward):
        assert counter.dtype == torch.int64
        assert counter.shape == (len(x),)


def assert_fooled(p, result, targets=None):
    """Every success is one on a forward pass of our own."""
    at = result.success
    answer = answers(p.model, result.adversarial)
    answer = answer.argmax(1)[at]
    assert bool((answer != p.y[at]).all() if targets is None else (answer == targets[at]).all()), "not fooled"


# ---- per attack and norm ------------------------------------------------------------------------


def inside_and_true(method, kind):
    """Inside the set, finite, real successes, sound numbers; float32 and float64."""
    for dtype in (torch.float32, F64):
        p = problem((2, 3, 3), dtype=dtype)
        threat = p.threat(kind, 1.5)
        result = run(method, p, threat)
        assert not [n for n in result.notes if "outside" in n], result.notes
        assert_bookkeeping(p, threat, result)
        assert_fooled(p, result)
        lost = result.clean_correct & ~result.success
        final = answers(p.model, result.adversarial).argmax(1)
        if not method.minimal:
            assert bool((final == p.y)[lost].all()), "the final point fools and is not counted"


def masked(method, kind):
    """Only unmasked components move."""
    p = problem((2, 3, 3), dtype=F64)
    mask = torch.rand((1, 3, 3), generator=torch.Generator().manual_seed(1)) < 0.6
    threat = p.threat(kind, 3, mask)
    result = run(method, p, threat)
    assert_bookkeeping(p, threat, result)
    assert_fooled(p, result)


def effective(method, kind):
    """On a linear model, with four times the change that is needed, it fools with its own default options."""
    draw = torch.Generator().manual_seed(3)
    x = 0.2 + 0.6 * torch.rand((24, 16), generator=draw, dtype=F64)
    w = torch.randn((2, 16), generator=draw, dtype=F64)
    w = w.sign() * (0.5 + w.abs())
    w[1] = -w[0]
    model = Linear(w, -(w @ x.T).mean(1))
    y = answers(model, x).argmax(1)
    margin = (answers(model, x) @ torch.tensor([1.0, -1.0], dtype=F64)).abs()
    diff = (w[0] - w[1]).abs()
    reach = diff.sort(descending=True).values * 0.2  # a component can move by 0.2 at least, either way
    keep = margin < 0.8 * reach.sum()
    x, y, margin = x[keep], y[keep], margin[keep]
    components = (reach.cumsum(0) < margin[:, None]).sum(1) + 1
    needed = {
        "Linf": margin / diff.sum(),
        "L2": margin / (diff * diff).sum().sqrt(),
        "L1": 0.2 * components,
        "L0": components,
    }[kind.__name__]
    eps = 4 * float(needed.double().median())
    result = attack(model, x, y, kind(round(eps) if kind is L0 else eps), method)
    easy = needed <= eps / 4
    rate = float(result.success[easy].double().mean())
    assert rate >= 0.9, f"fools {rate:.0%} of {int(easy.sum())} images at four times the change needed"


def reproducible(method, kind):
    """The same by seed; another by another seed, if it draws random numbers."""
    p = problem((8,), dtype=F64, count=12)
    threat = p.threat(kind, 0.5)
    with draws_recorded() as asked:
        first = run(method, p, threat, seed=1)
    again = run(method, p, threat, seed=1)
    assert torch.equal(first.adversarial, again.adversarial)
    assert torch.equal(first.distance, again.distance)
    assert torch.equal(first.forward, again.forward)
    assert torch.equal(first.backward, again.backward)
    torch.manual_seed(99)
    assert torch.equal(first.adversarial, run(method, p, threat, seed=1).adversarial), "the global seed matters"
    with draws_recorded() as others:
        other = run(method, p, threat, seed=2)
    if asked:
        assert not torch.equal(asked[0], others[0]), "the seed does not matter"
    else:
        assert torch.equal(first.adversarial, other.adversarial), "random numbers from elsewhere"


def batch_invariant(method, kind):
    """Batch sizes 1, 7, 64 and any order agree in float64 to 1e-9."""
    p = problem((2, 3, 3), dtype=F64)
    threat = p.threat(kind)
    for early_stop in (True, False):
        whole = run(method, p, threat, batch_size=64, early_stop=early_stop)
        order = torch.randperm(len(p.x), generator=torch.Generator().manual_seed(5))
        for size, index in ((1, None), (7, None), (7, order)):
            index = torch.arange(len(p.x)) if index is None else index
            part = attack(p.model, p.x[index], p.y[index], threat, method, batch_size=size, early_stop=early_stop)
            assert torch.equal(part.success, whole.success[index])
            torch.testing.assert_close(part.adversarial, whole.adversarial[index], rtol=0, atol=1e-9)
            torch.testing.assert_close(part.distance, whole.distance[index], rtol=0, atol=1e-9)
            assert torch.equal(part.forward, whole.forward[index]), "passes depend on the batch"


def passes_counted(method, kind):
    """The counted passes are those that hooks on the model see."""
    p = problem((8,))
    for threat, more in ((p.threat(kind), {}), (p.threat(kind), {"early_stop": False, "batch_size": 5})):
        with counted(p.model) as seen:
            result = run(method, p, threat, **more)
        assert int(result.forward.sum()) == seen.forward, (int(result.forward.sum()), seen.forward)
        assert int(result.backward.sum()) == seen.backward, (int(result.backward.sum()), seen.backward)
        assert bool((result.forward >= 1).all()), "every image must be judged"


def every_step(method, kind):
    """Without early stop, every step is taken (one look each); with it, never more."""
    p = problem((8,), dtype=F64)
    threat = p.threat(kind)
    full = run(method, p, threat, early_stop=False)
    stopped = run(method, p, threat)
    assert bool((stopped.forward <= full.forward).all())
    correct = p.correct
    assert bool((full.backward[~correct] <= 1).all())
    assert bool((full.forward[~correct] == 1).all()), "more than one pass for a misclassified image"
    if method.access == Access.GRADIENT and not method.minimal:
        assert bool((full.backward[correct] >= method.steps).all())
        extra = full.forward[correct] - full.backward[correct]
        assert bool(((extra == 1) | (extra == 2)).all()), "a confirming pass, and a clean one where needed"


def target_reached(method, kind):
    """With targets, a success is that class; the target matters."""
    p = problem((8,), dtype=F64)
    threat = p.threat(kind, 4)
    targets = (p.y + 1) % 4
    result = run(method, p, threat, targets=targets)
    assert_bookkeeping(p, threat, result)
    assert_fooled(p, result, targets)
    if method.access == Access.DECISION:
        return  # five decisions say nothing of how likely a class is
    ends = [run(method, p, threat, targets=(p.y + t) % 4, early_stop=False).adversarial for t in (1, 2)]
    near, far = (answers(p.model, z).log_softmax(1).gather(1, targets[:, None])[:, 0] for z in ends)
    rate = float((near > far)[p.correct].double().mean())
    assert rate >= 0.6, f"the target is more likely for {rate:.0%} of the images than with another target"


# ---- per attack, in one norm --------------------------------------------------------------------


def access_respected(method, kind):
    """The query lacks what the access does not allow, and `init` makes no pass."""
    query = QUERIES[method.access]
    assert hasattr(query, "decide")
    assert hasattr(query, "scores") == (method.access >= Access.SCORE)
    assert hasattr(query, "look") == hasattr(query, "jacobian") == (method.access >= Access.GRADIENT)
    assert not hasattr(QUERIES[Access.DECISION], "scores")
    assert not hasattr(ScoreQuery, "look")
    assert hasattr(GradientQuery, "scores")
    p = problem((8,))
    threat = p.threat(kind)
    with counted(p.model) as seen:
        result = run(method, p, threat, budget=None)
    if method.access < Access.GRADIENT:
        assert seen.backward == 0
        assert int(result.backward.sum()) == 0
    oracle, rows = Oracle(Linear(torch.ones(4, 8), torch.zeros(4)), None, torch.arange(24)), torch.arange(24)
    q = query(
        x=p.x, goal=Goal(p.y), threat=p.threat(kind), ids=rows, trial=rows * 0, restart=rows * 0, seed=0,
        oracle=oracle, example=rows, seen=lambda _: None,
    )  # fmt: skip
    state = method.init(q, p.x)
    assert int(oracle.forward.sum()) + int(oracle.backward.sum()) == 0, "init makes a pass"
    assert state.x.shape == p.x.shape


class Fails(nn.Module):
    """Raises in the middle of its n-th forward pass."""

    def __init__(self, net, at):
        super().__init__()
        self.net, self.left = net, at

    def forward(self, x):
        h = self.net.body(x)
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("planted")
        return self.net.head(torch.tanh(h) + 0 * torch.rand(1, dtype=x.dtype))


def model_restored(method, kind):
    """Modes, requires_grad, .grad, statistics and the caller's generators, also after an exception."""
    for fails_at in (None, 1, 2):
        p = problem((2, 3, 3))
        threat = p.threat(kind)
        p.model.train()
        p.model.body[1].eval()
        p.model.drop.p = 0.0
        p.model.head.bias.requires_grad_(False)
        p.model.head.weight.grad = torch.full_like(p.model.head.weight, 0.25)
        model = p.model if fails_at is None else Fails(p.model, fails_at)
        torch.manual_seed(5)
        random.seed(6)
        np.random.seed(7)
        before = snapshot(model)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        grad_mode = torch.is_grad_enabled()
        raised = None
        try:
            attack(model, p.x, p.y, threat, method)
        except Exception as error:
            raised = error
        assert (raised is None) == (fails_at is None), f"expected the planted error, got {raised!r}"
        assert raised is None or "planted" in str(raised), raised
        assert_same(before, snapshot(model))
        assert torch.equal(states[0], torch.get_rng_state()), "torch's generator has moved"
        assert states[1] == random.getstate(), "random's generator has moved"
        assert states[2] == np.random.get_state()[1].tolist(), "numpy's generator has moved"
        assert torch.is_grad_enabled() == grad_mode
    with torch.no_grad():
        p = problem((8,))
        result = run(method, p, kind(2))
        assert not torch.is_grad_enabled()
        assert not result.adversarial.requires_grad


def shapes(method, kind):
    """(N, D), (N, C, T), (N, C, H, W)."""
    for shape in ((6,), (2, 5), (3, 4, 3), (1, 2, 2)):
        p = problem(shape, count=10)
        threat = p.threat(kind, 1.5)
        result = run(method, p, threat)
        assert_bookkeeping(p, threat, result)
        assert_fooled(p, result)


def class_counts(method, kind):
    """2 and 3 classes, one-logit models of two shapes."""
    for classes in (2, 3):
        for dtype in (torch.float32, F64):
            p = problem((6,), classes, dtype, count=12)
            threat = p.threat(kind, 1.5)
            result = run(method, p, threat)
            assert_bookkeeping(p, threat, result)
            assert_fooled(p, result)
    p = problem((6,), 2, F64, count=12)
    threat = p.threat(kind, 1.5)
    pair = Wrapped(p.model, lambda z: torch.stack([0 * z[:, 0], z[:, 1] - z[:, 0]], 1))
    reference = attack(pair, p.x, p.y, threat, method)
    for change in (lambda z: z[:, 1] - z[:, 0], lambda z: (z[:, 1] - z[:, 0])[:, None]):
        result = attack(Wrapped(p.model, change), p.x, p.y, threat, method)
        assert torch.equal(result.success, reference.success)
        torch.testing.assert_close(result.adversarial, reference.adversarial, rtol=0, atol=1e-12)
    assert_bookkeeping(p, threat, reference)


def outputs(method, kind):
    """Logits in tuples and mappings; a plain callable."""
    p = problem((6,), count=12, dtype=F64)
    threat = p.threat(kind)
    reference = run(method, p, threat)
    for model in (
        Wrapped(p.model, lambda z: (z, None, {"hidden": z})),
        Wrapped(p.model, lambda z: {"loss": torch.tensor(0.0), "logits": z, "other": -z}),
        Wrapped(p.model, lambda z: {"scores": z, "name": "x"}),
        lambda x: p.model(x),
    ):
        result = attack(model, p.x, p.y, threat, method)
        assert torch.equal(result.success, reference.success)
        assert torch.equal(result.adversarial, reference.adversarial)


def bounds(method, kind):
    """Boxes other than [0, 1], one for each channel too."""
    low = torch.tensor([0.0, -1.0, 3.0]).view(3, 1, 1)
    high = torch.tensor([1.0, 1.0, 255.0]).view(3, 1, 1)
    for box in ((-1.0, 1.0), (0.0, 255.0), (low, high)):
        for factor in (1.5, 20):
            p = problem((3, 2, 2), bounds=box, count=12)
            threat = p.threat(kind, factor)
            result = run(method, p, threat)
            assert_bookkeeping(p, threat, result)
            assert_fooled(p, result)


def tiny_eps(method, kind):
    """An eps about the size of float32's rounding."""
    if kind is L0:
        return
    for eps in (1e-6, 1e-4):
        p = problem((2, 3, 3))
        threat = kind(eps)
        result = run(method, p, threat)
        assert_bookkeeping(p, threat, result)
        assert not [n for n in result.notes if "outside" in n], "valid results are refused"


def odd_counts(method, kind):
    """All images wrong; one image; none."""
    p = problem((6,), count=8)
    threat = p.threat(kind)
    p.y = (answers(p.model, p.x).argmax(1) + 1) % 4
    result = run(method, p, threat)
    assert_bookkeeping(p, threat, result)
    assert result.robust_accuracy == 0
    p = problem((6,), count=8)
    for at in (0, 1):
        one = replace(p, x=p.x[at : at + 1], y=p.y[at : at + 1])
        assert_bookkeeping(one, threat, run(method, one, threat))
    # an empty batch: a DataError, or a result of no rows
    empty = replace(p, x=p.x[:0], y=p.y[:0])
    with contextlib.suppress(DataError):
        assert len(run(method, empty, threat).adversarial) == 0


def non_finite(method, kind):
    """NaN or inf in the logits is an error that names the example, at the image or on the way."""
    for value in (float("nan"), float("inf")):
        p = problem((6,), count=9)
        threat = p.threat(kind)
        bad = p.x[5].clone()

        def spoil(x, bad=bad, value=value, p=p):
            z = p.model(x)
            return torch.where((x == bad).all(1)[:, None], value, z)

        for size in (2, 64):
            with pytest.raises(ModelError, match="example 5") as caught:
                attack(spoil, p.x, p.y, threat, method, batch_size=size)
            assert "\n" not in str(caught.value)

    p = problem((6,), count=9)
    start = p.x.clone()

    def later(x):
        known = (x[:, None] == start[None]).all(2).any(1)
        return torch.where(known[:, None], p.model(x), torch.nan)

    one = int(p.correct.nonzero()[2])
    p.y[torch.arange(9) != one] = (answers(p.model, p.x).argmax(1)[torch.arange(9) != one] + 1) % 4
    with pytest.raises(ModelError, match=f"example {one}"):
        attack(later, p.x, p.y, p.threat(kind) if kind is not L0 else L0(2), method)


def lucky_draws(method, kind):
    """A model that answers wrong now and then, whatever the image, is not fooled by that."""

    class Now(nn.Module):
        def __init__(self, share):
            super().__init__()
            self.share = share

        def forward(self, x):
            z = torch.stack([1 + 1e-3 * x.sum(1), 0 * x.sum(1)], 1)
            return torch.where((torch.rand(len(x)) < self.share)[:, None], z.flip(1), z)

    x = torch.rand((40, 4), generator=torch.Generator().manual_seed(0))
    y = torch.zeros(40, dtype=torch.int64)
    threat = kind(1 if kind is L0 else 0.1)
    seldom = attack(Now(0.1), x, y, threat, method)
    assert bool(seldom.clean_correct.all()), "an unlucky draw counts as a wrong clean answer"
    assert not bool(seldom.success.any()), f"{int(seldom.success.sum())} lucky draws count as successes"
    often = attack(Now(0.9), x, y, threat, method)
    assert not bool(often.clean_correct.any()), "a lucky draw counts as a right clean answer"


def random_model(method, kind):
    """With dropout at work, what counts as fooled is so more often than not; the same by seed."""
    p = problem((8,), count=16, dtype=F64)
    noisy = nn.Sequential(p.model.body, nn.Tanh(), Always(), p.model.head)
    threat = p.threat(kind, 1.5)
    first = attack(noisy, p.x, p.y, threat, method)
    assert torch.equal(first.adversarial, attack(noisy, p.x, p.y, threat, method).adversarial)
    many = torch.stack([answers(noisy, first.adversarial).argmax(1) != p.y for _ in range(200)]).double().mean(0)
    assert bool((many[first.success] > 0.3).all()), many[first.success]
    averaged = attack(noisy, p.x, p.y, threat, method, draws=3)
    many = torch.stack([answers(noisy, averaged.adversarial).argmax(1) != p.y for _ in range(200)]).double().mean(0)
    assert bool((many[averaged.success] > 0.3).all())


class Always(nn.Module):
    """Dropout that eval() does not turn off."""

    def forward(self, x):
        return F.dropout(x, 0.15, training=True)


def budget_kept(method, kind):
    """Passes per image never exceed the budget, of a model that is not random."""
    p = problem((8,), count=12)
    threat = p.threat(kind)
    for budget in (4, 5, 9, 30):
        for more in ({}, {"early_stop": False}, {"surrogate": p.model}):
            with contextlib.nullcontext() if budget == 30 else contextlib.suppress(ParameterError):
                result = run(method, p, threat, budget=budget, **more)
                assert int((result.forward + result.backward).max()) <= budget, (budget, more)


def ids_decide(method, kind):
    """Random numbers belong to the ids; without ids, to image and label."""
    p = problem((8,), count=8, dtype=F64)
    threat = p.threat(kind, 0.5)
    twice = attack(p.model, p.x[[1, 1, 2]], p.y[[1, 1, 2]], threat, method)
    assert torch.equal(twice.adversarial[0], twice.adversarial[1])
    with draws_recorded() as asked:
        told = attack(p.model, p.x[[1, 1, 1]], p.y[[1, 1, 1]], threat, method, ids=[4, 5, 4])
    assert torch.equal(told.adversarial[0], told.adversarial[2])
    if asked:
        drawn = next(draw for draw in asked if len(draw) == 3)
        assert torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[1])
    else:
        assert torch.equal(told.adversarial[0], told.adversarial[1])


def surrogate_used(method, kind):
    """Gradients come from the surrogate alone, the verdict from the victim."""
    p, other = problem((8,), dtype=F64), problem((8,), dtype=F64, seed=7)
    threat = p.threat(kind, 1.5)
    helper = nn.Sequential(other.model)
    with counted(p.model) as victim, counted(helper) as surrogate:
        result = run(method, p, threat, surrogate=helper)
    assert victim.backward == 0
    assert int(result.forward.sum()) == victim.forward + surrogate.forward
    assert int(result.backward.sum()) == surrogate.backward
    if method.access == Access.GRADIENT:
        assert surrogate.backward > 0
    assert_bookkeeping(p, threat, result)
    assert_fooled(p, result)
    before = snapshot(helper)
    helper.train()
    run(method, p, threat, surrogate=helper)
    assert helper.training
    assert_same({**before, "training": []}, {**snapshot(helper), "training": []})


def half_precision(method, kind):
    """A half-precision model: float32 images and points, a verdict by the model itself."""
    for dtype in (torch.float16, torch.bfloat16):
        p = problem((2, 3, 3), count=10)
        threat = p.threat(kind, 1.5)
        p.model.to(dtype)
        result = run(method, p, threat)
        p.model = Cast(p.model, dtype)
        assert result.adversarial.dtype == torch.float32
        assert_bookkeeping(p, threat, result)
        assert_fooled(p, result)


class Cast(nn.Module):
    """Feeds a net in its own dtype."""

    def __init__(self, net, dtype):
        super().__init__()
        self.net, self.to_dtype = net, dtype

    def forward(self, x):
        return self.net(x.to(self.to_dtype)).float()


def layouts(method, kind):
    """Gradients from a channels-last copy: the same answer, the same accounting."""
    p = problem((2, 3, 3), dtype=torch.float32)
    threat = p.threat(kind)
    for layout in ("same", "channels-last"):
        with counted(p.model) as seen:
            result = run(method, p, threat, compute=Compute(layout=layout))
        assert int(result.forward.sum()) == seen.forward
        assert int(result.backward.sum()) == seen.backward
        assert_bookkeeping(p, threat, result)
        assert_fooled(p, result)


PER_NORM = (
    inside_and_true,
    masked,
    effective,
    reproducible,
    batch_invariant,
    passes_counted,
    every_step,
    target_reached,
)
PER_ATTACK = (
    access_respected,
    model_restored,
    shapes,
    class_counts,
    outputs,
    bounds,
    tiny_eps,
    odd_counts,
    non_finite,
    lucky_draws,
    random_model,
    budget_kept,
    ids_decide,
    surrogate_used,
    half_precision,
    layouts,
)
