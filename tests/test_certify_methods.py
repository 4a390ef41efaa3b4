"""How `certify` reads what it is asked for, and smoothing as one of its methods."""

import math

import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled.certificates import CROWN, IBP, AlphaCROWN
from unfooled.certificates.asked import ABOUT, CASCADE, asked, written
from unfooled.certificates.noise import Gaussian, Uniform
from unfooled.certificates.sequential import certified_at
from unfooled.certificates.smoothed import IMAGES, _radius
from unfooled.certificates.smoothing import Smoothing
from unfooled.cli.completion import NAMES
from unfooled.errors import DataError, NotFinite, ParameterError, UnknownName

pytestmark = pytest.mark.usefixtures("one_thread")

LINF, L2, L1 = uf.Linf(0.1), uf.L2(0.25), uf.L1(0.5)


@pytest.mark.parametrize(
    ("words", "threat", "means"),
    [
        ("auto", LINF, CASCADE),
        ("ibp,crown", LINF, (IBP(), CROWN())),
        ("ibp, alpha-crown:steps=50,learning_rate=0.1 ,crown", L2, (IBP(), AlphaCROWN(50, 0.1), CROWN())),
        ("alpha-crown:50,0.1", L2, (AlphaCROWN(50, 0.1),)),
        (("ibp", CROWN()), LINF, (IBP(), CROWN())),
        ("smoothing:sigma=0.5", L2, Smoothing(Gaussian(0.5))),
        ("smoothing:0.5,draws=1000,alpha=0.01", L2, Smoothing(Gaussian(0.5), draws=1000, alpha=0.01)),
        ("smoothing:half_width=0.5,selection=10", L1, Smoothing(Uniform(0.5), 10)),
        ("smoothing:sigma=0.5", L1, Smoothing(Uniform(0.5 * math.sqrt(3)))),
        (Smoothing(Uniform(1.0)), L1, Smoothing(Uniform(1.0))),
    ],
)
def test_what_is_asked_for(words, threat, means):
    assert asked(words, threat) == means
    assert asked(written(means), threat) == means


@pytest.mark.parametrize(
    ("words", "threat", "said"),
    [
        ("smoothing:sigma=0.5", LINF, "certifies l2 .* and l1 .*, not linf"),
        ("smoothing:sigma=0.5", uf.L0(3), "not l0"),
        (Smoothing(Gaussian(1.0)), LINF, "not linf"),
        (Smoothing(Gaussian(1.0)), L1, r"Gaussian\(sigma=1.0\) certifies l2. The threat is l1:0.5"),
        ("smoothing", L2, "needs the size of its noise once.*smoothing:sigma=0.25.$"),
        ("smoothing:half_width=1", L2, "needs the size of its noise once"),
        ("smoothing:sigma=1,half_width=1", L1, "needs the size of its noise once"),
        ("smoothing:sigma=0", L1, "'sigma' parameter of Gaussian"),
        ("smoothing:sigma=1,drws=3", L2, "Did you mean 'draws'"),
        ("smoothing:sigma=1", uf.L2(math.inf), "a finite size"),
        ("ibp,smoothing:sigma=1", L2, "another classifier"),
        ("auto:3", L2, "takes at most 0"),
        ("ibp(crown)", L2, "no parentheses"),
        (5, L2, "Got 5"),
        ((), L2, "one or more of auto"),
    ],
)
def test_what_cannot_be_asked_for(words, threat, said):
    with pytest.raises(ParameterError, match=said):
        asked(words, threat)
    if isinstance(words, str):
        with pytest.raises(ParameterError, match=said):
            uf.certify(nn.Linear(4, 2), (torch.rand(2, 4), [0, 1]), threat, words)


def test_a_wrong_name_gets_a_suggestion():
    with pytest.raises(UnknownName, match="no method of certification named 'smothing'. Did you mean 'smoothing'"):
        asked("smothing:sigma=1", L2)


def test_the_shell_completes_what_there_is():
    assert [name.rstrip(":") for name in NAMES["proofs"]] == list(ABOUT)


def half_plane(x):
    """Class 1 where the first component is above one half: the smoothed classifier's distance is that to the plane."""
    side = x.flatten(1)[:, 0] - 0.5
    return torch.stack([-side, side], 1)


def images():
    x = torch.full((7, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.9, 0.9, 0.7, 0.1, 0.1, 0.501, 0.95])
    return x, torch.tensor([1, 0, 1, 0, 1, 1, 1])


@pytest.mark.parametrize("threat", [uf.L2(0.3), uf.L1(0.3)], ids=str)
def test_smoothing_certifies_what_is_far_from_the_plane(threat):
    found = uf.certify(half_plane, images(), threat, "smoothing:sigma=0.25,draws=4000")
    assert found.certified.tolist() == [True, False, False, True, False, False, True]
    assert found.radius.tolist() == [0.3 * held for held in found.certified.tolist()]
    assert found.by.tolist() == [0, -1, -1, 0, -1, -1, 0]
    assert found.clean_correct[[0, 2, 3, 6]].all()  # the third is right, and not far enough
    assert not found.clean_correct[[1, 4]].any()
    assert found.refuted[[1, 2, 4, 5]].all()
    assert found.prediction[[0, 1, 3, 4]].tolist() == [1, 1, 0, 0]
    assert found.margin.isnan().all()
    assert found.methods == ("smoothing",)
    assert len(found.seconds) == 1
    assert found.certified_accuracy.value == 3 / 7
    assert (found.draws > 100).all()


def test_it_is_the_sequential_test_with_the_labels_given():
    x, y = images()
    smoothing = Smoothing(Gaussian(0.25), draws=4000)
    found = uf.certify(half_plane, (x, y), "l2:0.3", smoothing, seed=3, ids=torch.arange(7) + 5)
    alone = certified_at(half_plane, x, 0.3, smoothing, labels=y, seed=3, ids=torch.arange(7) + 5)
    assert torch.equal(found.certified, alone.certified)
    assert torch.equal(found.draws, alone.draws + 100)
    other = uf.certify(half_plane, (x, y), "l2:0.3", smoothing, seed=4)
    assert not torch.equal(found.draws, other.draws)


def test_batches_and_parts_change_nothing(monkeypatch):
    whole = uf.certify(half_plane, images(), "l2:0.3", "smoothing:sigma=0.25,draws=500")
    done = []
    monkeypatch.setattr("unfooled.certificates.smoothed.IMAGES", 3)
    parts = uf.certify(
        half_plane, images(), "l2:0.3", "smoothing:sigma=0.25,draws=500", batch_size=7,
        progress=lambda *at: done.append(at),
    )  # fmt: skip
    assert IMAGES > 7
    for name in ("certified", "clean_correct", "draws", "refuted", "prediction"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert done[-1] == (7, 7)
    assert [at for at, _ in done] == sorted(at for at, _ in done)


def test_the_radius_asked_about_covers_every_point_that_counts_as_inside():
    for threat in (uf.L2(0.3), uf.L1(2.0), uf.L2(0.3, bounds=(-2.0, 5.0)), uf.L2(0.3, bounds=(-math.inf, math.inf))):
        low, high = (max(-9.0, float(threat.bounds[0])), min(9.0, float(threat.bounds[1])))
        x = low + (high - low) * torch.rand(50, 12, generator=torch.Generator().manual_seed(0))
        most = _radius(x[:1] if math.isfinite(threat.bounds[1]) else x, threat)
        assert most > threat.eps
        assert (threat.reach(x) <= most * (1 + 1e-12)).all()


def test_errors_of_smoothing_name_the_example():
    x, y = images()
    y[4] = 9
    with pytest.raises(DataError, match="Got 9 at example 4"):
        uf.certify(half_plane, (x, y), "l2:0.3", "smoothing:sigma=0.25")


def test_errors_of_bounds_name_the_example():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.int64)
    y[3] = 2
    with pytest.raises(DataError, match="at example 13"):
        uf.certify(model, (x, y), "linf:0.1", ids=torch.arange(5) + 10, batch_size=2)
    model[1].weight.data[0, 0] = math.inf
    with pytest.raises(NotFinite) as caught:
        uf.certify(model, (x, y.clamp(max=1)), "linf:0.1", ids=torch.arange(5) + 10, batch_size=5)
    assert caught.value.examples == (10, 11, 12, 13, 14)
