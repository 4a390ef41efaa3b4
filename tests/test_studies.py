"""The studies: the demo's golden run, sweeps, and what both ways means."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled.defenses import GaussianBlur, PercentileFilter, defend
from unfooled.judging import judge
from unfooled.models import untouched
from unfooled.studies import demo, seed
from unfooled.studies.both_ways import SEED, blind_points, measure, over_strengths, peak
from unfooled.studies.common import Clock, Spent
from unfooled.studies.single import eight_bits
from unfooled.sweeping import sweep


@pytest.fixture(scope="module")
def sample():
    found = uf.data.load("fashion-mnist-sample[0:60]")
    return found.floats(), found.labels, uf.models.load("fashion-mnist/plain")


def test_a_sweep_counts_a_point_at_every_larger_eps(sample):
    images, labels, model = sample
    found = sweep(model, images, labels, uf.Linf(1.0), [0, 0.02, 0.05, 0.1], "fgsm")
    values = [estimate.value for estimate in found.accuracies()]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(judge(model, images, labels).clean_correct.double().mean())
    size = uf.Linf(1.0).size(found.adversarial - images)
    hit = found.clean_correct & found.fooled_at.isfinite()
    assert (size[hit] <= found.fooled_at[hit] + 1e-6).all()
    assert (judge(model, found.adversarial, labels).clean_correct[hit]).sum() == 0
    assert torch.equal(found.adversarial[~hit], images[~hit])


def test_a_sweep_attacks_only_what_is_left(sample):
    images, labels, model = sample
    whole = sweep(model, images, labels, uf.Linf(1.0), [0.05, 0.1], "fgsm")
    apart = [uf.attack(model, images, labels, uf.Linf(eps), "fgsm") for eps in (0.05, 0.1)]
    left = int((apart[0].clean_correct & ~apart[0].success).sum())
    assert whole.backward == len(images) + left
    together = apart[0].clean_correct & ~apart[0].success & ~apart[1].success
    assert whole.accuracy(0.1).value == together.double().mean()


def test_a_sweep_after_another_goes_on_from_it(sample):
    images, labels, model = sample
    fgsm = sweep(model, images, labels, uf.Linf(1.0), [0.02, 0.05], "fgsm")
    both = sweep(model, images, labels, uf.Linf(1.0), [0.02, 0.05], "pgd:steps=5,step_size=0.3", after=fgsm)
    for eps in (0.02, 0.05):
        assert both.accuracy(eps).value <= fgsm.accuracy(eps).value
    assert both.accuracy(0.02).value < fgsm.accuracy(0.02).value
    assert both.forward > fgsm.forward


def test_blind_points_are_the_formulas_for_every_image(sample):
    images, labels, model = sample
    wrong = (labels + 1) % 10  # the student attacked what the model gets wrong as well
    points = blind_points(model, images, wrong, [0.1], SEED, Spent())
    with untouched(model):
        x = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), wrong, reduction="sum"), x)
    assert (points[0.1] - (images + 0.1 * gradient.sign()).clamp(0, 1)).abs().max() < 1e-6


def test_a_defense_measured_both_ways(sample):
    images, labels, model = sample
    points = blind_points(model, images, labels, [0.05, 0.1], SEED, Spent())
    blur = GaussianBlur(1.0)
    found = measure(model, blur, 1.0, images, labels, points, SEED, Spent())
    wall = defend(model, blur)
    right = wall(images).argmax(1) == labels
    assert found.clean.value == right.double().mean()
    right &= wall(points[0.05]).argmax(1) == labels
    assert found.non_adaptive[0.05].value == right.double().mean()
    right &= wall(points[0.1]).argmax(1) == labels
    assert found.non_adaptive[0.1].value == right.double().mean()
    own = uf.attack(wall, images, labels, uf.Linf(0.05), "fgsm")
    assert found.adaptive[0.05].value == own.robust_accuracy
    assert found.stronger[0.05].value <= found.adaptive[0.05].value
    assert found.gap(0.05) == pytest.approx(100 * (found.non_adaptive[0.05].value - own.robust_accuracy))


def test_equal_filters_are_measured_once_and_the_best_between_grid_points_is_measured(sample):
    images, labels, model = sample
    points = blind_points(model, images, labels, [0.1], SEED, Spent())
    said = []

    def series(count):
        spent = Spent()
        found = over_strengths("percentile filter", "percentile", lambda p: PercentileFilter(p), count, lambda d: d.rank,
                               model, images, labels, points, SEED, spent, lambda *a: said.append(a))  # fmt: skip
        return found, spent.forward

    few, cost_few = series([0.0, 30.0])
    many, cost_many = series([0.0, 10.0, 20.0, 30.0, 40.0])
    assert cost_many == cost_few
    assert [m.strength for m in many.grid] == [0.0, 10.0, 20.0, 30.0, 40.0]
    best = many.best[0.1]
    assert best.non_adaptive[0.1].value == max(m.non_adaptive[0.1].value for m in many.grid)
    assert len(said) == 2 + 5 + 2
    assert few.attack == "FGSM"


def test_the_peak_lies_between_the_grid_points():
    assert 1.2 < peak([0, 1, 2, 3], [0.0, 0.9, 1.0, 0.2]) < 1.9
    assert peak([0, 1], [0.3, 0.2]) == 0.0
    assert peak([0.0], [1.0]) == 0.0


def test_eight_bits_round_towards_the_image():
    images = torch.tensor([[0, 10, 200, 255, 30]]).double() / 255
    change = torch.tensor([[0.4, 1.6, -1.6, -0.4, 1.0]]).double() / 255
    assert torch.equal(
        (eight_bits(images + change, images) * 255).round(), torch.tensor([[0.0, 11, 199, 255, 31]]).double()
    )


def test_the_seeds_grids_are_the_seeds():
    assert seed.EPSILONS == (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    assert seed.FILTERED_AT == (0.2, 0.25, 0.3)
    assert (seed.SIGMAS[0], seed.SIGMAS[-1]) == (0, 2.2)
    assert (seed.PERCENTILES[0], seed.PERCENTILES[-1]) == (0, 100)


def test_the_study_trains_once_and_finds_its_weights_again(sample, tmp_path, monkeypatch):
    found = uf.data.load("fashion-mnist-sample[0:200]")
    monkeypatch.setitem(seed.RECIPES, "standard", uf.Recipe("quick", epochs=1))
    path = tmp_path / "model.safetensors"
    first, _ = seed.trained("fashion-mnist", lambda: found, path, 0, lambda *a: None)
    again, _ = seed.trained("fashion-mnist", lambda: pytest.fail("trained again"), path, 0, lambda *a: None)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, a.half().float())


def test_the_demos_golden_run():
    """The whole demo on 100 images against the numbers that are kept; float noise may turn a few images."""
    evaluation, album = demo.demo(100)
    kept = json.loads((Path(__file__).parent / "golden" / "demo.json").read_text())
    found = {
        panel.id: {f"{c.label} {c.family}": [y.value for y in c.y] for c in panel.curves} for panel in evaluation.panels
    }
    assert found.keys() == kept.keys()
    for panel, curves in kept.items():
        assert found[panel].keys() == curves.keys()
        for label, values in curves.items():
            np.testing.assert_allclose(found[panel][label], values, atol=0.021, err_msg=f"{panel}: {label}")
    assert [gallery.kind for gallery in evaluation.galleries] == ["triptych", "grid"]
    assert all(gallery.pictures for gallery in evaluation.galleries)
    assert all(
        p.clean_prediction == p.label != p.adversarial_prediction for g in evaluation.galleries for p in g.pictures
    )
    assert len(album.arrays()["clean"]) == sum(len(gallery.pictures) for gallery in evaluation.galleries)
    assert evaluation.cost
    assert Clock().costs == []


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_the_study_runs_on_the_real_sets(name):
    try:
        found = uf.data.load(f"{name}:test[0:50]", download=False)
    except uf.errors.MissingData as error:
        pytest.skip(f"real data set {name} is missing: {error}")
    shape = found.images.shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = uf.models.SeedCNN(shape[1], shape[-1])
    evaluation, _ = seed.study(model, found.floats(), found.labels, found.classes, {"data": name}, sigmas=(0.0, 1.0))
    assert len(evaluation.tables) == 3
    assert len(evaluation.verdict) == 3
