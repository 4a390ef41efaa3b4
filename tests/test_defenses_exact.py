"""Defenses against other implementations: Pillow, SciPy's optimisers, torch's interpolation, codes by hand."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from torch.nn import functional as F

import unfooled as uf
from unfooled import defenses
from unfooled.defenses import JPEG, Noise, ResizePad, Thermometer, TotalVariation
from unfooled.defenses.variation import objective, smoothest


def random_images(*shape, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


# --- JPEG ------------------------------------------------------------------------------------------


def by_pillow(image, quality):
    """One image (C, H, W) in [0, 1] through Pillow, as uint8 (C, H, W)."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    back = np.asarray(Image.open(file))
    return back[None] if back.ndim == 2 else back.transpose(2, 0, 1)


@pytest.mark.parametrize("quality", [0, 1, 10, 50, 75, 95, 100])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 13, 21), (1, 8, 8), (1, 1, 1), (3, 32, 32), (3, 17, 23), (3, 1, 2)])
def test_jpeg_is_pillows_bit_for_bit(shape, quality):
    images = random_images(5, *shape)
    answer = JPEG(quality)(images)
    for image, got in zip(images, answer, strict=True):
        assert np.array_equal((got * 255).round().numpy(), by_pillow(image, quality))
        assert torch.equal(got, (got * 255).round() / 255)


def test_more_grey_images_than_one_file_holds_are_coded_alike(monkeypatch):
    images = random_images(9, 1, 12, 12)
    whole = JPEG(40)(images)
    monkeypatch.setattr("unfooled.defenses.jpeg.TALLEST", 40)
    assert torch.equal(JPEG(40)(images), whole)
    assert torch.equal(JPEG(40)(images[:, 0]), whole[:, 0])
    assert JPEG(40)(images[:0]).shape == (0, 1, 12, 12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 75])
def test_the_smooth_jpeg_is_near_the_real_one(channels, quality):
    """So its derivative is that of the same thing: the tables, the blocks and the chroma fit."""
    coarse = random_images(6, channels, 5, 7)
    images = F.interpolate(coarse, (21, 30), mode="bilinear").clamp(0.05, 0.95)
    error = (JPEG(quality).smooth(images) - JPEG(quality)(images)).abs().mean()
    assert float(error) < 0.015
    assert float(error) < 0.6 * float((JPEG(quality)(images) - images).abs().mean())


def test_the_smooth_jpeg_is_differentiated_right():
    images = random_images(1, 3, 9, 10, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(JPEG(30).smooth, (images,), eps=1e-7, atol=1e-4, fast_mode=True)


def test_jpeg_refuses_two_channels_and_has_no_exact_derivative():
    with pytest.raises(uf.errors.DataError, match=r"in grey, or \(N, 3, H, W\) in colour. Got shape \(2, 2, 8, 8\)"):
        JPEG()(torch.rand(2, 2, 8, 8))
    with pytest.raises(uf.errors.ParameterError, match="must be 'smooth', 'identity' or an nn.Module. Got 'exact'"):
        JPEG(backward="exact")


# --- total variation -------------------------------------------------------------------------------


def kept_pixels(images, drop=0.5):
    return (torch.rand(images.shape, generator=torch.Generator().manual_seed(9)) >= drop).to(images.dtype)


def by_scipy(image, kept, weight):
    """The objective's minimum over (H, W), its norms rounded off by a little, from the written formula."""

    def value(flat):
        z = torch.tensor(flat).view_as(image).requires_grad_(True)

        def norm(v):
            return (v.square().sum() + 1e-10).sqrt()

        total = norm(kept * (z - image))
        total = total + weight * sum(norm(z[i] - z[i - 1]) for i in range(1, len(z)))
        total = total + weight * sum(norm(z[:, j] - z[:, j - 1]) for j in range(1, z.shape[1]))
        total.backward()
        return total.item(), z.grad.flatten().numpy()

    starts = (image, torch.full_like(image, float(image.mean())))
    return min(minimize(value, start.flatten().numpy(), jac=True, method="L-BFGS-B").fun for start in starts)


@pytest.mark.parametrize("weight", [0.03, 0.2, 2.0])
def test_total_variation_reaches_the_minimum_that_scipy_finds(weight):
    image = random_images(1, 1, 6, 5, dtype=torch.float64)
    kept = kept_pixels(image, 0.4)
    found = float(objective(smoothest(image, kept, weight, 1000), image, kept, weight))
    assert found == pytest.approx(by_scipy(image[0, 0], kept[0, 0], weight), rel=2e-3)


def test_the_objective_falls_step_by_step_and_few_steps_come_near():
    coarse = random_images(8, 1, 7, 7)
    images = F.interpolate(coarse, (28, 28), mode="bilinear")
    kept = kept_pixels(images)
    values = [objective(smoothest(images, kept, 0.03, steps), images, kept, 0.03) for steps in (0, 1, 5, 20, 400)]
    assert all(bool((later < earlier).all()) for earlier, later in pairwise(values))
    assert float((values[3] / values[4]).max()) < 1.02


def test_dropped_pixels_do_not_tell():
    images, other = random_images(3, 2, 9, 8), random_images(3, 2, 9, 7 + 1).flip(0)
    kept = kept_pixels(images, 0.5)
    mixed = kept * images + (1 - kept) * other
    low, high = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    first, second = smoothest(images, kept, 0.03, 10), smoothest(mixed, kept, 0.03, 10)
    same = (low == mixed.amin((1, 2, 3))) & (high == mixed.amax((1, 2, 3)))
    inside = (first > 0.1) & (first < 0.9)
    assert torch.allclose(first[inside], second[inside], atol=1e-5) or bool(same.any())


def test_nothing_dropped_and_hardly_any_weight_changes_hardly_anything():
    images = random_images(2, 1, 12, 12)
    assert torch.allclose(TotalVariation(drop=0, weight=1e-3)(images), images, atol=1e-3)
    flat = torch.full((2, 1, 12, 12), 0.3)
    assert torch.allclose(TotalVariation()(flat), flat, atol=1e-5)


def test_total_variation_is_differentiated_right():
    image = random_images(1, 1, 6, 6, dtype=torch.float64)
    kept = kept_pixels(image)
    z = image.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: smoothest(z, kept, 0.3, 6), (z,), eps=1e-7, atol=1e-4, fast_mode=True)


def test_total_variation_drops_the_share_that_it_says(monkeypatch):
    seen = []
    monkeypatch.setattr("unfooled.defenses.variation.smoothest", lambda x, kept, *more: seen.append(kept) or x)
    torch.manual_seed(0)
    TotalVariation(drop=0.3)(torch.rand(20, 3, 20, 20))
    assert float(seen[0].mean()) == pytest.approx(0.7, abs=0.02)


# --- resize and pad --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("grow", [1.0, 1.25])
@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_resize_and_pad_is_torchs_resize_at_every_size_and_place(mode, grow, fill):
    """Each of many draws is one of all that there can be, made by torch."""
    image = random_images(1, 2, 12, 16, dtype=torch.float64)
    torch.manual_seed(0)
    answer = ResizePad(0.8, grow, mode, fill)(image.expand(300, -1, -1, -1))
    height, width = round(12 * grow), round(16 * grow)
    assert answer.shape == (300, 2, height, width)
    every = []
    for less in range(height - round(0.8 * height) + 1):
        tall, wide = height - less, width - round(less * width / height)
        small = F.interpolate(image, (tall, wide), mode="nearest-exact" if mode == "exact" else mode)
        for top in range(height - tall + 1):
            for left in range(width - wide + 1):
                sides = (left, width - wide - left, top, height - tall - top)
                every.append(F.pad(small, sides, value=fill)[0])
    near = torch.stack([(answer - one).abs().flatten(1).amax(1) < 1e-9 for one in every])
    assert bool(near.any(0).all())
    assert int(near.any(1).sum()) > len(every) / 2  # and most of them are drawn


def test_a_scale_of_one_changes_nothing():
    images = random_images(3, 1, 9, 9)
    for mode in ("nearest", "bilinear"):
        assert torch.allclose(ResizePad(1.0, mode=mode)(images), images, atol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resize_and_pad_is_linear_and_so_is_its_derivative(mode):
    images = random_images(3, 1, 9, 9, dtype=torch.float64)
    z = images.clone().requires_grad_(True)
    torch.manual_seed(1)
    moved = ResizePad(mode=mode, scale=0.7)(z)
    (back,) = torch.autograd.grad((moved * images).sum(), z)
    assert torch.allclose((back * images).sum(), (moved * images).sum())


# --- noise, codes ----------------------------------------------------------------------------------


def test_noise_has_the_sigma_that_it_says():
    torch.manual_seed(0)
    grey = torch.full((50, 1, 28, 28), 0.5)
    changed = Noise(0.1)(grey) - grey
    assert float(changed.std()) == pytest.approx(0.1, rel=0.02)
    assert abs(float(changed.mean())) < 2e-3
    wide = Noise(1.0, clip=False)(grey)
    assert float(wide.min()) < 0
    assert float(wide.max()) > 1


def test_thermometer_codes_by_hand():
    pixels = torch.tensor([0.0, 0.24, 0.25, 0.5, 0.66, 0.99, 1.0]).view(1, 1, 1, 7)
    by_hand = ["1000", "1000", "1100", "1110", "1110", "1111", "1111"]
    codes = Thermometer(4)(pixels)[0, :, 0].T
    assert ["".join(str(int(bit)) for bit in code) for code in codes] == by_hand


def test_the_codes_of_each_channel_lie_together():
    images = random_images(2, 3, 5, 4)
    codes = Thermometer(8)(images)
    for channel in range(3):
        part = codes[:, 8 * channel : 8 * channel + 8]
        assert torch.equal(part.sum(1), (images[:, channel] * 8).floor().clamp_max(7) + 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("jpeg:101", r"The 'quality' parameter of JPEG must be an int in \[0, 100\]. Got 101 instead."),
        ("jpeg:75.5", "must be an int in"),
        ("tv:1", r"The 'drop' parameter of TotalVariation must be a float in \[0, 1\). Got 1"),
        ("tv:weight=0", "must be a float above 0. Got 0"),
        ("tv:steps=0", "must be an int of at least 1. Got 0"),
        ("resize-pad:0", r"must be a float in \(0, 1\]. Got 0"),
        ("resize-pad:grow=-1", "must be a float above 0. Got -1"),
        ("resize-pad:mode=cubic", "must be 'nearest' or 'bilinear'. Got 'cubic'"),
        ("resize-pad:fill=2", r"must be a float in \[0, 1\]. Got 2"),
        ("noise:-1", "must be a float of at least 0. Got -1"),
        ("noise:clip=1", "must be true or false. Got 1"),
        ("thermometer:1", "must be an int of at least 2. Got 1"),
        ("thermometer:backward=identity", "must be 'smooth' or an nn.Module. Got 'identity'"),
        ("jpg:75", "There is no defense named 'jpg'. Did you mean 'jpeg'?"),
    ],
)
def test_bad_options_are_one_clear_line(words, message):
    with pytest.raises(uf.errors.ParameterError, match=message) as caught:
        defenses.parse(words)
    assert "\n" not in str(caught.value)
