"""The commands, through the real entry point; bad input ends in one line and a status of 64 or above."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from unfooled.cli import run
from unfooled.store import RunFolder

SAMPLE = "fashion-mnist-sample[0:40]"


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def program(*arguments, **options):
    script = Path(sys.executable).parent / "unfooled"
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_the_installed_program_attacks(tmp_path):
    done = program("attack", "fashion-mnist/plain", SAMPLE, "--threat", "linf:0.1", "--attack", "fgsm", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # quiet where it is not a terminal
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "accuracy under the attack" in done.stdout
    evaluation = RunFolder(tmp_path / "run").evaluation()
    assert evaluation.settings["attack"] == "fgsm"
    evidence = RunFolder(tmp_path / "run").evidence()
    fooled = evidence["example"][evidence["success"]]
    assert {p.name for p in (tmp_path / "run" / "png").iterdir()} == {f"{e:05d}.png" for e in fooled}
    held = load_file(tmp_path / "run" / "adversarial" / "00000.safetensors")
    assert held["adversarial"].shape == (40, 1, 28, 28)
    assert sorted(held["example"]) == list(range(40))
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_the_pngs_are_the_adversarial_images_inside_the_set(tmp_path):
    import unfooled as uf

    assert (
        run(["attack", "fashion-mnist/plain", SAMPLE, "--threat", "linf:0.1", "--attack", "pgd:steps=5", "--out", "r"])
        == 0
    )
    found = uf.data.load(SAMPLE)
    for file in (tmp_path / "r" / "png").iterdir():
        pixels = np.asarray(Image.open(file)).astype(int)
        original = found.images[int(file.stem), 0].numpy().astype(int)
        assert np.abs(pixels - original).max() <= 0.1 * 255


def test_json_is_the_evaluation(capsys):
    assert run(["attack", "--model", "fashion-mnist/plain", "--data", SAMPLE, "--attack", "fgsm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "attack"
    assert found["tables"][0]["rows"][0][0] == "clean accuracy"


def test_the_same_command_goes_on_and_another_is_refused(capsys, tmp_path):
    command = ["attack", "fashion-mnist/plain", SAMPLE, "--attack", "fgsm", "--out", "r"]
    assert run(command) == 0
    first = (tmp_path / "r" / "evidence.sqlite").read_bytes()
    cost = RunFolder(tmp_path / "r").evaluation().cost
    assert cost[0].forward > 40
    assert cost[0].seconds > 0
    assert run(command) == 0
    assert (tmp_path / "r" / "evidence.sqlite").read_bytes() == first
    assert RunFolder(tmp_path / "r").evaluation().cost == cost
    assert run([*command, "--batch-size", "10"]) == 0
    assert run([*command, "--seed", "1"]) == 73
    assert "holds another run" in capsys.readouterr().err


def test_interrupted_it_leaves_what_is_done_and_goes_on(tmp_path):
    """Ctrl-C in the second shard: the first is on disk, and the same command ends as an undisturbed one."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time, torch, unfooled as uf\n"
        "class Slow(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.m = uf.models.load('fashion-mnist/plain')\n"
        "    def forward(self, x):\n"
        "        while pathlib.Path('r/adversarial/00000.safetensors').exists() and pathlib.Path('hang').exists():\n"
        "            time.sleep(0.01)\n"
        "        return self.m(x)\n"
    )
    script = str(Path(sys.executable).parent / "unfooled")
    command = ["attack", "slow.py:Slow", "fashion-mnist-sample[0:600]", "--attack", "pgd:steps=2", "--out", "r"]
    (tmp_path / "hang").touch()
    process = subprocess.Popen([script, *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (tmp_path / "r" / "evidence.sqlite").exists() or not RunFolder(tmp_path / "r").shards():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "unfooled: interrupted; what was finished is on disk"
    assert RunFolder(tmp_path / "r").shards() == {0}
    assert not (tmp_path / "r" / "evaluation.json").exists()
    (tmp_path / "hang").unlink()
    assert run(command) == 0
    assert run([*command[:-1], "whole"]) == 0
    again, undisturbed = (RunFolder(tmp_path / name).evidence() for name in ("r", "whole"))
    for name in again:
        assert np.array_equal(again[name], undisturbed[name]), name


def test_sweep_over_eps(tmp_path, capsys):
    assert (
        run(["sweep", "fashion-mnist/plain", SAMPLE, "--threat", "linf:0.2", "--eps", "0:0.2:0.05", "--out", "s"]) == 0
    )
    curve = RunFolder(tmp_path / "s").evaluation().panels[0].curves[0]
    assert curve.x == [0.0, 0.05, 0.1, 0.15, 0.2]
    values = [y.value for y in curve.y]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.8 > values[-1]


def test_sweep_over_a_defense(tmp_path, capsys):
    words = ["sweep", "fashion-mnist/plain", SAMPLE, "--threat", "linf:0.1", "--defense", "blur", "--strengths", "0,1",
             "--out", "s"]  # fmt: skip
    assert run(words) == 0
    assert "a gap of" in " ".join(capsys.readouterr().out.split())
    evaluation = RunFolder(tmp_path / "s").evaluation()
    roles = {curve.role: curve for curve in evaluation.panels[0].curves if curve.family == ""}
    assert set(roles) == {"clean", "non-adaptive", "adaptive"}


def test_report_redraws_the_same_page(tmp_path):
    assert run(["sweep", "fashion-mnist/plain", SAMPLE, "--eps", "0,0.1", "--out", "s"]) == 0
    page = (tmp_path / "s" / "report.html").read_bytes()
    (tmp_path / "s" / "report.html").unlink()
    assert run(["report", "s"]) == 0
    assert (tmp_path / "s" / "report.html").read_bytes() == page


def test_a_target_keeps_the_numbers_of_the_data(tmp_path):
    import unfooled as uf

    words = [
        "attack",
        "fashion-mnist/plain",
        SAMPLE,
        "--threat",
        "linf:0.2",
        "--attack",
        "pgd:steps=5",
        "--target",
        "8",
    ]
    assert run([*words, "--out", "r"]) == 0
    found = uf.data.load(SAMPLE)
    evidence = RunFolder(tmp_path / "r").evidence()
    assert evidence["example"].tolist() == [k for k in range(40) if found.labels[k] != 8]
    assert evidence["label"].tolist() == found.labels[evidence["example"]].tolist()
    for file in (tmp_path / "r" / "png").iterdir():
        pixels = np.asarray(Image.open(file)).astype(int)
        assert np.abs(pixels - found.images[int(file.stem), 0].numpy().astype(int)).max() <= 0.2 * 255
    lines = (tmp_path / "r" / "examples.csv").read_text().splitlines()
    assert (
        lines[0]
        == "example,label,clean_prediction,clean_correct,success,distance,forward,backward,fooled_by,error,file"
    )
    assert len(lines) == 1 + len(evidence["example"])


def test_paths_with_brackets_and_spaces(tmp_path, capsys):
    assert run(["attack", "fashion-mnist/plain", SAMPLE, "--attack", "fgsm", "--out", "q a[/x][red]"]) == 0
    assert "report: q a[/x][red]/report.html" in capsys.readouterr().out


def test_errors_name_the_example_as_the_data_does(tmp_path, capsys):
    (tmp_path / "net.py").write_text(MODELS)
    labels = np.zeros(30, dtype=np.int64)
    labels[7] = 9
    data = write(tmp_path, "x.npz", images=np.full((30, 1, 5, 5), 0.5, np.float32), labels=labels)
    assert run(["attack", "net.py:Linear", data, "--attack", "fgsm"]) == 65
    assert "Got 9 at example 7" in capsys.readouterr().err


def test_without_a_command_there_is_help_and_no_stray_line(capsys):
    assert run([]) == 64
    shown = capsys.readouterr()
    assert "Usage" in shown.out + shown.err
    assert "unfooled: ." not in shown.err
    assert run(["list"]) == 0
    assert "fgsm" in capsys.readouterr().out


def test_train_writes_weights_that_attack_loads(tmp_path, capsys):
    words = ["train", "fashion-mnist-sample", "--model", "small-resnet", "--epochs", "1", "--out", "w.safetensors"]
    assert run([*words, "--recipe", "fast-at", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "fast-at"
    assert run(["attack", "small-resnet", SAMPLE, "--weights", "w.safetensors", "--attack", "fgsm"]) == 0


def test_list(capsys):
    for kind in ("attacks", "data", "defenses", "losses", "models", "recipes", "threats"):
        assert run(["list", kind]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80
        assert run(["list", kind, "--json"]) == 0
        for name in json.loads(capsys.readouterr().out):
            assert name in shown


BAD = {
    "an unknown command": (["atack"], 64, "No such command"),
    "an unknown option": (["attack", "--treat", "linf:1"], 64, "--treat"),
    "no model": (["attack"], 64, "MODEL is missing"),
    "no data": (["attack", "fashion-mnist/plain"], 64, "DATA is missing"),
    "a model twice": (["attack", "a", "b", "--model", "c"], 64, "MODEL is given twice"),
    "an unknown model": (["attack", "fashion-mnist/plane", SAMPLE], 64, "Did you mean 'fashion-mnist/plain'?"),
    "unknown data": (["attack", "fashion-mnist/plain", "fashion-minst"], 64, "Did you mean 'fashion-mnist'?"),
    "a range outside": (["attack", "fashion-mnist/plain", "fashion-mnist-sample[0:2000]"], 64, "1000"),
    "an unknown threat": (["attack", "fashion-mnist/plain", SAMPLE, "--threat", "linff:0.1"], 64, "Did you mean 'linf'?"),
    "eps 0": (["attack", "fashion-mnist/plain", SAMPLE, "--threat", "linf:0"], 64, "'eps' parameter of Linf must be"),
    "eps below 0": (["attack", "fashion-mnist/plain", SAMPLE, "--threat", "linf:-1"], 64, "Got -1 instead"),
    "no eps": (["attack", "fashion-mnist/plain", SAMPLE, "--threat", "linf"], 64, "lacks its eps"),
    "an unknown attack": (["attack", "fashion-mnist/plain", SAMPLE, "--attack", "fgms"], 64, "Did you mean 'fgsm'?"),
    "an unknown option of it": (["attack", "fashion-mnist/plain", SAMPLE, "--attack", "pgd:step=3"], 64, "Did you mean 'steps'?"),
    "an unknown loss": (["attack", "fashion-mnist/plain", SAMPLE, "--attack", "fgsm:loss=crossentropy"], 64,
                        "Did you mean 'cross_entropy'?"),
    "an unknown defense": (["attack", "fashion-mnist/plain", SAMPLE, "--defense", "blurr"], 64, "Did you mean 'blur'?"),
    "an unknown recipe": (["train", SAMPLE, "--recipe", "pdg", "--out", "w"], 64, "Did you mean 'pgd'?"),
    "an unknown study": (["sweep", "--study", "sead", "--data", SAMPLE], 64, "Did you mean 'seed'?"),
    "an unknown list": (["list", "attack"], 64, "Did you mean 'attacks'?"),
    "a missing file": (["attack", "net.py:make", SAMPLE], 66, "There is no file net.py"),
    "a missing run": (["report", "nowhere"], 66, "There is no run folder nowhere"),
    "a missing folder": (["attack", "fashion-mnist/plain", "./nowhere"], 66, "nowhere"),
    "a grid of words": (["sweep", "fashion-mnist/plain", SAMPLE, "--eps", "a,b"], 64, "--eps must be numbers"),
    "a grid with nan": (["sweep", "fashion-mnist/plain", SAMPLE, "--eps", "nan"], 64, "--eps must be numbers"),
    "an infinite grid": (["sweep", "fashion-mnist/plain", SAMPLE, "--threat", "linf:inf"], 64, "must be finite"),
    "a broken strength": (["sweep", "fashion-mnist/plain", SAMPLE, "--defense", "median", "--strengths", "1.5"], 64,
                          "must be an int"),
    "weights of another kind": (["train", SAMPLE, "--out", "w.pt"], 64, "ending in .safetensors"),
    "strengths without a defense": (["sweep", "fashion-mnist/plain", SAMPLE, "--strengths", "0,1"], 64, "needs a --defense"),
    "classes of words": (["attack", "fashion-mnist/plain", SAMPLE, "--classes", "cat"], 64, "such as cat=3,dog=5"),
    "a budget too small": (["attack", "fashion-mnist/plain", SAMPLE, "--budget", "2"], 64, "'budget' parameter"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_a_status(case, capsys, tmp_path):
    words, status, message = BAD[case]
    assert run(words) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("unfooled: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not list(tmp_path.rglob("*.json")), "something half-written was left"


def write(tmp_path, name, **arrays):
    np.savez(tmp_path / name, **arrays)
    return str(tmp_path / name)


MODELS = """
import torch
from torch import nn
class Linear(nn.Sequential):
    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(25, 3))
class Nan(Linear):
    def forward(self, x): return super().forward(x) * float("nan")
class Shares(Linear):
    def forward(self, x): return super().forward(x).softmax(1)
class Flat(nn.Module):
    def forward(self, x): return x
"""


@pytest.mark.parametrize(
    ("model", "images", "labels", "status", "message"),
    [
        ("Linear", np.full((2, 1, 5, 5), 0.5, np.float32), [0, 3], 65, "must be below 3, the number of the model's classes. Got 3"),
        ("Linear", np.full((2, 1, 5, 5), np.nan, np.float32), [0, 1], 65, "NaN"),
        ("Linear", np.full((2, 1, 5, 5), 7.0, np.float32), [0, 1], 65, "[0, 1]"),
        ("Linear", np.full((2, 3, 5, 5), 0.5, np.float32), [0, 1], 65, "The model failed on images of shape (3, 5, 5)"),
        ("Nan", np.full((2, 1, 5, 5), 0.5, np.float32), [0, 1], 65, "logits for example 0 are not finite"),
        ("Flat", np.full((2, 1, 5, 5), 0.5, np.float32), [0, 1], 65, "must return logits of shape (2, classes)"),
        ("Linear", np.full((2, 1, 5, 5), 0.5, np.float32), [0], 65, "2 images but 1 labels"),
    ],
)  # fmt: skip
def test_bad_models_and_images(tmp_path, capsys, model, images, labels, status, message):
    (tmp_path / "net.py").write_text(MODELS)
    data = write(tmp_path, "x.npz", images=images, labels=np.array(labels))
    assert run(["attack", f"net.py:{model}", data, "--attack", "fgsm", "--out", "r"]) == status
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "r" / "evaluation.json").exists()


def test_probabilities_are_noted(tmp_path, capsys):
    (tmp_path / "net.py").write_text(MODELS)
    data = write(tmp_path, "x.npz", images=np.full((4, 1, 5, 5), 0.5, np.float32), labels=np.array([0, 1, 2, 0]))
    assert run(["attack", "net.py:Shares", data, "--attack", "fgsm", "--out", "r"]) == 0
    assert "probabilities" in capsys.readouterr().err
    assert any("probabilities" in note for note in RunFolder(tmp_path / "r").evaluation().notes)


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    for out in ("file", "file/run", "/proc/unfooled"):
        assert run(["attack", "fashion-mnist/plain", SAMPLE, "--out", out]) == 73
        assert capsys.readouterr().err.startswith("unfooled: ")
    assert (tmp_path / "file").read_text() == "precious"


def test_image_folders_through_the_command(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k, size in enumerate([(6, 5), (9, 4)]):
            Image.new("RGB", size, (40 * k, 90, 120)).save(tmp_path / "photos" / name / f"{k}.png")
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 6))\n"
    )
    (tmp_path / "classes.json").write_text('{"cat": 3, "dog": 5}')
    assert run(["attack", "net.py:make", "photos", "--attack", "fgsm"]) == 65
    assert "--resize" in capsys.readouterr().err
    words = [
        "attack",
        "net.py:make",
        "photos",
        "--resize",
        "4",
        "--crop",
        "4x4",
        "--classes",
        "classes.json",
        "--attack",
        "fgsm",
    ]
    assert run(words) == 0
    assert len(list((tmp_path / "runs").glob("attack-*/evaluation.json"))) == 1
    assert run([w if w != "classes.json" else "cat=3,dog=5" for w in words]) == 0
    (tmp_path / "classes.json").write_text('{"cat": "three"}')
    assert run(words) == 65
    assert "from class folders to indices" in capsys.readouterr().err
