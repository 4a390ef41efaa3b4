"""Protocols: AutoAttack's settings pinned, what each promises, and `evaluate`."""

import json

import jsonschema
import msgspec
import pytest
import torch
from scipy.stats import binomtest

import unfooled as uf
from helpers import problem
from unfooled import protocols, results
from unfooled.attacks import APGD, APGDL1, FAB, Cascade, Restarts, Square, Stage, Targeted
from unfooled.cli import run
from unfooled.threats import L0, L1, L2, Linf

F64 = torch.float64


def test_standard_is_autoattacks():
    """apgd-ce, apgd-t, fab-t, square: 100 iterations, 9 targets, 5,000 queries; L1: 5 restarts and 5 targets."""
    for threat in (Linf(0.1), L2(1.0)):
        assert protocols.named("standard", threat).stages() == (
            Stage(APGD(steps=100, loss="cross_entropy", rho=0.75)),
            Stage(APGD(steps=100, loss="dlr", rho=0.75), targets=9, order="logits"),
            Stage(FAB(steps=100, alpha_max=0.1, eta=1.05, beta=0.9), targets=9, order="logits"),
            Stage(Square(steps=5000, p_init=0.8)),
        )
    assert protocols.named("standard", L1(12.0)).stages() == (
        Stage(APGDL1(steps=100), restarts=5),
        Stage(APGDL1(steps=100, loss="dlr"), targets=5, order="logits"),
        Stage(FAB(steps=100), targets=9, order="logits"),
        Stage(Square(steps=5000, p_init=0.8)),
    )


@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0), L1(12.0)], ids=str)
def test_fast_keeps_a_gradient_free_stage_that_escalates(threat):
    last = protocols.named("fast", threat).stages()[-2:]
    assert all(stage.attack.name == "square" for stage in last)
    assert (last[0].needs, last[1].needs) == (0, 1)
    assert last[1].attack.steps == 5000 > last[0].attack.steps


def test_thorough_holds_fast_and_standard():
    stages = protocols.named("thorough", Linf(0.1)).stages()
    for name in ("fast", "standard"):
        part = protocols.named(name, Linf(0.1)).stages()
        assert any(stages[at : at + len(part)] == part for at in range(len(stages)))
    assert any(stage.attack.minimal for stage in stages)
    assert any(stage.restarts > 1 for stage in stages)


@pytest.mark.parametrize("name", sorted(protocols.PROTOCOLS))
def test_every_plan_is_text_that_reads_back(name):
    for norm in protocols.PROTOCOLS[name].plans:
        plan = protocols.named(name, norm(1))
        assert uf.attacks.parse(str(plan)).stages() == plan.stages()


def test_what_there_is_not_is_said():
    with pytest.raises(
        uf.errors.ParameterError, match="'standard' has no attacks for L0. Those that do: quick, fast, thor"
    ):
        protocols.named("standard", L0(5))
    with pytest.raises(uf.errors.ParameterError, match="no protocol named 'fst'. Did you mean 'fast'"):
        protocols.named("fst", Linf(0.1))


def test_an_evaluation_says_what_became_of_every_example():
    p = problem((2, 3, 3), dtype=F64, count=20)
    threat = p.threat(Linf, 1.0)
    seen = []
    found = uf.evaluate(p.model, (p.x, p.y), threat, "fast", seed=3, progress=seen.append)
    assert isinstance(found, uf.Evaluation)
    assert seen
    correct = p.correct
    for estimate, count in (
        (found.clean_accuracy, int(correct.sum())),
        (found.robust_accuracy.attacked, sum(e.fooled_by is None and bool(correct[e.index]) for e in found.examples)),
    ):
        interval = binomtest(count, 20).proportion_ci(0.95, "exact")
        assert estimate.n == 20
        assert estimate.value == count / 20
        assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert estimate.method == "Clopper-Pearson 95 %"
    assert found.robust_accuracy.certified is None
    assert [e.index for e in found.examples] == list(range(20))
    names = {attack.attack for attack in found.attacks}
    for e in found.examples:
        assert e.label == int(p.y[e.index])
        assert (e.clean_prediction == e.label) == bool(correct[e.index])
        if e.fooled_by is not None:
            assert e.fooled_by in names
            assert 0 < e.distance <= threat.eps
        else:
            assert e.distance == (None if correct[e.index] else 0.0)
    assert sum(attack.fooled for attack in found.attacks) == sum(e.fooled_by is not None for e in found.examples) > 0
    again = uf.evaluate(p.model, (p.x, p.y), str(threat), "fast", seed=3)
    assert again.examples == found.examples
    document = json.loads(found.to_json())
    jsonschema.validate(document, results.schema())
    assert msgspec.json.decode(found.to_json(), type=results.Evaluation) == found


def test_quick_is_never_a_verdict_and_any_plan_can_be_given():
    p = problem((8,))
    quick = uf.evaluate(p.model, (p.x, p.y), p.threat(Linf), "quick")
    assert "never a verdict" in quick.verdict[-1]
    assert quick.trust == "suspect"
    plan = Cascade(APGD(steps=5), Restarts(Targeted(APGD(steps=5), 2), 2))
    own = uf.evaluate(p.model, (p.x.numpy(), p.y.numpy()), p.threat(Linf), plan, ids=range(100, 124))
    assert own.settings["plan"] == str(plan)
    assert [e.index for e in own.examples] == list(range(100, 124))
    with pytest.raises(uf.errors.DataError, match="'data' must be"):
        uf.evaluate(p.model, p.x, p.threat(Linf))


@pytest.mark.slow
def test_a_stronger_protocol_is_never_higher():
    p = problem((2, 3, 3), dtype=F64, count=40)
    threat = p.threat(Linf, 0.8)
    rates = [
        uf.evaluate(p.model, (p.x, p.y), threat, name).robust_accuracy.attacked.value
        for name in ("quick", "fast", "standard")
    ]
    assert rates[1] <= rates[0]
    assert rates[1] <= rates[2] + 1e-12


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    line = ["evaluate", "fashion-mnist/plain", "fashion-mnist-sample[0:20]", "--threat", "linf:0.1"]
    assert run([*line, "--protocol", "quick", "--out", "e"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "robust accuracy" in shown
    assert "By attack" in shown
    assert (tmp_path / "e" / "report.html").stat().st_size > 5_000
    assert run([*line, "--protocol", "quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["robust_accuracy"]["attacked"]["n"] == 20
    assert document["settings"]["model"] == "fashion-mnist/plain"
    for bad, words in (
        ([*line, "--protocol", "quik"], "Did you mean 'quick'"),
        ([*line[:3], "--threat", "l0:5", "--protocol", "standard"], "no attacks for L0"),
        ([*line, "--protocol", "quick", "--budget", "0"], "'budget' parameter"),
    ):
        assert run(bad) >= 64
        assert words in capsys.readouterr().err
