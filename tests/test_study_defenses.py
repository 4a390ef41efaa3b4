"""The study of all defenses: what it measures, keeps, and refuses."""

import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled.data import Dataset
from unfooled.defenses import DEFENSES, JPEG, Noise
from unfooled.results import Estimate, Evaluation, ThreeWays
from unfooled.store import RunFolder
from unfooled.studies import defenses as study
from unfooled.studies import defenses_page
from unfooled.studies.case import Asked
from unfooled.studies.registry import STUDIES


@pytest.fixture
def data():
    """Ten classes of small images that a linear network tells apart."""
    draw = torch.Generator().manual_seed(0)
    means = torch.rand(10, 1, 14, 14, generator=draw)
    labels = torch.arange(60) % 10
    images = (means[labels] + 0.1 * torch.randn(60, 1, 14, 14, generator=draw)).clamp(0, 1)
    return Dataset((images * 255).round().to(torch.uint8), labels, tuple("abcdefghij"), "small", "small")


@pytest.fixture
def small(data, monkeypatch):
    """The study on these images, with a network that knows their means, in one case."""
    monkeypatch.setattr(study, "CASES", (study.Case("fashion-mnist", "Small", uf.Linf(0.4)),))
    monkeypatch.setattr(study, "PROTOCOL", "quick")

    def plain(bench, say):
        images = bench.data.whole().flatten(1)
        means = torch.stack([images[bench.data.labels == k].mean(0) for k in range(10)])
        layer = nn.Linear(means.shape[1], 10)
        layer.weight.data, layer.bias.data = means.clone(), -means.square().sum(1) / 2
        return nn.Sequential(nn.Flatten(), layer).eval()

    monkeypatch.setattr(study._Bench, "_plain", plain)
    return lambda spec: data


def asked(load, **more):
    return Asked(None, None, "", load, **more)


def test_it_measures_three_ways_and_goes_on_where_it_was(small, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "study")
    first, _ = study.run(asked(small, images=60, only=("bit-depth",)), folder)
    calls = []
    real = study.evaluate
    monkeypatch.setattr(
        study, "evaluate", lambda *given, **more: calls.append(more["out"].name) or real(*given, **more)
    )
    both, album = study.run(asked(small, images=60, only=("bit-depth", "noise")), folder)
    assert calls == ["noise-sigma-0.1"]  # the other one was there
    assert not album.clean
    assert [row[0] for row in first.tables[0].rows] == ["none", "bit-depth:bits=3"]
    assert [row[0] for row in both.tables[0].rows] == ["none", "bit-depth:bits=3", "noise:sigma=0.1"]
    assert both.tables[0].rows[1] == first.tables[0].rows[1]
    assert both.panels[0].ticks == ["bit-depth", "noise"]
    assert (tmp_path / "study/fashion-mnist/noise-sigma-0.1/report.html").is_file()
    kept = RunFolder(tmp_path / "study/fashion-mnist/bit-depth-bits-3").evaluation()
    row, ways = both.tables[0].rows[1], kept.defense
    assert row[1] == f"{100 * ways.defended_clean.value:.1f}"
    assert row[2].startswith(f"{100 * ways.non_adaptive.value:.1f} [")
    assert row[3].startswith(f"{100 * ways.adaptive.value:.1f} [")
    assert row[4] == f"{100 * ways.gap:.1f}"
    assert row[5] == kept.trust
    folder.write_evaluation(both)
    page = uf.report.draw(folder).read_text()
    assert "resize-pad" not in page
    assert page.count("noise") > 2


def test_another_network_is_measured_again(small, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "study")
    study.run(asked(small, images=60, only=("bit-depth",)), folder)
    data = small("")
    place = tmp_path / "study/fashion-mnist/bit-depth-bits-3"
    other = uf.defend(nn.Sequential(nn.Flatten(), nn.Linear(196, 10)), DEFENSES["bit-depth"]())
    assert study._finished(place, other, data.whole()) is None


def test_the_bare_network_is_not_attacked_over_many_draws(small, tmp_path):
    """The dice are the noise's alone; gradients of the network without it need one pass."""
    folder = RunFolder(tmp_path / "study")
    found, _ = study.run(asked(small, images=60, only=("noise",)), folder)
    kept = RunFolder(tmp_path / "study/fashion-mnist/noise-sigma-0.1").evaluation()
    bare = next(part for part in kept.attacks if part.attack == "the network without its defense")
    assert bare.forward / bare.examples < 40  # 30 steps at most, of one pass each, and what confirms
    assert found.tables[1].rows[0][2] == f"{100 * kept.draws_fooled:.1f}"


def test_every_defense_is_asked_of_every_data_set():
    assert [wall.name for wall in study._walls(())] == list(DEFENSES)
    assert [(case.name, str(case.threat)) for case in study.CASES] == [
        ("fashion-mnist", "linf:0.1"),
        ("mnist", "linf:0.3"),
    ]
    assert (study.PROTOCOL, study.IMAGES) == ("fast", 1000)
    assert STUDIES["defenses"].load() is study.run


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"only": ("jpg",)}, "There is no defense named 'jpg'. Did you mean 'jpeg'?"),
        ({"images": 0}, "'images' parameter of the study of defenses must be an int of at least 1. Got 0"),
    ],
)
def test_what_it_refuses(small, tmp_path, more, message):
    with pytest.raises(uf.errors.UnfooledError, match=message):
        study.run(asked(small, **more), RunFolder(tmp_path / "study"))


def test_it_refuses_other_data_and_networks(small, tmp_path):
    folder = RunFolder(tmp_path / "study")
    with pytest.raises(uf.errors.UnfooledError, match="There is no data set of the study of defenses named 'cifar10'"):
        study.run(Asked("cifar10", None, "", small), folder)
    with pytest.raises(uf.errors.ParameterError, match="has its own networks"):
        study.run(Asked(None, lambda data: nn.Flatten(), "mine", small), folder)


def test_the_other_studies_take_no_parts(capsys):
    from unfooled.cli import run

    assert run(["study", "imagenet", "--images", "5"]) == 64
    assert (
        "--images and --only are for the study of defenses. The study imagenet takes --data." in capsys.readouterr().err
    )


def measured(defense, clean, blind, aware, trust="valid"):
    def share(value):
        return Estimate(value, max(0, value - 0.03), min(1, value + 0.03), 100)

    ways = ThreeWays(
        defense=defense.text(), undefended_clean=share(0.92), undefended=share(0.0), defended_clean=share(clean),
        non_adaptive=share(blind), adaptive=share(aware),
    )  # fmt: skip
    environment = defenses_page.environment()
    found = Evaluation(
        kind="evaluation", title="", verdict=[], settings={}, command="", environment=environment, created="",
        defense=ways, trust=trust,
    )  # fmt: skip
    return defenses_page.Measured(defense.name, defense.text(), found)


def test_the_findings_in_words():
    found = [measured(JPEG(), 0.9, 0.4, 0.01), measured(Noise(), 0.8, 0.3, 0.2, "suspect")]
    said = defenses_page.verdict("MNIST", found, "linf:0.3")
    assert said[0].startswith("MNIST, linf:0.3: of 2 defenses, 1 keeps 5 % or less")
    assert said[1].endswith("jpeg:quality=75: it seems to keep 40.0 % and keeps 1.0 %.")
    assert said[2].startswith("Most is left behind noise:sigma=0.1: 20.0 % [17.0, 23.0], of 80.0 %")
    assert said[3] == "Not valid: noise:sigma=0.1. Their own reports say why."


def test_the_table_fits_a_terminal_of_80_columns():
    walls = [kind() for kind in DEFENSES.values()]
    table = defenses_page.three_ways(
        "MNIST", [measured(wall, 0.9, 0.45, 0.25, "suspect") for wall in walls], "linf:0.3"
    )
    widths = [max(len(row[at]) for row in [table.columns, *table.rows]) for at in range(len(table.columns))]
    assert sum(widths) + len(widths) + 1 <= 80  # a space between columns, and one at each end


@pytest.mark.slow
def test_the_command_from_the_shell(tmp_path, capsys):
    """Fashion-MNIST with its bundled network; needs the whole data set."""
    from unfooled.cli import run

    words = [
        "study",
        "defenses",
        "--data",
        "fashion-mnist",
        "--images",
        "20",
        "--only",
        "jpeg",
        "--out",
        f"{tmp_path}/out",
    ]
    status = run(words)
    if status == 65:
        pytest.skip("Fashion-MNIST is not here")
    assert status == 0
    shown = capsys.readouterr().out
    assert "jpeg:quality=75" in shown
    assert "report:" in shown
