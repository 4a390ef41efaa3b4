"""Tables of paths and labels: columns, labels, splits, laziness, and what is wrong with them."""

import pytest
import torch
from PIL import Image

from unfooled import data, errors
from unfooled.data import lazy
from unfooled.data.lazy import Lazy


@pytest.fixture
def folder(tmp_path):
    """Six images whose red is their number."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def table(folder, text, name="table.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def lines(*labels, head="path,label", order=None):
    rows = [f"images/{n}.png,{label}" for n, label in zip(order or range(6), labels, strict=False)]
    return "\n".join([head, *rows]) + "\n"


def reds(found):
    return found.images[:][:, 0, 0, 0].tolist()


def test_paths_and_numbers(folder):
    found = data.load(table(folder, lines(2, 0, 1, order=[3, 1, 5])))
    assert reds(found) == [3, 1, 5]
    assert found.labels.tolist() == [2, 0, 1]
    assert found.labels.dtype == torch.int64
    assert found.classes == ()
    assert found.files == ("images/3.png", "images/1.png", "images/5.png")
    assert found.name == str(folder / "table.csv")


def test_names_are_numbered_in_sorted_order_or_as_classes_says(folder):
    path = table(folder, lines("dog", "cat", "dog"))
    found = data.load(path)
    assert (found.labels.tolist(), found.classes) == ([1, 0, 1], ("cat", "dog"))
    found = data.load(path, classes={"dog": 0, "cat": 2})
    assert (found.labels.tolist(), found.classes) == ([0, 2, 0], ("dog", "1", "cat"))


@pytest.mark.parametrize(
    ("name", "head", "between", "before"),
    [
        ("t.tsv", "filename\tcategory", "\t", ""),
        ("t.csv", "File;Target", ";", ""),
        ("t.csv", "target,IMAGE", ",", "\ufeff"),
    ],
)
def test_columns_are_found_by_name(folder, name, head, between, before):
    parts = [["images/4.png", "1"], ["images/2.png", "0"]]
    parts = [row[::-1] if head.startswith("target") else row for row in parts]
    text = before + "\n".join([head, *(between.join(row) for row in parts)])
    found = data.load(table(folder, text, name))
    assert (reds(found), found.labels.tolist()) == ([4, 2], [1, 0])


def test_columns_are_taken_as_said(folder):
    path = table(folder, "scan,diagnosis,label\nimages/1.png,ill,7\nimages/0.png,well,7\n")
    for columns in ("image=scan,label=diagnosis", {"image": "scan", "label": "diagnosis"}):
        found = data.load(path, columns=columns)
        assert (reds(found), found.labels.tolist(), found.classes) == ([1, 0], [0, 1], ("ill", "well"))


def test_splits_share_the_numbers_of_their_classes(folder):
    text = "path,label,split\n" + "".join(
        f"images/{n}.png,{label},{split}\n" for n, (label, split) in enumerate(
            [("cat", "train"), ("dog", "test"), ("owl", "train"), ("owl", "test"), ("", "unlabelled"), ("dog", "val")]
        )
    )  # fmt: skip
    path = table(folder, text)
    found = data.load(path)
    assert (reds(found), found.labels.tolist(), found.classes) == ([1, 3], [1, 2], ("cat", "dog", "owl"))
    assert found.name == f"{path}:test"
    assert reds(data.load(f"{path}:train")) == [0, 2]
    part = data.load(f"{path}:train[1:2]")
    assert (reds(part), part.labels.tolist(), part.name) == ([2], [2], f"{path}:train[1:2]")
    with pytest.raises(errors.ParameterError, match="no split 'dev': it holds train, test, unlabelled, val"):
        data.load(f"{path}:dev")


def test_a_range_opens_no_other_files(folder):
    text = lines(0, 1, 0) + "images/lost.png,1\n"
    assert len(data.load(f"{table(folder, text)}[0:3]")) == 3


def test_many_images_are_read_as_they_are_asked_for(folder, monkeypatch):
    path = table(folder, lines(0, 1, 0, 1, 0, 1))
    held = data.load(path)
    monkeypatch.setattr(lazy, "LIMIT", 100)
    found = data.load(path, resize=8, crop=8)
    assert isinstance(found.images, Lazy)
    assert found.images.shape == (6, 3, 8, 8)
    assert torch.equal(found.images[:], data.load(path, resize=8, crop=8).images.whole())
    found = data.load(path)
    assert torch.equal(found.images.whole(), held.images)
    digest = found.images.digest()
    assert data.load(path).images.digest() == digest
    Image.new("RGB", (6, 4), (99, 0, 0)).save(folder / "images" / "5.png")
    assert data.load(path).images.digest() != digest
    (folder / "images" / "4.png").write_bytes((folder / "images" / "4.png").read_bytes()[:45])
    assert reds(data.load(path)[:4]) == [0, 1, 2, 3]
    with pytest.raises(errors.DataError, match=r"table.csv: images/4.png is damaged"):
        data.load(path).images[3:5]


def test_a_missing_file_is_named_with_its_row(folder):
    text = "path,label\n" + "images/0.png,0\n" * 16 + "images/lost.png,0\n"
    with pytest.raises(errors.MissingData, match=r"table.csv, row 17: there is no file images/lost.png; paths are rel"):
        data.load(table(folder, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty. The first line names the columns"),
        ("path,label\n", "is empty: it has a header but no rows"),
        ("path,diagnosis\nimages/0.png,1\n", r"no column of labels, such as label.*its columns are path, diagnosis"),
        ("scan,label\nimages/0.png,1\n", r"no column of images, such as image.*its columns are scan, label"),
        ("path,label\nimages/0.png,1\nimages/1.png,cat\n", "row 2: the label 'cat' is no number"),
        ("path,label\nimages/0.png,1\nimages/1.png,\n", "row 2: there is no label"),
        ("path,label\nimages/0.png,-1\n", "row 1: the label is -1; labels count from 0"),
        ("path,label\n,1\n", "row 1: there is no path"),
        ("path,label\nimages/0.png,1,2\n", "row 1: it has 3 values, the header names 2 columns"),
        ("path,path,label\n1,2,3\n", "two columns named 'path'"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(folder, text, says):
    with pytest.raises(errors.DataError, match=says):
        data.load(table(folder, text))


def test_a_label_that_is_no_class(folder):
    with pytest.raises(errors.DataError, match="row 2: the label 'cow' is no class: classes names cat, dog"):
        data.load(table(folder, lines("cat", "cow")), classes={"cat": 0, "dog": 1})


def test_mixed_sizes_and_their_cure(folder):
    Image.new("RGB", (5, 5)).save(folder / "images" / "1.png")
    path = table(folder, lines(0, 1))
    with pytest.raises(errors.DataError, match=r"images/0.png is 4×6, images/1.png is 5×5 .*Set --resize"):
        data.load(path)
    assert data.load(path, resize=(4, 4)).images.shape == (2, 3, 4, 4)


def test_options_that_are_wrong(folder):
    path = table(folder, lines(0, 1))
    with pytest.raises(errors.DataError, match="no column 'scan': its columns are path, label"):
        data.load(path, columns="image=scan")
    with pytest.raises(errors.UnknownName, match="no role of a column named 'lable'. Did you mean 'label'"):
        data.load(path, columns="lable=x")
    with pytest.raises(errors.ParameterError, match="image=NAME,label=NAME"):
        data.load(path, columns="label")
    with pytest.raises(errors.ParameterError, match="unless the data are a table"):
        data.load("fashion-mnist-sample", columns="label=x")
    with pytest.raises(errors.ParameterError, match="has no column named split"):
        data.load(f"{path}:test")
    with pytest.raises(errors.MissingData, match="no file or folder 'lost.csv'"):
        data.load("lost.csv")


def test_binary_is_no_table(folder):
    (folder / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.DataError, match="cannot be read as a table in UTF-8"):
        data.load(folder / "t.csv")


def test_parquet_of_paths(folder):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"file_name": ["images/2.png", "images/0.png"], "label": [1, 0], "box": [[1, 2], [3]]}
    parquet.write_table(arrow.table(columns), folder / "t.parquet")
    found = data.load(folder / "t.parquet")
    assert (reds(found), found.labels.tolist()) == ([2, 0], [1, 0])
    (folder / "bad.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(errors.DataError, match="cannot be read as parquet"):
        data.load(folder / "bad.parquet")
