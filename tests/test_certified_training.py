"""Certified training: boxes, the backward pass over them, objectives, and that bounds get small."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from unfooled.certificates import certify, margins
from unfooled.errors import ParameterError
from unfooled.goals import Goal
from unfooled.training import Recipe, backward, initial, schedules, train
from unfooled.training.batch import Batch
from unfooled.training.boxes import Boxes
from unfooled.training.certified import boxes_of, crown_ibp, ibp, mtl_ibp, regularised, sabr

THREAT = uf.Linf(0.05)


class Residual(nn.Module):
    """Sums, products, concatenation and shapes in functional spellings."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(8 * 9, 3)

    def forward(self, x):
        x = (x - 0.5) / 0.25
        y = F.leaky_relu(self.one(x), 0.2)
        z = torch.tanh(self.two(y)) + y
        z = 1 - torch.cat([z, 2 * z], 1)
        z = F.adaptive_avg_pool2d(F.max_pool2d(-z, 2), 3)
        return self.last(torch.flatten(z, 1)) * torch.tensor([1.0, -2.0, 0.5])


def plain(norm=nn.BatchNorm2d):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2), norm(4), nn.ReLU(), nn.AvgPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip


def statistics(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)  # also below 0
    return model


MODELS = {"plain": lambda: statistics(plain()), "residual": Residual}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


@pytest.fixture
def images():
    return torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def around(images, threat=THREAT):
    return boxes_of(images, threat, images)


def points(images, count=300):
    """Points of the set round each image, corners among them: (count, N, …)."""
    generator = torch.Generator().manual_seed(2)
    step = 2 * torch.rand(count, *images.shape, generator=generator) - 1
    step[: count // 2] = step[: count // 2].sign()
    return (images + THREAT.eps * step).clamp(0, 1)


def test_boxes_hold_what_comes_out(model, images):
    with torch.no_grad():
        seen = model(around(images))
        torch.testing.assert_close(seen.value, model(images))
        for z in points(images):
            out = model(z)
            assert ((out >= seen.low - 1e-5) & (out <= seen.high + 1e-5)).all()


def test_margins_are_those_of_the_certificates(model, images):
    """Two implementations that share nothing."""
    labels = torch.tensor([0, 1, 2, 0, 1])
    others = torch.arange(3) != labels[:, None]
    with torch.no_grad():
        seen = model(around(images))
    ours = seen.margins(labels)
    theirs = margins(model, images, labels, THREAT, "ibp")
    if isinstance(model, nn.Sequential):  # the other one ends with a product: its last layer is not merged here
        torch.testing.assert_close(ours[others].double(), theirs[others], rtol=1e-4, atol=1e-4)
    assert (ours[others].double() <= theirs[others] + 1e-4).all()


def test_the_backward_pass_is_a_bound_and_tighter(model, images):
    labels = torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        seen = model(around(images))
        lower = backward.margins(seen, labels)
        least = torch.full_like(lower, math.inf)
        for z in points(images):
            out = model(z)
            least = torch.minimum(least, out.gather(1, labels[:, None]) - out)
    others = torch.arange(3) != labels[:, None]
    assert (lower <= least + 1e-5)[others].all()
    assert lower[others].mean() > seen.margins(labels)[others].mean()


def test_of_a_linear_model_the_backward_pass_is_exact(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 3))
    labels = torch.tensor([0, 1, 2, 0, 1])
    box = around(images)
    lower = backward.margins(model(box), labels)
    z = images.clone().requires_grad_(True)
    for k in range(3):
        out = model(z)
        (slope,) = torch.autograd.grad((out.gather(1, labels[:, None])[:, 0] - out[:, k]).sum(), z)
        at = torch.where(slope > 0, box.low, box.high)
        out = model(at)
        exact = out.gather(1, labels[:, None])[:, 0] - out[:, k]
        torch.testing.assert_close(lower[:, k], exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", [ibp, crown_ibp, mtl_ibp, sabr])
def test_gradients_are_those_of_the_loss(objective, images):
    """By differences, in float64, halfway on the way to eps, so that every term counts."""
    torch.manual_seed(0)
    model = statistics(plain()).double()
    model[4].p = 0.0
    batch = Batch(
        model, model, images.double(), Goal(torch.tensor([0, 1, 2, 0, 1])), torch.arange(5), 0, THREAT,
        uf.attacks.PGD(steps=2), warm=0.5,
    )  # fmt: skip
    loss = objective(batch)
    value, _ = loss()
    value.backward()
    for parameter in (model[0].weight, model[1].bias, model[8].weight):
        flat = parameter.data.view(-1)
        slope, step = parameter.grad.view(-1)[1], 1e-6
        flat[1] += step
        above = loss()[0].item()
        flat[1] -= 2 * step
        below = loss()[0].item()
        flat[1] += step
        assert (above - below) / (2 * step) == pytest.approx(slope.item(), rel=1e-4, abs=1e-7)


def test_batch_norm_learns_from_the_images_alone(images):
    torch.manual_seed(0)
    one, two = plain(), plain()
    two.load_state_dict(one.state_dict())
    one.train()(images)
    two.train()(around(images, uf.Linf(0.3)))
    torch.testing.assert_close(one[1].running_mean, two[1].running_mean)
    torch.testing.assert_close(one[1].running_var, two[1].running_var)


def test_dropout_drops_the_same_of_all():
    box = around(torch.rand(4, 50))
    seen = nn.Dropout(0.5)(box)
    gone = seen.value == 0
    assert 0.2 < gone.double().mean() < 0.8
    assert (seen.high[gone] == 0).all()
    assert (seen.radius[~gone] > 0).all()


def batch_of(model, images, attack=None, warm=1.0, threat=THREAT):
    labels = torch.arange(len(images)) % 3
    return Batch(model, model, images, Goal(labels), torch.arange(len(images)), 0, threat, attack, warm=warm)


def test_the_small_box_of_sabr_stays_inside(images):
    """Round the point that the attack found, and within eps of the image."""
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain()

        def forward(self, x):
            if isinstance(x, Boxes):
                seen.append(x)
            return self.inner(x)

    batch = batch_of(Watched().train(), images, uf.attacks.PGD(steps=3))
    sabr(batch, share=0.4)()
    (box,) = seen
    assert (box.radius <= 0.4 * THREAT.eps + 1e-6).all()
    assert (box.low >= (images - THREAT.eps).clamp(0, 1) - 1e-6).all()
    assert (box.high <= (images + THREAT.eps).clamp(0, 1) + 1e-6).all()
    assert (box.centre - images).abs().max() > 0.3 * THREAT.eps
    assert torch.equal(box.value, images)


def test_regularisers_end_with_the_growth_of_eps(images):
    torch.manual_seed(0)
    model = plain().train()
    box = around(images)
    seen = model(box)
    assert regularised(batch_of(model, images, warm=1.0), box, seen, 0.5) == 0.0
    whole, half = (regularised(batch_of(model, images, warm=warm), box, seen, 0.5) for warm in (1e-9, 0.5))
    assert whole > 0
    assert float(half.detach()) == pytest.approx(float(whole.detach()) / 2, rel=1e-6)


def test_regularisers_are_those_of_their_paper(images):
    """Shi et al. 2021, section 3.4, written down number by number, for layers where each of its terms counts."""
    generator, box = torch.Generator().manual_seed(0), around(images)
    bent = [
        (torch.randn(6, 20, generator=generator) + shift, width * torch.rand(6, 20, generator=generator))
        for shift, width in ((0.9, 0.1), (-0.7, 0.4), (0.1, 3.0))
    ]
    terms = []
    for centre, radius in bent:
        on, off = centre[centre > radius], centre[centre < -radius]
        spread = [((side - centre.mean()) ** 2).sum() for side in (on, off)]
        ratios = on.sum() / -off.sum(), spread[0] / spread[1]
        terms.append(max(0.0, 0.5 - float(box.radius.mean() / radius.mean())))
        terms += [max(0.0, 0.5 - float(min(ratio, 1 / ratio))) for ratio in ratios]
    assert sum(term > 0 for term in terms) >= 5
    seen = replace(box, bent=bent)
    found = regularised(batch_of(plain(), images, warm=1e-9), box, seen, 0.8)
    assert float(found) == pytest.approx(0.8 * sum(terms) / (0.5 * len(bent)), rel=1e-5)


def test_eps_grows_smoothly():
    found = [schedules.warmed(share / 1000, 0.5, "smooth") for share in range(1001)]
    assert found[0] == 0
    assert found[500:] == [1.0] * 501
    steps = [b - a for a, b in pairwise(found[:501])]
    assert all(b >= a - 1e-12 for a, b in pairwise(steps))  # ever faster, then evenly
    assert steps[200] == pytest.approx(steps[450])
    assert schedules.warmed(0.25, 0.5) == 0.5


def test_the_start_keeps_the_width_of_boxes():
    torch.manual_seed(0)
    deep = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(400, 400), nn.ReLU())])
    initial.ibp(deep)
    seen = deep(around(torch.rand(64, 400), uf.Linf(0.01)))
    first, last = seen.bent[0][1].mean(), seen.bent[-1][1].mean()
    assert 0.3 < last / first < 3
    usual = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(400, 400), nn.ReLU())])
    seen = usual(around(torch.rand(64, 400), uf.Linf(0.01)))
    assert seen.bent[-1][1].mean() / seen.bent[0][1].mean() > 100


def task(count=600):
    """Two bars in noise: easy to learn, and to keep right."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(count) % 3
    images = 0.25 + 0.1 * torch.rand(count, 1, 8, 8, generator=generator)
    for k in range(3):
        images[labels == k, :, 2 * k : 2 * k + 2] += 0.5
    return images, labels


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def recipe(objective, **more):
    return Recipe(
        "test", objective, epochs=6, batch_size=32, optimizer="adam", learning_rate=5e-3, weight_decay=0.0, warm_up=0.5,
        rise="smooth", start="ibp", clip=10.0, held_out=60, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "attack"),
    [
        ("ibp", None),
        ("ibp:stretch=1.2,natural=0.2", None),
        ("crown-ibp", None),
        ("sabr:share=0.7", "pgd:steps=2,step_size=0.6"),
        ("mtl-ibp:alpha=0.6", "pgd:steps=1,step_size=1.25"),
    ],
)
def test_training_makes_bounds_small(objective, attack):
    threat, data = uf.Linf(0.12), task()
    done = train(network(), data, threat, recipe(objective, attack=attack))
    proved = certify(done.model, data, threat, "ibp").certified_accuracy.value
    assert proved > 0.9
    assert done.history[-1].robust > 0.9  # by bounds, on the images held out
    usual = train(network(), data, recipe=Recipe("test", epochs=6, batch_size=32)).model
    assert certify(usual, data, threat, "ibp").certified_accuracy.value < 0.2


def test_the_bounds_that_choose_are_those_of_the_certificates():
    """What is held out is judged in float32 by boxes; `certify` agrees but for rounding."""
    from unfooled.training.guard import Held, by_intervals

    threat, data = uf.Linf(0.12), task()
    model = train(network(), data, threat, recipe("ibp")).model
    clean, proved = Held(*data, threat, by_intervals).judged(model)
    found = certify(model, data, threat, "ibp")
    assert clean == pytest.approx(found.clean_accuracy.value, abs=2e-3)
    assert proved == pytest.approx(found.certified_accuracy.value, abs=5e-3)


def test_a_fall_of_proved_accuracy_is_no_overfitting():
    from unfooled.training.guard import Held, by_intervals

    images, labels = task(30)
    assert not Held(images, labels, THREAT, by_intervals).guarded
    assert Held(images, labels, THREAT).guarded


def test_a_run_that_was_stopped_comes_to_the_same_weights(tmp_path):
    threat, data = uf.Linf(0.1), task(200)
    whole = train(network(), data, threat, recipe("ibp"), seed=3).model.state_dict()

    class Stop(Exception):
        pass

    def stop(at):
        if at.step == 17:
            raise Stop

    with pytest.raises(Stop):
        train(network(), data, threat, recipe("ibp"), seed=3, out=tmp_path / "run", progress=stop)
    again = train(network(), data, threat, recipe("ibp"), seed=3, out=tmp_path / "run").model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(x.flatten(1).sort(1).values)


@pytest.mark.parametrize(
    ("model", "threat", "words"),
    [
        (Sorted(), THREAT, "knows no bounds for sort"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.GELU()), THREAT, "knows no bounds for gelu"),
        (nn.Sequential(nn.Flatten(), nn.LeakyReLU(-1.0), nn.Linear(64, 3)), THREAT, r"slopes in \[0, 1\]"),
        (network(), uf.L2(0.5), "a threat whose set is a box, such as linf"),
        (network(), None, "a threat whose set is a box"),
    ],
)
def test_what_cannot_be_bounded_is_named(model, threat, words):
    with pytest.raises(ParameterError, match=words):
        train(model, task(60), threat, Recipe("test", "ibp", epochs=1, held_out=0))


@pytest.mark.parametrize("given", [{"rise": "fast"}, {"start": "xavier"}, {"objective": "ibp", "attack": "pgd"}])
def test_recipes_are_checked(given):
    with pytest.raises(ParameterError):
        Recipe("test", **given)


@pytest.mark.parametrize(
    "words",
    ["ibp:natural=2", "crown-ibp:linear=-1", "mtl-ibp:alpha=3", "ibp:stretch=inf", "sabr:share=1", "ibp:stretch=0"],
)
def test_options_have_their_spans(words):
    from unfooled.training import objectives

    with pytest.raises(ParameterError, match="must be a number in"):
        objectives.parse(words)


@pytest.mark.parametrize("words", ["ibp:natural=0,steady=0", "crown-ibp:linear=0", "mtl-ibp:alpha=1"])
def test_the_defaults_can_be_said(words):
    from unfooled.training import objectives

    objectives.parse(words)


def test_a_quotient_by_what_moves_is_refused():
    with pytest.raises(ParameterError, match="quotient"):
        torch.ones(4) / around(torch.rand(3, 4))


def test_whole_channels_are_dropped():
    seen = nn.Dropout2d(0.5)(around(torch.rand(8, 6, 3, 3) + 0.1))
    gone = (seen.value == 0).flatten(2)
    assert (gone.all(2) | ~gone.any(2)).all()
    assert 0.2 < gone.double().mean() < 0.8


def test_boxes_say_what_they_lack():
    box = around(torch.rand(3, 4))
    assert not hasattr(box, "is_cuda")
    with pytest.raises(ParameterError, match="no bounds for sort"):
        box.sort(1)


@pytest.mark.parametrize("objective", [ibp, crown_ibp, sabr, mtl_ibp])
def test_under_autocast_products_alone_are_in_bfloat16(objective, images):
    """The loss is that of float32 but for the products' own rounding, and no box is kept in less than float32."""
    torch.manual_seed(0)
    model = statistics(plain())[:4].append(nn.Flatten()).append(nn.Linear(4, 3)).train()
    kinds, exact = set(), objective(batch_of(model, images, uf.attacks.PGD(steps=1)))()
    loss = objective(batch_of(model, images, uf.attacks.PGD(steps=1)))
    model[0].register_forward_hook(
        lambda _, given, made: kinds.update(one.dtype for one in (made.value, made.centre, made.radius))
    )
    with torch.autocast("cpu", torch.bfloat16):
        value, least = loss()
    assert kinds == {torch.float32}
    assert value.dtype == least.dtype == torch.float32
    torch.testing.assert_close(value, exact[0], rtol=0.02, atol=0)
    assert not torch.equal(value, exact[0])  # bfloat16 it was


def test_training_under_autocast_ends_in_finite_weights():
    threat, data = uf.Linf(0.1), task(100)
    done = train(network(), data, threat, recipe("ibp"), compute=uf.Compute(autocast=True))
    assert math.isfinite(done.history[-1].loss)
