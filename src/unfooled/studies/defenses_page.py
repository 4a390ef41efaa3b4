"""What the study of defenses shows: for each data set a table, what it cost, a plot; and the findings in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..environment import command_line, environment, now
from ..results import Cost, Curve, Estimate, Evaluation, Panel, Table, ThreeWays, percent

LITTLE = 0.05  # of the images: a defense that keeps no more keeps next to nothing


@dataclass(frozen=True)
class Measured:
    """One defense, by its name and as text, with the evaluation of a network behind it."""

    name: str
    text: str
    found: Evaluation

    @property
    def ways(self) -> ThreeWays:
        """The three ways of showing it."""
        assert self.found.defense is not None
        return self.found.defense

    @property
    def cost(self) -> float:
        """What it costs in clean accuracy, a share."""
        return self.ways.undefended_clean.value - self.ways.defended_clean.value


def page(
    found: Mapping[str, Sequence[Measured]], threats: Mapping[str, str], protocol: str, count: int, seed: int
) -> Evaluation:
    """The study as an `Evaluation`: by the data's title what was measured."""
    return Evaluation(
        kind="study",
        title="Every input defense, shown three ways",
        verdict=[sentence for title, measured in found.items() for sentence in verdict(title, measured, threats[title])],
        settings={
            "data": "; ".join(f"{title}, first {count:,} test images" for title in found),
            "model": "the seed's CNN, trained normally; behind the thermometer one trained on its codes",
            "threats": "; ".join(f"{title}: {threats[title]}" for title in found),
            "protocol": protocol, "seed": str(seed),
        },
        command=command_line(),
        environment=environment(),
        created=now(),
        tables=[
            *(three_ways(title, measured, threats[title]) for title, measured in found.items()),
            *(costs(title, measured) for title, measured in found.items()),
        ],
        panels=[panel(title, measured, threats[title]) for title, measured in found.items()],
        cost=[_cost(title, one) for title, measured in found.items() for one in measured],
        notes=["Each evaluation has its own report, in the folder of its data set beside this page."],
    )  # fmt: skip


def _cost(title: str, one: Measured) -> Cost:
    parts = one.found.cost
    return Cost(
        part=f"{title}: {one.text}", forward=sum(c.forward for c in parts), backward=sum(c.backward for c in parts),
        seconds=round(sum(c.seconds for c in parts), 1),
    )  # fmt: skip


def _share(estimate: Estimate) -> str:
    """An estimate in percent with its interval, without the sign: the columns are narrow."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def three_ways(title: str, measured: Sequence[Measured], threat: str) -> Table:
    """The table of a data set."""
    first = measured[0].ways
    rows = [["none", f"{100 * first.undefended_clean.value:.1f}", "", _share(first.undefended), "", ""]]
    for one in measured:
        ways = one.ways
        rows.append(
            [
                one.text, f"{100 * ways.defended_clean.value:.1f}", _share(ways.non_adaptive), _share(ways.adaptive),
                f"{100 * ways.gap:.1f}", one.found.trust or "",
            ]
        )  # fmt: skip
    return Table(
        id=title.lower(),
        title=f"{title}, {threat}",
        columns=["defense", "clean", "non-adaptive", "adaptive", "gap", "trust"],
        rows=rows,
        caption=f"Accuracy in percent on {first.adaptive.n:,} images, with 95 % intervals. Non-adaptive: attacked by images "
        "made for the network without the defense. Adaptive: attacked through the defense, the number that counts; an upper "
        "bound. Gap: the difference in points, which is the attacker's ignorance. Trust: of the adaptive number. In the row "
        "“none” the network is attacked without a defense.",
    )


def costs(title: str, measured: Sequence[Measured]) -> Table:
    """What each defense costs without an attack, and what it cost to measure it."""
    rows = []
    for one in measured:
        spent, images = _cost(title, one), one.ways.adaptive.n
        rate = one.found.draws_fooled
        passes = (spent.forward + spent.backward) / images
        rows.append(
            [
                one.text, f"{100 * one.cost:.1f}", "" if rate is None else f"{100 * rate:.1f}", f"{passes:,.0f}",
                f"{spent.seconds:,.0f}",
            ]
        )  # fmt: skip
    return Table(
        id=f"{title.lower()}-costs",
        title=f"{title}: what it costs",
        columns=["defense", "clean points lost", "draws fooled", "passes an image", "seconds"],
        rows=rows,
        caption="Clean points lost: accuracy without an attack, before and behind the defense (the thermometer's network is "
        "another one). Draws fooled: of a random defense, the percentage of fresh draws that the images found fool. Passes "
        "and seconds: of the whole evaluation, checks included.",
    )


def panel(title: str, measured: Sequence[Measured], threat: str) -> Panel:
    """Each defense with what it seems to keep and what it keeps."""
    places = [float(at) for at in range(len(measured))]
    roles = (
        ("clean", "not attacked", [one.ways.defended_clean for one in measured]),
        ("non-adaptive", "the attacker does not know", [one.ways.non_adaptive for one in measured]),
        ("adaptive", "the attacker knows", [one.ways.adaptive for one in measured]),
    )
    return Panel(
        id=f"{title.lower()}-gap",
        title=f"{title}, {threat}: what each defense seems to keep, and what it keeps",
        x_label="",
        curves=[Curve(label=label, x=places, y=values, role=role, family="defense") for role, label, values in roles],
        ticks=[one.name for one in measured],
        caption="The way from the upper point to the lower one is the gap. Bars are 95 % intervals.",
    )


def verdict(title: str, measured: Sequence[Measured], threat: str) -> list[str]:
    """The findings of one data set."""
    widest = max(measured, key=lambda one: one.ways.gap)
    best = max(measured, key=lambda one: one.ways.adaptive.value)
    little = [one for one in measured if one.ways.adaptive.value <= LITTLE]
    alone = measured[0].ways.undefended
    keep = "keeps" if len(little) == 1 else "keep"
    most = f"Most is left behind {best.text}: {percent(best.ways.adaptive, interval=True)}"
    none = f"Not one image is left behind any of them: {percent(best.ways.adaptive, interval=True)}"
    said = [
        f"{title}, {threat}: of {len(measured)} defenses, {len(little)} {keep} {100 * LITTLE:.0f} % or less against an "
        f"attacker who knows of them; the network alone keeps {percent(alone)}.",
        f"The widest gap is that of {widest.text}: it seems to keep {percent(widest.ways.non_adaptive)} and keeps "
        f"{percent(widest.ways.adaptive)}.",
        f"{most}, of {percent(best.ways.defended_clean)} without an attack."
        if best.ways.adaptive.value
        else f"{none}.",
    ]
    doubtful = [one.text for one in measured if one.found.trust != "valid"]
    if doubtful:
        said.append(f"Not valid: {', '.join(doubtful)}. Their own reports say why.")
    return said
