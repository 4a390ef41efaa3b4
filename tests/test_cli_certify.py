"""`unfooled certify`, through the real entry point: what it proves, that it goes on, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import torch

import unfooled as uf
from unfooled.certificates import cost
from unfooled.cli import run
from unfooled.store import RunFolder
from unfooled.studies import proved

pytestmark = pytest.mark.usefixtures("one_thread")

NET = """
import torch
from torch import nn

torch.manual_seed(0)
W = torch.randn(4, 25)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(25, 4))
        self.body[1].weight.data, self.body[1].bias.data = W, torch.zeros(4)
    def forward(self, x):
        return self.body(x).relu()

def make(): return Net().eval()
def half(): return Net().eval().half()
def soft(): return nn.Sequential(Net(), nn.Softmax(1)).eval()
def box():
    import unfooled as uf
    net = Net().eval()
    return uf.models.BlackBox(lambda x: net(x).argmax(1), "labels", 4)
"""
COUNT = 40


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(proved, "SHARD", 16)
    monkeypatch.setattr(cost, "SLOW", 60.0)
    (tmp_path / "net.py").write_text(NET)
    images = torch.rand(COUNT, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    labels = (images.flatten(1) @ torch.randn(4, 25).T).relu().argmax(1)
    labels[3] = (labels[3] + 1) % 4
    np.savez(tmp_path / "x.npz", images=images.numpy(), labels=labels.numpy())
    return tmp_path


def certify(*words):
    return run(["certify", "net.py:make", "x.npz", "--threat", "linf:0.05", *words])


def rows(place, run="r"):
    return list(csv.DictReader((place / run / "examples.csv").open()))


def test_a_run_says_what_certify_says(place, capsys):
    assert certify("--out", "r") == 0
    shown = capsys.readouterr().out
    found = uf.certify(uf.models.load("net.py:make"), "x.npz", "linf:0.05")
    evaluation = RunFolder(place / "r").evaluation()
    assert 0 < evaluation.certified_accuracy.value < evaluation.clean_accuracy.value == 39 / 40
    assert evaluation.certified_accuracy == found.certified_accuracy
    assert evaluation.robust_accuracy is None
    assert [row["certified"] == "True" for row in rows(place)] == found.certified.tolist()
    assert [row["by"] for row in rows(place)] == [found.methods[by] if by >= 0 else "" for by in found.by]
    ours = [float(row["margin"] or "-inf") for row in rows(place)]
    assert ours == pytest.approx(found.margin.tolist(), rel=1e-6)
    table = {row[0]: row[1:3] for row in evaluation.tables[1].rows}
    tried = 39
    for number, name in enumerate(found.methods):
        mine = int((found.by == number).sum())
        assert table[name] == [str(tried), str(mine)]
        tried -= mine
    flat = " ".join(shown.split())
    assert f"{100 * found.certified_accuracy.value:.1f} %" in flat
    assert "of 40 images are right and stay right under every change within linf:0.05: proved, not attacked." in flat
    assert f"{tried} images are right and not proved" in flat
    assert max(map(len, shown.splitlines())) <= 80
    page = (place / "r" / "report.html").read_text()
    assert "Certified accuracy" in page
    assert "Accuracy under attack" not in page


def test_the_curve_is_what_is_proved_at_each_size(place):
    """Of one affine layer all methods are exact, so that the sizes found by halving are those of a search one by one."""
    assert certify("--method", "crown", "--out", "r", "--curve", "20") == 0
    sizes = [float(row["size"]) for row in rows(place) if row["size"]]
    assert len(sizes) == 20
    curve = RunFolder(place / "r").evaluation().panels[0].curves[0]
    chosen = torch.tensor([at for at, row in enumerate(rows(place)) if row["size"]])
    data, model = uf.data.load("x.npz"), uf.models.load("net.py:make")
    given = data.floats()[chosen], data.labels[chosen]
    assert curve.y[0].value == uf.certify(model, given, "linf:0.05", "ibp").clean_accuracy.value
    for x, y in zip(curve.x[1:], curve.y[1:], strict=True):
        assert y.value == uf.certify(model, given, uf.Linf(x), "crown").certified_accuracy.value, x
        assert y.n == 20
    assert len({y.value for y in curve.y}) > 4
    assert certify("--method", "ibp", "--out", "none", "--curve", "0") == 0
    assert RunFolder(place / "none").evaluation().panels == []


def test_a_bundled_model_and_json(capsys, place):
    words = [
        "certify",
        "--model",
        "fashion-mnist/plain",
        "--data",
        "fashion-mnist-sample[0:40]",
        "--threat",
        "linf:1e-6",
    ]
    assert run([*words, "--method", "ibp", "--curve", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "certificate"
    assert found["certified_accuracy"]["value"] > 0.5
    assert found["settings"]["method"] == "ibp"


def test_stopped_between_shards_it_goes_on(place, monkeypatch, capsys):
    assert certify("--out", "whole") == 0
    once, calls = proved._Shard.write, []

    def stops(self, folder, number, *rest):
        calls.append(number)
        if number == 2:
            raise KeyboardInterrupt
        once(self, folder, number, *rest)

    monkeypatch.setattr(proved._Shard, "write", stops)
    assert certify("--out", "r") == 130
    assert RunFolder(place / "r").shards() == {0, 1}
    assert run(["runs", "."]) == 0
    assert "unfinished: 2 of 3 shards" in capsys.readouterr().out
    monkeypatch.setattr(proved._Shard, "write", lambda *given: calls.append(given[2]) or once(*given))
    assert certify("--out", "r") == 0
    assert calls == [0, 1, 2, 2]
    assert rows(place) == rows(place, "whole")
    assert certify("--out", "r", "--seed", "1") == 73
    assert "holds another run" in capsys.readouterr().err


def test_a_damaged_certificate_is_seen(place, capsys):
    assert certify("--method", "ibp", "--out", "r") == 0
    file = place / "r" / "certificates" / "00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert certify("--method", "ibp", "--out", "r") == 65
    assert "Shard 1 of r is damaged" in capsys.readouterr().err
    assert run(["runs", "r", "--forget", "1"]) == 0
    assert certify("--method", "ibp", "--out", "r") == 0


@pytest.mark.parametrize("model", ["make", "box"])
def test_smoothing(place, capsys, model):
    words = ["certify", f"net.py:{model}", "x.npz", "--threat", "l2:0.05", "--method", "smoothing:sigma=0.1,draws=2000"]
    assert run([*words, "--out", "r", "--curve", "10"]) == 0
    flat = " ".join(capsys.readouterr().out.split())
    assert "speaks of the smoothed classifier" in flat
    assert "wrong with probability at most 0.001 for each image" in flat
    evaluation = RunFolder(place / "r").evaluation()
    found = uf.certify(uf.models.load(f"net.py:{model}"), "x.npz", "l2:0.05", "smoothing:sigma=0.1,draws=2000")
    assert [row["certified"] == "True" for row in rows(place)] == found.certified.tolist()
    assert [int(row["draws"]) for row in rows(place)] == found.draws.tolist()
    assert evaluation.cost[0].forward == int(found.draws.sum())
    summary = dict(evaluation.tables[0].rows)
    assert summary["refuted: more draws would not help"] == str(int(found.refuted.sum()))
    values = [y.value for y in evaluation.panels[0].curves[0].y]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.5 > values[-1]
    assert {y.n for y in evaluation.panels[0].curves[0].y} == {10}


def test_what_takes_too_long_is_left_out_of_auto_and_told(place, capsys, monkeypatch):
    monkeypatch.setattr(cost, "SLOW", 0.0)
    assert certify("--out", "r") == 0
    evaluation = RunFolder(place / "r").evaluation()
    assert evaluation.settings["method"] == "ibp"
    assert "crown and alpha-crown would take" in evaluation.notes[0]
    assert "not tried" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(cost, "SLOW", 60.0)
    assert certify("--out", "r") == 0  # what was found before counts
    assert RunFolder(place / "r").evaluation().settings["method"] == "ibp"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["net.py:make", "x.npz", "--threat", "l0:3"], 64, "No bounds cover L0"),
        (["net.py:make", "x.npz", "--method", "crwn"], 64, "Did you mean 'crown'?"),
        (["net.py:make", "x.npz", "--method", "smothing:sigma=1"], 64, "Did you mean 'smoothing'?"),
        (["net.py:make", "x.npz", "--method", "smoothing:sigma=1"], 64, "certifies l2 (with Gaussian noise) and l1"),
        (["net.py:make", "x.npz", "--curve", "-1"], 64, "--curve must be 0 or more"),
        (["net.py:soft", "x.npz"], 65, "no bounds for softmax in 1 (Softmax)"),
        (["net.py:make", "x.npz", "--defense", "bit-depth"], 65, "no bounds for round in defenses.0 (BitDepth)"),
        (["net.py:half", "x.npz"], 65, "Got torch.float16: certify model.float()"),
        (["x.npz"], 64, "DATA is missing"),
    ],
)
def test_what_is_refused_in_one_line(place, capsys, words, status, said):
    before = set(place.rglob("*"))
    assert run(["certify", *words]) == status
    told = capsys.readouterr().err.strip()
    assert said in told
    assert len(told.splitlines()) == 1
    assert {path for path in set(place.rglob("*")) - before if "__pycache__" not in str(path)} == set()


def test_other_commands_know_that_it_is_no_attack(place, capsys):
    assert certify("--method", "ibp", "--out", "runs/r") == 0
    assert run(["runs", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out.partition("report: runs/r/report.html")[2])
    assert (entry["kind"], entry["protocol"], entry["attacked"]) == ("certificate", "ibp", "")
    assert entry["proved"].endswith(" %")
    assert run(["verify", "runs/r"]) == 65
    assert "holds certificates" in capsys.readouterr().err
    assert run(["compare", "runs/r", "runs/r"]) == 65
    assert "holds certificates" in capsys.readouterr().err
    page = (place / "runs/r/report.html").read_bytes()
    assert run(["report", "runs/r"]) == 0
    assert (place / "runs/r/report.html").read_bytes() == page
    assert run(["list", "certificates"]) == 0
    assert "smoothing" in capsys.readouterr().out
