"""How the bounds are computed: curves, small windows, what is traced, and what `certify` says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from unfooled.certificates import bounds, curves, linear, local, margins, methods, slopes
from unfooled.certificates.graph import Traced
from unfooled.certificates.reach import Reach
from unfooled.errors import ModelError, ParameterError

pytestmark = pytest.mark.usefixtures("one_thread")

CURVES = {
    "relu": (curves.relu(), F.relu),
    "leaky": (curves.leaky_relu(0.1), lambda x: F.leaky_relu(x, 0.1)),
    "steep": (curves.leaky_relu(1.7), lambda x: F.leaky_relu(x, 1.7)),
    "falling": (curves.leaky_relu(-0.3), lambda x: F.leaky_relu(x, -0.3)),
    "relu6": (curves.clamp(0.0, 6.0), F.relu6),
    "below": (curves.clamp(-float("inf"), 1.0), lambda x: x.clamp(max=1.0)),
    "abs": (curves.absolute(), torch.abs),
    "tanh": (curves.tanh(), torch.tanh),
    "sigmoid": (curves.sigmoid(), torch.sigmoid),
    "gelu": (curves.gelu(), F.gelu),
    "gelu by tanh": (curves.gelu_by_tanh(), lambda x: F.gelu(x, approximate="tanh")),
    "silu": (curves.silu(), F.silu),
    "softplus": (curves.softplus(4.0, 5.0), lambda x: F.softplus(x, 4.0, 5.0)),
    "elu": (curves.elu(1.0, 1.0), F.elu),
    "selu": (curves.elu(1.6732632423543772, 1.0507009873554805), F.selu),
}


@pytest.mark.parametrize("name", CURVES)
def test_lines_lie_under_and_over_a_curve(name):
    curve, function = CURVES[name]
    torch.manual_seed(0)
    low = torch.randn(400, dtype=torch.float64) * 4
    high = low + torch.rand(400, dtype=torch.float64) ** 3 * 8
    high[:5] = low[:5]
    inside = low + (high - low) * torch.linspace(0, 1, 301, dtype=torch.float64)[:, None]
    values = function(inside)
    least, most = curve.range(low, high)
    torch.testing.assert_close(least, values.amin(0), atol=2e-2, rtol=1e-3)  # and it is nearly reached
    assert (values >= least - 1e-12).all()
    assert (values <= most + 1e-12).all()
    found = (*curve.slopes(low, high), torch.randn(400, dtype=torch.float64))
    for slope in found:  # the chosen ones, and any other
        under, over = curve.extremes(low, high, slope)
        assert (values - slope * inside >= curve.function(under) - slope * under - 1e-12).all()
        assert (values - slope * inside <= curve.function(over) - slope * over + 1e-12).all()
    assert (curve.derivative(inside) <= curve.steepest + 1e-9).all()
    assert (curve.derivative(inside) >= curve.flattest - 1e-9).all()


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu6", "relu"])
def test_the_chosen_line_is_the_nearest_in_the_mean(name):
    curve, _ = CURVES[name]
    low, high = torch.tensor([-2.0, -0.5, 0.3, 4.0]).double(), torch.tensor([1.0, 3.0, 2.0, 9.0]).double()
    middle = (low + high) / 2
    under, over = curve.slopes(low, high)

    def heights(slope):
        least, most = curve.extremes(low, high, slope)
        return [curve.function(at) - slope * (at - middle) for at in (least, most)]

    for slope in torch.linspace(-0.2, 1.2, 141).double():
        other = heights(torch.full_like(low, float(slope)))
        assert (heights(under)[0] >= other[0] - 2e-3).all()
        assert (heights(over)[1] <= other[1] + 2e-3).all()


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2),
        nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.Tanh(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("threat", [uf.Linf(0.1), uf.L2(0.5), uf.L1(2.0)], ids=str)
def test_small_windows_change_nothing_but_the_cost(threat, monkeypatch):
    torch.manual_seed(0)
    model, images = convolutional(), torch.rand(2, 1, 16, 16)
    network, reach = Traced(model, images[0]).network(), Reach.of(images, threat)
    few = linear.crown(network, reach, 2.0**-24)
    monkeypatch.setattr(local, "_goes_on", lambda step, few: False)
    whole = linear.crown(network, reach, 2.0**-24)
    for ours, theirs in zip(few.low + few.high, whole.low + whole.high, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


class Two(nn.Module):
    """Both ways of writing, a sum of two branches, and a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(16, 3)
        self.register_buffer("mean", torch.full((6,), 0.4))

    def forward(self, x):
        h = F.relu(self.first((x - self.mean) / 0.3), inplace=True)
        return {"logits": self.last(torch.cat([h + torch.tanh(self.second(h)), 1 - h], 1)), "hidden": h}


def test_the_traced_network_computes_what_the_model_does():
    torch.manual_seed(0)
    model, images = Two().eval(), torch.rand(7, 6)
    values = Traced(model, images[0]).network().values(images.double())
    torch.testing.assert_close(values[-1].float(), model(images)["logits"])


def test_what_has_no_bounds_is_named_with_its_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Softmax(-1)), nn.Linear(4, 2)).eval()
    with pytest.raises(ModelError, match=r"no bounds for softmax in 1\.0 \(Softmax\).*randomized smoothing"):
        margins(model, torch.rand(2, 4), [0, 1], uf.Linf(0.1))


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Mixing(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize(("model", "said"), [(Deciding(), "decides by the values"), (Mixing(), "mixes images")])
def test_models_that_no_bound_covers(model, said):
    with pytest.raises(ModelError, match=said):
        margins(model, torch.rand(2, 4), [0, 1], uf.Linf(0.1))


def test_l0_is_refused():
    with pytest.raises(ParameterError, match="No bounds cover L0"):
        margins(nn.Linear(4, 2), torch.rand(2, 4), [0, 1], uf.L0(1))


def test_certify_tries_the_cheap_ways_first():
    torch.manual_seed(0)
    model, images = convolutional(), torch.rand(12, 1, 16, 16)
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    found = uf.certify(model, (images, labels), "linf:0.02")
    assert found.methods == ("ibp", "crown", "alpha-crown")
    assert found.clean_correct.tolist() == [False] + [True] * 11
    assert not found.certified[0]
    assert found.by[0] == -1
    assert (found.certified == (found.by >= 0)).all()
    alone = uf.certify(model, (images, labels), "linf:0.02", method="ibp")
    assert torch.equal(found.by == 0, alone.certified)
    assert found.certified_accuracy.value == found.certified.double().mean()
    assert found.certified.sum() >= alone.certified.sum()


@pytest.mark.parametrize(
    "threat", [uf.Linf(0.1), uf.L2(0.7), uf.L1(3.0), uf.L2(0.7, mask=torch.arange(6) < 4)], ids=str
)
def test_no_point_that_counts_as_inside_is_beyond_reach(threat):
    torch.manual_seed(0)
    images = torch.rand(50, 6)
    reach = Reach.of(images, threat)
    for scale in (1.0, 1 + 2e-7, 1 + 1e-6, 1 + 7e-6, 1 + 1e-4):
        step = threat.steepest(torch.randn(50, 6), images) * threat.eps
        points = (images + scale * step).clamp(0, 1)
        inside = threat.contains(points, images)
        far = threat.norm(images.shape[1:]).size((points - images).double())
        assert (far[inside] <= threat.reach(images)[inside]).all()
        flat = points.double()[inside]
        assert ((flat >= reach.low[inside]) & (flat <= reach.high[inside])).all()


def centred():
    """Batch norm whose mean and bias cancel: in float32 it is off by what they round."""
    norm = nn.BatchNorm1d(4)
    with torch.no_grad():
        norm.running_mean.fill_(12345.678)
        norm.bias.fill_(12345.678)
    return norm


ROUNDED = {
    "batch norm": centred,
    "a clamp at no float32": lambda: nn.Hardtanh(0.1, 0.3),
    "overlapping windows": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Upsample(scale_factor=40), nn.AvgPool2d(41, 1, 20), nn.Flatten()
    ),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_what_a_step_rounds_is_counted(name):
    """At a point, what float32 answers lies within the bounds; with sums of n products, n is that of the step."""
    model, images = ROUNDED[name]().eval(), torch.rand(100, 4, generator=torch.Generator().manual_seed(0))
    network = Traced(model, images[0]).network()
    with torch.no_grad():
        answers, exact = model(images).double(), network.values(images.double())[-1]
    alone = bounds.interval(network, Reach.point(images, uf.Linf(0.1)), bounds.SINGLE)
    assert not torch.equal(answers, exact)  # or nothing is rounded here
    assert ((answers >= alone.low[-1]) & (answers <= alone.high[-1])).all()
    pooled = [step.operation.terms for step in network.steps if getattr(step.operation, "mixes", False)]
    assert all(terms >= 41 * 41 for terms in pooled)


class Neighbourly(nn.Module):
    """Image i gets the answer of another one."""

    def forward(self, x):
        return x.flip(0)


def test_a_model_that_swaps_images_is_refused():
    images = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match="other images of a batch"):
        margins(Neighbourly(), images, [0, 1, 2], uf.Linf(0.001))


def test_the_way_back_to_the_curves_is_gone_once(monkeypatch):
    torch.manual_seed(0)
    model, images = convolutional(), torch.rand(4, 1, 16, 16)
    calls = []
    once = methods.crown
    monkeypatch.setattr(methods, "crown", lambda *given: calls.append(len(given[1].images)) or once(*given))
    found = uf.certify(model, (images, model(images).argmax(1)), "linf:0.4", method=("crown", "alpha-crown"))
    assert not found.certified.all()  # so that both methods had work
    assert calls == [4]


def test_few_images_at_a_time_change_nothing(monkeypatch):
    torch.manual_seed(0)
    model, images = convolutional(), torch.rand(5, 1, 16, 16)
    labels = model(images).argmax(1)
    whole = margins(model, images, labels, uf.Linf(0.1), "alpha-crown:steps=3")
    monkeypatch.setattr(slopes, "MEMORY", 1)
    torch.testing.assert_close(margins(model, images, labels, uf.Linf(0.1), "alpha-crown:steps=3"), whole)
