"""The study that the student's project made, and what it left out.

FGSM on a CNN; accuracy against epsilon; the adversarial images blurred or percentile-filtered before the model sees
them. Then the part that was missing: the same FGSM, its gradient taken through the filter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import rng
from ..album import Album
from ..attacks import FGSM
from ..data import Dataset
from ..defenses import GaussianBlur, PercentileFilter
from ..environment import command_line, environment, now
from ..models import SeedCNN, load_weights, save_weights
from ..results import Curve, Evaluation, Gallery, Panel, Table, percent
from ..sweeping import Sweep, sweep
from ..threats import Linf
from ..training import RECIPES, train
from .both_ways import SEED, STRONGER, Attacker, Series, blind_points, gap_sentence, over_strengths, panels, table
from .common import Clock, Say

EPSILONS = tuple(round(0.05 * k, 2) for k in range(9))  # 0, .05, … .4
FILTERED_AT = (0.2, 0.25, 0.3)
SIGMAS = tuple(round(0.2 * k, 1) for k in range(12))  # 0 … 2.2
PERCENTILES = tuple(float(p) for p in range(0, 101, 5))
SHOWN_AT = 0.2


@dataclass(frozen=True)
class Answers:
    """Everything that was measured for one model."""

    fgsm: Sweep
    pgd: Sweep
    blur: Series
    percentile: Series


def measure_all(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    sigmas: Sequence[float],
    attacker: Attacker,
    clock: Clock,
    say: Say,
) -> Answers:
    """Run the whole of the student's experiment, both ways."""
    say("FGSM and PGD against eps", 0.0)
    with clock.part("accuracy against eps") as spent:
        fgsm = sweep(model, images, labels, Linf(1.0), EPSILONS, FGSM(), seed=attacker.seed)
        pgd = sweep(model, images, labels, Linf(1.0), EPSILONS, STRONGER, seed=attacker.seed, after=fgsm)
        spent.add(pgd.forward, pgd.backward)
    with clock.part("FGSM on the bare model, to be filtered") as spent:
        points = blind_points(model, images, labels, FILTERED_AT, attacker, spent)
    with clock.part("Gaussian blur, both ways") as spent:
        blur = over_strengths(
            "blur", "sigma", lambda s: GaussianBlur(sigma=s), sigmas, lambda d: d.sigma, model, images, labels, points,
            attacker, spent, lambda text, share: say(text, 0.05 + 0.75 * share),
        )  # fmt: skip
    with clock.part("percentile filter, both ways") as spent:
        percentile = over_strengths(
            "percentile filter", "percentile", lambda p: PercentileFilter(p, size=2), PERCENTILES, lambda d: d.rank,
            model, images, labels, points, attacker, spent, lambda text, share: say(text, 0.8 + 0.2 * share),
        )  # fmt: skip
    return Answers(fgsm, pgd, blur, percentile)


def study(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    settings: dict[str, str],
    *,
    sigmas: Sequence[float] = SIGMAS,
    seed: int = 0,
    say: Say = lambda text, share: None,
) -> tuple[Evaluation, Album]:
    """Measure and put into words.

    images:  (N, C, H, W) floats in [0, 1];  labels: (N,);  classes: their names;  settings: what to say of them.
    """
    clock, album = Clock(), Album(classes)
    answers = measure_all(model, images, labels, sigmas, replace(SEED, seed=seed), clock, say)
    clean = answers.fgsm.accuracy(0.0)
    evaluation = Evaluation(
        kind="seed-study",
        title=f"Blur is no defense: {settings.get('data', 'the seed study')}",
        verdict=verdict(answers),
        settings=settings
        | {
            "attacks": f"{FGSM()}; {STRONGER} where FGSM did not fool",
            "eps": ", ".join(f"{e:g}" for e in EPSILONS),
            "filters": f"blur, sigma {sigmas[0]:g} to {sigmas[-1]:g}; percentile 0 to 100, window 2",
        },
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[
            eps_table({"": (answers.fgsm, answers.pgd)}),
            table(answers.blur, clean),
            table(answers.percentile, clean),
        ],
        panels=[
            eps_panel({"": (answers.fgsm, answers.pgd)}),
            *panels(answers.blur, SHOWN_AT),
            *panels(answers.percentile, SHOWN_AT),
        ],
        galleries=[triptych(model, images, labels, answers.fgsm, album, "the CNN")],
        cost=clock.costs,
    )
    say("done", 1.0)
    return evaluation, album


def verdict(answers: Answers) -> list[str]:
    """The findings, in the order in which they matter."""
    clean, fooled = answers.fgsm.accuracy(0.0), answers.fgsm.accuracy(SHOWN_AT)
    return [
        f"FGSM at eps {SHOWN_AT:g} takes the CNN from {percent(clean)} to {percent(fooled)}.",
        gap_sentence(answers.blur, SHOWN_AT),
        gap_sentence(answers.percentile, SHOWN_AT),
    ]


def eps_panel(models: dict[str, tuple[Sweep, Sweep]]) -> Panel:
    """Accuracy against eps under FGSM and PGD, a family for each model."""
    curves = []
    for name, (fgsm, pgd) in models.items():
        for attack, found in (("FGSM", fgsm), ("PGD", pgd)):
            label = f"{name}, {attack}" if name else attack
            curves.append(Curve(label=label, x=list(found.eps), y=found.accuracies(), family=label))
    return Panel(
        id="accuracy-against-eps",
        title="Accuracy against epsilon",
        x_label="eps (Linf)",
        curves=curves,
        caption="Accuracy at eps 0 is the clean accuracy. A point found at a smaller eps counts at every larger one. PGD "
        f"({STRONGER}) goes on where FGSM did not fool.",
    )


def eps_table(models: dict[str, tuple[Sweep, Sweep]]) -> Table:
    """The same as numbers."""
    columns, found = ["eps"], []
    for name, (fgsm, pgd) in models.items():
        for attack, one in (("FGSM", fgsm), ("PGD", pgd)):
            columns.append(f"{name}, {attack}" if name else attack)
            found.append(one)
    rows = [[f"{eps:g}", *(percent(one.accuracy(eps), interval=True) for one in found)] for eps in found[0].eps]
    return Table(id="accuracy-against-eps", title="Accuracy against epsilon", columns=columns, rows=rows)


def triptych(
    model: nn.Module, images: Tensor, labels: Tensor, fgsm: Sweep, album: Album, name: str, count: int = 4
) -> Gallery:
    """Examples of different classes that FGSM fools at the smallest eps of the grid."""
    first = min((e for e in fgsm.eps if e > 0 and bool((fgsm.fooled_at == e).any())), default=None)
    found = torch.zeros(0, dtype=torch.int64) if first is None else (fgsm.fooled_at == first).nonzero().squeeze(1)
    chosen: list[int] = []
    seen: set[int] = set()
    for index in found.tolist():
        if int(labels[index]) not in seen and len(chosen) < count:
            seen.add(int(labels[index]))
            chosen.append(index)
    at = torch.tensor(chosen, dtype=torch.int64)
    pictures = (
        album.add(model, images[at], fgsm.adversarial[at], labels[at], at, Linf(first), str(FGSM()), name)
        if first is not None
        else []
    )
    return Gallery(
        id="triptych",
        title="What FGSM does to an image",
        kind="triptych",
        pictures=pictures,
        caption="x + eps · sign(∇x J(θ, x, y)): every pixel moves by eps, up or down, whichever raises the loss.",
    )


def trained(name: str, data: Callable[[], Dataset], path: Path, seed: int, say: Say) -> tuple[nn.Module, str]:
    """The seed's CNN for a data set: from the weights at `path` if they are there, else trained and written there.

    Weights are rounded to float16 before anything is measured.
    """
    if not path.exists():
        found, recipe = data(), RECIPES["standard"]
        with rng.forked(seed):
            model = SeedCNN(found.images.shape[1], found.images.shape[-1], len(found.classes))
        train(
            model, found, None, recipe, seed=seed,
            progress=lambda at: say(f"training: epoch {at.epoch} of {recipe.epochs}, accuracy {at.accuracy:.3f}",
                                    at.step / at.steps),
        )  # fmt: skip
        save_weights(model, path, {"data": found.name, "recipe": str(recipe), "seed": str(seed)})
    shape = {"mnist": (1, 28), "fashion-mnist": (1, 28), "cifar10": (3, 32)}[name]
    network = load_weights(SeedCNN(*shape), path).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster layout on CPUs
    return network, "the seed's CNN, recipe standard, weights rounded to float16"
