"""The zoo is what it says: every case builds, answers as documented, and every mask masks."""

import functools
import warnings

import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled.errors import ModelError, Note, UnfooledError
from unfooled.models import logits_of, untouched
from zoo import broken, sound
from zoo.common import hardened, plain

COUNT = 20
ATTACKED = 12  # of them; the gaps are wide
GAP = 0.10
ATTACK = "pgd:steps=20,step_size=0.1"  # 20 steps of the default size end at 2/3 of eps
MASKED = [case for case in broken.CASES if case.family == "masked"]
MISTAKES = [case for case in broken.CASES if case.family == "mistake"]


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def _quiet_and_seeded():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is slower on several
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def answers(setup):
    with torch.no_grad(), untouched(setup.model):
        images = setup.images.float() / 255 if setup.images.dtype == torch.uint8 else setup.images.clone()
        return logits_of(setup.model(images), len(images))


def accuracy(logits, labels):
    return float((logits.argmax(1) == labels).float().mean())


def pgd(setup, model=None, count=COUNT):
    """Clean accuracy and that under attack, of the first so many images."""
    images, labels = setup.images[:count], setup.labels[:count]
    found = uf.attack(model or setup.model, images, labels, setup.threat, ATTACK)
    return found.clean_accuracy, found.robust_accuracy


@functools.cache
def truth(name):
    """Clean accuracy, and that under PGD of fewer images, of a bundled network: all true models are one of two."""
    setup = next(case for case in sound.CASES if case.name == name).build(COUNT)
    return accuracy(answers(setup), setup.labels), pgd(setup, count=ATTACKED)[1]


def same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return isinstance(a, nn.Module) and all(torch.equal(p, q) for p, q in pairs)


def test_names_are_unique_and_all_is_said():
    cases = (*broken.CASES, *sound.CASES)
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.about.endswith(".") and case.expect.endswith(".") for case in cases)
    assert (len(MASKED) >= 16, len(MISTAKES) >= 10, len(sound.CASES) >= 10) == (True, True, True)
    assert all(bool(case.shows) == (case.family == "masked") for case in cases)


@each(MASKED)
def test_a_mask_costs_little_and_masks(case):
    setup = case.build(COUNT)
    on_plain = same(setup.true_model, plain())
    assert on_plain or same(setup.true_model, hardened())
    true_clean, true_robust = truth("plain-cnn" if on_plain else "hardened-cnn")
    found = answers(setup)
    assert found.shape == (COUNT, setup.classes)
    assert accuracy(found, setup.labels) >= true_clean - case.cost
    if case.shows in ("refusal", "raises"):
        with pytest.raises(ModelError if case.shows == "refusal" else (ModelError, NotImplementedError)):
            pgd(setup)
        return
    if case.shows == "gap":
        _, robust = pgd(setup, count=ATTACKED)
        assert robust >= true_robust + GAP


@each(MISTAKES)
def test_a_mistake_is_as_described(case):
    setup = case.build(COUNT)
    if case.clean is None:
        assert case.refusal
        with pytest.raises(UnfooledError):
            pgd(setup)
        return
    found = answers(setup)
    assert found.shape == (COUNT, setup.classes)
    low, high = case.clean
    assert low <= accuracy(found, setup.labels) <= high


@each(sound.CASES)
def test_a_sound_one_is_sound(case):
    setup = case.build(COUNT)
    found = answers(setup)
    assert found.shape == (len(setup.images), setup.classes) == (COUNT, setup.classes)
    assert torch.equal(found, answers(setup)), "not deterministic"
    assert accuracy(found, setup.labels) >= case.clean[0]
    one_by_one = torch.cat([logits_of(setup.model(image[None]), 1) for image in setup.images[:4]])
    assert torch.allclose(one_by_one, found[:4], atol=1e-4), "depends on the batch"
    x = setup.images.clone().requires_grad_(True)
    with untouched(setup.model):
        loss = nn.functional.cross_entropy(logits_of(setup.model(x), COUNT), setup.labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, x)
    assert bool(torch.isfinite(slope).all())
    assert float((slope.flatten(1).abs().amax(1) > 0).float().mean()) > 0.9, "gradients vanish"


def test_building_is_repeatable():
    for case in (*broken.CASES, *sound.CASES)[::3]:
        a, b = case.build(4), case.build(4)
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        if isinstance(a.model, nn.Module):
            assert same(a.model, b.model), case.name
