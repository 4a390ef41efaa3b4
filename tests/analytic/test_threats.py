"""Threats as sets: membership and its tolerances."""

import pytest
import torch

from helpers import NORMS, own_size
from unfooled.errors import ParameterError
from unfooled.threats import L0, L1, L2, Linf


def image(shape=(3, 16, 16), count=50, dtype=torch.float32):
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def towards(kind, x, eps, inside=0.25):
    """x moved to the middle of the box first, then a change of size eps exactly in float64, rounded to x's type."""
    x = inside + (1 - 2 * inside) * x
    d = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    d = d.sign() if kind is Linf else d
    d = eps * d / own_size(kind, d)[:, None, None, None]
    return x, (x.double() + d).to(x.dtype)


@pytest.mark.parametrize("kind", [Linf, L2, L1])
@pytest.mark.parametrize("eps", [1e-6, 1e-4, 8 / 255, 0.2])
def test_rounded_points_of_the_ball_are_accepted(kind, eps):
    """ART #507: at small eps float32 makes the change up to 2e-4 larger than eps."""
    for dtype in (torch.float32, torch.float64):
        x, z = towards(kind, image(dtype=dtype), eps)
        assert bool(kind(eps).contains(z, x).all())
        p = kind(eps).project(z + 0.3 * (z - x), x)
        assert bool(kind(eps).contains(p, x).all())


@pytest.mark.parametrize(
    ("kind", "eps"),
    [(Linf, 1e-4), (Linf, 8 / 255), (Linf, 0.1), (L2, 0.1), (L2, 0.5), (L2, 3.0), (L1, 1.0), (L1, 12.0)],
)
def test_one_percent_over_budget_is_refused(kind, eps):
    for dtype in (torch.float32, torch.float64):
        x, z = towards(kind, image(dtype=dtype), 1.01 * eps)
        assert not bool(kind(eps).contains(z, x).any())
        x, z = towards(kind, image(dtype=dtype), 1.0005 * eps)
        if dtype == torch.float64:
            assert not bool(kind(eps).contains(z, x).any())


@pytest.mark.parametrize("kind", [L2, L1])
@pytest.mark.parametrize("eps", [1e-4])
def test_one_percent_over_a_tiny_budget_is_refused_in_float64(kind, eps):
    x, z = towards(kind, image(dtype=torch.float64), 1.01 * eps)
    assert not bool(kind(eps).contains(z, x).any())


def test_scale_counts_at_bounds_to_255():
    x = 255 * image()
    z = (x + 8).clamp(max=255)
    assert bool(Linf(8, bounds=(0.0, 255.0)).contains(z, x).all())
    assert not bool(Linf(8, bounds=(0.0, 255.0)).contains((x - 8.08).clamp(min=0), x).any())


@pytest.mark.parametrize("kind", NORMS)
def test_box_mask_and_finiteness_have_no_tolerance(kind):
    x = image((2, 3, 3), 4, torch.float64)
    threat = kind(18.0)
    for value in (1 + 1e-12, -1e-300, torch.nan, torch.inf, -torch.inf):
        z = x.clone()
        z[2, 1, 0, 0] = value
        assert threat.contains(z, x).tolist() == [True, True, False, True]
    mask = torch.zeros((2, 3, 3), dtype=torch.bool)
    mask[0] = True
    z = x.clone()
    z[1, 0, 0, 0] = 0.5
    z[3, 1, 2, 2] += 1e-12
    assert kind(18.0, mask=mask).contains(z, x).tolist() == [True, True, True, False]


def test_l0_counts_components_or_pixels():
    x = image((3, 4, 4), 2)
    z = x.clone()
    z[0, :, 1, 1] = 0.5
    z[1, 0, 0, 0], z[1, 1, 1, 1] = 0.5, 0.5
    assert L0(3).size(z - x).tolist() == [3, 2]
    assert L0(3, pixels=True).size(z - x).tolist() == [1, 2]
    assert L0(2).contains(z, x).tolist() == [False, True]
    assert L0(1, pixels=True).contains(z, x).tolist() == [True, False]


@pytest.mark.parametrize("kind", NORMS)
def test_size_is_the_norm(kind):
    d = torch.randn((5, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kind(1).size(d).double(), own_size(kind, d), rtol=1e-5, atol=0)


def test_within_and_with_mask_keep_the_rest():
    mask = torch.tensor([True, False])
    threat = Linf(0.1, bounds=(-1.0, 2.0), mask=mask)
    wider = threat.within(torch.inf)
    assert wider.eps == torch.inf
    assert wider.bounds == (-1.0, 2.0)
    assert wider.mask is mask
    assert threat.with_mask(None) == Linf(0.1, bounds=(-1.0, 2.0))
    x = torch.tensor([[0.0, 0.0]])
    assert wider.project(torch.tensor([[9.0, 9.0]]), x).tolist() == [[2.0, 0.0]]


def test_a_bound_that_does_not_fit_an_image_is_refused_in_one_line():
    with pytest.raises(ParameterError, match="does not broadcast to one example") as caught:
        Linf(0.1, bounds=(torch.zeros(5), torch.ones(5))).project(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4))
    assert "\n" not in str(caught.value)
