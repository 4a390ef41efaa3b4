"""Dataset, the spec's text, npz files, sizes, the bundled sample."""

import io
import warnings
import zipfile

import numpy as np
import pytest
import torch

from unfooled import data, errors
from unfooled.data import sizes
from unfooled.data.spec import Spec, parse


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOOLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNFOOLED_DATA", raising=False)
    monkeypatch.setenv("UNFOOLED_MIRROR", "http://127.0.0.1:9")  # nothing listens there


def small(count=10, name="set:test"):
    images = torch.arange(count * 4, dtype=torch.uint8).reshape(count, 1, 2, 2)
    return data.Dataset(images, torch.arange(count), tuple("abcdefghij"), name, "a test")


# ---- Dataset


def test_floats_span_zero_to_one():
    images = torch.tensor([0, 51, 255, 1], dtype=torch.uint8).reshape(1, 1, 2, 2)
    ds = data.Dataset(images, torch.tensor([0]), (), "x", "")
    assert ds.floats().dtype == torch.float32
    assert ds.floats(torch.float64).flatten().tolist() == [0, 0.2, 1, 1 / 255]
    assert ds.images.dtype == torch.uint8
    floats = data.Dataset(torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), (), "x", "")
    assert torch.equal(floats.floats(), floats.images)


def test_a_slice_keeps_rows_together_and_counts_from_the_start():
    part = small()[2:8][1:3]
    assert part.name == "set:test[3:5]"
    assert part.labels.tolist() == [3, 4]
    assert torch.equal(part.images, small().images[3:5])
    assert small()[:].name == "set:test"
    assert len(small()[8:3]) == 0


@pytest.mark.parametrize("rows", [3, slice(0, 4, 2)])
def test_only_plain_slices(rows):
    with pytest.raises(errors.ParameterError, match=r"slice without a step"):
        small()[rows]


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (torch.zeros(3, 1, 2, 2), torch.zeros(2).long(), "3 images but 2 labels"),
        (torch.zeros(3, 1, 2, 2), torch.zeros(3), "int64"),
        (torch.zeros(3, 1, 2, 2).long(), torch.zeros(3).long(), "uint8 or floats"),
    ],
)
def test_a_dataset_refuses_what_does_not_fit(images, labels, says):
    with pytest.raises(errors.DataError, match=says):
        data.Dataset(images, labels, (), "x", "")


# ---- the text


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("mnist", Spec("mnist")),
        ("mnist:train", Spec("mnist", "train")),
        ("mnist:test[0:1000]", Spec("mnist", "test", 0, 1000)),
        ("mnist:test:0-1000", Spec("mnist", "test", 0, 1000)),
        ("cifar10[5:10]", Spec("cifar10", None, 5, 10)),
        ("cifar10:5-10", Spec("cifar10", None, 5, 10)),
        ("mnist[:7]", Spec("mnist", None, None, 7)),
        ("mnist[7:]", Spec("mnist", None, 7, None)),
        ("fashion-mnist-sample[0:500]", Spec("fashion-mnist-sample", None, 0, 500)),
        ("a/b.npz:train[1:2]", Spec("a/b.npz", "train", 1, 2)),
        (r"C:\photos:val", Spec(r"C:\photos", "val")),
        (r"C:\photos", Spec(r"C:\photos")),
        ("x", Spec("x")),
    ],
)
def test_parse(text, spec):
    assert parse(text) == spec


@pytest.mark.parametrize("text", ["", " ", "mnist[0-100]", "mnist:0-", "mnist[3]", "mnist[a:b]", "a" * 9999])
def test_parse_refuses(text):
    with pytest.raises(errors.ParameterError, match=r"The 'spec' parameter of load must be NAME"):
        parse(text)


def test_a_file_of_just_that_name_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd[1:2]").mkdir()
    assert parse("odd[1:2]") == Spec("odd[1:2]")


def test_ranges():
    assert Spec("x").rows(10, "x") == slice(0, 10)
    assert Spec("x", None, 3, 10).rows(10, "x") == slice(3, 10)


@pytest.mark.parametrize("rows", ["[0:1001]", "[5:5]", "[6:5]", "[2000:3000]", "[1000:]", "[:0]"])
def test_a_range_outside_says_how_many_there_are(rows):
    with pytest.raises(errors.ParameterError, match=r"fashion-mnist-sample has 1000 images.*\[0:1000\]"):
        data.load("fashion-mnist-sample" + rows)


def test_unknown_names_get_the_nearest():
    with pytest.raises(errors.UnknownName, match=r"no data set named 'minst'. Did you mean 'mnist'"):
        data.load("minst")
    with pytest.raises(errors.UnknownName, match="Known: cifar10, fashion-mnist"):
        data.load("zzzzzz:train")
    with pytest.raises(errors.MissingData, match=r"no file or folder './minst'"):
        data.load("./minst")
    with pytest.raises(errors.MissingData, match=r"no file or folder 'minst\.npz'"):
        data.load("minst.npz:test")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1,2")
    with pytest.raises(errors.DataError, match=r"neither an image folder nor an .npz"):
        data.load(tmp_path / "a.txt")


def test_classes_are_for_folders_only():
    with pytest.raises(errors.ParameterError, match="unless the data are an image folder"):
        data.load("fashion-mnist-sample", classes={"Bag": 1})


# ---- the bundled sample and the list


def test_the_sample_needs_nothing_else():
    ds = data.load("fashion-mnist-sample[0:500]", download=False)
    assert ds.images.shape == (500, 1, 28, 28)
    assert ds.images.dtype == torch.uint8
    assert ds.name == "fashion-mnist-sample[0:500]"
    assert ds.classes[ds.labels[0]] == "Ankle boot"
    assert data.load("Fashion_MNIST_sample:test").labels.bincount().sum() == 1000
    with pytest.raises(errors.ParameterError, match="must be 'test' for fashion-mnist-sample"):
        data.load("fashion-mnist-sample:train")


def test_the_sample_carries_its_licence():
    from importlib import resources

    with np.load(resources.files("unfooled") / "assets" / "fashion-mnist-sample.npz") as archive:
        text = str(archive["provenance"])
        assert archive["classes"].tolist() == list(data.load("fashion-mnist-sample").classes)
    assert "Zalando SE" in text
    assert "The above copyright notice" in text
    assert "Images 0 to 999" in text


def test_the_list_of_sets():
    assert data.names() == ("mnist", "fashion-mnist", "cifar10", "gtsrb", "fashion-mnist-sample")
    by_name = {case.name: case for case in data.cases()}
    assert by_name["cifar10"].images == 60_000
    for case in by_name.values():
        assert case.about
        assert case.terms
        assert len(case.classes) == (43 if case.name == "gtsrb" else 10)


# ---- npz


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 3, 8, 9), (5, 3, 8, 9)),
        ((5, 2, 8, 9), (5, 2, 8, 9)),
    ],
)
def test_npz_layouts(tmp_path, shape, becomes):
    images = pixels(*shape)
    ds = data.load(npz(tmp_path / "a.npz", images=images, labels=np.arange(5)))
    assert ds.images.shape == becomes
    assert ds.labels.tolist() == [0, 1, 2, 3, 4]
    assert ds.images.is_contiguous()
    if shape[-1] == 3:
        assert torch.equal(ds.images[2, 1], torch.from_numpy(images[2, :, :, 1].copy()))


def test_npz_names_and_splits(tmp_path):
    keras = npz(
        tmp_path / "k.npz",
        x_train=pixels(6, 4, 4),
        y_train=np.arange(6),
        x_test=pixels(3, 4, 4),
        y_test=np.arange(3),
    )
    assert len(data.load(keras)) == 3
    assert data.load(keras).name == f"{keras}:test"
    assert data.load(f"{keras}:train[1:3]").labels.tolist() == [1, 2]
    assert data.load(f"{keras}:train[1:3]").name == f"{keras}:train[1:3]"
    with pytest.raises(errors.ParameterError, match="no split 'val': it holds test, train"):
        data.load(f"{keras}:val")
    medmnist = npz(
        tmp_path / "m.npz",
        val_images=pixels(4, 5, 5, 3),
        val_labels=np.arange(4, dtype=np.uint8)[:, None],
    )
    assert data.load(f"{medmnist}:val").labels.tolist() == [0, 1, 2, 3]
    plain = npz(tmp_path / "p.npz", X=pixels(2, 4, 4), y=np.arange(2), classes=np.array(["cat", "dog"]))
    assert data.load(plain).classes == ("cat", "dog")
    with pytest.raises(errors.ParameterError, match="it has no splits"):
        data.load(f"{plain}:test")


def test_npz_floats(tmp_path):
    ones = np.linspace(0, 1, 32).reshape(2, 4, 4)
    ds = data.load(npz(tmp_path / "f.npz", x=ones, y=[0, 1]))
    assert ds.images.dtype == torch.float64
    assert ds.floats().max() == 1
    table = np.array([[-3.0, 70.0], [1.0, 2.0]], dtype=">f4")
    ds = data.load(npz(tmp_path / "t.npz", x=table, y=[0, 1]))
    assert ds.images.tolist() == [[-3, 70], [1, 2]]


def test_npz_other_integers_are_noted(tmp_path):
    path = npz(tmp_path / "i.npz", x=pixels(2, 4, 4).astype(np.int64), y=[0, 1])
    with pytest.warns(errors.Note, match="were int64 and were read as uint8"):
        assert data.load(path).images.dtype == torch.uint8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(npz(tmp_path / "j.npz", x=pixels(2, 4, 4), y=[0, 1]))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": pixels(3, 4, 4), "y": [0, 1]}, "3 images but 2 labels"),
        ({"x": pixels(2, 4, 4), "y": [0, -1]}, "label -1 at position 1"),
        ({"x": pixels(2, 4, 4), "y": [0.0, 1.0]}, "labels are .N,. integers"),
        ({"x": pixels(2, 4, 4), "y": np.eye(2)}, r"argmax\(1\)"),
        ({"x": pixels(2, 4, 4) * 1.0, "y": [0, 1]}, "divide them by 255"),
        ({"x": pixels(2, 4, 4) / 100 - 1, "y": [0, 1]}, "undo the normalisation"),
        ({"x": np.full((2, 4, 4), np.nan), "y": [0, 1]}, "NaN or infinity in image 0"),
        ({"x": pixels(2, 4, 4).astype(int) * 9, "y": [0, 1]}, "uint8 or floats"),
        ({"x": pixels(2, 3, 5, 3), "y": [0, 1]}, "channels could be first or last"),
        ({"x": pixels(2, 16), "y": [0, 1]}, r"\(N, H, W\)"),
        ({"x": pixels(0, 4, 4), "y": []}, "no images"),
        ({"picture": pixels(2, 4, 4), "y": [0, 1]}, "holds picture, y; arrays named images and labels"),
        ({"x": np.array([object()] * 2), "y": [0, 1]}, "cannot be read safely"),
    ],
)
def test_npz_refuses(tmp_path, arrays, says):
    path = npz(tmp_path / "bad.npz", **arrays)
    with pytest.raises(errors.DataError, match=says) as caught:
        data.load(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_npz_damage(tmp_path):
    good = npz(tmp_path / "good.npz", x=pixels(20, 9, 9), y=np.arange(20))
    content = (tmp_path / "good.npz").read_bytes()
    assert len(data.load(good)) == 20
    bad = tmp_path / "bad.npz"
    for damaged, says in [
        (content[:-200], "is damaged"),
        (content[:400] + b"\1\2\3\4" + content[404:], "is damaged"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"", "is empty"),
        (b"\x93NUMPY", "is not an npz file"),
    ]:
        bad.write_bytes(damaged)
        with pytest.raises(errors.DataError, match=says):
            data.load(bad)
    with zipfile.ZipFile(bad, "w") as archive:  # a header that promises more than any memory holds
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 44, 4, 4)})
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
    with pytest.raises(errors.DataError, match=r"bad\.npz"):
        data.load(bad)


# ---- sizes


def test_sizes_as_torchvision_defines_them():
    assert sizes.target(100, 201, 50) == (50, 100)
    assert sizes.target(201, 100, 50) == (100, 50)
    assert sizes.target(7, 9, (3, 4)) == (3, 4)
    assert sizes.corner(10, 13, (4, 4), "x") == (3, 4)


def test_resize_and_crop_of_a_batch(tmp_path):
    flat = np.full((3, 8, 12, 3), 77, np.uint8)
    flat[:, :, 6:] = 200
    path = npz(tmp_path / "a.npz", x=flat, y=[0, 1, 2])
    ds = data.load(path, resize=4)
    assert ds.images.shape == (3, 3, 4, 6)
    assert ds.images.dtype == torch.uint8
    assert ds.images[0, 0, 0, 0] == 77
    assert ds.images[0, 0, 0, -1] == 200
    cropped = data.load(path, crop=(2, 4)).images
    assert torch.equal(cropped, torch.from_numpy(flat.transpose(0, 3, 1, 2)[:, :, 3:5, 4:8].copy()))
    assert data.load(path, resize=(6, 6), crop=4).images.shape == (3, 3, 4, 4)
    with pytest.raises(errors.DataError, match=r"8×12 .*smaller than the crop 9×9"):
        data.load(path, crop=9)


def test_shrinking_is_antialiased_and_rounded(tmp_path):
    noise = data.load(npz(tmp_path / "a.npz", x=pixels(1, 128, 128), y=[0]), resize=8).images
    assert noise.float().std() < 15  # about 5; without antialias four pixels decide and it is above 30
    four = np.array([[[1, 2], [2, 2]]], np.uint8)
    assert data.load(npz(tmp_path / "b.npz", x=four, y=[0]), resize=1).images.item() == 2


@pytest.mark.parametrize("size", [0, -1, 2.5, True, (3,), (3, 0), "4"])
def test_bad_sizes(size):
    with pytest.raises(errors.ParameterError, match="'resize' parameter of load must be an int > 0"):
        data.load("fashion-mnist-sample", resize=size)


def test_a_table_has_no_size(tmp_path):
    path = npz(tmp_path / "t.npz", x=np.zeros((2, 5)), y=[0, 1])
    with pytest.raises(errors.DataError, match="rows of 5 numbers"):
        data.load(path, resize=4)
