"""What is understood of a model and data: in one screen, with what is wrong and how to mend it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unfooled as uf
from unfooled.cli import run
from unfooled.doctor import Named, diagnose
from unfooled.models import BlackBox, Facts
from unfooled.models.pixels import Pixels, Resize, check

pytestmark = pytest.mark.usefixtures("one_thread")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.fixture(scope="module")
def sample():
    return uf.data.load("fashion-mnist-sample[0:64]")


@pytest.fixture(scope="module")
def network():
    return uf.models.load("fashion-mnist/plain")


class Adapter(nn.Module):
    """A network with facts, and a pipeline of its own."""

    def __init__(self, net, classes=(), raw=None):
        super().__init__()
        self.net = net
        self.facts = Facts(format="a test", source="here", size=(1, 28, 28), preprocessing="halved", classes=classes)
        self.raw = raw or (lambda x: net(x).argmax(1))

    def forward(self, x):
        return self.net(x)


def test_a_sound_pair_is_healthy(network, sample):
    found = diagnose(Adapter(network, CLOTHES), sample, "linf:0.1")
    assert found.healthy
    assert all(one.agrees for one in found.classes)
    assert found.renamed == {}
    assert found.raw == found.clean
    assert found.clean.value == uf.evaluate(network, sample, "linf:0.1", "quick").clean_accuracy.value
    assert found.model["preparation"] == "halved"
    assert found.model["input"] == "1 × 28 × 28"
    assert found.data["images"] == "64 of shape 1 × 28 × 28"
    assert sum(part.seconds for part in found.cost) > 0


def test_an_adapter_that_is_another_model_than_the_raw_one_shows(network, sample):
    found = diagnose(Adapter(network, CLOTHES, raw=lambda x: network(1 - x).argmax(1)), sample, "linf:0.1")
    assert found.raw.value < found.clean.value - 0.3


def test_names_in_another_order_are_told_with_the_cure(network, sample):
    swapped = (CLOTHES[1], CLOTHES[0], *CLOTHES[2:])
    found = diagnose(Adapter(network, swapped), sample, "linf:0.1")
    assert [one.label for one in found.classes if not one.agrees] == [0, 1]
    assert found.renamed == {name: swapped.index(name) for name in CLOTHES}
    unknown = diagnose(Adapter(network, ("Hat", *CLOTHES[1:])), sample, "linf:0.1")
    assert [one.label for one in unknown.classes if not one.agrees] == [0]
    assert unknown.renamed == {}


@pytest.mark.parametrize(
    ("data", "model", "agrees"),
    [
        ("tench", "tench, Tinca tinca", True),
        ("Ankle_boot", "ankle boot", True),
        ("cat", "dog", False),
        (None, "dog", True),
    ],
)
def test_names_are_compared_as_people_would(data, model, agrees):
    assert Named(0, data, model).agrees is agrees


def test_a_mistake_is_named_and_the_exit_status_says_so(tmp_path, capsys):
    (tmp_path / "m.py").write_text(
        "import torch, unfooled as uf\n"
        "class Bytes(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = uf.models.load('fashion-mnist/plain')\n"
        "    def forward(self, x):\n"
        "        return self.net(x / 255)\n"
    )
    line = ["doctor", f"{tmp_path}/m.py:Bytes", "fashion-mnist-sample[0:64]"]
    assert run(line) == 1
    shown = capsys.readouterr().out
    assert "expects-0-255" in shown
    assert "to do:" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert run([*line, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "expects-0-255" in [one["code"] for one in told["findings"]]
    assert told["model"]["access"] == "gradients"


def test_a_model_that_gives_labels_only(network, sample):
    found = diagnose(BlackBox(lambda x: network(x).argmax(1), "labels", classes=10), sample, "linf:0.1")
    assert found.healthy
    assert found.model["access"] == "labels only"
    assert [part.attack for part in found.cost] == ["hopskipjump:steps=2000"]
    assert sum(part.backward for part in found.cost) == 0


def test_bad_input_ends_in_one_line(capsys):
    assert run(["doctor", "fashion-mnist/plain", "no-such-set"]) == 64
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["doctor", "timm", "fashion-mnist-sample"]) == 64
    assert run(["doctor", "fashion-mnist/plain", "fashion-mnist-sample[0:20]", "--threat", "linf:x"]) == 64


def test_images_may_be_tensors(network, sample):
    found = diagnose(network, (sample.floats(), sample.labels), uf.Linf(0.1))
    assert found.data["labels"].startswith("0 to 9")
    with pytest.raises(uf.errors.DataError):
        diagnose(network, (torch.rand(4, 1, 28, 28) * 300, torch.zeros(4, dtype=torch.int64)), uf.Linf(0.1))


def test_the_pipeline_that_a_model_was_compared_with_is_its_raw_one(sample):
    def pipeline(picture):
        small = np.asarray(picture.resize((14, 14), Image.Resampling.BILINEAR), dtype=np.float32)
        return torch.from_numpy(small)[None] / 127.5 - 1

    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(196, 10))
    pixels = Pixels(network, [Resize(14, 14)], (0.5,), (0.5,), 1, Facts())
    assert pixels.raw is None
    assert diagnose(pixels, sample, "linf:0.1").raw is None
    check(pixels, pipeline, "this")
    found = diagnose(pixels, sample, "linf:0.1")
    assert abs(found.raw.value - found.clean.value) <= 1 / 64  # its pipeline rounds to bytes
    pixels.pipeline = lambda picture: pipeline(picture.rotate(180))
    assert not torch.equal(pixels.raw(sample.floats()), pixels(sample.floats()).argmax(1))
