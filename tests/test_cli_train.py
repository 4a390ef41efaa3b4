"""`unfooled train`: what it writes, how it goes on, what it says."""

import json

import pytest
import torch
from PIL import Image

from unfooled.cli import run
from unfooled.models.weights import read

WORDS = ["train", "fashion-mnist-sample[0:200]", "--model", "small-cnn", "--recipe", "n-fgsm", "--epochs", "2"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)


def test_it_writes_weights_curves_and_a_checkpoint_and_goes_on(tmp_path, capsys):
    assert run([*WORDS, "--out", "w.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "wrote w.safetensors: epoch" in told
    assert "on images held out clean 0." in told
    first = read(tmp_path / "w.safetensors")
    with Image.open(tmp_path / "w.training" / "curves.png") as picture:
        assert picture.width > 500
    (tmp_path / "w.safetensors").unlink()
    assert run([*WORDS, "--out", "w.safetensors", "--json"]) == 0  # the run has ended: its weights are written again
    shown = json.loads(capsys.readouterr().out)
    again = read(tmp_path / "w.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [entry["epoch"] for entry in shown["history"]] == [1, 2]
    assert shown["chosen"] in (1, 2)
    assert shown["model"] == "small-cnn"


def test_tensorboard_has_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run([*WORDS, "--out", "w.safetensors"]) == 0
    found = EventAccumulator(str(tmp_path / "w.training" / "tensorboard"))
    found.Reload()
    assert {"loss", "accuracy", "clean", "robust", "eps", "learning_rate"} <= set(found.Tags()["scalars"])
    assert len(found.Scalars("robust")) == 2


BAD = {
    "no such part": (["--set", "averge=0.9"], "Did you mean 'average'?"),
    "no value": (["--set", "average"], "--set takes NAME=VALUE, such as average=0.999"),
    "a part out of range": (["--set", "average=2"], "'average' parameter of Recipe must be a float in [0, 1). Got 2"),
    "an objective without its attack": (["--set", "attack=none"], "The objective adversarial needs an inner attack"),
    "a device that is not there": (["--device", "cuda:7"], "There is no device 'cuda:7' here"),
    "a layout": (["--layout", "first"], "'layout' parameter of Compute must be one of"),
    "a threat of another norm": (["--threat", "l2:1"], "n-fgsm works for Linf, not for L2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, capsys, tmp_path):
    words, message = BAD[case]
    assert run([*WORDS, "--out", "w.safetensors", *words]) == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not list(tmp_path.iterdir()), "something half-written was left"


def test_another_run_in_the_folder_is_refused(capsys, tmp_path):
    assert run([*WORDS, "--out", "w.safetensors"]) == 0
    assert run([*WORDS, "--out", "w.safetensors", "--seed", "1"]) == 73
    assert "holds another run" in capsys.readouterr().err
