"""Training: the loop, what it chooses, how it goes on, its errors."""

import copy
import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled import rng
from unfooled.training import RECIPES, Recipe, guard, run, train
from unfooled.training.augment import shift
from unfooled.training.schedules import SCHEDULES


def task(count=600, seed=0):
    """Two classes told apart by a strong but fragile feature and a weak but robust one."""
    make = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=make)
    x = torch.rand(count, 1, 4, 4, generator=make) * 0.4 + 0.3
    x[:, 0, 0, :] += 0.04 * (2 * y[:, None] - 1)  # fragile: linf 0.05 undoes it
    x[:, 0, 1, 0] = torch.where(torch.rand(count, generator=make) < 0.9, y.float(), 1 - y.float())  # robust
    return x, y


def network(seed=0, norm=False):
    with rng.forked(seed):
        middle = nn.BatchNorm1d(32) if norm else nn.Identity()
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), middle, nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


QUICK = Recipe("quick", epochs=6, batch_size=50, learning_rate=0.02)
HARD = Recipe(
    "hard", "adversarial", "pgd:steps=3,step_size=0.5", epochs=6, batch_size=50, learning_rate=0.02, warm_up=0.2
)


def test_training_learns_and_leaves_the_callers_generators_alone():
    x, y = task()
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    model = network()
    done = train(model, (x, y), recipe=QUICK)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert done.model is model
    assert not model.training
    assert (model(x).argmax(1) == y).float().mean() > 0.85
    assert [entry.epoch for entry in done.history] == [1, 2, 3, 4, 5, 6]
    assert done.held_out == 60


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    data = task(200)
    found = [weights(train(network(), data, recipe=QUICK, seed=seed).model) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_adversarial_training_hardens():
    x, y = task(1200)
    plain = train(network(), (x, y), recipe=QUICK).model
    hard = train(network(), (x, y), uf.Linf(0.3), HARD).model
    robust = [uf.attack(m, x, y, "linf:0.3", "pgd:steps=10,step_size=0.25").robust_accuracy for m in (plain, hard)]
    assert robust[1] > robust[0] + 0.1, robust


def test_images_held_out_are_never_trained_on():
    x, y = task(200)
    x[:, 0, 3, 3] = torch.arange(200) / 200  # a pixel that tells which image it is
    seen = set()

    class Watch(nn.Module):
        def forward(self, images):
            if model.training:
                seen.update((images[:, 0, 3, 3] * 200).round().int().tolist())
            return images

    model = nn.Sequential(Watch(), network())
    done = train(model, (x, y), recipe=dataclasses.replace(QUICK, held_out=15))
    kept, held = guard.apart(200, 15, 0)
    assert done.held_out == 15
    assert seen == set(kept.tolist())
    assert not seen & set(held.tolist())
    assert len(held) == 15


def test_a_tenth_is_held_out_at_most_and_of_nine_images_none():
    assert [len(guard.apart(n, 1000, 0)[1]) for n in (9, 10, 500, 60_000)] == [0, 1, 50, 1000]
    done = train(network(), task(9), recipe=dataclasses.replace(QUICK, epochs=2, batch_size=4))
    assert done.held_out == 0
    assert done.chosen == 2  # nothing to choose by: the last
    assert math.isnan(done.history[0].clean)


def scripted(monkeypatch, robust):
    """Let held-out robust accuracy be what a list says."""
    told = iter(robust)
    monkeypatch.setattr(guard.Held, "judged", lambda self, model: (0.9, next(told)))


def test_the_best_epoch_on_images_held_out_is_chosen(monkeypatch):
    scripted(monkeypatch, [0.3, 0.5, 0.45, 0.5])  # of equals the later one: more was learned
    kept = []
    recipe = dataclasses.replace(HARD, epochs=4)
    model = network()
    per_epoch = 11  # 540 of 600 images in batches of 50
    done = train(
        model, task(), uf.Linf(0.1), recipe,
        progress=lambda at: kept.append(weights(model)) if at.step % per_epoch == 0 else None,
    )  # fmt: skip
    assert done.chosen == 4
    scripted(monkeypatch, [0.3, 0.5, 0.45, 0.4])
    kept.clear()
    done = train(model := network(), task(), uf.Linf(0.1), recipe,
                 progress=lambda at: kept.append(weights(model)) if at.step % per_epoch == 0 else None)  # fmt: skip
    assert done.chosen == 2
    assert torch.equal(weights(done.model), kept[1])


def test_catastrophic_overfitting_ends_the_run_with_the_last_good_weights(monkeypatch):
    scripted(monkeypatch, [0.3, 0.5, 0.29])
    done = train(network(), task(), uf.Linf(0.1), HARD)
    assert len(done.history) == 3
    assert done.chosen == 2
    assert "Catastrophic overfitting in epoch 3" in done.ended
    assert "fell from 0.500 to 0.290" in done.ended
    scripted(monkeypatch, [0.3, 0.5, 0.31, 0.5, 0.5, 0.5])
    assert not train(network(), task(), uf.Linf(0.1), HARD).ended
    scripted(monkeypatch, [0.3, 0.5, 0.4, 0.29])  # an average falls slowly
    assert "in epoch 4" in train(network(), task(), uf.Linf(0.1), HARD).ended


def test_patience_ends_a_run_that_gets_no_better(monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.45, 0.6])
    done = train(network(), task(), uf.Linf(0.1), dataclasses.replace(HARD, patience=2))
    assert (done.chosen, len(done.history)) == (1, 3)
    assert "No better choice for 2 epochs" in done.ended


def test_real_catastrophic_overfitting_is_seen_by_the_guard():
    """What the guard measures is PGD on images held out: a model that is right only where FGSM looks scores low."""
    x, y = task(300)
    held = guard.Held(x, y, uf.Linf(0.3))
    plain = train(network(), (x, y), recipe=QUICK).model
    clean, robust = held.judged(plain)
    assert clean > 0.85
    result = uf.attack(plain, x, y, uf.Linf(0.3), uf.attacks.PGD(steps=10, step_size=0.25))
    assert robust == result.robust_accuracy


@pytest.mark.parametrize("extra", [{}, {"average": 0.9}, {"awp": 0.01, "clip": 1.0}, {"optimizer": "sgd"}])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, extra):
    x, y = task(200)
    recipe = (
        dataclasses.replace(HARD, epochs=3, average=0.0) if not extra else dataclasses.replace(HARD, epochs=3, **extra)
    )
    whole = train(network(norm=True), (x, y), uf.Linf(0.1), recipe, seed=3)

    class Stopped(Exception):
        pass

    def stop_at(step):
        def tell(at):
            if at.step == step:
                raise Stopped

        return tell

    for step in (1, 5, 9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "EVERY", 0.0)
            with pytest.raises(Stopped):
                train(
                    network(norm=True),
                    (x, y),
                    uf.Linf(0.1),
                    recipe,
                    seed=3,
                    out=tmp_path / "run",
                    progress=stop_at(step),
                )
    done = train(network(norm=True), (x, y), uf.Linf(0.1), recipe, seed=3, out=tmp_path / "run")
    assert torch.equal(weights(done.model), weights(whole.model))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(done.model.state_dict()[name], value), name
    strip = [dataclasses.replace(entry, seconds=0.0) for entry in done.history]
    assert strip == [dataclasses.replace(entry, seconds=0.0) for entry in whole.history]
    again = train(network(norm=True), (x, y), uf.Linf(0.1), recipe, seed=3, out=tmp_path / "run")  # nothing left to do
    assert torch.equal(weights(again.model), weights(whole.model))


def test_a_folder_of_another_run_is_refused(tmp_path):
    data = task(100)
    recipe = dataclasses.replace(QUICK, epochs=1)
    train(network(), data, recipe=recipe, out=tmp_path / "run")
    with pytest.raises(uf.errors.OutputError, match=r"holds another run: its seed was 0, here 1"):
        train(network(), data, recipe=recipe, seed=1, out=tmp_path / "run")
    with pytest.raises(uf.errors.OutputError, match=r"holds another run: its recipe"):
        train(network(), data, recipe=dataclasses.replace(recipe, learning_rate=0.5), out=tmp_path / "run")
    with pytest.raises(uf.errors.OutputError, match=r"holds another run: its data_hash"):
        train(network(), (data[0] * 0.9, data[1]), recipe=recipe, out=tmp_path / "run")
    with pytest.raises(uf.errors.OutputError, match=r"holds another run: its compute"):
        train(network(), data, recipe=recipe, out=tmp_path / "run", compute=uf.Compute(autocast=True))
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK broken")
    with pytest.raises(uf.errors.DataError, match="is damaged. Remove it to train from the start"):
        train(network(), data, recipe=recipe, out=tmp_path / "run")


def test_eps_warms_up(monkeypatch):
    seen = []
    real = run.objectives.Batch.attacked
    monkeypatch.setattr(
        run.objectives.Batch, "attacked", lambda self, *a, **k: seen.append(self.threat.eps) or real(self, *a, **k)
    )
    recipe = Recipe("warm", "adversarial", "fgsm", epochs=1, batch_size=10, warm_up=0.5, held_out=0)
    train(network(), task(100), uf.Linf(0.1), recipe)
    np.testing.assert_allclose(seen, [0.02, 0.04, 0.06, 0.08, 0.1] + [0.1] * 5)


class Draws(nn.Module):
    """Adds noise of numpy's and Python's generators while it learns, as some augmentations do."""

    def forward(self, x):
        return x + (0.1 * np.random.rand() + 0.1 * random.random() if self.training else 0.0)


def test_a_run_goes_on_with_the_numbers_of_every_global_generator(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "EVERY", 0.0)
    data = task(100)
    whole = train(nn.Sequential(Draws(), network()), data, recipe=QUICK)

    def stop(at):
        if at.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(nn.Sequential(Draws(), network()), data, recipe=QUICK, out=tmp_path / "run", progress=stop)
    done = train(nn.Sequential(Draws(), network()), data, recipe=QUICK, out=tmp_path / "run")
    assert torch.equal(weights(done.model), weights(whole.model))


class Overflow(nn.Module):
    """Learns until its given step, and answers NaN from then on."""

    def __init__(self, after):
        super().__init__()
        self.inner, self.after, self.count = network(), after, 0

    def forward(self, x):
        self.count += self.training
        return self.inner(x) * (math.nan if self.training and self.count > self.after else 1.0)


def test_a_loss_that_is_not_finite_stops_with_the_batch_and_the_checkpoint_named(tmp_path, monkeypatch):
    data = task(100)
    recipe = dataclasses.replace(QUICK, batch_size=30)
    with pytest.raises(
        uf.errors.ModelError,
        match=r"nan at step 1 of 18 \(epoch 1, batch 1\), on the images [\d, ]+ and 25 more\. There is no",
    ):
        train(Overflow(0), data, recipe=recipe)
    monkeypatch.setattr(run, "EVERY", 0.0)
    with pytest.raises(uf.errors.ModelError) as caught:
        train(Overflow(4), data, recipe=recipe, out=tmp_path / "run")
    assert "at step 5 of 18 (epoch 2, batch 2)" in str(caught.value)
    assert f"The last good checkpoint is {tmp_path / 'run' / 'checkpoint.pt'}, of step 4." in str(caught.value)
    assert "smaller learning rate" in str(caught.value)


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "EVERY", 0.0)
    model = network()

    def spoil(at):
        if at.step == 3:
            next(model.parameters()).data.fill_(math.inf)

    with pytest.raises(uf.errors.ModelError, match=r"with step 3 of 12. The last good checkpoint is .*, of step 2"):
        train(model, task(100), recipe=QUICK, out=tmp_path / "run", progress=spoil)


def test_bad_options_are_one_line():
    x, y = data = task(20)
    with pytest.raises(uf.errors.ParameterError, match="needs a threat"):
        train(network(), data, recipe="pgd")
    with pytest.raises(
        uf.errors.ParameterError, match="'epochs' parameter of Recipe must be an int of at least 1. Got 0"
    ):
        Recipe("none", epochs=0)
    with pytest.raises(uf.errors.DataError, match="outside the threat's bounds"):
        train(network(), (x * 255, y), recipe=QUICK)
    with pytest.raises(uf.errors.UnknownName, match="trades"):
        train(network(), data, uf.Linf(0.1), "trade")
    with pytest.raises(uf.errors.UnknownName, match="cosine"):
        Recipe("none", schedule="cosin")
    with pytest.raises(uf.errors.ParameterError, match="needs an inner attack"):
        Recipe("none", "trades")
    with pytest.raises(uf.errors.ParameterError, match="has no inner attack"):
        Recipe("none", attack="fgsm")
    with pytest.raises(uf.errors.ParameterError, match="cannot be an inner attack"):
        Recipe("none", "adversarial", "square")
    with pytest.raises(uf.errors.UnknownName, match="beta"):
        Recipe("none", "trades:bta=6", "pgd")
    with pytest.raises(uf.errors.ParameterError, match="n-fgsm works for Linf, not for L2"):
        train(network(), data, uf.L2(0.5), "n-fgsm")
    with pytest.raises(uf.errors.ModelError, match="no parameters that learn"):
        train(network().requires_grad_(False), data, recipe=QUICK)
    with pytest.raises(uf.errors.ParameterError, match="nn.Module"):
        train(lambda x: x, data, recipe=QUICK)


def test_every_recipe_takes_a_step():
    x, y = task(60)
    for name, recipe in RECIPES.items():
        short = dataclasses.replace(recipe, epochs=1, batch_size=30, augment=None)
        done = train(network(), (x, y), recipe.threat, short)
        assert math.isfinite(done.history[0].loss), name


def test_every_schedule_stays_within_its_peak():
    for name, schedule in SCHEDULES.items():
        values = [schedule(share) for share in np.linspace(0, 1, 1001)]
        assert max(values) == pytest.approx(1.0, abs=1e-4), name
        assert min(values) >= 0, name
        assert max(abs(np.diff(values))) < (0.95 if name == "piecewise" else 0.02), name


def test_augmentation_shifts_and_mirrors_whole_images():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(50, 3, 1, 1) / 64
    y = shift(x, rng.keys(torch.arange(50), 0), 4, mirror=True)
    assert y.shape == x.shape
    assert len({tuple(image.flatten().tolist()) for image in y}) > 25
    assert set(y.flatten().tolist()) <= set(x.flatten().tolist())
    steps = y[:, 0, :, 1:] - y[:, 0, :, :-1]
    assert set((steps * 64).round().flatten().tolist()) <= {-1.0, 0.0, 1.0}
    assert (y[:, 0] == y[:, 2]).all()
    flipped = (y[:, 0, 4, 5] < y[:, 0, 4, 3]).float().mean()
    assert 0.2 < flipped < 0.8
    straight = shift(x, rng.keys(torch.arange(50), 0), 4)
    assert (straight[:, 0, :, 1:] >= straight[:, 0, :, :-1]).all()


def test_one_images_variation_does_not_depend_on_its_batch():
    x = torch.rand(10, 1, 8, 8)
    key = rng.keys(torch.arange(10), 5)
    assert torch.equal(shift(x, key, 2)[3:5], shift(x[3:5], key[3:5], 2))


def test_the_average_is_what_is_judged_and_kept(monkeypatch):
    judged = []
    monkeypatch.setattr(guard.Held, "judged", lambda self, model: judged.append(model) or (0.9, math.nan))
    model = network(norm=True)
    last = []
    recipe = dataclasses.replace(QUICK, average=0.9)
    done = train(model, task(), recipe=recipe, progress=lambda at: last.append(weights(model)))
    assert all(one is not model for one in judged)
    assert not torch.equal(weights(done.model), last[-1])
    expected = last[0]
    for step, now in enumerate(last[1:], 1):
        expected = expected.lerp(now, 1 - min(0.9, (1 + step) / (10 + step)))
    torch.testing.assert_close(weights(done.model), expected, rtol=1e-4, atol=1e-6)
    assert int(done.model[2].num_batches_tracked) > 0


def test_bfloat16_learns_too():
    x, y = task()
    done = train(network(), (x, y), recipe=QUICK, compute=uf.Compute(autocast=True))
    assert (done.model(x).argmax(1) == y).float().mean() > 0.85


@pytest.mark.slow
def test_compiled_passes_learn_the_same():
    x, y = task(200)
    recipe = dataclasses.replace(HARD, epochs=2)
    steady = nn.Sequential(*[part for part in network() if not isinstance(part, nn.Dropout)])  # its draws differ there
    made = [
        train(copy.deepcopy(steady).double(), (x.double(), y), uf.Linf(0.1), recipe, compute=how).model
        for how in (uf.Compute("same"), uf.Compute("same", compile=True))
    ]
    torch.testing.assert_close(weights(made[1]), weights(made[0]), rtol=1e-6, atol=1e-8)
