"""What goes wrong with models that people bring: answers of another form, names in another order, mistakes with a cure."""

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled.checks import naming
from unfooled.checks.preflight import preflight
from unfooled.cli import run
from unfooled.models import BlackBox, Facts, load
from unfooled.models.classifier import Classifier
from unfooled.models.endpoint import Reader
from unfooled.models.formats.stated import Stated
from unfooled.models.weights import apply

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    return load("fashion-mnist/plain")


@pytest.fixture(scope="module")
def some():
    found = uf.data.load("fashion-mnist-sample[0:64]")
    return found.floats(), found.labels


def codes(found):
    return [one.code for one in found.findings]


# --- functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        lambda p: p[:, None],
        lambda p: p,
        lambda p: p.tolist(),
        lambda p: [[one] for one in p.tolist()],
        lambda p: list(p),
        lambda p: list(p[:, None].numpy()),
    ],
)
def test_one_probability_is_that_of_the_second_class(form):
    shares = torch.tensor([0.1, 0.4, 0.6, 0.9])
    box = BlackBox(lambda x: form(shares), "probabilities")
    answers = Classifier(box)(torch.zeros(4, 1, 2, 2))
    assert answers.argmax(1).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(answers.exp()[:, 1].float(), shares)
    logits = BlackBox(lambda x: form(torch.logit(shares)), "logits", classes=2)
    assert Classifier(logits)(torch.zeros(4, 1, 2, 2)).argmax(1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "logits"),
        ([[1.0, 2.0], [1.0]], "logits"),
        ({"scores": [1.0]}, "probabilities"),
        (["cat", "dog"], "labels"),
        (np.array([None, None]), "logits"),
        (3.0, "logits"),
        ([], "labels"),
    ],
)
def test_an_answer_of_another_form_is_one_line(answer, kind):
    box = BlackBox(lambda x: answer, kind, classes=2)
    with pytest.raises(uf.errors.ModelError, match="must answer") as caught:
        box(torch.zeros(2, 1, 2, 2))
    assert "\n" not in str(caught.value)


def test_logits_are_no_probabilities(network, some):
    for wrong in (lambda x: network(x), lambda x: 100 * network(x).softmax(1)):
        with pytest.raises(uf.errors.ModelError, match="say that they are logits"):
            BlackBox(wrong, "probabilities")(some[0])


@pytest.mark.parametrize(
    ("answers", "said", "row"), [("probabilities", 0.9, [0.1, 0.9]), ("logits", -2.0, [0.0, -2.0])]
)
@pytest.mark.parametrize("classes", [None, 2, "no,yes"])
def test_one_score_of_an_endpoint_is_that_of_the_second_class(answers, said, row, classes):
    reader = Reader(answers, classes, "", False)
    np.testing.assert_allclose(reader.row({"scores": [said]}), row)
    assert reader.count == 2


def test_one_score_is_no_answer_about_ten_classes():
    with pytest.raises(uf.errors.ModelError, match="1 scores for 10"):
        Reader("probabilities", 10, "", False).row([0.9])


# --- modules -----------------------------------------------------------------------------------------


class OneProbability(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return torch.sigmoid(self.network(x)[:, 1:2])


def test_a_sigmoid_that_is_read_as_a_logit_is_told(network, some):
    images, labels = some
    labels = (labels == 1).long()
    assert "one-probability" in codes(preflight(OneProbability(network), images, labels, uf.Linf(0.1)))
    sound = preflight(lambda x: network(x)[:, 1:2] - 3, images, labels, uf.Linf(0.1))
    assert "one-probability" not in codes(sound)


def test_torchscript_says_what_went_wrong_and_not_only_that(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(4, -1)[:, :3]

    torch.jit.trace(Fixed(), torch.rand(4, 1, 4, 4)).save(tmp_path / "m.pt")
    with pytest.raises(uf.errors.ModelError, match=r"shape '\[4, -1\]' is invalid"):
        Classifier(load(str(tmp_path / "m.pt")))(torch.rand(5, 1, 3, 3))


@pytest.mark.parametrize(
    "before", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "net.", "model."]
)
def test_weights_of_a_wrapped_network_fit(tmp_path, before):
    made, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({"state_dict": {before + name: value for name, value in made.state_dict().items()}}, tmp_path / "w.pth")
    apply(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.weight, made.weight)


def test_a_checkpoint_of_training_may_hold_scores_of_numpy(tmp_path):
    made, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    beside = {"best": np.float64(0.9), "epoch": np.int64(3), "small": np.float32(1), "done": np.bool_(True)}
    torch.save({"state_dict": made.state_dict(), **beside}, tmp_path / "w.pth")
    apply(fresh, tmp_path / "w.pth")
    assert torch.equal(fresh.weight, made.weight)


@pytest.mark.parametrize(
    "body", ["raise ValueError('a\\nb')", "raise SystemExit(2)", "import sys; sys.exit('usage: x')"]
)
def test_a_factory_that_fails_is_one_line(tmp_path, body, capsys):
    (tmp_path / "in_it.py").write_text(f"def make():\n    {body}\n")
    (tmp_path / "outside.py").write_text(f"{body}\ndef make():\n    pass\n")
    for file in ("in_it", "outside"):
        assert run(["doctor", f"{tmp_path}/{file}.py:make", "fashion-mnist-sample[0:4]"]) == 65
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.h5", "older Keras"),
        ("m.tflite", "convert it to ONNX"),
        ("w.safetensors", "--weights"),
        ("m.xyz", "no form that is read here"),
        ("saved/saved_model.pb", "SavedModel"),
        ("hub/config.json", "write hf:"),
    ],
)
def test_what_is_in_no_form_that_is_read_is_told_with_a_way_out(tmp_path, name, said):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(uf.errors.ModelError, match=said) as caught:
        load(str(path if path.parent == tmp_path else path.parent))
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_do_not(tmp_path):
    torch.save({"net.other": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(uf.errors.ModelError, match="do not fit Linear"):
        apply(nn.Linear(3, 2), tmp_path / "w.pth")


# --- names -------------------------------------------------------------------------------------------

NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Named(nn.Module):
    def __init__(self, network, classes):
        super().__init__()
        self.network, self.facts = network, Facts(classes=classes)

    def forward(self, x):
        return self.network(x)


def test_an_evaluation_minds_the_names_of_the_classes(network, some):
    images, labels = some
    order = [*range(1, 10), 0]  # the data's label k is called what the model calls order[k]
    theirs = tuple(NAMES[k] for k in order)
    wrong = torch.tensor([order.index(k) for k in labels.tolist()])
    data = uf.data.Dataset(images, wrong, theirs, "mine", "here")
    (told,) = [one for one in uf.evaluate(Named(network, NAMES), data[:20], "linf:0.01", "quick").findings
               if one.code == "classes-in-another-order"]  # fmt: skip
    assert told.severity == "invalid"
    assert "'Trouser' is 0 in the data, 1 in the model" in told.message
    assert told.measurement > 0.5
    right = uf.data.Dataset(images, labels, NAMES, "mine", "here")
    assert uf.evaluate(Named(network, NAMES), right[:20], "linf:0.01", "quick").trust != "invalid"


def test_colours_turned_round_are_not_taken_for_labels_in_another_order():
    """Most classes change places with another where red and blue do; only the colours explain all of them."""
    colours = torch.tensor([[0.8, 0.2, 0.1], [0.1, 0.2, 0.8], [0.2, 0.8, 0.2], [0.8, 0.8, 0.1], [0.9, 0.5, 0.2]])
    labels = torch.arange(60) % 5
    images = (colours[labels][:, :, None, None] + 0.05 * torch.randn(60, 3, 6, 6)).clamp(0, 1)

    class Backwards(nn.Module):
        def forward(self, x):
            return -20 * (x.flip(1).mean((2, 3))[:, None] - colours).square().sum(2)

    told = [one for one in codes(preflight(Backwards(), images, labels, uf.Linf(0.01))) if one != "near-chance"]
    assert "channels-swapped" in told
    assert "labels-permuted" not in told


def test_names_alone_accuse_nobody(some):
    answer = some[1].clone()
    assert naming.check(NAMES[::-1], NAMES, answer, some[1]) == []  # its answers go by the labels: the names are wrong
    assert naming.check((), NAMES, answer, some[1]) == []
    assert naming.check(("a", "b"), NAMES, answer, some[1]) == []


def test_a_folder_of_some_of_the_classes(some):
    model = ("goldfish, Carassius auratus", "tench, Tinca tinca", "crane", "crane")
    assert naming.moved(("crane", "tench"), model) == {0: 2}
    assert naming.moved(("tench",), model) == {0: 1}
    assert naming.moved(("x", "y", "crane", "crane"), model) == {}


# --- what a file does not say ------------------------------------------------------------------------


class Backwards(nn.Module):
    def forward(self, x):
        return torch.stack([x[:, 0].mean((1, 2)) - 100, x[:, 2].mean((1, 2)) - 100], 1)


def test_pixels_up_to_255_and_bgr_have_a_cure(tmp_path):
    torch.jit.trace(Backwards(), torch.rand(2, 3, 4, 4)).save(tmp_path / "m.pt")
    images = torch.rand(5, 3, 4, 4)
    found = load(str(tmp_path / "m.pt"), scale=255, bgr=True)
    torch.testing.assert_close(found(images), Backwards()(255 * images.flip(1)), rtol=1e-5, atol=1e-3)
    assert "blue, green, red" in found.facts.preprocessing
    both = Stated.read("x", 0.5, 0.25, None, 255)
    assert (both.mean, both.std) == ((0.5,), (0.25 / 255,))


@pytest.mark.parametrize("option", ["scale=0", "scale=x", "scale=true", "bgr=1"])
def test_bad_values_are_refused(tmp_path, option, capsys):
    torch.jit.trace(Backwards(), torch.rand(2, 3, 4, 4)).save(tmp_path / "m.pt")
    assert run(["doctor", str(tmp_path / "m.pt"), "fashion-mnist-sample[0:4]", "--model-option", option]) == 64
    assert capsys.readouterr().err.count("\n") == 1
