"""The bracket of `evaluate`: proved first, the rest attacked, and an alarm where the two contradict each other."""

import json

import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled import board, proving
from unfooled.certificates import IBP, cost
from unfooled.certificates.proof import Problem
from unfooled.errors import InternalError, ModelError, ParameterError
from unfooled.store import RunFolder, shard_file
from unfooled.verification import verify

EPS = 0.1


def linear():
    """Two classes by the mean of an image: how far each image is from the other class is known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([-torch.ones(16), torch.ones(16)]))
        model[1].bias.copy_(torch.tensor([8.0, -8.0]))
    return model.eval()


def brightness(count=120):
    """Images that are grey up to noise: (N, 1, 4, 4), their labels, and the eps that each withstands."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(count, generator=generator) * 0.6 + 0.2
    images = (means[:, None, None, None] + 0.05 * (torch.rand(count, 1, 4, 4, generator=generator) - 0.5)).clamp(0, 1)
    labels = (means > 0.5).long()
    return images, labels, (images.flatten(1).mean(1) - 0.5).abs()


def test_a_linear_model_is_decided_on_every_image(tmp_path):
    """Intervals are exact there, so the bracket closes on the known answer."""
    images, labels, reach = brightness()
    found = uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "auto", out=tmp_path / "run")
    right = (linear()(images).argmax(1) == labels) & (reach > EPS)
    assert found.robust_accuracy.certified.value == found.robust_accuracy.attacked.value == right.double().mean()
    radii = {example.index: example.certified_radius for example in found.examples}
    assert {name for name, radius in radii.items() if radius == EPS} == set(right.nonzero().squeeze(1).tolist())
    assert found.verdict[0].startswith("Exactly")
    assert found.settings["certificates"] == "ibp, crown, alpha-crown"


def test_no_more_images_are_proved_at_a_time_than_were_asked_for(tmp_path, monkeypatch):
    sizes = []

    class Counted(Problem):
        def __init__(self, victim, images, threat, called):
            sizes.append(len(images))
            super().__init__(victim, images, threat, called)

    monkeypatch.setattr("unfooled.certificates.proof.Problem", Counted)
    images, labels, _ = brightness(20)
    uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp", batch_size=8, out=tmp_path / "run")
    assert max(sizes) == 8


def test_what_is_proved_is_not_attacked_but_for_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(proving, "SAMPLE", 5)
    images, labels, reach = brightness()
    asked = []
    once = board.attack

    def counted(model, x, y, threat, plan, **options):
        asked.append((str(plan), len(x)))
        return once(model, x, y, threat, plan, **options)

    monkeypatch.setattr(board, "attack", counted)
    found = uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp", out=tmp_path / "run")
    (table,) = [table for table in found.tables if table.id == "proofs"]
    proved = int(table.rows[0][2])
    assert proved == int(((linear()(images).argmax(1) == labels) & (reach > EPS)).sum())
    log = RunFolder(tmp_path / "run").logs()[0]
    drawn = proving.drawn(torch.arange(len(images)), 0).tolist()
    doubted = len({name for name, *_ in log["proofs"]} & set(drawn))
    assert 0 < doubted < 5
    assert asked[0] == (str(proving.CHEAP), doubted)
    assert f"{doubted} of the images" in table.caption
    rest = found.clean_accuracy.value * len(images) - proved
    assert all(count <= rest for plan, count in asked[1:])
    assert log["doubted"] == doubted


def wrong(slack):
    """Bounds that promise too much."""
    least = Problem.least
    return lambda self, method, rows: least(self, method, rows) + slack


def test_an_unsound_bound_trips_the_alarm(tmp_path, monkeypatch):
    """The sample's cheap attack finds it; certificate and adversarial example are both kept."""
    monkeypatch.setattr(Problem, "least", wrong(100.0))
    images, labels, _ = brightness()
    with pytest.raises(InternalError, match=r"contradict each other.* pgd .* ibp has proved that none does"):
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp", out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    log = run.logs()[0]
    example = log["contradiction"]["example"]
    assert example in [name for name, _, _ in log["proofs"]]
    held = run.arrays(shard_file(0))
    point = torch.from_numpy(held["adversarial"][held["example"].tolist().index(example)])
    assert uf.Linf(EPS).contains(point[None], images[example][None]).all()
    assert linear()(point[None]).argmax() != labels[example]
    assert not (tmp_path / "run" / "evaluation.json").exists()
    with pytest.raises(InternalError, match="contradict each other"):  # and it stays, also for who goes on
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp", out=tmp_path / "run")


def test_an_unsound_bound_at_another_size_trips_it_too(tmp_path, monkeypatch):
    """At eps itself nothing is wrong; the certified radius is above the smallest change found."""
    least = Problem.least

    def at_more(self, method, rows):
        return least(self, method, rows) + (100.0 if self.threat.eps > EPS else 0.0)

    monkeypatch.setattr(Problem, "least", at_more)
    images, labels, _ = brightness()
    with pytest.raises(InternalError, match="has proved that none of up to 0.2 does"):
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "fast", "ibp", out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    example, held = run.logs()[0]["contradiction"]["example"], run.arrays(shard_file(0))
    point = torch.from_numpy(held["adversarial"][held["example"].tolist().index(example)])
    assert linear()(point[None]).argmax() != labels[example]  # the point is kept, though it lies beyond eps
    assert uf.Linf(2 * EPS).contains(point[None], images[example][None]).all()


def test_where_the_bracket_is_closed_no_weakness_of_an_attack_is_held_against_it():
    """Gradients that lead astray leave much to Square; but no attack can leave less than what is proved."""
    images, labels, _ = brightness(300)
    astray = linear()
    with torch.no_grad():
        astray[1].weight.neg_()
    plan = uf.attacks.Cascade(uf.attacks.PGD(steps=5), uf.attacks.Square(steps=300))
    found = [
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), plan, certify, surrogate=astray)
        for certify in (None, "ibp")
    ]
    said = [{f.code: f.severity for f in one.findings} for one in found]
    assert said[0]["black-box-better"] == "suspect"
    assert found[1].robust_accuracy.certified == found[1].robust_accuracy.attacked
    assert said[1]["black-box-better"] == "note"


def test_the_curve_is_stacked(tmp_path):
    """At every eps proved and fooled leave the truth between them; here nothing is between."""
    images, labels, _ = brightness()
    found = uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "fast", "auto", out=tmp_path / "run")
    (panel,) = [panel for panel in found.panels if panel.id == "bracket"]
    below, above = panel.curves
    assert (below.role, above.role) == ("proved", "attacked")
    assert below.x == above.x
    assert [y.value for y in below.y] == sorted((y.value for y in below.y), reverse=True)
    for low, high in zip(below.y, above.y, strict=True):
        assert low.value <= high.value <= low.value + 1 / low.n + 1e-9
    assert len({y.value for y in below.y}) > 2


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        return self.inner(x.sort(-1).values)


def test_what_has_no_bounds_is_attacked_and_said(tmp_path):
    images, labels, _ = brightness()
    found = uf.evaluate(Odd(), (images, labels), uf.Linf(EPS), "quick", "auto", out=tmp_path / "run")
    assert found.robust_accuracy.certified.value == 0.0
    assert any("Nothing was proved" in note and "sort" in note for note in found.notes)
    with pytest.raises(ModelError, match="sort"):
        uf.evaluate(Odd(), (images, labels), uf.Linf(EPS), "quick", "ibp", out=tmp_path / "other")


def test_a_dear_method_is_left_out_of_auto(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "SLOW", 0.0)
    images, labels, _ = brightness()
    found = uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "auto", out=tmp_path / "run")
    assert found.settings["certificates"] == "ibp"
    assert any(note.startswith("crown and alpha-crown would take") for note in found.notes)


def test_certified_can_be_asserted(tmp_path):
    images, labels, _ = brightness(300)
    data = images, labels
    found = uf.evaluate(linear(), data, uf.Linf(0.01), "quick", "ibp", out=tmp_path / "run", assertion="certified>=0.5")
    assert len(found.examples) < 300  # it was certain before the end
    with pytest.raises(ParameterError, match="Say certify='auto'"):
        uf.evaluate(linear(), data, uf.Linf(0.01), "quick", assertion="certified>=0.5")


def test_another_certify_is_another_run(tmp_path):
    images, labels, _ = brightness()
    uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp", out=tmp_path / "run")
    with pytest.raises(uf.errors.OutputError, match="certify"):
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", out=tmp_path / "run")


@pytest.mark.parametrize("certify", ["crwn", 3, "ibp:steps=2"])
def test_methods_that_there_are_not(certify):
    images, labels, _ = brightness()
    with pytest.raises(ParameterError, match=r"crown|certify|steps"):
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", certify)


def test_verify_proves_again(tmp_path, monkeypatch):
    images, labels, _ = brightness()
    run = tmp_path / "run"
    with monkeypatch.context() as broken:
        broken.setattr(Problem, "least", wrong(0.1))  # too little for an attack to notice
        broken.setattr(proving, "SAMPLE", 0)
        broken.setattr(proving, "RADII", 0)
        images[0] = 0.5 + EPS - 1e-4
        labels[0] = 1
        broken.setattr("unfooled.board.Board._heed", lambda self, fooled: None)
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", IBP.name, out=run)
    found = verify(run, linear(), (images, labels))
    assert [(p.example, p.what) for p in found.problems if p.example is not None] == [(0, "certificate")]


def test_the_command_proves(tmp_path, capsys):
    from unfooled.cli import run

    words = ["evaluate", "fashion-mnist/plain", "fashion-mnist-sample[0:12]", "--threat", "linf:0.0005", "--protocol"]
    assert run([*words, "quick", "--certify", "ibp", "--out", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["robust_accuracy"]["certified"]["n"] == 12
    assert run([*words, "quick", "--certify", "ipb", "--out", str(tmp_path / "other")]) == 64
    assert "Did you mean 'ibp'" in capsys.readouterr().err


@pytest.mark.parametrize("threat", [uf.Linf(0.6), uf.L2(2.5), uf.L1(9.0)], ids=str)
def test_what_nothing_in_the_box_can_fool_is_no_contradiction(threat):
    """A certified size beyond the box, and no change that fools: both are right."""
    sure = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        sure[1].weight.mul_(0.01)
        sure[1].bias.copy_(torch.tensor([5.0, 0.0]))
    found = uf.evaluate(sure.eval(), (brightness()[0], torch.zeros(120, dtype=torch.int64)), threat, "fast", "auto")
    assert found.robust_accuracy.certified.value == 1.0


def test_a_surrogate_that_leads_astray_does_not_silence_the_alarm(monkeypatch):
    monkeypatch.setattr(Problem, "least", wrong(100.0))
    images, labels, _ = brightness()
    astray = linear()
    with torch.no_grad():
        astray[1].weight.neg_()
    with pytest.raises(InternalError, match="contradict each other"):
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp", surrogate=astray)


def test_the_evidence_stays_where_no_folder_was_asked_for(monkeypatch):
    monkeypatch.setattr(Problem, "least", wrong(100.0))
    images, labels, _ = brightness()
    with pytest.raises(InternalError) as told:
        uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "ibp")
    place = str(told.value).split("; ")[-1].partition(" keeps both")[0]
    assert RunFolder(place).logs()[0]["contradiction"]


def test_the_attack_on_what_is_proved_is_no_attack_that_came_first():
    """Square alone, after the sample: nothing says that gradients had failed."""
    images, labels, _ = brightness(300)
    plan = uf.attacks.Square(steps=100)
    one, other = (uf.evaluate(linear(), (images, labels), uf.Linf(EPS), plan, certify) for certify in (None, "ibp"))
    assert "black-box-better" not in {f.code for f in one.findings}
    assert "black-box-better" not in {f.code for f in other.findings}


def test_an_assertion_of_what_cannot_be_proved_is_answered(tmp_path, capsys):
    from unfooled.cli import run

    (tmp_path / "odd.py").write_text(
        "from torch import nn\n\nclass Odd(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Linear(784, 10)\n\n    def forward(self, x):\n"
        "        return self.last(x.flatten(1).sort(1).values)\n"
    )
    words = [
        "evaluate",
        f"{tmp_path}/odd.py:Odd",
        "fashion-mnist-sample[0:30]",
        "--protocol",
        "quick",
        "--certify",
        "auto",
    ]
    status = run([*words, "--threat", "linf:0.01", "--assert", "certified>=0.5", "--out", str(tmp_path / "run")])
    assert status in (1, 3)
    told = " ".join(capsys.readouterr().out.split())
    assert "Nothing was proved" in told


def test_the_options_of_a_method_are_kept_for_verify(tmp_path):
    images, labels, _ = brightness()
    uf.evaluate(linear(), (images, labels), uf.Linf(EPS), "quick", "alpha-crown:steps=3", out=tmp_path / "run")
    assert {by for _, by, _ in RunFolder(tmp_path / "run").logs()[0]["proofs"]} == {"alpha-crown:steps=3"}
    assert verify(tmp_path / "run", linear(), (images, labels)).holds
