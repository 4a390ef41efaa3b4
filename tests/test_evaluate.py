"""`unfooled.evaluate` on models that take milliseconds: what may be handed in, what comes out, what it leaves alone."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unfooled as uf
from helpers import Linear, assert_same, snapshot
from unfooled.errors import DataError, Note, ParameterError
from unfooled.results import Evaluation
from unfooled.spec import read

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, SIDE, COUNT, EPS = 4, 6, 40, 0.06
PGD = uf.attacks.PGD(steps=12, step_size=0.25)
HASTY = uf.attacks.PGD(steps=3, step_size=0.1)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Grey images in 8-bit steps, each with its class's quarter brighter by a margin of its own; every tenth label is wrong."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(COUNT) % CLASSES
    bright = torch.rand(COUNT, generator=draw) * 0.3
    x = (
        0.4
        + 0.1 * (torch.rand((COUNT, 1, SIDE, SIDE), generator=draw) - 0.5)
        + bright[:, None, None, None] * quarters()[y]
    )
    y[::10] = (y[::10] + 1) % CLASSES
    return (x * 255).round() / 255, y


def quarters() -> torch.Tensor:
    """(classes, 1, side, side): one in the quarter of each class."""
    found, half = torch.zeros(CLASSES, 1, SIDE, SIDE), SIDE // 2
    for k in range(CLASSES):
        found[k, 0, half * (k // 2) : half * (k // 2 + 1), half * (k % 2) : half * (k % 2 + 1)] = 1
    return found


def model() -> nn.Module:
    """Right on all images but those with a wrong label."""
    return Linear(2.0 * quarters().flatten(1), torch.zeros(CLASSES)).eval()


def evaluated(network=None, data=None, protocol=PGD, **options):
    return uf.evaluate(model() if network is None else network, data or images(), f"linf:{EPS}", protocol, **options)


@cache
def usual() -> Evaluation:
    return evaluated()


def numbers(answer: Evaluation) -> tuple[object, ...]:
    """What must not depend on how the data came or where the run was kept."""
    return answer.clean_accuracy, answer.robust_accuracy, answer.rounded, answer.trust, answer.examples, answer.classes


def codes(answer: Evaluation) -> dict[str, str]:
    return {found.code: found.severity for found in answer.findings}


# --- the data -------------------------------------------------------------------------------------


class Listed(torch.utils.data.Dataset):
    """What torch calls a map-style dataset."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, at: int) -> tuple[np.ndarray, int]:
        x, y = images()
        return x[at].numpy(), int(y[at])


def pairs():
    return torch.utils.data.TensorDataset(*images())


@pytest.mark.parametrize(
    "data",
    [
        lambda: [torch.as_tensor(part) for part in images()],
        lambda: tuple(part.numpy() for part in images()),
        lambda: uf.data.Dataset(
            (images()[0] * 255).round().to(torch.uint8), images()[1], tuple("abcd"), "made", "here"
        ),
        pairs,
        Listed,
        lambda: torch.utils.data.DataLoader(pairs(), batch_size=7),
    ],
    ids=["list", "numpy", "Dataset", "TensorDataset", "map-style", "DataLoader"],
)
def test_data_of_any_kind_is_the_same_data(data):
    got, wanted = evaluated(data=data()), usual()
    assert got.robust_accuracy == wanted.robust_accuracy
    assert got.examples == wanted.examples
    assert got.clean_accuracy == wanted.clean_accuracy


def test_a_folder_of_images_and_a_name(tmp_path):
    x, y = images()
    for at in range(COUNT):
        place = tmp_path / f"class{int(y[at])}"
        place.mkdir(exist_ok=True)
        Image.fromarray((x[at, 0] * 255).round().byte().numpy()).save(place / f"{at:02}.png")
    answer = evaluated(data=str(tmp_path))
    assert answer.clean_accuracy == usual().clean_accuracy
    assert answer.robust_accuracy == usual().robust_accuracy
    assert [one.name for one in answer.classes] == [f"class{k}" for k in range(CLASSES)]
    named = uf.evaluate(
        uf.models.load("fashion-mnist/plain"), "fashion-mnist-sample[0:8]", "linf:0.05", uf.attacks.FGSM()
    )
    assert named.clean_accuracy.n == len(named.examples) == named.asked == 8


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "must be"),
        ([], "no images"),
        ((torch.zeros(3, 1, 2, 2), torch.zeros(4)), "labels"),
        ("no-such-set", "no-such-set"),
    ],
)
def test_data_that_are_none_are_refused_in_one_line(data, words):
    with pytest.raises(uf.errors.UnfooledError, match=words) as caught:
        uf.evaluate(model(), data, "linf:0.1", PGD)
    assert "\n" not in str(caught.value)


def test_examples_go_by_the_ids_given():
    ids = torch.arange(COUNT) * 3 + 7
    answer = evaluated(ids=ids)
    assert [one.index for one in answer.examples] == ids.tolist()
    assert [one.label for one in answer.examples] == images()[1].tolist()


# --- the numbers ----------------------------------------------------------------------------------


def test_the_whole_is_judged_where_nothing_ends_the_run(monkeypatch):
    """It ended after the first shard even where neither a precision nor an assertion had been given."""
    monkeypatch.setattr("unfooled.evaluation.SHARD", 16)
    answer = evaluated()
    assert answer.clean_accuracy.n == answer.asked == COUNT
    assert answer.robust_accuracy.attacked.method.startswith("Clopper-Pearson")
    assert answer.robust_accuracy == usual().robust_accuracy


def test_examples_and_accuracies_agree():
    answer = usual()
    x, y = images()
    assert [one.index for one in answer.examples] == list(range(COUNT))
    right = [one for one in answer.examples if one.clean_prediction == one.label]
    fooled = [one for one in right if one.fooled_by is not None]
    correct = model()(x).argmax(1) == y
    assert len(right) == round(answer.clean_accuracy.value * COUNT) == int(correct.sum()) > 30
    assert len(right) - len(fooled) == round(answer.robust_accuracy.attacked.value * COUNT)
    assert 5 < len(fooled) < len(right) - 5
    for one in answer.examples:
        if one.fooled_by is not None:
            assert 0 < one.distance <= EPS * 1.0001
        elif one.clean_prediction == one.label:
            assert one.distance is None
        else:
            assert one.distance == 0
    logits = model()(x).detach()
    rest = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    margin = logits.gather(1, y[:, None])[:, 0] - rest
    gradient = 2.0 * 2 * (SIDE // 2) ** 2  # of the difference of two logits, in the dual norm
    exact = (margin > gradient * EPS).sum()
    assert round(answer.robust_accuracy.attacked.value * COUNT) == int(exact)


def test_classes_add_up_to_the_whole():
    answer = usual()
    labels = images()[1]
    assert [one.label for one in answer.classes] == list(range(CLASSES))
    for one in answer.classes:
        assert one.clean.n == one.attacked.n == int((labels == one.label).sum())
        assert one.attacked.value <= one.clean.value
    for name, whole in (("clean", answer.clean_accuracy), ("attacked", answer.robust_accuracy.attacked)):
        parts = [getattr(one, name) for one in answer.classes]
        assert sum(part.value * part.n for part in parts) == pytest.approx(whole.value * COUNT)


def test_rounding_to_8_bits_can_only_save_images():
    answer = usual()
    assert answer.robust_accuracy.attacked.value <= answer.rounded.value <= answer.clean_accuracy.value


def test_an_evaluation_survives_json():
    answer = usual()
    assert msgspec.json.decode(answer.to_json(), type=Evaluation) == answer
    assert answer.robust_accuracy.certified is None


def test_the_same_seed_gives_the_same_result_in_a_folder_or_not(tmp_path):
    assert numbers(evaluated()) == numbers(usual())
    kept = evaluated(out=tmp_path / "run")
    assert numbers(kept) == numbers(usual())
    assert uf.results.read(tmp_path / "run" / "evaluation.json") == kept
    assert numbers(evaluated(out=tmp_path / "run")) == numbers(usual())  # it goes on from its own end


# --- trust ----------------------------------------------------------------------------------------


def test_a_sound_model_is_valid_and_quick_never_is():
    assert usual().trust == "valid"
    assert set(codes(usual()).values()) <= {"note"}
    quick = evaluated(protocol="quick")
    assert quick.trust == "suspect"
    assert codes(quick)["quick-protocol"] == "suspect"


def test_an_attack_of_too_few_steps_is_found_out():
    answer = evaluated(protocol=HASTY)
    assert codes(answer)["single-step-better"] == answer.trust == "suspect"
    assert answer.robust_accuracy == usual().robust_accuracy  # what one step fooled counts
    assert {one.fooled_by for one in answer.examples} >= {"fgsm"}


class Train(nn.Module):
    """The linear model behind dropout that would spoil it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.body = nn.Dropout(0.9), model()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.drop(x))


def test_a_model_in_train_mode_is_run_in_eval_mode_and_put_back():
    network = Train().train()
    answer = evaluated(network)
    assert codes(answer)["train-mode"] == "note"
    assert answer.trust == "valid"
    assert answer.robust_accuracy == usual().robust_accuracy
    assert network.training
    assert network.drop.training


def test_probabilities_are_settled():
    network = nn.Sequential(model(), nn.Softmax(1))
    answer = evaluated(network)
    found = next(one for one in answer.findings if one.code == "probabilities")
    assert (found.severity, answer.trust) == ("note", "valid")
    assert found.settled
    assert answer.robust_accuracy == usual().robust_accuracy


class Bad(nn.Module):
    """NaN where the first pixel is in a range; otherwise the linear model."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.body, self.low, self.high = model(), low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixel = x[:, 0, 0, 0]
        return torch.where(((pixel > self.low) & (pixel < self.high))[:, None], torch.nan, self.body(x))


def marked(*rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = images()
    x[list(rows), 0, 0, 0] = 0.9
    return x, y


def test_examples_without_finite_logits_are_listed_and_the_rest_goes_on():
    answer = evaluated(Bad(0.89, 2.0), marked(3, 17))
    plain = evaluated(None, marked(3, 17))
    assert codes(answer)["nonfinite-logits"] == answer.trust == "invalid"
    bad = {one.index: one for one in answer.examples if one.error is not None}
    assert set(bad) == {3, 17}
    for one in bad.values():
        assert (one.clean_prediction, one.fooled_by, one.distance) == (-1, None, None)
        assert "finite" in one.error
    others = [one for one in answer.examples if one.index not in bad]
    assert others == [one for one in plain.examples if one.index not in bad]
    right = sum(one.clean_prediction == one.label for one in others)
    held = sum(one.clean_prediction == one.label and one.fooled_by is None for one in others)
    assert round(answer.clean_accuracy.value * COUNT) == right
    assert round(answer.robust_accuracy.attacked.value * COUNT) == held


def test_logits_that_an_attack_makes_infinite_count_as_wrong_and_invalid():
    answer = evaluated(Bad(0.901, 2.0), marked(3, 17))  # finite on the images, not where the attack goes
    assert answer.trust == "invalid"
    assert {one.index for one in answer.examples if one.error is not None} <= {3, 17}
    assert any(one.error is not None for one in answer.examples)
    assert len(answer.examples) == COUNT
    right = [one for one in answer.examples if one.clean_prediction == one.label and one.error is None]
    assert round(answer.clean_accuracy.value * COUNT) == len(right)
    assert round(answer.robust_accuracy.attacked.value * COUNT) == sum(one.fooled_by is None for one in right)


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"certify": "ipb"}, "Did you mean 'ibp'"),
        ({"precision": 0.0}, "precision"),
        ({"precision": 0.5}, "precision"),
        ({"precision": "0.03"}, "precision"),
        ({"precision": float("nan")}, "precision"),
        ({"assertion": "attacked=0.4"}, "assertion"),
        ({"assertion": "attacked>=40"}, "40%"),
        ({"assertion": "certified>=0.3"}, "certify='auto'"),
        ({"protocol": "fastest"}, "protocol"),
        ({"protocol": 3}, "protocol"),
        ({"seed": -1}, "seed"),
        ({"budget": 0}, "budget"),
        ({"batch_size": 0}, "batch_size"),
        ({"draws": 0}, "draws"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(options, words):
    with pytest.raises(ParameterError, match=words) as caught:
        evaluated(**options)
    assert "\n" not in str(caught.value)


def test_an_assertion_ends_the_run_early_with_an_interval_for_every_moment(monkeypatch):
    monkeypatch.setattr("unfooled.evaluation.SMALL", 16)
    answer = evaluated(assertion="attacked>=0.01")
    assert answer.robust_accuracy.attacked.n == 16 < answer.asked == COUNT
    assert answer.robust_accuracy.attacked.method.startswith("confidence sequence")
    assert answer.robust_accuracy.attacked.low >= 0.01
    undecided = evaluated(assertion=["attacked>=0.01", "attacked>=0.5"])
    assert undecided.robust_accuracy.attacked.n > 16


def test_a_precision_that_few_images_reach_ends_the_run(monkeypatch):
    monkeypatch.setattr("unfooled.evaluation.SMALL", 20)
    answer = evaluated(precision=0.4)
    interval = answer.robust_accuracy.attacked
    assert interval.n == 20
    assert (interval.high - interval.low) / 2 <= 0.4


def test_progress_tells_of_a_rising_prefix():
    seen = []
    evaluated(progress=seen.append)
    assert seen[0].stage == "preflight"
    assert [at.done for at in seen] == sorted(at.done for at in seen)
    assert (seen[-1].done, seen[-1].total) == (COUNT, COUNT)
    assert seen[-1].attacked.value == usual().robust_accuracy.attacked.value


# --- what it leaves alone -------------------------------------------------------------------------


def draws() -> tuple[object, ...]:
    """What the three global generators would give next."""
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    found = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    return found


class Sick(Train):
    """Fails after so many passes."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.left = passes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of order")
        return super().forward(x) + 0 * torch.rand(1)


@pytest.mark.parametrize("passes", [10_000, 0, 3, 12, 30, 60])
def test_the_caller_finds_everything_as_it_was(passes):
    network = Sick(passes).train()
    network.body.weight.grad = torch.ones_like(network.body.weight)
    network.body.bias.requires_grad_(False)
    before, generators, threads = snapshot(network), draws(), torch.get_num_threads()
    x, y = images()
    if passes > 1000:
        evaluated(network, (x, y))
    else:
        with pytest.raises(uf.errors.UnfooledError):
            evaluated(network, (x, y))
    assert_same(before, snapshot(network))
    assert draws() == generators
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert torch.equal(x, images()[0])
    assert torch.equal(y, images()[1])
    assert torch.overrides._get_current_function_mode() is None


def test_a_model_that_fails_while_a_run_is_kept_leaves_a_folder_that_can_go_on(tmp_path):
    network = Sick(60)
    with pytest.raises(uf.errors.UnfooledError):
        evaluated(network, out=tmp_path)
    network.left = 10_000
    assert evaluated(network, out=tmp_path).robust_accuracy == usual().robust_accuracy


def test_half_precision_images_are_converted_and_noted():
    x, y = images()
    with pytest.warns(Note, match="float16"):
        answer = evaluated(data=(x.half(), y))
    assert codes(answer)["converted-input"] == "note"


def test_a_label_beyond_the_classes_is_a_data_error():
    x, y = images()
    y[7] = CLASSES
    with pytest.raises(DataError, match="example 7"):
        evaluated(data=(x, y))


def test_the_example_of_a_spec_file_is_one():
    folder = Path(__file__).parent.parent / "examples"
    found = read(folder / "study.toml")
    assert found["model"] == f"{folder}/quantised.py:make"
    assert uf.Threat.parse(found["threat"]) == uf.Linf(0.1)
    assert found["protocol"] in uf.protocols.PROTOCOLS
    network = uf.models.load(found["model"])
    x = uf.data.load(found["data"]).floats()[:4]
    shades = torch.unique((network[0](x) * 7).round() - network[0](x) * 7)
    assert float(shades.abs().max()) < 1e-5
    assert network(x).shape == (4, 10)


class SteepSomewhere(nn.Module):
    """Its gradient is NaN on images that are dark at one corner, and nowhere else."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + 0 * x[:, :1, 0, 0].sqrt()


def test_gradients_that_are_not_finite_on_a_few_images_are_found_and_the_rest_goes_on():
    """The preflight sees 256 images, and not the dark one."""
    x, y = images()
    x, y = x.repeat(8, 1, 1, 1)[:300].clone().clamp(0.01, 1), y.repeat(8)[:300]
    dark = int(torch.randperm(300, generator=torch.Generator().manual_seed(0))[-1])
    x[dark, 0, 0, 0] = 0
    steep = SteepSomewhere(model())
    answer = uf.evaluate(steep, (x, y), uf.Linf(EPS), PGD)
    assert "nonfinite-gradients" in {finding.code for finding in answer.findings}
    assert len(answer.examples) == 300
    assert answer.examples[dark].error is None
    assert answer.robust_accuracy.attacked.value < answer.clean_accuracy.value


@pytest.mark.usefixtures("one_thread")
def test_all_work_is_in_the_cost():
    """Every pass through the network is in it: those of the preflight and of the search for a way round, too."""
    x, y = images()
    net = model()
    seen = {"forward": 0}

    class Rounded(nn.Module):
        def forward(self, x):
            return torch.round(x * 15) / 15

    def count(module, inputs, output):
        seen["forward"] += len(inputs[0])

    handle = net.register_forward_hook(count)
    found = uf.evaluate(nn.Sequential(Rounded(), net), (x, y), uf.Linf(0.04), PGD)
    handle.remove()
    named = {part.part: part for part in found.cost}
    assert named["preflight"].forward > len(x)
    assert named["preflight"].seconds > 0
    assert named["adaptation, on the preflight's sample"].backward > 0
    told = sum(part.forward for part in found.cost)
    assert 0.8 * seen["forward"] <= told <= 1.2 * seen["forward"], (told, seen)
