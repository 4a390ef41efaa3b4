"""What goes wrong with images that people bring: tables of bytes, names that are no paths, folders within folders."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import unfooled as uf
from unfooled.errors import MissingData, Note

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def png(pixels):
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize("column", ["image", "png"])
def test_a_parquet_of_encoded_images(tmp_path, column):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    table = arrow.table({column: [png(one) for one in PIXELS], "label": [2, 0, 1]})
    parquet.write_table(table, tmp_path / "t.parquet")
    found = uf.data.load(tmp_path / "t.parquet")
    assert torch.equal(found.images.permute(0, 2, 3, 1), torch.from_numpy(PIXELS))
    assert found.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("path", ["a" * 5000, "x\0y"])
def test_a_table_may_name_what_no_path_can_be(tmp_path, path):
    (tmp_path / "t.csv").write_text(f"path,label\n{path},0\n")
    with pytest.raises(MissingData, match="row 1: there is no file") as caught:
        uf.data.load(tmp_path / "t.csv")
    assert len(str(caught.value)) < 500


def test_images_that_lie_deeper_are_told(tmp_path):
    for folder in ("cat", "zebra", "test/cat"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / folder / "0.png")
    with pytest.warns(Note, match=r"such as test/cat/0.png: they are left out, and 'test' counts as a class"):
        assert uf.data.load(tmp_path).labels.tolist() == [0, 2]
    (tmp_path / "test" / "cat" / "0.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        uf.data.load(tmp_path)
