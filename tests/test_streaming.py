"""Large data: an evaluation reads what it works on, and says the same as one of images in memory."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import unfooled as uf
from streaming_run import Brightest
from unfooled import errors
from unfooled.data import lazy
from unfooled.data.lazy import Held, Lazy
from unfooled.fingerprint import of_model
from unfooled.inputs import Notes, Streamed, checked_images
from unfooled.verification import verify

HERE = Path(__file__).parent


def images(count=48, side=6, seed=0):
    return torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def lazily(pixels, labels=None):
    labels = torch.arange(len(pixels)) % 3 if labels is None else labels
    return uf.data.Dataset(Lazy.of(Held(pixels)), labels, ("a", "b", "c"), "made", "made in the test")


class Recorded(Held):
    """Remembers how many rows were asked for, each time."""

    def __init__(self, pixels):
        super().__init__(pixels)
        self.asked = []

    def read(self, rows):
        self.asked.append(len(rows))
        return super().read(rows)


def coloured(count, side=6):
    """Images whose brightest channel is their label; one in four is labelled otherwise."""
    labels = torch.arange(count) % 3
    pixels = images(count, side) // 32 + 120
    pixels[torch.arange(count), labels] += 4
    return pixels, torch.where(torch.arange(count) % 4 == 0, (labels + 1) % 3, labels)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval()


# ---- Lazy


def test_rows_come_as_of_a_tensor():
    pixels = images()
    found = Lazy.of(Held(pixels))
    assert found.shape == (48, 3, 6, 6)
    assert found.ndim == 4
    assert len(found) == 48
    assert found.dtype == torch.uint8
    some = torch.tensor([5, 3, 40])
    assert torch.equal(found[some], pixels[some])
    assert torch.equal(found[7], pixels[7])
    assert torch.equal(found[-2:], pixels[-2:])
    assert torch.equal(found[torch.arange(48) % 2 == 0], pixels[::2])
    assert torch.equal(found.take(slice(10, 20))[some[:2]], pixels[10:20][some[:2]])
    assert torch.equal(found.whole(), pixels)
    assert found[:0].shape == (0, 3, 6, 6)
    with pytest.raises(IndexError):
        found[48]


def test_floats_stay_unread():
    data = lazily(images())
    floats = data.floats()
    assert isinstance(floats, Lazy)
    assert floats.is_floating_point()
    assert torch.equal(floats[:4], images()[:4].float() / 255)
    assert torch.equal(data.whole(), images().float() / 255)
    assert data.floats(torch.float64)[:1].dtype == torch.float64


def test_a_part_of_a_lazy_set_is_lazy():
    part = lazily(images())[8:20]
    assert isinstance(part.images, Lazy)
    assert part.name == "made[8:20]"
    assert torch.equal(part.images.whole(), images()[8:20])


def test_large_images_of_bytes_are_made_floats_as_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(lazy, "LIMIT", 1000)
    pixels = images()
    data = uf.data.Dataset(pixels, torch.arange(48) % 3, (), "made", "")
    assert isinstance(data.floats(), Lazy)
    assert isinstance(uf.data.given((pixels, data.labels)).images, Lazy)
    assert torch.equal(data.whole(), pixels.float() / 255)


def test_a_lazy_set_can_be_pickled():
    found = pickle.loads(pickle.dumps(lazily(images())))
    assert torch.equal(found.images[:3], images()[:3])


def test_the_digest_tells_content_and_order(monkeypatch):
    found = Lazy.of(Held(images()))
    monkeypatch.setattr(lazy, "CHUNK", 5)
    assert found.digest() == Lazy.of(Held(images())).digest()
    other = images()
    other[47, 2, 5, 5] ^= 1
    assert Lazy.of(Held(other)).digest() != found.digest()
    assert found.take(torch.arange(48).flip(0)).digest() != found.digest()
    assert found.to_floats(torch.float32).digest() != found.digest()


# ---- what is checked


def test_what_is_wrong_is_said_of_the_true_image():
    pixels = torch.rand(20, 3, 4, 4)
    pixels[13, 0, 0, 0] = float("nan")
    streamed = Streamed(Lazy.of(Held(pixels)), uf.Linf(0.1), None, Notes())
    assert torch.equal(streamed[torch.tensor([2, 12, 14])], pixels[[2, 12, 14]])
    with pytest.raises(errors.DataError, match="Image 13 holds NaN"):
        streamed[torch.tensor([2, 13, 14])]
    pixels[13] = 0.5
    pixels[7] = 3
    with pytest.raises(errors.DataError, match="Image 7 lies outside the threat's bounds"):
        streamed[torch.tensor([19, 7])]
    with pytest.raises(errors.DataError, match="Image 7 lies outside"):
        checked_images(pixels, uf.Linf(0.1), None, Notes())


def test_an_evaluation_ends_at_an_image_that_is_wrong(model):
    pixels = torch.rand(20, 3, 6, 6)
    pixels[13] = 2
    data = uf.data.Dataset(Lazy.of(Held(pixels)), torch.arange(20) % 3, (), "made", "")
    with pytest.raises(errors.DataError, match="Image 13 lies outside"):
        uf.evaluate(model, data, "linf:0.01", "quick")
    with pytest.raises(errors.DataError, match="There are no images"):
        uf.evaluate(model, data[:0], "linf:0.01", "quick")


# ---- evaluate


@pytest.mark.usefixtures("one_thread")
def test_the_evidence_is_that_of_images_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("unfooled.evaluation.SHARD", 8)
    pixels, labels = coloured(24)
    source = Recorded(pixels)
    data = uf.data.Dataset(Lazy.of(source), labels, ("a", "b", "c"), "made", "")
    plan = uf.attacks.FGSM()
    streamed = uf.evaluate(Brightest(), data, "linf:0.02", plan, out=tmp_path / "a")
    held = uf.evaluate(Brightest(), (pixels.float() / 255, labels), "linf:0.02", plan, out=tmp_path / "b")
    assert streamed.examples == held.examples
    assert streamed.robust_accuracy == held.robust_accuracy
    pictures = [[(p.example, p.size) for p in g.pictures] for g in streamed.galleries]
    assert pictures == [[(p.example, p.size) for p in g.pictures] for g in held.galleries]
    assert sum(map(len, pictures))
    for name in ("clean", "adversarial"):
        shown = [uf.store.RunFolder(tmp_path / run).found("pictures.safetensors")[name] for run in "ab"]
        assert (shown[0] == shown[1]).all()
    assert source.asked.count(8) == 3, "each shard is read once"
    assert verify(tmp_path / "a", Brightest(), data).holds


@pytest.mark.usefixtures("one_thread")
def test_a_run_goes_on_and_refuses_other_images(tmp_path):
    (pixels, labels), plan = coloured(9), uf.attacks.FGSM()
    first = uf.evaluate(Brightest(), lazily(pixels, labels), "linf:0.02", plan, out=tmp_path / "run")
    again = uf.evaluate(Brightest(), lazily(pixels, labels), "linf:0.02", plan, out=tmp_path / "run")
    assert first.examples == again.examples
    pixels[0, 0, 0, 0] += 1
    with pytest.raises(errors.OutputError, match="data_hash"):
        uf.evaluate(Brightest(), lazily(pixels, labels), "linf:0.02", plan, out=tmp_path / "run")


def test_attack_reads_all_it_is_given(model):
    pixels = images(12)
    labels = torch.arange(12) % 3
    found = uf.attack(model, lazily(pixels).floats(), labels, "linf:0.02", "fgsm")
    assert torch.equal(
        found.adversarial, uf.attack(model, pixels.float() / 255, labels, "linf:0.02", "fgsm").adversarial
    )


def test_a_model_without_a_state_is_known_by_a_few_images():
    source = Recorded(images())
    of_model(lambda x: x.flatten(1)[:, :3], Lazy.of(source).to_floats(torch.float32))
    assert source.asked == [8]


# ---- memory


def peak(count, side, shard, out):
    done = subprocess.run(
        [sys.executable, str(HERE / "streaming_run.py"), str(count), str(side), str(shard), str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["examples"] == count
    assert found["robust"] < found["clean"]
    assert found["pictures"]
    assert found["most"] <= 256, "so many rows are never in work at once"
    return found["peak"]


@pytest.mark.slow
def test_ten_times_the_images_need_no_more_memory(tmp_path):
    few, many = (peak(count, 80, 256, tmp_path / str(count)) for count in (256, 2560))
    whole = 2560 * 3 * 80 * 80 * 4 / 2**20  # MiB of all as floats: 188
    assert many - few < whole / 4


@pytest.mark.slow
def test_ten_times_the_photographs_need_no_more_memory(tmp_path):
    few, many = (peak(count, 224, 128, tmp_path / str(count)) for count in (512, 5120))
    whole = 5120 * 3 * 224 * 224 * 4 / 2**20  # 2,940
    assert many - few < whole / 20
