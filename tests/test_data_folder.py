"""Image folders: layouts, modes, sizes, orientation, damage."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from unfooled import data, errors


def put(root, name, image):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def plain(color=(10, 20, 30), size=(6, 4), mode="RGB"):
    return Image.new(mode, size, color)


def test_classes_are_sorted_folder_names(tmp_path):
    put(tmp_path, "dog/b.png", plain((1, 2, 3)))
    put(tmp_path, "dog/a.PNG", plain((4, 5, 6)))
    put(tmp_path, "cat/z.bmp", plain((7, 8, 9)))
    put(tmp_path, ".hidden/z.png", plain(size=(1, 1)))
    put(tmp_path, "__MACOSX/z.png", plain(size=(1, 1)))
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "._b.png").write_text("no image either")
    ds = data.load(tmp_path)
    assert ds.classes == ("cat", "dog")
    assert ds.files == ("cat/z.bmp", "dog/a.PNG", "dog/b.png")
    assert ds.labels.tolist() == [0, 1, 1]
    assert ds.images.shape == (3, 3, 4, 6)
    assert ds.images[1, :, 0, 0].tolist() == [4, 5, 6]
    assert ds.name == str(tmp_path)
    assert "3 images in 2 classes" in ds.source


def test_splits_and_ranges(tmp_path):
    for number in range(4):
        put(tmp_path, f"val/a/{number}.png", plain((number, 0, 0)))
    ds = data.load(f"{tmp_path}:val[1:3]")
    assert ds.files == ("a/1.png", "a/2.png")
    assert ds.images[:, 0, 0, 0].tolist() == [1, 2]
    assert ds.name == f"{tmp_path}:val[1:3]"
    with pytest.raises(errors.ParameterError, match=r"has 4 images.*\[0:5\]"):
        data.load(f"{tmp_path}:val[0:5]")
    with pytest.raises(errors.ParameterError, match="holds no folder 'train'"):
        data.load(f"{tmp_path}:train")
    with pytest.raises(errors.DataError, match=f"give {tmp_path}:val"):
        data.load(tmp_path)


def test_files_outside_the_range_are_not_opened(tmp_path):
    put(tmp_path, "a/0.png", plain())
    (tmp_path / "a" / "1.png").write_bytes(b"damaged")
    assert len(data.load(f"{tmp_path}[0:1]")) == 1


def test_own_class_indices(tmp_path):
    put(tmp_path, "dog/a.png", plain())
    put(tmp_path, "cat/a.png", plain())
    ds = data.load(tmp_path, classes={"dog": 0, "cat": 3, "cow": 2})
    assert ds.labels.tolist() == [3, 0]
    assert ds.classes == ("dog", "1", "cow", "cat")
    with pytest.raises(errors.ParameterError, match="no index for the folders dog of"):
        data.load(tmp_path, classes={"cat": 0})
    with pytest.raises(errors.ParameterError, match="int >= 0; it does not for cat"):
        data.load(tmp_path, classes={"cat": -1, "dog": 0})


def test_grey_stays_grey_only_where_all_are(tmp_path):
    put(tmp_path, "a/0.png", plain(100, mode="L"))
    put(tmp_path, "a/1.png", plain(1, mode="1"))
    ds = data.load(tmp_path)
    assert ds.images.shape == (2, 1, 4, 6)
    assert ds.images[:, 0, 0, 0].tolist() == [100, 255]
    put(tmp_path, "a/2.png", plain((1, 2, 3)))
    ds = data.load(tmp_path)
    assert ds.images.shape == (3, 3, 4, 6)
    assert ds.images[0, :, 0, 0].tolist() == [100, 100, 100]


def test_transparency_lies_on_white(tmp_path):
    put(tmp_path, "a/0.png", plain((255, 0, 0, 0), mode="RGBA"))
    put(tmp_path, "a/1.png", plain((0, 0, 0, 127), mode="RGBA"))
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    put(tmp_path, "a/2.png", palette)
    palette.info["transparency"] = 1
    palette.save(tmp_path / "a" / "3.png", transparency=1)
    colors = data.load(tmp_path).images[:, :, 0, 0].tolist()
    assert colors == [[255] * 3, [128] * 3, [9, 8, 7], [255] * 3]


def test_grey_with_alpha_stays_grey(tmp_path):
    put(tmp_path, "a/0.png", plain((50, 255), mode="LA"))
    put(tmp_path, "a/1.png", plain((50, 0), mode="LA"))
    assert data.load(tmp_path).images[:, :, 0, 0].tolist() == [[50], [255]]


def test_cmyk(tmp_path):
    put(tmp_path, "a/0.tif", plain((255, 0, 0, 0), mode="CMYK"))
    assert data.load(tmp_path).images[0, :, 0, 0].tolist() == [0, 255, 255]


def test_16_bits_are_scaled_not_clipped(tmp_path):
    deep = Image.fromarray(np.array([[0, 257 * 100], [65535, 257]], np.uint16))
    put(tmp_path, "a/0.png", deep)
    with pytest.warns(errors.Note, match="1 images of 16 bits were reduced to 8"):
        ds = data.load(tmp_path)
    assert ds.images.flatten().tolist() == [0, 100, 255, 1]


def test_orientation_from_exif(tmp_path):
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.png", exif=exif)
    ds = data.load(tmp_path)
    assert ds.images.shape == (1, 3, 6, 4)
    assert ds.images[0, 0, 0, 3] == 255


def test_different_sizes(tmp_path):
    put(tmp_path, "a/0.png", plain(size=(6, 4)))
    put(tmp_path, "a/1.png", plain(size=(8, 16)))
    with pytest.raises(errors.DataError, match=r"a/0.png is 4×6, a/1.png is 16×8.*--resize"):
        data.load(tmp_path)
    assert data.load(tmp_path, resize=(5, 7)).images.shape == (2, 3, 5, 7)
    assert data.load(tmp_path, resize=8, crop=8).images.shape == (2, 3, 8, 8)
    with pytest.raises(errors.DataError, match=r"a/0.png is 8×12, a/1.png is 16×8"):
        data.load(tmp_path, resize=8)
    with pytest.raises(errors.DataError, match=r"0.png is 4×6 .*smaller than the crop 5×5"):
        data.load(tmp_path, crop=5)


def test_a_resized_folder_equals_pillow(tmp_path):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    put(tmp_path, "a/0.png", noise)
    ours = data.load(tmp_path, resize=10, crop=(8, 8)).images[0]
    theirs = np.asarray(noise.resize((15, 10), Image.Resampling.BILINEAR))[1:9, 4:12]  # 3.5 rounds to 4
    assert torch.equal(ours, torch.from_numpy(theirs.transpose(2, 0, 1).copy()))


def test_gif_gives_its_first_frame(tmp_path):
    (tmp_path / "a").mkdir()
    frames = [plain(40, mode="L"), plain(90, mode="L")]
    frames[0].save(tmp_path / "a" / "0.gif", save_all=True, append_images=frames[1:])
    assert data.load(tmp_path).images.unique().tolist() == [40]


@pytest.mark.parametrize(
    ("content", "says"), [(b"no image", "not an image"), (b"", "not an image"), (b"cut", "is damaged")]
)
def test_damaged_images_are_named(tmp_path, content, says):
    good = put(tmp_path, "a/0.jpg", Image.effect_noise((64, 64), 50))
    bad = tmp_path / "a" / "1.jpg"
    bad.write_bytes(good.read_bytes()[:1500] if content == b"cut" else content)
    with pytest.raises(errors.DataError, match=rf"a/1\.jpg.*{says}"):
        data.load(tmp_path)


def test_decompression_bombs(tmp_path, monkeypatch):
    put(tmp_path, "a/0.png", plain(size=(60, 60)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(errors.DataError, match=r"a/0\.png.*decompression bomb"):
        data.load(tmp_path)


def test_wrong_layouts(tmp_path):
    with pytest.raises(errors.DataError, match=r"holds no images. The layout is FOLDER/CLASS/IMAGE"):
        data.load(tmp_path)
    put(tmp_path, "0.png", plain())
    with pytest.raises(errors.DataError, match=r"no class folders. The layout is FOLDER/CLASS/IMAGE"):
        data.load(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(errors.DataError, match="no images in its folders a"):
        data.load(tmp_path)


def test_nothing_is_noted_where_nothing_was_converted(tmp_path):
    put(tmp_path, "a/0.png", plain())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load(tmp_path)
