"""What a caller hands over: torch and torchvision sets, loaders, arrays that numpy maps; large ones are read later."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from unfooled import data, errors
from unfooled.data import lazy
from unfooled.data.lazy import Lazy

GIVEN = __import__("sys").modules["unfooled.data.given"]  # the package's own attribute of this name is the function


class Photos:
    """A data set as torchvision's are: (image, label) by index, names of the classes."""

    classes = ("cat", "dog")

    def __init__(self, count=10, image=None, label=lambda row: row % 2):
        self.count, self.image, self.label, self.asked = count, image or self.plain, label, []

    @staticmethod
    def plain(row):
        return torch.full((3, 4, 5), row / 16)

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        self.asked.append(row)
        return self.image(row), self.label(row)


def test_a_small_set_is_read_at_once():
    found = data.given(Photos())
    assert torch.equal(found.images[:, 0, 0, 0] * 16, torch.arange(10.0))
    assert found.labels.tolist() == [0, 1] * 5
    assert found.classes == ("cat", "dog")
    assert found.name == "Photos, 10 images"


def test_a_large_set_is_asked_for_its_images_again(monkeypatch):
    small = data.given(Photos())
    monkeypatch.setattr(lazy, "LIMIT", 1000)
    photos = Photos()
    found = data.given(photos)
    assert isinstance(found.images, Lazy)
    assert torch.equal(found.labels, small.labels)
    assert torch.equal(found.images.whole(), small.images)
    photos.asked.clear()
    assert torch.equal(found.images[torch.tensor([7, 2])], small.images[[7, 2]])
    assert photos.asked == [7, 2]
    assert found.images.digest() == data.given(Photos()).images.digest()
    assert found.images.digest() != data.given(Photos(image=lambda row: Photos.plain(row) / 2)).images.digest()


def test_a_large_set_that_changes_is_refused(monkeypatch):
    monkeypatch.setattr(lazy, "LIMIT", 1000)
    with pytest.raises(errors.DataError, match="gives other images each time"):
        data.given(Photos(image=lambda row: torch.rand(3, 4, 5)))


def test_pillow_images_become_bytes():
    found = data.given(Photos(3, image=lambda row: Image.new("RGB", (5, 4), (row, 0, 9))))
    assert found.images.dtype == torch.uint8
    assert found.images.shape == (3, 3, 4, 5)
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert data.given(Photos(3, image=lambda row: Image.new("L", (5, 4)))).images.shape == (3, 1, 4, 5)


def test_labels_of_one_entry_and_mappings():
    found = data.given(Photos(4, label=lambda row: np.array([row % 2])))
    assert found.labels.tolist() == [0, 1, 0, 1]
    mapped = [{"pixel_values": torch.zeros(1, 2, 2), "label": n} for n in range(3)]
    assert data.given(mapped).labels.tolist() == [0, 1, 2]
    with pytest.raises(errors.DataError, match="gave a mapping with picture, label"):
        data.given([{"picture": 0, "label": 0}] * 3)


@pytest.mark.parametrize(
    ("photos", "says"),
    [
        (Photos(4, label=lambda row: [0, 1]), "label of image 0 of the data set must be one integer"),
        (Photos(4, label=lambda row: 0.5 if row == 2 else 0), "label of image 2 .* one integer. Got 0.5"),
        (
            Photos(4, image=lambda row: torch.zeros(3, 4 + row // 3, 5)),
            r"image 0 has \(3, 4, 5\), image 3 has \(3, 5, 5\)",
        ),
        (Photos(0), "no images to work on"),
        (Photos(2, image=lambda row: "path.png"), r"must be a tensor, an array or a Pillow image. Got str"),
    ],
)
def test_what_is_wrong_is_said_of_the_image(photos, says):
    with pytest.raises(errors.DataError, match=says):
        data.given(photos)


def test_loaders_and_streams_are_collected_up_to_a_size(monkeypatch):
    held = TensorDataset(torch.rand(10, 3, 4, 4), torch.arange(10)[:, None] % 3)

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(Image.new("RGB", (4, 4), (n, 0, 0)), n % 3) for n in range(10)])

    for given in (DataLoader(held, batch_size=4), Stream()):
        found = data.given(given)
        assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
        assert found.images.shape == (10, 3, 4, 4)
    monkeypatch.setattr(GIVEN, "COLLECTED", 300)
    for given in (DataLoader(held, batch_size=4), Stream()):
        with pytest.raises(errors.DataError, match=r"gives more than .* GiB of images.*Give the data set itself"):
            data.given(given)


def test_arrays_that_numpy_maps(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "LIMIT", 100)
    pixels = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)
    np.save(tmp_path / "a.npy", pixels)
    found = data.given((np.load(tmp_path / "a.npy", mmap_mode="r"), np.arange(6)))
    assert isinstance(found.images, Lazy)
    assert np.array_equal(found.images[torch.tensor([5, 1])].numpy(), pixels[[5, 1]])


# ---- npz files that stay on the disk, and those of MedMNIST


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8),
        np.random.default_rng(0).integers(0, 256, (9, 5, 4), dtype=np.uint8),
        np.asfortranarray(np.random.default_rng(0).integers(0, 256, (9, 3, 5, 6), dtype=np.uint8)),
        np.random.default_rng(0).random((9, 3, 5, 6)).astype(">f4"),
        np.random.default_rng(0).random((9, 50)),
    ],
)
def test_an_npz_that_is_not_compressed_stays_on_the_disk(tmp_path, monkeypatch, pixels):
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(9))
    np.savez_compressed(tmp_path / "b.npz", images=pixels, labels=np.arange(9))
    held = data.load(tmp_path / "a.npz")
    monkeypatch.setattr(lazy, "LIMIT", 100)
    found = data.load(tmp_path / "a.npz")
    assert isinstance(found.images, Lazy)
    assert found.images.shape == tuple(held.images.shape)
    assert found.images.dtype == held.images.dtype
    assert torch.equal(found.images.whole(), held.images)
    assert torch.equal(found.images[torch.tensor([8, 0])], held.images[[8, 0]])
    assert torch.equal(data.load(f"{tmp_path / 'a.npz'}[2:4]").images[:], held.images[2:4])
    assert torch.equal(data.load(tmp_path / "b.npz").images, held.images)


def test_a_mapped_npz_is_checked_as_any(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "LIMIT", 100)
    pixels = np.random.default_rng(0).random((9, 3, 5, 6), dtype=np.float32)
    pixels[7, 0, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(9))
    with pytest.raises(errors.DataError, match="NaN or infinity in image 7"):
        data.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.arange(9 * 100).reshape(9, 10, 10), labels=np.arange(9))
    with pytest.raises(errors.DataError, match="holds int64 under 'images'"):
        data.load(tmp_path / "b.npz")


def test_mapped_images_are_resized_as_they_are_asked_for(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(9))
    held = data.load(tmp_path / "a.npz", resize=6, crop=4)
    monkeypatch.setattr(lazy, "LIMIT", 100)
    found = data.load(tmp_path / "a.npz", resize=6, crop=4)
    assert found.images.shape == (9, 3, 4, 4)
    assert torch.equal(found.images[2:5], held.images[2:5])
    with pytest.raises(errors.DataError, match="smaller than the crop 9×9"):
        data.load(tmp_path / "a.npz", crop=9)


def medical(folder, name, labels, shape=(28, 28)):
    parts = {
        f"{split}_{what}": np.zeros((len(labels), *shape), np.uint8) if what == "images" else np.asarray(labels)
        for split in ("train", "val", "test")
        for what in ("images", "labels")
    }
    np.savez_compressed(folder / name, **parts)
    return folder / name


def test_medical_files_get_the_names_of_their_classes(tmp_path):
    labels = [[0], [1], [1]]
    for name in ("pneumoniamnist.npz", "pneumoniamnist_224.npz"):
        found = data.load(medical(tmp_path, name, labels))
        assert found.classes == ("normal", "pneumonia")
        assert found.labels.tolist() == [0, 1, 1]
        assert found.images.shape == (3, 1, 28, 28)
        assert found.name.endswith(":test")
    assert len(data.load(f"{tmp_path / 'pneumoniamnist.npz'}:val[0:2]")) == 2
    assert len(data.load(medical(tmp_path, "pathmnist.npz", [[8]], (28, 28, 3))).classes) == 9
    assert data.load(medical(tmp_path, "mine.npz", labels)).classes == ()
    assert data.load(medical(tmp_path, "breastmnist.npz", [[4]])).classes == (), "that is another set"


def test_medical_files_that_are_no_sets_of_single_labels(tmp_path):
    with pytest.raises(errors.DataError, match=r"is a multi-label set \(as ChestMNIST is\): 'test_labels' has shape"):
        data.load(medical(tmp_path, "chestmnist.npz", np.eye(3, 14, dtype=np.uint8) + np.eye(3, 14, 1, dtype=np.uint8)))
    with pytest.raises(errors.DataError, match="holds volumes of shape"):
        data.load(medical(tmp_path, "organmnist3d.npz", [[0]], (28, 28, 28)))
