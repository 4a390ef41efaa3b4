"""The demo: everything on bundled real images and bundled models, offline, in about a minute."""

from __future__ import annotations

from torch import Tensor, nn

from .. import data, models
from ..album import Album
from ..attacks import PGD
from ..environment import command_line, environment, now
from ..results import Evaluation, Gallery, Table, percent
from ..sweeping import Sweep, sweep
from ..threats import Linf
from .both_ways import SEED, Series, gap_sentence, panels, table
from .common import Clock, Say
from .seed import EPSILONS, SHOWN_AT, eps_panel, eps_table, measure_all, triptych

SIGMAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.8, 2.2)
TRAINED_AT = 0.1
FINE = tuple(round(0.0005 * 1.25**k, 6) for k in range(20))  # up to 0.035
SEARCHED = 100  # images whose smallest perturbation is looked for
FINE_ATTACK = PGD(steps=10, step_size=0.25)


def demo(count: int, say: Say = lambda text, share: None) -> tuple[Evaluation, Album]:
    """Run the demo on the first `count` of the bundled images."""
    found = data.load(f"fashion-mnist-sample[0:{count}]")
    images, labels = found.whole(), found.labels
    plain, hardened = models.load("fashion-mnist/plain"), models.load("fashion-mnist/hardened")
    clock, album = Clock(), Album(found.classes)
    first = measure_all(plain, images, labels, SIGMAS, SEED, clock, lambda text, share: say(text, 0.6 * share))
    say("the hardened model against eps", 0.6)
    with clock.part("hardened model: accuracy against eps") as spent:
        fgsm = sweep(hardened, images, labels, Linf(1.0), EPSILONS, "fgsm")
        pgd = sweep(hardened, images, labels, Linf(1.0), EPSILONS, FINE_ATTACK, after=fgsm)
        spent.add(pgd.forward, pgd.backward)
    say("the smallest perturbations that fool", 0.8)
    with clock.part("the smallest perturbations") as spent:
        few = slice(0, SEARCHED)
        small = sweep(plain, images[few], labels[few], Linf(1.0), FINE, FINE_ATTACK)
        spent.add(small.forward, small.backward)
    both = {"plain": (first.fgsm, first.pgd), "hardened": (fgsm, pgd)}
    evaluation = Evaluation(
        kind="demo",
        title="How easily is it fooled?",
        verdict=_verdict(first.fgsm, first.blur, pgd),
        settings={
            "data": f"{found.name}: {len(found)} test images of Fashion-MNIST",
            "models": "fashion-mnist/plain and fashion-mnist/hardened, the seed's CNN",
            "attacks": f"fgsm; {FINE_ATTACK} where FGSM did not fool",
            "seed": "0",
        },
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[
            _summary(both, first.blur, first.percentile),
            eps_table(both),
            table(first.blur, first.fgsm.accuracy(0.0)),
            table(first.percentile, first.fgsm.accuracy(0.0)),
        ],
        panels=[eps_panel(both), *panels(first.blur, SHOWN_AT), *panels(first.percentile, SHOWN_AT)],
        galleries=[
            triptych(plain, images, labels, first.fgsm, album, "plain"),
            _smallest(plain, images[few], labels[few], small, album),
        ],
        cost=clock.costs,
    )
    say("done", 1.0)
    return evaluation, album


def _verdict(fgsm: Sweep, blur: Series, hardened: Sweep) -> list[str]:
    return [
        f"FGSM at eps {SHOWN_AT:g} takes the plain CNN from {percent(fgsm.accuracy(0.0))} to "
        f"{percent(fgsm.accuracy(SHOWN_AT))}.",
        gap_sentence(blur, SHOWN_AT),
        f"Adversarial training holds what it was trained for: at eps {TRAINED_AT:g} the hardened CNN keeps "
        f"{percent(hardened.accuracy(TRAINED_AT))} under PGD, for a clean accuracy of {percent(hardened.accuracy(0.0))}.",
    ]


def _summary(both: dict[str, tuple[Sweep, Sweep]], blur: Series, percentile: Series) -> Table:
    """The table that the terminal shows."""
    rows = []
    for name, (fgsm, pgd) in both.items():
        rows.append([
            f"{name} CNN", percent(fgsm.accuracy(0.0)), percent(fgsm.accuracy(TRAINED_AT)),
            percent(pgd.accuracy(TRAINED_AT)), percent(fgsm.accuracy(SHOWN_AT)), percent(pgd.accuracy(SHOWN_AT)),
        ])  # fmt: skip
    for series in (blur, percentile):
        best = series.best[SHOWN_AT]
        name = f"plain + {series.name} ({series.unit} {best.strength:g})"
        rows.append([f"{name}, non-adaptive", percent(best.clean), "", "", percent(best.non_adaptive[SHOWN_AT]), ""])
        rows.append([
            f"{name}, adaptive", percent(best.clean), "", "", percent(best.adaptive[SHOWN_AT]),
            percent(best.stronger[SHOWN_AT]),
        ])  # fmt: skip
    return Table(
        id="summary",
        title="Accuracy",
        columns=[
            "model",
            "clean",
            f"FGSM {TRAINED_AT:g}",
            f"PGD {TRAINED_AT:g}",
            f"FGSM {SHOWN_AT:g}",
            f"PGD {SHOWN_AT:g}",
        ],
        rows=rows,
        strong=[3, 5],
        caption="Non-adaptive: the attacker does not know of the filter. Adaptive: the gradient is taken through it. The "
        "difference is the attacker's ignorance, not the filter's strength.",
    )


def _smallest(model: nn.Module, images: Tensor, labels: Tensor, small: Sweep, album: Album) -> Gallery:
    """The examples that the least change fools, smallest first."""
    hit = (small.clean_correct & small.fooled_at.isfinite()).nonzero().squeeze(1)
    size = Linf(1.0).size(small.adversarial[hit].double() - images[hit].double())
    at = hit[size.argsort(stable=True)[:12]]
    return Gallery(
        id="smallest",
        title="The smallest perturbations that fool the plain CNN",
        kind="grid",
        pictures=album.add(
            model, images[at], small.adversarial[at], labels[at], at, Linf(1.0), str(FINE_ATTACK), "plain"
        ),
        caption=f"Found by PGD on a grid of eps from {FINE[0]:g} to {FINE[-1]:.2g} among the first {SEARCHED} images: "
        "upper bounds of the smallest there are.",
    )
