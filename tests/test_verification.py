"""A run folder checked from scratch: what holds, and each way in which it may not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from helpers import Linear
from test_results import evaluation
from unfooled import judging, results, verification
from unfooled.cli import verify as command
from unfooled.errors import DataError, ParameterError
from unfooled.intervals import clopper_pearson
from unfooled.store import Row, RunFolder, shard_file
from unfooled.verification import verify

COUNT = 40
THREAT = uf.Linf(0.25)


class Shifting(nn.Module):
    """A model that adds noise to its logits."""

    def __init__(self, inner, noise):
        super().__init__()
        self.inner, self.noise = inner, noise

    def forward(self, x):
        logits = self.inner(x)
        return logits + self.noise * torch.randn_like(logits)


class Failing(nn.Module):
    """A model whose logits are NaN on images with a marked first pixel."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.where(x.flatten(1)[:, :1] == 1, torch.nan, self.inner(x))


@pytest.fixture(scope="module")
def problem():
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn((3, 12), generator=draw)
    model = Linear(weight, -0.5 * weight.sum(1))
    images = 0.1 + 0.8 * torch.rand((COUNT, 3, 2, 2), generator=draw)
    labels = model(images).argmax(1)
    labels[::5] = (labels[::5] + 1) % 3
    return model, images, labels


def table(model, images, labels):
    """What an attack finds, as the rows of a run, and its adversarial images."""
    found = uf.attack(model, images, labels, THREAT, "fgsm")
    columns = (labels, found.clean_prediction, found.clean_correct, found.success, found.distance)
    rows = [
        Row(at, *row, forward=2, backward=1, fooled_by="fgsm" if row[3] else None)
        for at, row in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]
    assert 5 < sum(row.success for row in rows) < 35
    return rows, found.adversarial.numpy().copy()


def write(folder, rows, adversarial, threat=str(THREAT), shards=3):
    """A run folder of these rows, its shards in a random order of the examples."""
    run = RunFolder(folder)
    run.begin({"model": "m", "threat": threat})
    order = np.random.default_rng(0).permutation(len(rows))
    for number, index in enumerate(np.array_split(order, shards)):
        run.add_shard(number, {"adversarial": adversarial[index], "example": index}, [rows[at] for at in index])
    return run


@pytest.fixture
def found(problem):
    return table(*problem)


def fooled(rows):
    return next(row for row in rows if row.success)


def whats(result):
    return [(p.example, p.what) for p in result.problems]


def test_a_sound_run_holds(problem, found, tmp_path):
    model, images, labels = problem
    seen = []
    result = verify(write(tmp_path / "r", *found), model, (images, labels), progress=lambda *at: seen.append(at))
    assert result.holds, result.problems
    assert (result.examples, result.adversarial) == (COUNT, sum(row.success for row in found[0]))
    assert [total for _, total in seen] == [COUNT] * 3
    assert seen[-1][0] == COUNT


def test_a_changed_file_is_told_beside_what_it_holds(problem, found, tmp_path):
    model, images, labels = problem
    run = write(tmp_path / "r", *found)
    place = run.path / shard_file(1)
    place.write_bytes(place.read_bytes()[:-4] + b"\0\0\0\0")
    told = verify(run, model, (images, labels)).problems
    assert (told[0].example, told[0].what, told[0].found) == (None, shard_file(1), "changed since")
    place.write_bytes(b"no arrays")
    told = verify(run, model, (images, labels)).problems
    assert {problem.what for problem in told[1:]} == {"adversarial example"}


def tampered(how, image, clean):
    if how == "its own image":
        return clean
    if how == "too far":
        return np.clip(clean + 1.02 * (image - clean), 0, 1)
    image = image.copy()
    image.flat[clean.argmin()] = {"NaN": np.nan, "out of bounds": -0.001}[how]
    return image


@pytest.mark.parametrize(
    ("how", "what", "said"),
    [
        ("its own image", "fooled", "the model answers {label}, the label"),
        ("NaN", "adversarial image", "NaN or inf in it"),
        ("too far", "adversarial image", "size 0.255"),
        ("out of bounds", "adversarial image", "outside the bounds or the mask"),
    ],
)
def test_a_tampered_adversarial_image_is_found(problem, found, tmp_path, how, what, said):
    model, images, labels = problem
    rows, adversarial = found
    row = fooled(rows)
    adversarial[row.example] = tampered(how, adversarial[row.example], images[row.example].numpy())
    result = verify(write(tmp_path / "r", rows, adversarial), model, (images, labels))
    assert {p.example for p in result.problems} == {row.example}
    assert said.format(label=row.label) in {p.found for p in result.problems if p.what == what}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label": 2}, "label"),
        ({"clean_prediction": 2}, "clean prediction"),
        ({"distance": 0.2}, "distance"),
        ({"clean_correct": False}, "clean prediction"),
    ],
)
def test_a_changed_record_is_found(problem, found, tmp_path, change, what):
    model, images, labels = problem
    rows, adversarial = found
    row = next(r for r in rows if r.success and r.label == 0)
    rows[row.example] = row._replace(**change)
    result = verify(write(tmp_path / "r", rows, adversarial), model, (images, labels))
    assert whats(result) == [(row.example, what)]


def test_swapped_labels_another_model_and_other_images_are_found(problem, found, tmp_path):
    model, images, labels = problem
    run = write(tmp_path / "r", *found)
    swapped = labels.clone()
    swapped[[1, 2]] = (labels[[1, 2]] + 1) % 3
    assert {1, 2} <= {p.example for p in verify(run, model, (images, swapped)).problems if p.what == "label"}
    other = Linear(model.weight.detach() * torch.tensor([[1.0], [1.0], [0.7]]), model.bias.detach())
    assert "clean prediction" in {p.what for p in verify(run, other, (images, labels)).problems}
    assert len(verify(run, model, (images.flip(0), labels)).problems) > COUNT / 4
    with pytest.raises(DataError, match="holds example 20, but none of the 20 images given is called so"):
        verify(run, model, (images[:20], labels[:20]))
    with pytest.raises(DataError, match="not the data of the run"):
        verify(run, model, (images.reshape(COUNT, 12), labels))


def test_images_go_by_the_names_they_were_given(problem, found, tmp_path):
    model, images, labels = problem
    rows, adversarial = found
    run = RunFolder(tmp_path / "r")
    run.begin({"threat": str(THREAT)})
    ids = 1000 - 7 * np.arange(COUNT)
    named = [row._replace(example=int(ids[row.example])) for row in rows]
    run.add_shard(0, {"adversarial": adversarial, "example": ids}, named)
    assert verify(run, model, (images, labels), ids=ids).holds
    with pytest.raises(DataError, match="holds example 727"):
        verify(run, model, (images, labels))


def test_a_smaller_threat_does_not_hold(problem, found, tmp_path):
    model, images, labels = problem
    run = write(tmp_path / "r", *found)
    result = verify(run, model, (images, labels), uf.Linf(0.1))
    assert len(result.problems) == result.adversarial
    masked = write(tmp_path / "m", *found, threat="linf:0.25,mask=tensor")
    with pytest.raises(ParameterError, match="does not name its threat in full"):
        verify(masked, model, (images, labels))
    assert verify(masked, model, (images, labels), THREAT).holds


def test_an_adversarial_image_in_no_shard_is_missing(problem, found, tmp_path):
    model, images, labels = problem
    rows, adversarial = found
    run = RunFolder(tmp_path / "r")
    run.begin({"threat": str(THREAT)})
    run.add_shard(0, {"adversarial": adversarial[1:], "example": np.arange(1, COUNT)}, rows)
    assert whats(verify(run, model, (images, labels))) == [(0, "adversarial example")]


def test_a_random_model_is_judged_by_majority(problem, tmp_path):
    model, images, labels = problem
    rows, adversarial = table(model, images, labels)
    run = write(tmp_path / "r", rows, adversarial)
    assert verify(run, Shifting(model, 0.02), (images, labels)).holds
    row = fooled(rows)
    adversarial[row.example] = images[row.example].numpy()
    bad = verify(write(tmp_path / "t", rows, adversarial), Shifting(model, 0.02), (images, labels))
    assert (row.example, "fooled") in whats(bad)


def test_a_random_model_is_asked_again_before_it_disagrees(problem, found, tmp_path, monkeypatch):
    model, images, labels = problem
    run = write(tmp_path / "r", *found)

    def appraise(model, images, labels, seed):
        answer = judging.appraise(model, images, labels, seed)
        shift = int(seed < unlucky)
        return dataclasses.replace(answer, prediction=(answer.prediction + shift) % 3)

    monkeypatch.setattr(verification, "appraise", appraise)
    unlucky = verification.TRIES - 1
    assert verify(run, model, (images, labels)).holds
    unlucky = verification.TRIES
    assert len(verify(run, model, (images, labels)).problems) == COUNT


def test_logits_that_are_not_finite_are_as_recorded(problem, found, tmp_path):
    model, images, labels = problem
    rows, adversarial = found
    images = images.clone()
    images[7].view(-1)[0] = 1
    failed = Row(7, rows[7].label, -1, False, False, 0.0, 1, 0, error="its logits are not finite")
    told = write(tmp_path / "told", [*rows[:7], failed, *rows[8:]], adversarial)
    result = verify(told, Failing(model), (images, labels))
    assert result.holds, result.problems
    assert result.unjudged == 1
    untold = verify(write(tmp_path / "untold", rows, adversarial), Failing(model), (images, labels))
    assert next(p.found for p in untold.problems if p.example == 7) == "logits that are not finite"
    assert {p.example for p in untold.problems} == {7}


def test_the_answer_must_be_that_of_the_evidence(problem, found, tmp_path):
    model, images, labels = problem
    run = write(tmp_path / "r", *found)
    correct = sum(row.clean_correct for row in found[0])
    robust = sum(row.clean_correct and not row.success for row in found[0])
    for shift in (0, 1):
        run.write_evaluation(
            evaluation(
                clean_accuracy=clopper_pearson(correct, COUNT),
                robust_accuracy=results.Bracket(attacked=clopper_pearson(robust + shift, COUNT)),
            )
        )
        assert whats(verify(run, model, (images, labels))) == [(None, "robust accuracy")] * shift


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def run_of_sample(tmp_path, monkeypatch):
    """A run of the command line's own attack, as a function of the command's arguments."""
    from unfooled.cli import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    words = ["attack", "fashion-mnist/plain", "fashion-mnist-sample[0:30]", "--attack", "fgsm", "--defense", "blur:1"]
    assert run([*words, "--threat", "linf:0.05", "--out", "r"]) == 0
    return lambda **options: command.verify(Path("r"), **options)


def test_the_command_says_what_holds(run_of_sample, capsys):
    capsys.readouterr()
    run_of_sample()
    assert "30 examples" in (said := capsys.readouterr().out)
    assert said.strip().endswith("all hold.")
    with pytest.raises(command.typer.Exit) as ended:
        run_of_sample(model="fashion-mnist/hardened", json=True)
    assert ended.value.exit_code == 1
    found = json.loads(capsys.readouterr().out)
    assert {p["what"] for p in found["problems"]} >= {"clean prediction", "fooled"}
    with pytest.raises(command.typer.Exit):
        run_of_sample(model="fashion-mnist/hardened")
    assert "do not hold" in capsys.readouterr().out


def test_the_command_needs_a_name_for_the_model(run_of_sample):
    spec = json.loads(Path("r/spec.json").read_text())
    del spec["model"]
    Path("r/spec.json").write_text(json.dumps(spec))
    with pytest.raises(ParameterError, match=r"does not name the model of the run\. Give it with --model"):
        run_of_sample()
    run_of_sample(model="fashion-mnist/plain", defense="blur:1")
