"""Models that answer, and give no gradients: what they may be asked, and what a number from that means."""

import numpy as np
import pytest
import torch

import unfooled as uf
from unfooled import models, protocols
from unfooled.models import Access, BlackBox
from unfooled.models.black_box import LEAST

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    return models.load("fashion-mnist/plain")


@pytest.fixture(scope="module")
def some():
    found = uf.data.load("fashion-mnist-sample[0:24]")
    return found.floats(), found.labels


def labels_of(network):
    return BlackBox(lambda x: network(x).argmax(1), "labels", classes=10)


def scores_of(network):
    def answer(array):
        assert isinstance(array, np.ndarray)
        assert array.shape[1:] == (28, 28, 1)
        with torch.no_grad():
            return network(torch.from_numpy(array).permute(0, 3, 1, 2)).softmax(1).numpy()

    return BlackBox(answer, "probabilities", arrays=True, last=True)


def test_its_answers_are_those_of_the_function(network, some):
    with torch.no_grad():
        logits = network(some[0])
    scores = scores_of(network)(some[0])
    torch.testing.assert_close(scores, logits.log_softmax(1).clamp_min(float(np.log(LEAST))), rtol=0, atol=1e-4)
    one_hot = labels_of(network)(some[0])
    assert torch.equal(one_hot.argmax(1), logits.argmax(1))
    assert torch.equal(one_hot.sum(1), torch.ones(24))


def test_it_is_asked_for_no_more_than_it_gives(network, some):
    threat = uf.Linf(0.1)
    with pytest.raises(uf.errors.ModelError, match="pgd needs gradients; this model gives labels only.*hopskipjump"):
        uf.attack(labels_of(network), *some, threat, "pgd")
    with pytest.raises(uf.errors.ModelError, match="square needs scores"):
        uf.attack(labels_of(network), *some, threat, "square")
    with pytest.raises(uf.errors.ModelError, match="pgd needs gradients; this model gives scores"):
        uf.attack(uf.defend(scores_of(network), uf.defenses.GaussianBlur(1.0)), *some, threat, "pgd")
    result = uf.attack(scores_of(network), *some, threat, "square:steps=200")
    assert result.success.any()
    assert not result.backward.any()


def test_gradients_may_come_from_another_model(network, some):
    result = uf.attack(labels_of(network), *some, uf.Linf(0.1), "pgd:steps=10", surrogate=network)
    same = uf.attack(network, *some, uf.Linf(0.1), "pgd:steps=10")
    assert torch.equal(result.success, same.success)


@pytest.mark.parametrize(("make", "access", "attacked_by"), [(labels_of, 1, "hopskipjump"), (scores_of, 2, "square")])
def test_an_evaluation_takes_what_the_access_allows_and_says_what_that_means(network, some, make, access, attacked_by):
    found = uf.evaluate(make(network), some, uf.Linf(0.1), "quick")
    (limited,) = [one for one in found.findings if one.code == "limited-access"]
    assert (limited.severity, limited.measurement) == ("note", access)
    assert found.clean_accuracy.value == uf.evaluate(network, some, uf.Linf(0.1), "quick").clean_accuracy.value
    assert found.robust_accuracy.attacked.value < found.clean_accuracy.value
    assert {cost.attack.partition(":")[0] for cost in found.attacks} <= {attacked_by, "random noise"}
    assert all(cost.backward == 0 for cost in found.attacks)
    assert any("ask no more than 500 times" in line for line in found.verdict)
    assert found.trust == "suspect"  # as quick always is; the access alone is no doubt
    assert {one.code for one in found.findings if one.severity != "note"} <= {"quick-protocol", "quick"}


def test_a_surrogate_lends_its_gradients_first(network, some):
    found = uf.evaluate(labels_of(network), some, uf.Linf(0.1), "quick", surrogate=network)
    bare = uf.evaluate(network, some, uf.Linf(0.1), "quick")
    assert found.robust_accuracy.attacked.value <= bare.robust_accuracy.attacked.value
    assert found.attacks[0].attack.startswith("apgd")


def test_protocols_name_the_norms_that_the_access_leaves():
    assert str(protocols.named("fast", uf.L2(1), Access.DECISION)).startswith("hopskipjump")
    assert str(protocols.named("fast", uf.L1(1), Access.SCORE)).startswith("square")
    with pytest.raises(uf.errors.ParameterError, match="labels only.*Linf.*Got L1"):
        protocols.named("fast", uf.L1(1), Access.DECISION)


@pytest.mark.parametrize(
    ("answer", "answers", "classes", "said"),
    [
        (lambda x: torch.zeros(len(x)), "labels", 3, "one integer for each"),
        (lambda x: torch.full((len(x),), 3), "labels", 3, "answered the label 3, and there are 3 classes"),
        (lambda x: torch.full((len(x),), -1), "labels", 3, "answered the label -1"),
        (lambda x: torch.zeros(len(x), 4), "logits", 3, "4 scores for 3 classes"),
        (lambda x: torch.zeros(len(x) + 1, 3), "logits", 3, "shape \\(2, classes\\)"),
        (lambda x: 1 / 0, "logits", 3, "failed on images of shape \\(1, 4, 4\\): division by zero"),
    ],
)
def test_wrong_answers_are_named(answer, answers, classes, said):
    with pytest.raises(uf.errors.ModelError, match=said):
        BlackBox(answer, answers, classes)(torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("x", "logits"), "'function'"), ((len, "scores"), "'answers'"), ((len, "labels"), "'classes'"),
     ((len, "labels", 1), "'classes'")],
)  # fmt: skip
def test_wrong_options_are_named(arguments, said):
    with pytest.raises(uf.errors.ParameterError, match=said):
        BlackBox(*arguments)


def test_a_factory_may_return_one(tmp_path, some):
    (tmp_path / "mine.py").write_text(
        "import unfooled as uf\n"
        "network = uf.models.load('fashion-mnist/plain')\n"
        "def make():\n    return uf.models.BlackBox(lambda x: network(x).argmax(1), 'labels', classes=10)\n"
    )
    found = models.load(f"{tmp_path}/mine.py:make")
    assert found.access is Access.DECISION
    assert float((found(some[0]).argmax(1) == some[1]).float().mean()) > 0.8
    with pytest.raises(uf.errors.ParameterError, match="no nn.Module"):
        models.load(f"{tmp_path}/mine.py:make", tmp_path / "w.safetensors")
    with pytest.raises(uf.errors.ParameterError, match="no option 'rate' for fashion-mnist/plain"):
        models.load("fashion-mnist/plain", rate=5)
    with pytest.raises(uf.errors.ParameterError, match="fashion-mnist/plain has its weights"):
        models.load("fashion-mnist/plain", tmp_path / "w.safetensors")
    with pytest.raises(uf.errors.ParameterError, match="no option 'rate'"):
        models.load(f"{tmp_path}/mine.py:make", rate=5)
