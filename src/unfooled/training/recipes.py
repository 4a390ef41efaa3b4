"""Recipes: a name for everything that a training run needs to know beside model and data."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ParameterError, must_be
from . import augment as augmentation
from . import objectives, perturbations, schedules
from .initial import STARTS

OPTIMIZERS = ("adamw", "adam", "sgd")


@dataclass(frozen=True)
class Recipe:
    """One complete way to train.

    about:          one line on what it is, with its source.
    objective:      what a step minimises, as text: standard, adversarial, trades:beta=6, mart, grad-align, noise, smooth-adv,
                    ibp, crown-ibp, sabr, mtl-ibp.
    attack:         the inner attack as text, for objectives that have one.
    epochs:         passes over the data.
    batch_size:     images per step, of all devices together.
    optimizer:      adamw, adam or sgd (momentum 0.9).
    learning_rate:  the peak of the schedule.
    schedule:       one-cycle, cyclic, cosine, piecewise, constant.
    weight_decay:   of the optimizer.
    warm_up:        share of the steps in which eps grows from 0 to its full size.
    rise:           how it grows: even, or smooth, as certified training has it.
    start:          the weights to begin with: given, those of the model; ibp, drawn anew, so that bounds keep their width
                    through the layers (Shi et al. 2021, arXiv:2103.17268, section 3.2).
    augment:        shift:2, shift:4,mirror=true; None: images as they are.
    smoothing:      label smoothing, in [0, 1).
    average:        decay of a moving average of the weights, which is then what is judged and kept; 0: none.
    awp:            gamma of adversarial weight perturbation; 0: none.
    awp_from:       share of the run after which it begins.
    clip:           the gradient's norm at most; 0: not clipped.
    held_out:       images that are set aside to choose by (a tenth of the data at most).
    patience:       epochs without a better choice after which the run ends; 0: it runs to its end.
    network, threat:  what `unfooled train` takes if nothing else is said.
    """

    about: str
    objective: str = "standard"
    attack: str | None = None
    epochs: int = 8
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "one-cycle"
    weight_decay: float = 1e-4
    warm_up: float = 0.0
    rise: str = "even"
    start: str = "given"
    augment: str | None = None
    smoothing: float = 0.0
    average: float = 0.0
    awp: float = 0.0
    awp_from: float = 0.0
    clip: float = 0.0
    held_out: int = 1000
    patience: int = 0
    network: str = field(default="seed-cnn", compare=False)
    threat: str = field(default="linf:0.1", compare=False)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("held_out", 0), ("patience", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise must_be("Recipe", name, f"an int of at least {least}", value)
        if not self.learning_rate > 0:
            raise must_be("Recipe", "learning_rate", "a float above 0", self.learning_rate)
        for name in ("weight_decay", "awp", "clip"):
            if not getattr(self, name) >= 0:
                raise must_be("Recipe", name, "a float of at least 0", getattr(self, name))
        for name in ("smoothing", "average", "awp_from", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                raise must_be("Recipe", name, "a float in [0, 1)", getattr(self, name))
        for name, known in (("optimizer", OPTIMIZERS), ("rise", tuple(schedules.RISES)), ("start", tuple(STARTS))):
            if getattr(self, name) not in known:
                raise must_be("Recipe", name, f"one of {', '.join(known)}", getattr(self, name))
        schedules.named(self.schedule)
        objectives.parse(self.objective)
        if self.augment is not None:
            augmentation.parse(self.augment)
        needs = self.objective.partition(":")[0] in objectives.ATTACKING
        if needs and self.attack is None:
            raise ParameterError(
                f"The objective {self.objective} needs an inner attack, such as pgd:steps=10,step_size=0.25."
            )
        if self.attack is not None:
            if not needs:
                raise ParameterError(f"The objective {self.objective} has no inner attack. Got {self.attack!r}.")
            perturbations.parse(self.attack)


def _certified(
    about: str,
    objective: str,
    attack: str | None = None,
    epochs: int = 16,
    threat: str = "linf:0.1",
    warm_up: float = 0.5,
) -> Recipe:
    """Certified training as Shi et al. 2021 (arXiv:2103.17268) do it, in fewer steps of a larger rate."""
    return Recipe(
        about, objective, attack, epochs=epochs, optimizer="adam", learning_rate=6e-3, weight_decay=0.0, warm_up=warm_up,
        rise="smooth", start="ibp", clip=10.0, network="certified-cnn", threat=threat,
    )  # fmt: skip


PGD_10 = "pgd:steps=10,step_size=0.25"
RECIPES: dict[str, Recipe] = {
    "standard": Recipe("cross-entropy on the images"),
    "fast-at": Recipe(
        "FGSM from a random start, step 1.25 eps (Wong et al. 2020, arXiv:2001.03994)",
        "adversarial", "pgd:steps=1,step_size=1.25", schedule="cyclic", warm_up=0.2,
    ),
    "n-fgsm": Recipe(
        "FGSM from noise of 2 eps, not clipped (de Jorge et al. 2022, arXiv:2202.01181)",
        "adversarial", "n-fgsm", schedule="cyclic", warm_up=0.2,
    ),
    "grad-align": Recipe(
        "fast-at with aligned gradients (Andriushchenko & Flammarion 2020, arXiv:2007.02617)",
        "grad-align", "pgd:steps=1,step_size=1.25", schedule="cyclic", warm_up=0.2,
    ),
    "pgd": Recipe(
        "adversarial training with PGD (Madry et al. 2018, arXiv:1706.06083)",
        "adversarial", "pgd:steps=5,step_size=0.3", warm_up=0.2,
    ),
    "pgd-10": Recipe(
        "the same with 10 steps of eps/4, as Rice et al. 2020, arXiv:2002.11569", "adversarial", PGD_10, warm_up=0.2
    ),
    "trades": Recipe(
        "TRADES, beta 6 (Zhang et al. 2019, arXiv:1901.08573)", "trades:beta=6", "near-pgd", warm_up=0.2
    ),
    "mart": Recipe("MART, beta 5 (Wang et al. 2020, ICLR)", "mart:beta=5", PGD_10, warm_up=0.2),
    "noise": Recipe(
        "Gaussian noise, for randomized smoothing (Cohen et al. 2019, arXiv:1902.02918)", "noise:sigma=0.25"
    ),
    "smooth-adv": Recipe(
        "adversarial training of the smoothed classifier (Salman et al. 2019, arXiv:1906.04584)",
        "smooth-adv:sigma=0.25,draws=2", "pgd:steps=2,step_size=0.5", warm_up=0.2, threat="l2:1.0",
    ),
    "pgd-fashion-mnist": Recipe(
        "for small-cnn on Fashion-MNIST, Linf 0.1: PGD with 2 long steps, averaged weights",
        "adversarial", "pgd:steps=2,step_size=0.7", epochs=12, learning_rate=2e-3, warm_up=0.3, average=0.999,
        network="small-cnn", threat="linf:0.1",
    ),
    "trades-fashion-mnist": Recipe(
        "the same with TRADES, beta 3",
        "trades:beta=3", "near-pgd:steps=2,step_size=0.7", epochs=12, learning_rate=2e-3, warm_up=0.3, average=0.999,
        network="small-cnn", threat="linf:0.1",
    ),
    "pgd-mnist": Recipe(
        "for small-cnn on MNIST, Linf 0.3: PGD with 4 steps, averaged weights",
        "adversarial", "pgd:steps=4,step_size=0.4", epochs=14, warm_up=0.4, average=0.999,
        network="small-cnn", threat="linf:0.3",
    ),
    "ibp": _certified("intervals (Gowal et al. 2018, arXiv:1810.12715)", "ibp"),
    "crown-ibp": _certified(
        "intervals, and CROWN while eps grows (Zhang et al. 2020, arXiv:1906.06316)", "crown-ibp"
    ),
    "sabr": _certified(
        "intervals of a small box round an attack's point (Müller et al. 2023, arXiv:2210.04871)",
        "sabr:share=0.6", "pgd:steps=8,step_size=0.5",
    ),
    "mtl-ibp": _certified(
        "half intervals, half an attack of one step (De Palma et al. 2024, arXiv:2305.13991)",
        "mtl-ibp:alpha=0.5", "pgd:steps=1,step_size=10",
    ),
    "ibp-fashion-mnist": _certified("for certified-cnn on Fashion-MNIST, Linf 0.1: intervals", "ibp"),
    "ibp-mnist": _certified(
        "the same on MNIST, Linf 0.3, for longer", "ibp", epochs=36, threat="linf:0.3", warm_up=0.35
    ),
    "ibp-mnist-0.1": _certified(
        "the same on MNIST, Linf 0.1, with bounds of 0.2, as Gowal et al. had them", "ibp:stretch=2", epochs=10
    ),
}  # fmt: skip
