"""The sandwich: of every bundled model, what is certified of an image is never more than what fools it."""

import pytest
import torch

import unfooled as uf
from unfooled.attacks import DDN, FMN
from unfooled.engine import attack
from unfooled.models import BUNDLED

IMAGES = 6
SMALLEST, FACTOR, MOST = 1e-4, 2.0, 12  # sizes that are tried: 1e-4, 2e-4 … until nothing is certified


def certified_radii(model, images, labels, threat, method):
    """The largest of the sizes up to which each image is certified, 0 for none."""
    radii = torch.zeros(len(images), dtype=torch.float64)
    left = torch.arange(len(images))
    for k in range(MOST):
        eps = SMALLEST * FACTOR**k
        found = uf.certify(model, (images[left], labels[left]), threat.within(eps), method)
        left = left[found.certified]
        radii[left] = eps
        if not len(left):
            break
    return radii


def sandwich(name, threat, method):
    data = uf.data.load("fashion-mnist-sample").floats()[:IMAGES]
    model = uf.models.load(name)
    with torch.no_grad():
        labels = model(data).argmax(1)  # whatever it answers, so that all are right
    radii = certified_radii(model, data, labels, threat, method)
    plan = FMN(steps=100) if isinstance(threat, uf.Linf) else DDN(steps=100)
    found = attack(model, data, labels, threat.within(torch.inf), plan)
    assert (radii <= found.distance).all()
    return radii, found.distance


@pytest.mark.parametrize("threat", [uf.Linf(1.0), uf.L2(1.0)], ids=str)
@pytest.mark.parametrize("name", BUNDLED)
def test_intervals(name, threat):
    radii, distance = sandwich(name, threat, "ibp")
    assert (radii > 0).any() or name.split("/")[1] in ("plain", "hardened")  # else nothing was tested
    assert (distance > 0).all()
    assert distance.isfinite().any() or name == "mnist/ibp"  # which answers the same whatever it sees of clothes


@pytest.mark.slow
@pytest.mark.parametrize("threat", [uf.Linf(1.0), uf.L2(1.0)], ids=str)
@pytest.mark.parametrize("name", BUNDLED)
def test_crown(name, threat):
    radii, _ = sandwich(name, threat, ("ibp", "crown"))
    assert (radii > 0).any()
