"""The set-ups made to get past the checks: masks are flagged and seen through on a probe, sound models are not doubted."""

from __future__ import annotations

import warnings

import pytest
import torch

import unfooled as uf
from unfooled import adapt
from unfooled.attacks import APGD
from unfooled.checks.preflight import preflight
from zoo import redteam
from zoo.expected import REDTEAM

pytestmark = pytest.mark.usefixtures("one_thread")

MASKED = {case.name: case for case in redteam.CASES if case.family == "masked"}
SOUND = {case.name: case for case in redteam.CASES if case.family == "sound"}
FEW = 24
SEEN_THROUGH = 1  # images of FEW by which an adapted attack may stay behind that on the network alone
ATTACK = APGD(steps=20, loss="margin")
DEAR = (
    "partial-through-numpy", "rounded-and-softmax", "compiled-rounding", "backward-hook-noises",
    "weights-from-a-dictionary", "sound-fourier", "sound-compiled",
)  # fmt: skip


def left(model, setup, surrogates):
    """How many images hold against the attack through every one of the surrogates."""
    held = torch.ones(len(setup.images), dtype=torch.bool)
    for surrogate in surrogates:
        got = uf.attack(model, setup.images, setup.labels, setup.threat, ATTACK, surrogate=surrogate)
        held &= (got.clean_correct & ~got.success).cpu()
    return int(held.sum())


def test_every_case_has_an_expectation():
    assert set(REDTEAM) == set(MASKED)
    assert len(SOUND) >= 6


def dear_ones_slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in sorted(names)]


@pytest.mark.parametrize("name", dear_ones_slow(MASKED))
def test_a_mask_is_flagged_and_adaptation_comes_to_the_truth(name):
    setup = MASKED[name].build(FEW)
    found = preflight(setup.model, setup.images, setup.labels, setup.threat)
    assert set(REDTEAM[name]) & {one.code for one in found.findings}, found.findings
    strategy = adapt.plan(setup.model, found)
    assert strategy.ways
    through = left(setup.model, setup, [way.surrogate for way in strategy.ways])
    assert through <= left(setup.true_model, setup, [None]) + SEEN_THROUGH


@pytest.mark.parametrize("name", dear_ones_slow(SOUND))
def test_a_sound_model_raises_no_alarm_before_the_attacks(name):
    setup = SOUND[name].build()
    found = preflight(setup.model, setup.images, setup.labels, setup.threat)
    assert [one.code for one in found.findings if one.severity != "note"] == []
    assert adapt.plan(setup.model, found).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SOUND))
def test_a_sound_model_is_valid(name):
    setup = SOUND[name].build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", uf.errors.Note)
        answer = uf.evaluate(setup.model, (setup.images, setup.labels), setup.threat)
    assert answer.trust == "valid", answer.left
