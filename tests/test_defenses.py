"""Defenses: SciPy's semantics, declared backwards, composition."""

import numpy as np
import pytest
import scipy.ndimage as nd
import torch
from torch import nn

import unfooled as uf
from unfooled import defenses
from unfooled.defenses import BitDepth, GaussianBlur, MedianFilter, PercentileFilter, RandomShift, defend
from unfooled.models.classifier import Classifier
from unfooled.models.layout import preferred

IMAGES = torch.rand(3, 2, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_scipy(function):
    return np.stack([[function(plane) for plane in image] for image in IMAGES.numpy()])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.2, 7.0])
def test_gaussian_blur_is_scipys(sigma):
    expected = by_scipy(lambda plane: nd.gaussian_filter(plane, sigma))
    np.testing.assert_allclose(GaussianBlur(sigma)(IMAGES), expected, atol=1e-12)
    np.testing.assert_allclose(GaussianBlur(sigma)(IMAGES.float()), expected, atol=1e-5)


def test_sigma_zero_changes_nothing():
    assert torch.equal(GaussianBlur(0)(IMAGES), IMAGES)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("percentile", [0, 24.9, 25, 50, 75, 99, 100])
def test_percentile_filter_is_scipys(percentile, size):
    expected = by_scipy(lambda plane: nd.percentile_filter(plane, percentile, size=size))
    assert np.array_equal(PercentileFilter(percentile, size)(IMAGES).numpy(), expected)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_median_filter_is_scipys(size):
    expected = by_scipy(lambda plane: nd.median_filter(plane, size=size))
    assert np.array_equal(MedianFilter(size)(IMAGES).numpy(), expected)


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_bit_depth_rounds_to_the_nearest_of_so_many_levels(bits):
    levels = np.linspace(0, 1, 2**bits)
    nearest = levels[np.abs(IMAGES.numpy()[:1, :, :3, :3, None] - levels).argmin(-1)]
    np.testing.assert_allclose(BitDepth(bits)(IMAGES)[:1, :, :3, :3], nearest, atol=1e-12)


def test_bit_depth_of_eight_leaves_eight_bit_images_alone():
    images = torch.arange(256).view(1, 1, 16, 16) / 255
    assert torch.equal(BitDepth(8)(images), images)


def test_bit_depth_declares_the_identity_and_its_exact_derivative_is_zero():
    z = IMAGES.clone().requires_grad_(True)
    (declared,) = torch.autograd.grad(BitDepth(3)(z).sum(), z)
    (exact,) = torch.autograd.grad(BitDepth(3, backward="exact")(z).sum(), z)
    assert torch.equal(declared, torch.ones_like(z))
    assert not exact.any()


@pytest.mark.parametrize("padding", ["zero", "edge"])
def test_random_shift_moves_every_image_by_its_own_offset(padding):
    many = IMAGES[:1].expand(400, -1, -1, -1)
    torch.manual_seed(0)
    moved = RandomShift(2, padding)(many)
    mode = {"zero": "constant", "edge": "replicate"}[padding]
    wide = nn.functional.pad(IMAGES[:1], (2, 2, 2, 2), mode=mode)[0]
    every = [wide[:, i : i + 9, j : j + 7] for i in range(5) for j in range(5)]
    drawn = torch.stack([(moved == one).flatten(1).all(1) for one in every])
    assert (drawn.sum(0) == 1).all()  # each is one of the 25 shifts
    assert (drawn.sum(1) > 3).all()  # and each shift is drawn, 16 times on average


def test_random_shift_moves_images_without_channels_and_zero_pixels_draw_nothing():
    torch.manual_seed(0)
    assert RandomShift(1)(IMAGES[:, 0]).shape == (3, 9, 7)
    state = torch.get_rng_state()
    assert torch.equal(RandomShift(0)(IMAGES), IMAGES)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_derivative_of_a_random_shift_is_that_of_the_offset_drawn():
    z = IMAGES.clone().requires_grad_(True)
    torch.manual_seed(3)
    moved = RandomShift(2)(z)
    (back,) = torch.autograd.grad((moved * IMAGES).sum(), z)
    torch.manual_seed(3)
    assert torch.allclose((back * IMAGES).sum(), (RandomShift(2)(IMAGES) * IMAGES).sum())


def test_a_model_behind_a_random_shift_is_seen_to_be_random():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x = torch.rand(20, 1, 8, 8)
    y = model(x).argmax(1)
    found = uf.attack(defend(model, RandomShift(2)), x, y, uf.Linf(0.05), uf.attacks.FGSM())
    assert int(found.forward.min()) >= 3  # judged by several draws


@pytest.mark.parametrize("defense", [GaussianBlur(0.8), PercentileFilter(25), MedianFilter(3)], ids=str)
def test_exact_backward_is_the_derivative(defense):
    z = IMAGES[:1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(defense, (z,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("make", [GaussianBlur, PercentileFilter, MedianFilter, BitDepth])
def test_identity_backward_passes_the_gradient_and_keeps_the_value(make):
    z = IMAGES.clone().requires_grad_(True)
    answer = make(backward="identity")(z)
    assert torch.equal(answer, make()(IMAGES))
    (gradient,) = torch.autograd.grad((answer * IMAGES).sum(), z)
    assert torch.equal(gradient, IMAGES)


def test_a_module_stands_in_for_the_backward():
    class Twice(nn.Module):
        def forward(self, x):
            return 2 * x

    z = IMAGES.clone().requires_grad_(True)
    answer = MedianFilter(3, backward=Twice())(z)
    assert torch.equal(answer, MedianFilter(3)(IMAGES))
    (gradient,) = torch.autograd.grad(answer.sum(), z)
    assert torch.equal(gradient, torch.full_like(z, 2.0))


def test_defend_applies_defenses_in_order_and_shares_the_model():
    model = nn.Flatten()
    wall = defend(model, GaussianBlur(1.0), MedianFilter(3))
    assert torch.equal(wall(IMAGES), MedianFilter(3)(GaussianBlur(1.0)(IMAGES)).flatten(1))
    assert wall.undefended is model


def test_the_adaptive_attack_is_at_least_as_strong_as_the_blind_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    x = torch.rand(200, 1, 8, 8, dtype=torch.float64)
    defended = defend(model, GaussianBlur(1.0))
    y = defended(x).argmax(1)
    blind = uf.attack(defended, x, y, uf.Linf(0.4), uf.attacks.FGSM(), surrogate=model)
    aware = uf.attack(defended, x, y, uf.Linf(0.4), uf.attacks.FGSM())
    assert aware.robust_accuracy < blind.robust_accuracy - 0.1


@pytest.mark.parametrize(
    ("words", "kind", "shown"),
    [
        ("blur:1.5", GaussianBlur, "sigma=1.5"),
        ("blur:sigma=0.5,backward=identity", GaussianBlur, "sigma=0.5"),
        ("percentile:30,size=3", PercentileFilter, "percentile=30, size=3"),
        ("median", MedianFilter, "size=3"),
        ("bit-depth:bits=4", BitDepth, "bits=4"),
        ("bit-depth:3,backward=exact", BitDepth, "bits=3"),
        ("random-shift:pixels=2", RandomShift, "pixels=2, padding=zero"),
        ("random-shift:1,padding=edge", RandomShift, "pixels=1, padding=edge"),
    ],
)
def test_parse(words, kind, shown):
    found = defenses.parse(words)
    assert type(found) is kind
    assert found.extra_repr() == shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("blurr:1", "There is no defense named 'blurr'. Did you mean 'blur'?"),
        ("blur:sigma=-1", "The 'sigma' parameter of GaussianBlur must be a float of at least 0. Got -1 instead."),
        ("blur:sigmo=1", "Did you mean 'sigma'?"),
        ("percentile:101", "must be a float in \\[0, 100\\]. Got 101"),
        ("median:2.5", "must be an int of at least 1"),
        ("bit-depth:0", "The 'bits' parameter of BitDepth must be an int in \\[1, 16\\]. Got 0 instead."),
        ("bit-depth:2.5", "must be an int in"),
        ("random-shift:-1", "must be an int of at least 0. Got -1"),
        ("random-shift:padding=wrap", "must be 'zero' or 'edge'. Got 'wrap'"),
        ("blur:1,backward=none", "must be 'exact', 'identity' or an nn.Module"),
    ],
)
def test_bad_words_are_one_clear_line(words, message):
    with pytest.raises(uf.errors.ParameterError, match=message) as caught:
        defenses.parse(words)
    assert "\n" not in str(caught.value)


def test_a_filter_outside_torch_as_a_module_can_be_asked_for_its_faster_layout():
    """No gradient reaches the images, though the layers behind have some."""

    class ByScipy(nn.Module):
        def forward(self, x):
            return torch.from_numpy(nd.median_filter(x.detach().numpy(), size=(1, 1, 3, 3)))

    model = nn.Sequential(ByScipy(), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4)).eval()
    assert preferred(Classifier(model), torch.rand(4, 1, 8, 8), looks=10**6) == "same"
