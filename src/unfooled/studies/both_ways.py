"""A defense measured both ways: by an attacker who does not know of it, and by one who does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks import FGSM, PGD
from ..attacks.base import Attack
from ..defenses import Defense, defend
from ..engine import perturb
from ..intervals import clopper_pearson
from ..judging import judge
from ..models import untouched
from ..results import Curve, Estimate, Mark, Panel, Table, percent
from ..sweeping import sweep
from ..threats import Linf, Threat
from .common import Say, Spent


@dataclass(frozen=True)
class Attacker:
    """How a defense is attacked: by `attack`, blindly and through it, then by `stronger` where that did not fool."""

    threat: Threat
    attack: Attack
    stronger: Attack | None
    seed: int = 0

    def weaker(self) -> Attacker:
        """The same without the stronger attack, to go over a grid with."""
        return replace(self, stronger=None)


STRONGER = PGD(steps=10, step_size=0.25)
SEED = Attacker(Linf(1.0), FGSM(), STRONGER)


@dataclass(frozen=True)
class Measured:
    """One defense at one strength. Each mapping goes from eps to accuracy.

    clean:         accuracy of the defended model on the images.
    non_adaptive:  on the attack's images for the bare model, filtered afterwards: what the student's project measured.
    adaptive:      under the same attack with the gradient taken through the filter.
    stronger:      and under the stronger attack through the filter where that did not fool; empty if there is none.
    """

    strength: float
    clean: Estimate
    non_adaptive: dict[float, Estimate]
    adaptive: dict[float, Estimate]
    stronger: dict[float, Estimate]

    def gap(self, eps: float) -> float:
        """How many points of accuracy the attacker's ignorance was worth: non-adaptive less adaptive."""
        return 100 * (self.non_adaptive[eps].value - self.adaptive[eps].value)


def blind_points(
    model: nn.Module, images: Tensor, labels: Tensor, eps: Sequence[float], attacker: Attacker, spent: Spent
) -> dict[float, Tensor]:
    """The attack's images for the bare model at each eps: of every image, also those that it gets wrong."""
    points = {}
    with untouched(model):
        for radius in eps:
            threat = attacker.threat.within(radius)
            made = [
                perturb(model, images[part], labels[part], threat, attacker.attack, seed=attacker.seed, ids=part)
                for part in torch.arange(len(images)).split(128)
            ]
            points[radius] = torch.cat(made)
            spent.add(len(images) * attacker.attack.steps, len(images) * attacker.attack.steps)
    return points


def measure(
    model: nn.Module,
    defense: Defense,
    strength: float,
    images: Tensor,
    labels: Tensor,
    points: dict[float, Tensor],
    attacker: Attacker,
    spent: Spent,
) -> Measured:
    """Measure a model behind a defense at each eps of the points."""
    defended = defend(model, defense)
    clean = right = judge(defended, images, labels).clean_correct
    non_adaptive = {}
    for eps in sorted(points):
        right = right & judge(defended, points[eps], labels).clean_correct
        non_adaptive[eps] = _share(right)
    spent.add(len(images) * (1 + len(points)))
    adaptive = sweep(defended, images, labels, attacker.threat, list(points), attacker.attack, seed=attacker.seed)
    both = adaptive
    if attacker.stronger is not None:
        both = sweep(
            defended,
            images,
            labels,
            attacker.threat,
            list(points),
            attacker.stronger,
            seed=attacker.seed,
            after=adaptive,
        )
    spent.add(both.forward, both.backward)
    return Measured(
        strength,
        _share(clean),
        non_adaptive,
        {eps: adaptive.accuracy(eps) for eps in points},
        {} if both is adaptive else {eps: both.accuracy(eps) for eps in points},
    )


def _share(right: Tensor) -> Estimate:
    return clopper_pearson(int(right.sum()), len(right))


@dataclass(frozen=True)
class Series:
    """A defense over a grid of strengths, and its seemingly best strength for each eps, measured."""

    name: str
    unit: str
    grid: list[Measured]
    best: dict[float, Measured]
    attacker: Attacker

    @property
    def attack(self) -> str:
        """The attack's name, as a sentence has it."""
        return self.attacker.attack.name.upper()

    @property
    def stronger(self) -> str:
        """The stronger attack's name."""
        return self.attacker.stronger.name.upper() if self.attacker.stronger is not None else ""


def over_strengths(
    name: str,
    unit: str,
    make: Callable[[float], Defense],
    strengths: Sequence[float],
    key: Callable[[Defense], object],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    points: dict[float, Tensor],
    attacker: Attacker,
    spent: Spent,
    say: Say,
) -> Series:
    """Measure every strength, then the best between them: where a curve through the grid has its maximum.

    key:  strengths of one key are the same filter, and are measured once (a percentile of four values has four ranks).
    """
    known: dict[object, Measured] = {}

    def at(strength: float, by: Attacker) -> Measured:
        defense = make(strength)
        which = (key(defense), by.stronger is None)
        if which not in known:
            known[which] = measure(model, defense, strength, images, labels, points, by, spent)
        return replace(known[which], strength=strength)

    grid = []
    for done, strength in enumerate(strengths):
        say(f"{name} {unit} {strength:g}", done / (len(strengths) + 2 * len(points)))
        grid.append(at(strength, attacker.weaker()))
    best = {}
    for done, eps in enumerate(points):
        say(
            f"{name}: the best {unit} at eps {eps:g}", 1 - 2 * (len(points) - done) / (len(strengths) + 2 * len(points))
        )
        between = at(peak(strengths, [m.non_adaptive[eps].value for m in grid]), attacker.weaker())
        top = max([*grid, between], key=lambda m, eps=eps: m.non_adaptive[eps].value)  # type: ignore[misc]
        best[eps] = at(top.strength, attacker)
    return Series(name, unit, grid, best, attacker)


def peak(x: Sequence[float], y: Sequence[float]) -> float:
    """Where the cubic spline through the points is highest: between them, as a rule."""
    from scipy.interpolate import make_interp_spline

    if len(x) == 1:
        return float(x[0])
    fine = np.linspace(x[0], x[-1], 2001)
    spline = make_interp_spline(x, y, k=min(3, len(x) - 1))
    return round(float(fine[np.argmax(spline(fine))]), 3)


# --- what is shown ---------------------------------------------------------------------------------


def panels(series: Series, main_eps: float) -> list[Panel]:
    """Two plots: all eps both ways, and everything at one eps."""
    x = [m.strength for m in series.grid]
    curves, marks = [], []
    for eps in series.best:
        family = f"eps {eps:g}"
        for role, values in (
            ("non-adaptive", [m.non_adaptive[eps] for m in series.grid]),
            ("adaptive", [m.adaptive[eps] for m in series.grid]),
        ):
            curves.append(Curve(label=f"{role}, {family}", x=x, y=values, role=role, family=family))
        best = series.best[eps]
        marks.append(
            Mark(label=f"best {series.unit} {best.strength:g}", x=best.strength, y=best.non_adaptive[eps],
                 role="non-adaptive", family=family)
        )  # fmt: skip
    best = series.best[main_eps]
    everything = [
        Curve(label="clean images", x=x, y=[m.clean for m in series.grid], role="clean"),
        Curve(label=f"{series.attack}, non-adaptive", x=x, y=[m.non_adaptive[main_eps] for m in series.grid],
              role="non-adaptive"),
        Curve(label=f"{series.attack}, adaptive", x=x, y=[m.adaptive[main_eps] for m in series.grid], role="adaptive"),
    ]  # fmt: skip
    title = f"{series.name.capitalize()}: what the attacker knows decides"
    return [
        Panel(
            id=f"{series.name}-at-{main_eps:g}",
            title=f"{title} (eps {main_eps:g})",
            x_label=series.unit,
            curves=everything,
            marks=[
                Mark(
                    label=f"best {series.unit} {best.strength:g}",
                    x=best.strength,
                    y=best.non_adaptive[main_eps],
                    role="non-adaptive",
                ),
                Mark(label=f"{series.stronger}, adaptive", x=best.strength, y=best.stronger[main_eps], role="adaptive"),
            ],
            caption=gap_sentence(series, main_eps),
        ),
        Panel(
            id=f"{series.name}-all",
            title=f"{series.name.capitalize()} at every eps, both ways",
            x_label=series.unit,
            curves=curves,
            marks=marks,
            caption=f"Dashed: {series.attack} on the bare model, filtered afterwards. Solid: the same attack with its "
            "gradient taken through the filter. The marks are the strengths that look best to someone who only sees the "
            "dashed curves.",
        ),
    ]


def gap_sentence(series: Series, eps: float) -> str:
    """The finding in one sentence, with the gap named."""
    best = series.best[eps]
    return (
        f"At eps {eps:g} the best {series.name} ({series.unit} {best.strength:g}) seems to keep "
        f"{percent(best.non_adaptive[eps])} against {series.attack} that does not know of it. The same {series.attack} "
        f"through it leaves {percent(best.adaptive[eps])}: a gap of {best.gap(eps):.1f} points, which is the attacker's "
        f"ignorance. {series.stronger} through it leaves {percent(best.stronger[eps])}."
    )


def table(series: Series, clean: Estimate) -> Table:
    """The best strength for each eps: non-adaptive, adaptive, and the differences."""
    rows = []
    for eps, best in series.best.items():
        lost = 100 * (clean.value - best.non_adaptive[eps].value)
        rows.append(
            [
                f"{eps:g}",
                f"{best.strength:g}",
                percent(best.clean),
                percent(best.non_adaptive[eps]),
                percent(best.adaptive[eps]),
                f"{best.gap(eps):.1f}",
                percent(best.stronger[eps]),
                f"{lost:.1f}",
            ]
        )
    return Table(
        id=f"{series.name}-best",
        title=f"The best {series.name}, both ways",
        columns=[
            "eps",
            f"best {series.unit}",
            "clean",
            f"{series.attack}, non-adaptive",
            f"{series.attack}, adaptive",
            "gap",
            f"{series.stronger}, adaptive",
            "below clean",
        ],
        rows=rows,
        caption=f"The {series.unit} is where the non-adaptive accuracy is highest, found between the grid points and "
        "measured there; or a grid point, where that was higher. Clean: through the filter. Gap: non-adaptive less "
        "adaptive, in points. Below clean: how far the non-adaptive accuracy is from the unfiltered clean one.",
    )
