"""Every input defense before a normally trained CNN, shown three ways: the table that blur's first study left out.

Fashion-MNIST at Linf 0.1 and MNIST at Linf 0.3, each defense with its default options: the network alone under attack, the
defended one attacked by who does not know of the defense, and by who does. Each evaluation is a run folder of its own
within the study's, with its checks, its verdict and its report; so a study that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .. import models, report
from ..album import Album
from ..data import Dataset
from ..defenses import DEFENSES, Defended, Defense, Thermometer, defend
from ..environment import command_line
from ..errors import ParameterError, must_be, unknown
from ..evaluation import Standing, evaluate
from ..fingerprint import of_model
from ..models import SeedCNN
from ..results import Evaluation
from ..store import RunFolder
from ..threats import Linf, Threat
from ..training import RECIPES
from . import seed
from .case import Asked, fitted
from .common import Say
from .defenses_page import Measured, page

PROTOCOL = "fast"
IMAGES = 1000
MADE = Path("runs/models")  # where networks that other commands have trained lie


@dataclass(frozen=True)
class Case:
    """A data set with the threat that its networks are attacked in."""

    name: str
    title: str
    threat: Threat


CASES = (Case("fashion-mnist", "Fashion-MNIST", Linf(0.1)), Case("mnist", "MNIST", Linf(0.3)))


def run(asked: Asked, folder: RunFolder) -> tuple[Evaluation, Album]:
    """Measure every defense before every network, and put it into words."""
    if asked.model is not None:
        raise ParameterError(
            "The study of defenses has its own networks. To try a defense before yours: unfooled evaluate MODEL DATA "
            "--defense NAME."
        )
    cases, walls = _cases(asked.data), _walls(asked.only)
    count = IMAGES if asked.images is None else asked.images
    if isinstance(count, bool) or count < 1:
        raise must_be("the study of defenses", "images", "an int of at least 1", count)
    found: dict[str, list[Measured]] = {}
    for at, case in enumerate(cases):
        first, last = at / len(cases), (at + 1) / len(cases)
        found[case.title] = list(_Bench(case, folder, asked, count).all(walls, first, last))
    asked.say("drawing", 1.0)
    threats = {case.title: str(case.threat) for case in cases}
    return page(found, threats, PROTOCOL, count, asked.seed), Album(())


def _cases(data: str | None) -> tuple[Case, ...]:
    """All, or the one of that name."""
    if data is None:
        return CASES
    if data not in (names := [case.name for case in CASES]):
        raise unknown("data set of the study of defenses", data, names)
    return tuple(case for case in CASES if case.name == data)


def _walls(only: Sequence[str]) -> list[Defense]:
    """Every defense there is with its default options, or those of these names."""
    for name in only:
        if name not in DEFENSES:
            raise unknown("defense", name, DEFENSES)
    return [kind() for name, kind in DEFENSES.items() if name in only or not only]


class _Bench:
    """The networks of one data set, and what is measured of them."""

    def __init__(self, case: Case, folder: RunFolder, asked: Asked, count: int) -> None:
        self.case, self.asked = case, asked
        self.folder = RunFolder(folder.path / case.name)
        self.data = asked.load(f"{case.name}:test[0:{count}]")
        self.plain: nn.Module | None = None

    def all(self, walls: Sequence[Defense], first: float, last: float) -> list[Measured]:
        """Every defense in turn, within that share of the whole."""
        measured = []
        for at, wall in enumerate(walls):
            start, end = (first + (last - first) * k / len(walls) for k in (at, at + 1))

            def say(text: str, share: float, start: float = start, end: float = end) -> None:
                self.asked.say(f"{self.case.title}, {text}", start + (end - start) * share)

            measured.append(self._measured(wall, say))
        return measured

    def _measured(self, wall: Defense, say: Say) -> Measured:
        """The evaluation of a defense, from its folder if it has been made."""
        text = wall.text()
        place = self.folder.path / text.replace(":", "-").replace(",", "-").replace("=", "-")
        model = self._behind(wall, say)
        finished = _finished(place, model, self.data.whole())
        if finished is None:

            def told(at: Standing) -> None:
                within = at.within.ended / max(1, at.within.trials) if at.within else 0.0
                stage = at.stage or (at.within.attack if at.within else "")
                say(f"{text}: {stage}", min(1.0, (at.done + within * min(512, at.total - at.done)) / at.total))

            finished = evaluate(
                model, self.data, self.case.threat, PROTOCOL, seed=self.asked.seed, out=place, command=command_line(),
                settings={"model": self._about(wall), "data": self.data.name, "defense": text}, progress=told,
            )  # fmt: skip
            report.draw(place)
        return Measured(wall.name, text, finished)

    def _about(self, wall: Defense) -> str:
        codes = " on its codes" if isinstance(wall, Thermometer) else ""
        return f"the seed's CNN, trained normally{codes}"

    def _behind(self, wall: Defense, say: Say) -> Defended:
        """The network behind a defense: the plain one, or one that was trained on what the defense makes of images."""
        if self.plain is None:
            self.plain = self._plain(say)
        if not isinstance(wall, Thermometer):
            return defend(self.plain, wall)
        channels, side = self.data.images.shape[1] * wall.levels, self.data.images.shape[-1]

        def build() -> nn.Module:
            return defend(SeedCNN(channels, side, len(self.data.classes)), wall)

        coded = fitted(
            RunFolder(self.folder.path / "on-codes"), build, self._training, RECIPES["standard"], self.asked.seed, say,
            (0.0, 0.5), {"data": f"{self.case.name}:train", "defense": wall.text()},
        )  # fmt: skip
        assert isinstance(coded, Defended)
        return defend(coded.undefended, wall, alone=self.plain)

    def _plain(self, say: Say) -> nn.Module:
        """The seed's CNN, trained normally: the bundled one, one that another command has trained, or one trained here."""
        bundled = f"{self.case.name}/plain"
        if bundled in models.BUNDLED:
            found: nn.Module = models.load(bundled)
            return found
        name = f"{self.case.name}-plain.safetensors"
        path = MADE / name if (MADE / name).is_file() else self.folder.path / name
        return seed.trained(self.case.name, self._all, path, self.asked.seed, say)[0]

    def _all(self) -> Dataset:
        return self.asked.load(f"{self.case.name}:train")

    def _training(self) -> tuple[Tensor, Tensor]:
        found = self._all()
        return found.whole(), found.labels


def _finished(place: Path, model: Defended, images: Tensor) -> Evaluation | None:
    """The evaluation in a folder, if it is of this model on as many images."""
    folder = RunFolder(place)
    if not (place / "evaluation.json").is_file():
        return None
    held = folder.spec()
    same = held.get("model_hash") == of_model(model, images) and held.get("images") == len(images)
    return folder.evaluation() if same else None
