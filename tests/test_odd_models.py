"""Models that misbehave, and options in odd forms: found in review, each once a wrong number or a raw traceback."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from unfooled import defenses
from unfooled.errors import DataError, ModelError, ParameterError
from unfooled.judging import judge
from unfooled.oracle import Oracle
from unfooled.sweeping import sweep

MAKE = torch.Generator().manual_seed(0)
X = torch.rand(30, 1, 4, 4, generator=MAKE)


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


Y = network()(X).argmax(1)


@pytest.mark.parametrize("threat", [uf.Linf(0.3), uf.L2(1.0), uf.L1(3.0)])
def test_a_gradient_that_is_not_a_number_is_no_robustness(threat):
    net = network()

    class Root(nn.Module):
        def forward(self, x):
            return net(x) + (x - x).square().sum((1, 2, 3)).sqrt()[:, None]

    with pytest.raises(ModelError, match="gradients for example 0 are not finite"):
        uf.attack(Root(), X, Y, threat, uf.attacks.PGD(steps=3))


def test_a_model_that_works_in_place_is_refused():
    net = network()

    class InPlace(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                x.sub_(0.1)
            return net(x)

    with pytest.raises(ModelError, match="changes its input in place"):
        uf.attack(InPlace(), X, Y, uf.Linf(0.1), "fgsm", surrogate=net)


def test_an_error_in_the_middle_of_a_run_is_one_line():
    calls = []

    class Breaks(nn.Sequential):
        def forward(self, x):
            calls.append(1)
            assert len(calls) < 3, "first line\nsecond line"
            return super().forward(x)

    with pytest.raises(ModelError, match=r"failed on images of shape \(1, 4, 4\): first line$") as caught:
        uf.attack(Breaks(*network()), X, Y, uf.Linf(0.1), "pgd")
    assert "\n" not in str(caught.value)


def test_a_surrogate_of_fewer_classes_is_refused():
    with pytest.raises(DataError, match="must be below 2"):
        uf.attack(network(), X, Y, uf.Linf(0.1), "fgsm", surrogate=network(2))


@pytest.mark.parametrize("make", [lambda net: net.forward, lambda net: net.__call__])
def test_a_bound_method_is_its_module(make):
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(1), *network()).train()
    before = net[0].running_mean.clone(), net[0].num_batches_tracked.clone()
    uf.attack(make(net), X, Y, uf.Linf(0.1), "fgsm")
    assert torch.equal(net[0].running_mean, before[0])
    assert torch.equal(net[0].num_batches_tracked, before[1])
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_a_filter_that_was_used_in_inference_mode_first():
    blurred = uf.defend(network(), uf.defenses.GaussianBlur(1.0))
    with torch.inference_mode():
        blurred(X)
    found = uf.attack(blurred, X, Y, uf.Linf(0.3), "fgsm")
    assert len(found.success) == len(X)


def test_judging_a_random_model_is_seeded_and_leaves_the_callers_generator_alone():
    net = network()

    def model(x):
        return net(F.dropout(x, 0.5, training=True))

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = judge(model, X, Y)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.clean_correct, judge(model, X, Y).clean_correct)


def test_measuring_layouts_leaves_the_callers_generator_alone():
    torch.manual_seed(0)

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(F.dropout(self.conv(x), 0.1, training=True).flatten(1))

    model, images = Noisy(), torch.rand(600, 3, 4, 4)
    state = torch.get_rng_state()
    uf.attack(model, images, torch.zeros(600, dtype=torch.int64), uf.Linf(0.01), "pgd:steps=90", early_stop=False,
              batch_size=600)  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sweep_slices_what_belongs_to_each_image_and_reads_what_attack_reads():
    targets = (Y + 1) % 3
    found = sweep(
        network(), X.numpy(), Y.numpy(), "linf:1", [0.05, 0.1, 0.4], "fgsm", targets=targets, ids=np.arange(30)
    )
    hit = found.fooled_at.isfinite() & found.clean_correct
    assert hit.any()
    assert (network()(found.adversarial).argmax(1) == targets)[hit].all()
    with pytest.raises(ParameterError, match="finite floats of at least 0"):
        sweep(network(), X, Y, "linf:1", [float("nan")], "fgsm")
    with pytest.raises(DataError, match="must have shape"):
        sweep(network(), X, Y[:3], "linf:1", [0.0], "fgsm")


def test_numbers_of_numpy_are_numbers():
    found = uf.attack(network(), X, Y, uf.Linf(np.float32(0.25)), "fgsm", seed=np.int64(1), batch_size=np.int64(7),
                      ids=-torch.arange(30))  # fmt: skip
    assert found.threat == uf.Linf(0.25)


@pytest.mark.parametrize("compute", ["same", 1])
def test_compute_is_a_compute(compute):
    with pytest.raises(ParameterError, match="'compute' parameter of attack must be a Compute"):
        uf.attack(network(), X, Y, uf.Linf(0.1), "fgsm", compute=compute)


def test_a_callable_can_be_defended():
    net = network()
    found = uf.attack(uf.defend(lambda x: net(x), uf.defenses.MedianFilter(3)), X, Y, uf.Linf(0.1), "fgsm")
    assert len(found.success) == 30


@pytest.mark.parametrize(
    "words",
    ["blur:abc", "blur:none", "blur:true", "percentile:abc", "blur:1,sigma=2", "blur:1(x)", "blur:1,2,exact,4"],
)
def test_defenses_in_bad_words(words):
    with pytest.raises(ParameterError) as caught:
        defenses.parse(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", ["linf:8/255,bounds=1", "linf:0.1,mask=true", "linf:0.1,0.2", "l0:2.5", "linf:abc"])
def test_threats_in_bad_words(words):
    with pytest.raises(ParameterError):
        uf.Threat.parse(words)


def test_a_family_keeps_the_other_options():
    name, option, make = defenses.family("percentile:size=3,backward=identity")
    assert (name, option) == ("percentile", "percentile")
    made = make(30.0)
    assert (made.percentile, made.size, made.backward) == (30.0, 3, "identity")
    assert defenses.family("median")[2](5.0).size == 5
    with pytest.raises(ParameterError, match="'size' parameter of MedianFilter"):
        defenses.family("median")[2](1.5)


def test_the_jacobian_is_the_jacobian():
    from unfooled.goals import Goal
    from unfooled.models import Classifier
    from unfooled.oracle import GradientQuery

    net = network().double()
    rows = torch.arange(5)
    oracle = Oracle(Classifier(net), None, rows)
    x = X[:5].double()
    seen = []
    query = GradientQuery(x, Goal(Y[:5]), uf.Linf(0.1), rows, rows, 0 * rows, 0, oracle, rows, seen.append)
    classes = torch.tensor([[0, 2]] * 5)
    gradients, logits = query.jacobian(x, classes)
    assert torch.equal(logits, net(x))
    expected = net[1].weight[[0, 2]].view(2, 1, 4, 4).expand(5, 2, 1, 4, 4)
    torch.testing.assert_close(gradients, expected)
    assert oracle.forward.tolist() == [1] * 5
    assert oracle.backward.tolist() == [2] * 5
    assert len(seen) == 1
