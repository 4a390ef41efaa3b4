"""Training: the loop, its objectives, its errors."""

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled.training import RECIPES, Recipe, adversarial, standard, train
from unfooled.training.fit import _augmented


def task(count=600, seed=0):
    """Two classes told apart by a strong but fragile feature and a weak but robust one."""
    make = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=make)
    x = torch.rand(count, 1, 4, 4, generator=make) * 0.4 + 0.3
    x[:, 0, 0, :] += 0.04 * (2 * y[:, None] - 1)  # fragile: linf 0.05 undoes it
    x[:, 0, 1, 0] = torch.where(torch.rand(count, generator=make) < 0.9, y.float(), 1 - y.float())  # robust
    return x, y


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))


QUICK = Recipe("quick", epochs=6, batch_size=50, learning_rate=0.02)


def test_training_learns_and_leaves_the_callers_generators_alone():
    x, y = task()
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    model = network()
    torch.manual_seed(7)
    train(model, x, y, QUICK)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert not model.training
    assert (model(x).argmax(1) == y).float().mean() > 0.85


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    x, y = task(200)
    weights = [
        torch.nn.utils.parameters_to_vector(train(network(), x, y, QUICK, seed=seed).parameters()) for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_adversarial_training_hardens():
    x, y = task(1200)
    plain = train(network(), x, y, QUICK)
    inner = Recipe("hard", attack="pgd:steps=3,step_size=0.5", epochs=6, batch_size=50, learning_rate=0.02, warm_up=0.2)
    hard = train(network(), x, y, inner, uf.Linf(0.3))
    robust = [uf.attack(m, x, y, "linf:0.3", "pgd:steps=10,step_size=0.25").robust_accuracy for m in (plain, hard)]
    assert robust[1] > robust[0] + 0.1, robust


def test_the_adversarial_objective_attacks_in_eval_mode_and_learns_in_train_mode():
    modes = []

    class Watch(nn.Module):
        def forward(self, x):
            modes.append((self.training, all(p.requires_grad for p in model.parameters())))
            return x

    model = nn.Sequential(Watch(), network()).train()
    x, y = task(20)
    loss, _ = adversarial(uf.Linf(0.1), uf.attacks.PGD(steps=2))(model, x, y, 0)
    assert modes == [(False, False), (False, False), (True, True)]
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_adversarial_objective_is_at_least_the_standard_one():
    model, (x, y) = network().eval(), task(100)
    hard, _ = adversarial(uf.Linf(0.1), uf.attacks.FGSM())(model, x, y, 0)
    easy, _ = standard(model, x, y, 0)
    assert hard > easy


def test_eps_warms_up(monkeypatch):
    from unfooled.training import fit

    seen = []
    monkeypatch.setattr(fit, "adversarial", lambda threat, attack: seen.append(threat.eps) or standard)
    x, y = task(100)
    recipe = Recipe("warm", attack="fgsm", epochs=1, batch_size=10, warm_up=0.5)
    train(network(), x, y, recipe, uf.Linf(0.1))
    np.testing.assert_allclose(seen, [0.02, 0.04, 0.06, 0.08, 0.1] + [0.1] * 5)


def test_a_loss_that_is_not_finite_stops_with_the_step_named():
    class Overflow(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return torch.stack([self.scale * x.sum((1, 2, 3)), torch.full((len(x),), torch.inf)], 1)

    x, y = task(20)
    with pytest.raises(uf.errors.ModelError, match=r"at step 1 of .* \(epoch 1\)"):
        train(Overflow(), x, y, QUICK)


def test_bad_options_are_one_line():
    x, y = task(20)
    with pytest.raises(uf.errors.ParameterError, match="needs a threat"):
        train(network(), x, y, RECIPES["pgd"])
    with pytest.raises(
        uf.errors.ParameterError, match="'epochs' parameter of Recipe must be an int of at least 1. Got 0"
    ):
        Recipe("none", epochs=0)
    with pytest.raises(uf.errors.DataError, match="outside the threat's bounds"):
        train(network(), x * 255, y, QUICK)


def test_augmentation_shifts_and_mirrors_whole_images():
    x = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(50, 3, 1, 1) / 64
    y = _augmented(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    assert len({tuple(image.flatten().tolist()) for image in y}) > 25
    assert set(y.flatten().tolist()) <= set(x.flatten().tolist())
    steps = y[:, 0, :, 1:] - y[:, 0, :, :-1]
    assert set((steps * 64).round().flatten().tolist()) <= {-1.0, 0.0, 1.0}
    assert (y[:, 0] == y[:, 2]).all()
