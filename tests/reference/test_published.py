"""Published settings that peers get wrong: an "AutoAttack" of other parts is another number under the same name.

AutoAttack's settings are read off the official code (repackaged as pyautoattack), not off this package.
"""

import pytest
from benchmarks import libraries

import unfooled as uf
from unfooled import protocols

OFFICIAL = {"apgd-ce": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}


def official(norm):
    try:
        module = libraries.imported("pyautoattack")
    except libraries.Missing as reason:
        pytest.skip(str(reason))
    return module.AutoAttack(lambda x: x, norm=norm.capitalize(), eps=0.1, version="standard")


def settings_of_theirs(norm):
    """(part, trials of each image, steps of each) in order."""
    whole = official(norm)
    found = []
    for part in whole.attacks_to_run:
        attack = getattr(whole, OFFICIAL[part])
        targets = attack.n_target_classes if part.endswith("-t") else 1
        steps = attack.n_queries if part == "square" else attack.n_iter
        found.append((part, attack.n_restarts * targets, steps))
    return found


def settings_of_ours(norm):
    threat = {"linf": uf.Linf, "l2": uf.L2, "l1": uf.L1}[norm](1)
    found = []
    for stage in protocols.named("standard", threat).stages():
        name = stage.attack.name.removesuffix("-l1")
        name = f"{name}-t" if stage.targets else f"{name}-ce" if name == "apgd" else name
        found.append((name, stage.trials, stage.attack.steps))
    return found


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_standard_has_the_parts_trials_and_steps_of_the_official_autoattack(norm):
    assert settings_of_ours(norm) == settings_of_theirs(norm)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_its_parts_have_the_official_options(norm):
    whole = official(norm)
    threat = {"linf": uf.Linf, "l2": uf.L2, "l1": uf.L1}[norm](1)
    apgd, targeted, fab, square = (s.attack for s in protocols.named("standard", threat).stages())
    assert (apgd.loss, targeted.loss) == ("cross_entropy", "dlr")
    assert whole.apgd_targeted.loss == "dlr-targeted"
    if norm != "l1":
        assert apgd.rho == targeted.rho == whole.apgd.thr_decr == 0.75
    else:
        assert whole.apgd.use_largereps
    assert (fab.alpha_max, fab.eta, fab.beta) == (whole.fab.alpha_max, whole.fab.eta, whole.fab.beta)
    assert square.p_init == whole.square.p_init
    assert not whole.square.rescale_schedule


def test_torchattacks_autoattack_takes_a_tenth_of_the_iterations():
    """If this fails, torchattacks has been mended: compare with its AutoAttack then."""
    try:
        ta = libraries.imported("torchattacks")
    except libraries.Missing as reason:
        pytest.skip(str(reason))
    model = uf.models.load("fashion-mnist/plain")
    parts = ta.AutoAttack(model, eps=0.1)._autoattack.attacks
    assert [getattr(p, "steps", None) for p in parts] == [10, 10, 10, None]
    assert settings_of_ours("linf")[0][2] == 100


def test_arts_autoattack_has_other_parts():
    """If this fails, ART has been mended: compare with its AutoAttack then."""
    try:
        attacks, estimators = (
            libraries.imported(f"art.{name}") for name in ("attacks.evasion", "estimators.classification")
        )
    except libraries.Missing as reason:
        pytest.skip(str(reason))
    from torch import nn

    model = uf.models.load("fashion-mnist/plain")
    wrapped = estimators.PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    parts = [type(part).__name__ for part in attacks.AutoAttack(wrapped).attacks]
    assert parts == ["AutoProjectedGradientDescent", "AutoProjectedGradientDescent", "DeepFool", "SquareAttack"]
