"""Data sets of Hugging Face, made here: columns by type, splits, laziness, what is wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

import unfooled as uf
from unfooled import data, errors
from unfooled.data import lazy
from unfooled.data.lazy import Lazy

hub = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)


def picture(number, size=(6, 4)):
    return Image.new("RGB", size, (number, 0, 0))


def made(count=6, labels=None, **more):
    names = ["cat", "dog", "owl"]
    columns = {
        "id": list(range(count)),
        "photo": [picture(n) for n in range(count)],
        "kind": [n % 3 for n in range(count)] if labels is None else labels,
        **{name: values for name, (values, _) in more.items()},
    }
    features = {
        "id": hub.Value("int64"), "photo": hub.Image(), "kind": hub.ClassLabel(names=names),
        **{name: kind for name, (_, kind) in more.items()},
    }  # fmt: skip
    return hub.Dataset.from_dict(columns, features=hub.Features(features))


def reds(found):
    return found.images[:][:, 0, 0, 0].tolist()


def test_a_saved_folder(tmp_path):
    made().save_to_disk(tmp_path / "saved")
    for spec in (tmp_path / "saved", f"hf:{tmp_path / 'saved'}"):
        found = data.load(spec)
        assert reds(found) == [0, 1, 2, 3, 4, 5]
        assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert found.classes == ("cat", "dog", "owl")
        assert found.name == f"hf:{tmp_path / 'saved'}"
    part = data.load(f"hf:{tmp_path / 'saved'}[2:4]")
    assert (reds(part), part.labels.tolist(), part.name) == ([2, 3], [2, 0], f"hf:{tmp_path / 'saved'}[2:4]")
    with pytest.raises(errors.ParameterError, match="has 6 images. Its range is"):
        data.load(f"hf:{tmp_path / 'saved'}[2:40]")
    with pytest.raises(errors.ParameterError, match="one split by itself. Leave 'test' out"):
        data.load(f"hf:{tmp_path / 'saved'}:test")


def test_splits(tmp_path):
    hub.DatasetDict(train=made(4), test=made(3), extra=made(2)).save_to_disk(tmp_path / "saved")
    assert len(data.load(tmp_path / "saved")) == 3
    found = data.load(f"{tmp_path / 'saved'}:train[1:3]")
    assert (reds(found), found.name) == ([1, 2], f"hf:{tmp_path / 'saved'}:train[1:3]")
    with pytest.raises(errors.ParameterError, match="no split 'dev': it holds train, test, extra"):
        data.load(f"{tmp_path / 'saved'}:dev")


def test_parquet_with_the_images_inside(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    made(5).to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    found = data.load(f"{tmp_path / 'set'}:test")
    assert (reds(found), found.classes) == ([0, 1, 2, 3, 4], ("cat", "dog", "owl"))
    made(5).to_parquet(tmp_path / "alone.parquet")
    assert reds(data.load(f"{tmp_path / 'alone.parquet'}[3:5]")) == [3, 4]


def test_many_images_are_read_as_they_are_asked_for(tmp_path, monkeypatch):
    made(6).save_to_disk(tmp_path / "saved")
    held = data.load(tmp_path / "saved")
    monkeypatch.setattr(lazy, "LIMIT", 100)
    found = data.load(tmp_path / "saved")
    assert isinstance(found.images, Lazy)
    assert torch.equal(found.images.whole(), held.images)
    assert torch.equal(found.images[torch.tensor([5, 0])], held.images[[5, 0]])
    assert found.images.digest() == data.load(tmp_path / "saved").images.digest()
    assert found.images.digest() != found[:5].images.digest()
    assert data.load(tmp_path / "saved", resize=2).images.shape == (6, 3, 2, 3)


def test_a_set_that_the_caller_holds():
    found = data.given(made())
    assert found.classes == ("cat", "dog", "owl")
    assert torch.equal(found.images[:, 0, 0, 0] * 255, torch.arange(6.0))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3))
    assert len(uf.evaluate(model, made(9), "linf:0.01", uf.attacks.FGSM()).examples) == 9
    shuffled = made().select([5, 3, 1])
    assert data.given(shuffled).labels.tolist() == [2, 0, 1]
    with pytest.raises(
        errors.DataError, match=r"holds the splits train, test. Give one of them, such as data\['train'\]"
    ):
        data.given(hub.DatasetDict(train=made(), test=made()))
    with pytest.raises(errors.DataError, match="is a stream"):
        data.given(made().to_iterable_dataset())
    with pytest.raises(errors.DataError, match="no images to work on"):
        data.given(made(0))


def test_labels_by_name_and_as_the_model_numbers_them(tmp_path):
    made(3).save_to_disk(tmp_path / "a")
    found = data.load(tmp_path / "a", classes={"cat": 5, "dog": 0, "owl": 1})
    assert (found.labels.tolist(), found.classes[5]) == ([5, 0, 1], "cat")
    words = hub.Dataset.from_dict(
        {"image": [picture(0), picture(1)], "label": ["b", "a"]},
        features=hub.Features({"image": hub.Image(), "label": hub.Value("string")}),
    )
    words.save_to_disk(tmp_path / "b")
    found = data.load(tmp_path / "b")
    assert (found.labels.tolist(), found.classes) == ([1, 0], ("a", "b"))
    with pytest.raises(errors.DataError, match="row 0: the label 'b' is no class"):
        data.load(tmp_path / "b", classes={"a": 0})


def test_columns_that_are_missing_or_many(tmp_path):
    two = made(3, other=([picture(9)] * 3, hub.Image()), coarse=([1, 1, 0], hub.ClassLabel(names=["x", "y"])))
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(errors.DataError, match="images in its columns photo, other. Say which: columns=image=NAME"):
        data.load(tmp_path / "two")
    with pytest.raises(errors.DataError, match="classes in its columns kind, coarse"):
        data.load(tmp_path / "two", columns="image=photo")
    found = data.load(tmp_path / "two", columns="image=other,label=coarse")
    assert (reds(found), found.labels.tolist(), found.classes) == ([9] * 3, [1, 1, 0], ("x", "y"))
    made(3).remove_columns("photo").save_to_disk(tmp_path / "none")
    with pytest.raises(errors.DataError, match=r"no column of images: its columns are id \(int64\), kind \(class\)"):
        data.load(tmp_path / "none")
    made(3).remove_columns("kind").save_to_disk(tmp_path / "unlabelled")
    with pytest.raises(errors.DataError, match="no column of labels, such as label.*its columns are id, photo"):
        data.load(tmp_path / "unlabelled")
    several = made(2, label=([[0, 1], [2]], hub.Sequence(hub.Value("int64")))).remove_columns("kind")
    several.save_to_disk(tmp_path / "several")
    with pytest.raises(errors.DataError, match="several labels for one image in its column 'label'"):
        data.load(tmp_path / "several")


def test_bad_rows_are_named(tmp_path):
    made(3, labels=[0, 1, -1]).save_to_disk(tmp_path / "a")
    with pytest.raises(errors.DataError, match=r"row 2: there is no label \(-1\)"):
        data.load(tmp_path / "a")
    columns = {"image": [picture(0), picture(1, (5, 5))], "label": [0, 1]}
    mixed = hub.Dataset.from_dict(columns).cast_column("image", hub.Image())
    mixed.save_to_disk(tmp_path / "b")
    with pytest.raises(errors.DataError, match=r"row 0 is 4×6, row 1 is 5×5 .*Set --resize"):
        data.load(tmp_path / "b")
    broken = [{"bytes": b"no image", "path": None}, {"bytes": None, "path": None}]
    for number, says in enumerate(("row 0 is not an image", "row 0 holds no image under 'image'")):
        bad = hub.Dataset.from_dict({"image": [broken[number]], "label": [0]}).cast_column("image", hub.Image())
        with pytest.raises(errors.DataError, match=says):
            data.given(bad)


def test_names_that_are_nowhere(tmp_path):
    with pytest.raises(errors.MissingData, match=r"hf:nobody/nothing cannot be had: .*give a folder that save_to_disk"):
        data.load("hf:nobody/nothing")
    with pytest.raises(errors.MissingData, match=r"There is no folder \./nowhere"):
        data.load("hf:./nowhere")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(errors.DataError, match="cannot be had"):
        data.load(tmp_path / "saved")


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    made(2).save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(errors.MissingExtra, match=r'pip install "unfooled\[hub\]"'):
        data.load(tmp_path / "saved")


def test_progress_bars_are_as_they_were(tmp_path):
    made(2).save_to_disk(tmp_path / "saved")
    before = hub.are_progress_bars_disabled()
    data.load(tmp_path / "saved")
    assert hub.are_progress_bars_disabled() == before
    assert np.array_equal(data.load(tmp_path / "saved").labels, [0, 1])
