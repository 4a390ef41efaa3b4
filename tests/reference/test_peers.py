"""Each attack against the peers' implementations: same model, same images, same steps; no worse beyond noise.

Fashion-MNIST's bundled images on the bundled models, with radii at which about half of the images fall, where a difference
shows best. Success and distances of both sides are recomputed from the points alone.

**Success.** Let a be the images that only we fool and b those that only the peer fools. Were both equally strong,
b - a would have standard deviation √(a + b) (McNemar); so b - a may be at most 2·√(a + b). Each side has its own random
start; where there is none, float rounding alone decides, and one image is allowed.

**Distance** (minimum norm): over the images that both fool, the mean may exceed the peer's by at most two standard errors
of the paired differences, or by 0.5 % where that is more: over tens of steps a sign or a projection that rounds
differently sends single images to other points of the boundary.
"""

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from benchmarks import common, libraries, ours, peers

from unfooled.attacks import ATTACKS

RADII = {
    "fashion-mnist/plain": {"linf": 0.03, "l2": 0.5, "l1": 5.0},
    "fashion-mnist/hardened": {"linf": 0.2, "l2": 1.5, "l1": 10.0},
}


@dataclass(frozen=True)
class Case:
    steps: int
    peers: tuple[str, ...]
    random: bool = False  # whether it draws random numbers
    images: int = 32


CASES = {
    "fgsm-linf": Case(1, ("foolbox", "torchattacks", "art")),
    "fgsm-l2": Case(1, ("foolbox", "art")),
    "bim-linf": Case(10, ("torchattacks", "foolbox", "art")),
    "pgd-linf": Case(10, ("torchattacks", "foolbox", "art", "adv-lib"), random=True),
    "pgd-l2": Case(10, ("torchattacks", "foolbox", "art"), random=True),
    "mi-fgsm-linf": Case(10, ("torchattacks", "foolbox", "art")),
    "apgd-ce-linf": Case(12, ("pyautoattack", "adv-lib"), random=True),
    "apgd-ce-l2": Case(12, ("pyautoattack", "adv-lib"), random=True),
    "apgd-ce-l1": Case(12, ("pyautoattack", "adv-lib"), random=True),
    "apgd-dlr-linf": Case(12, ("pyautoattack",), random=True),
    "apgd-dlr-l2": Case(12, ("pyautoattack",), random=True),
    "apgd-t-linf": Case(4, ("pyautoattack", "adv-lib"), random=True),
    "apgd-t-l2": Case(4, ("pyautoattack",), random=True),
    "apgd-t-l1": Case(4, ("pyautoattack",), random=True),
    "fab-linf": Case(50, ("pyautoattack",), images=12),
    "fab-l2": Case(50, ("pyautoattack",), images=12),
    "fab-l1": Case(50, ("pyautoattack",), images=12),
    "fab-t-linf": Case(3, ("pyautoattack",)),
    "fab-t-l2": Case(3, ("pyautoattack",)),
    "fab-t-l1": Case(3, ("pyautoattack",), images=16),
    "square-linf": Case(60, ("pyautoattack",), random=True),
    "square-l2": Case(60, ("pyautoattack",), random=True),
    "square-l1": Case(60, ("pyautoattack",), random=True),
    "deepfool-linf": Case(10, ("adv-lib",)),
    "deepfool-l2": Case(10, ("adv-lib",)),
    "superdeepfool-l2": Case(30, ("adv-lib",), images=16),  # adv-lib's ends by itself: 30 forward passes at most
    "cw-l2": Case(120, ("foolbox",), images=16),  # in so few steps adv-lib's search for its constant finds nothing
    "ddn-l2": Case(100, ("adv-lib",), images=16),
    "fmn-linf": Case(60, ("adv-lib",)),
    "fmn-l2": Case(30, ("adv-lib", "foolbox")),
    "fmn-l1": Case(30, ("adv-lib",)),
    "fmn-l0": Case(30, ("adv-lib", "foolbox")),
    "sigma-zero-l0": Case(40, ("adv-lib",)),
    "pdpgd-l1": Case(40, ("adv-lib",)),
    "hopskipjump-linf": Case(200, ("foolbox",), random=True, images=6),
    "hopskipjump-l2": Case(200, ("foolbox",), random=True, images=6),
}

# Attacks that no peer has, or none that can be compared. An attack that is registered is here or in CASES.
WITHOUT_PEER = {
    "md": "no peer has margin decomposition",
}

SUBJECTS = (PLAIN, HARDENED) = tuple(RADII)


@cache
def subject(name: str, images: int) -> common.Subject:
    return common.subject(name, images)


def eps_of(name: str, attack: str) -> float | None:
    return None if peers.minimal(attack) else RADII[name][peers.norm_of(attack)]


def judged(at: common.Subject, attack: str, points: torch.Tensor) -> common.Verdict:
    eps = eps_of(at.name, attack)
    return common.judge(at.model, at.images, at.labels, points, peers.norm_of(attack), eps)


@cache
def mine(name: str, attack: str, steps: int) -> common.Verdict:
    at = subject(name, CASES[attack].images)
    points = ours.run(attack, at.model, at.images, at.labels, eps_of(name, attack), steps)
    return judged(at, attack, points)


@cache
def theirs(name: str, attack: str, peer: str, steps: int) -> common.Verdict:
    at = subject(name, CASES[attack].images)
    run = peers.PEERS[attack][peer]
    try:
        points = run(at.model, at.images, at.labels, eps_of(name, attack), steps, len(at.images), 0)
    except libraries.Missing as reason:
        pytest.skip(str(reason))
    return judged(at, attack, points)


def shortfalls(our: common.Verdict, their: common.Verdict, attack: str, random: bool) -> list[str]:
    """What is worse on our side than noise allows."""
    found = []
    a, b = int((our.fooled & ~their.fooled).sum()), int((their.fooled & ~our.fooled).sum())
    if b - a > (2 * math.sqrt(a + b) if random else 1):
        found.append(f"only the peer fools {b} images, only we {a}")
    both = our.fooled & their.fooled
    if peers.minimal(attack) and int(both.sum()) > 1:
        ours_, theirs_ = our.distance[both], their.distance[both]
        gap, error = (ours_ - theirs_).mean(), (ours_ - theirs_).std() / math.sqrt(int(both.sum()))
        if gap > max(2 * error, 0.005 * theirs_.mean()):
            found.append(f"mean distance {ours_.mean():.5g}, the peer's {theirs_.mean():.5g} (error {error:.2g})")
    return found


PAIRS = [
    pytest.param(
        attack,
        peer,
        name,
        id=f"{attack}-{peer}-{name.partition('/')[2]}",
        marks=[pytest.mark.slow] * (attack.startswith("fab") and name != HARDENED),
    )
    for attack, case in CASES.items()
    for name in SUBJECTS
    for peer in (case.peers if name == HARDENED else case.peers[:1])  # the first peer on both models
]


@pytest.mark.parametrize(("attack", "peer", "name"), PAIRS)
def test_no_worse_than_the_peer(attack, peer, name):
    if ours.registered(attack) is None:
        pytest.skip(f"this package has no {attack}")
    case = CASES[attack]
    their = theirs(name, attack, peer, case.steps)
    assert int(their.fooled.sum()) > 0, "the peer fools nothing: the comparison says nothing"
    found = shortfalls(mine(name, attack, case.steps), their, attack, case.random)
    assert not found, "; ".join(found)


def test_every_registered_attack_is_compared_or_its_reason_is_given():
    compared = {ours.registered(attack) for attack in CASES} - {None}
    assert not compared & set(WITHOUT_PEER)
    assert compared | set(WITHOUT_PEER) == set(ATTACKS)


@pytest.mark.parametrize(
    ("attack", "peer", "fewer"),
    [("pgd-linf", "torchattacks", 1), ("apgd-ce-linf", "pyautoattack", 2), ("ddn-l2", "foolbox", 6)],
)
def test_a_weaker_attack_is_found_out(attack, peer, fewer):
    """The same comparison with fewer steps on our side fails."""
    name = HARDENED
    if ours.registered(attack) is None:
        pytest.skip(f"this package has no {attack}")
    their = theirs(name, attack, peer, CASES[attack].steps)
    assert shortfalls(mine(name, attack, fewer), their, attack, random=True)
