"""Bugs of the peers, each as a test that fails when the bug is put in. `WHERE` says where those are that live elsewhere.

TA = torchattacks, FB = foolbox, AA = AutoAttack, CH = cleverhans, RB = RobustBench, with the numbers of their threads.
"""

import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import unfooled as uf
from helpers import Linear, problem
from unfooled import protocols
from unfooled.attacks import ATTACKS, PGD, Attack
from unfooled.engine import attack
from unfooled.goals import Goal
from unfooled.losses import dlr
from unfooled.oracle import Access
from unfooled.threats import L1, L2, Linf

F64 = torch.float64
TESTS = Path(__file__).parent

WHERE = {
    "a reduction over the batch (TA #12 #33, FB #439)": ["conformance/checks.py::batch_invariant", "analytic/test_apgd.py::test_momentum_is_per_example"],
    "C&W: the best other logit, early stop, atanh, targeted, confidence (TA, FB #387, CH #1228, ART #1374)": ["analytic/test_deepfool_fab_cw.py::"],
    "DeepFool: misclassified inputs changed, aliasing, random candidates (TA #51, ART #219, FB #62)": ["analytic/test_deepfool_fab_cw.py::"],
    "HopSkipJump: NaN or endless on misclassified inputs (FB #663 #670)": ["analytic/test_hopskipjump.py::"],
    "the norm of x instead of x - x0; FMN-L2's projection that does nothing (FB #619)": ["conformance/checks.py::assert_bookkeeping", "analytic/test_minimum_norm.py::"],
    "eps exceeded by start and step (ART #73 #85)": ["conformance/checks.py::inside_and_true"],
    "an L1 projection that only rescales (ART PR#2382, FB)": ["analytic/test_norms.py::test_projection_is_the_reference"],
    "a method that overrides one of the base (TA #103)": ["test_pitfalls.py::test_no_attack_inherits_from_another"],
    "every input misclassified (AA #81)": ["test_pitfalls.py::test_every_image_misclassified_already"],
    "targeted PGD insensitive to eps (ART #840)": ["test_pitfalls.py::test_targeted_pgd_feels_eps"],
    "a tolerance on eps that discards valid results (ART #507)": ["analytic/test_threats.py::test_rounded_points_of_the_ball_are_accepted"],
    "DLR constant where the true class ranks third (AA #108)": ["test_pitfalls.py::test_dlr_has_a_slope_where_the_true_class_ranks_third"],
    "momentum divided by a zero mean (TA MI-FGSM)": ["analytic/test_apgd.py::test_a_row_without_a_slope_moves_on"],
    "only the last iterate tested (ART APGD, FB PGD)": ["test_engine.py::test_earlier_successes_are_not_lost"],
    "an exception counted as robust": ["test_odd_models.py::test_an_error_in_the_middle_of_a_run_is_one_line", "test_pitfalls.py::test_an_exception_is_never_robustness"],
    "the caller's generators, .grad and BatchNorm disturbed (AA, TA, FB, adv-lib)": ["conformance/checks.py::model_restored"],
    "an AutoAttack that is not: defaults are claims (ART, TA)": ["test_protocols.py::test_standard_is_autoattacks"],
    "Square's index never reaches the last row or column (AA)": ["analytic/test_square.py::"],
    "logits shifted by 1e10 (advertorch #63)": ["analytic/test_losses.py::test_a_constant_in_the_logits_changes_nothing", "test_pitfalls.py::test_shifted_logits_change_no_success"],
    "weight files that are HTML pages (RB #177)": ["test_models.py::test_a_file_of_no_weights_is_named"],
}  # fmt: skip


@pytest.mark.parametrize("bug", WHERE)
def test_every_bug_has_its_test(bug):
    for place in WHERE[bug]:
        file, _, name = place.partition("::")
        code = (TESTS / file).read_text()
        assert re.search(rf"^def {name or 'test_'}", code, re.MULTILINE), place


def test_no_attack_inherits_from_another():
    for kind in ATTACKS.values():
        assert is_dataclass(kind)
        assert kind.__mro__[1] is Attack, f"{kind.__name__} inherits from {kind.__mro__[1].__name__}"


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_image_misclassified_already(name):
    kind = ATTACKS[name]
    p = problem((8,), dtype=F64)
    wrong = (p.model(p.x).argmax(1) + 1) % 4
    result = attack(p.model, p.x, wrong, p.threat(kind.norms[0]), kind())
    assert torch.equal(result.adversarial, p.x)
    assert result.robust_accuracy == result.clean_accuracy == 0.0
    assert not bool(result.success.any())
    assert bool((result.forward == 1).all())


def test_targeted_pgd_feels_eps():
    p = problem((8,), dtype=F64)
    targets = (p.y + 1) % 4
    won = [
        int(attack(p.model, p.x, p.y, p.threat(Linf, f), PGD(step_size=0.1), targets=targets).success.sum())
        for f in (0.3, 1.0, 3.0)
    ]
    assert won[0] < won[1] < won[2]


def test_dlr_has_a_slope_where_the_true_class_ranks_third():
    z = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(dlr(z, Goal(torch.tensor([2]))).sum(), z)
    assert bool((slope.abs() > 0.1).any())


class Breaks(nn.Module):
    """A model that fails on its n-th batch."""

    def __init__(self, net, at):
        super().__init__()
        self.net, self.left = net, at

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("planted")
        return self.net(x)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_exception_is_never_robustness(at):
    p = problem((8,))
    with pytest.raises(uf.errors.ModelError, match="planted"):
        uf.evaluate(Breaks(p.model, at), (p.x, p.y), p.threat(Linf, 0.1), "quick", batch_size=4)


class Shifted(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).double() + 1e10


@pytest.mark.parametrize("name", ["fgsm", "pgd:step_size=0.1", "apgd", "apgd:loss=dlr", "fab", "square:steps=200"])
def test_shifted_logits_change_no_success(name):
    p = problem((8,), dtype=F64)
    threat = p.threat(Linf, 1.2)
    plain, shifted = (attack(model, p.x, p.y, threat, name) for model in (p.model, Shifted(p.model)))
    assert abs(int(plain.success.sum()) - int(shifted.success.sum())) <= 1
    assert int(plain.success.sum()) > 5


def test_access_of_each_attack_is_declared():
    assert {kind.access for kind in ATTACKS.values()} == set(Access)


# ---- whole protocols on what AutoAttack's own code fails on --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("fast", "thorough")))
        for name in sorted(protocols.PROTOCOLS)
    ],
)
@pytest.mark.parametrize(("shape", "classes"), [((8,), 2), ((2, 7), 3), ((1, 4, 4), 5)])
def test_protocols_run_on_any_shape_and_number_of_classes(name, shape, classes):
    p = problem(shape, classes, F64, count=10, bounds=(-1.0, 1.0))
    mask = torch.ones(shape, dtype=torch.bool)
    mask.view(-1)[0] = False
    for kind in (Linf, L2, L1):
        threat = p.threat(kind, 0.6, mask)
        found = uf.evaluate(p.model, (p.x, p.y), threat, name, budget=300)
        assert 0 <= found.robust_accuracy.attacked.value <= found.clean_accuracy.value
        result = attack(p.model, p.x, p.y, threat, protocols.named(name, threat), budget=300)
        assert torch.equal(result.adversarial.flatten(1)[:, 0], p.x.flatten(1)[:, 0])
        assert bool((result.forward + result.backward <= 300).all())


def test_linear_models_of_two_classes_are_measured_exactly():
    draw = torch.Generator().manual_seed(2)
    w = torch.randn((1, 12), generator=draw, dtype=F64)
    x = 0.4 + 0.2 * torch.rand((40, 12), generator=draw, dtype=F64)
    model = Linear(w, -(x @ w.T).mean(0))
    y = (model(x).detach().squeeze(1) > 0).long()
    needed = model(x).detach().squeeze(1).abs() / w.abs().sum()
    eps = float(needed.median())
    found = uf.evaluate(model, (x, y), Linf(eps), "fast")
    assert found.robust_accuracy.attacked.value == pytest.approx(float((needed >= eps).double().mean()), abs=0.026)
