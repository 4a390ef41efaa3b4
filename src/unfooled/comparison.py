"""Two evaluations of the same examples, compared pair by pair: which is better, and how sure that is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from . import text
from .errors import DataError, ParameterError
from .intervals import Paired, clopper_pearson, paired
from .report import annotate, encode, letters, plots, style
from .results import Curve, Estimate, Evaluation, Example, Mark, Panel, Record, Table, percent
from .store import RunFolder

POINTS = 40  # of a curve
SHOWN = 12  # examples that are named in a table; the JSON has all


class Side(Record, frozen=True):
    """One of the two runs, on the examples that both have judged."""

    name: str
    settings: dict[str, str]
    trust: str | None
    clean: Estimate
    attacked: Estimate


class Comparison(Record, frozen=True):
    """Two evaluations by example.

    clean, attacked:  accuracy of a less that of b on the n common examples, with interval and McNemar's p.
    both, neither:    how many common examples hold under attack in both, in neither.
    only_a, only_b:   the examples that hold under attack in a alone, in b alone.
    unshared_a, unshared_b:  how many examples only a, only b has judged; they do not count.
    panel:            accuracy against the size of the change; None where the two have no axis in common.
    warnings:         why the two numbers may not answer the same question.
    """

    a: Side
    b: Side
    n: int
    clean: Paired
    attacked: Paired
    both: int
    neither: int
    only_a: list[int]
    only_b: list[int]
    unshared_a: int
    unshared_b: int
    panel: Panel | None
    warnings: list[str]

    def to_json(self) -> str:
        """Pretty JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


def compare(a: str | Path | RunFolder, b: str | Path | RunFolder) -> Comparison:
    """Compare two run folders by the examples that both have judged.

    Raises `DataError` if a folder is damaged or not finished, has no examples, or if the labels of the two disagree:
    then they are not of the same data. (With the same labels but other images nothing can be told from here.)
    """
    runs = [item if isinstance(item, RunFolder) else RunFolder(item) for item in (a, b)]
    answers = [run.evaluation() for run in runs]
    examples = [{e.index: e for e in _examples(run, answer)} for run, answer in zip(runs, answers, strict=True)]
    names = _names(*(run.path for run in runs))
    common = sorted(examples[0].keys() & examples[1].keys())
    if not common:
        raise DataError(f"{runs[0].path} and {runs[1].path} have no example in common: there is nothing to compare.")
    pairs = [(examples[0][at], examples[1][at]) for at in common]
    for first, second in pairs:
        if first.label != second.label:
            raise DataError(
                f"Example {first.index} has the label {first.label} in {runs[0].path}, but {second.label} in "
                f"{runs[1].path}: they are not of the same data."
            )
    held = [[_held(pair[at]) for pair in pairs] for at in (0, 1)]
    right = [[_right(pair[at]) for pair in pairs] for at in (0, 1)]
    sides = [
        Side(
            name=names[at], settings=answers[at].settings, trust=answers[at].trust,
            clean=clopper_pearson(sum(right[at]), len(common)), attacked=clopper_pearson(sum(held[at]), len(common)),
        )
        for at in (0, 1)
    ]  # fmt: skip
    return Comparison(
        a=sides[0],
        b=sides[1],
        n=len(common),
        clean=paired(right[0], right[1]),
        attacked=paired(held[0], held[1]),
        both=sum(p and q for p, q in zip(*held, strict=True)),
        neither=sum(not p and not q for p, q in zip(*held, strict=True)),
        only_a=[at for at, p, q in zip(common, *held, strict=True) if p and not q],
        only_b=[at for at, p, q in zip(common, *held, strict=True) if q and not p],
        unshared_a=len(examples[0]) - len(common),
        unshared_b=len(examples[1]) - len(common),
        panel=_panel(sides, [[pair[at] for pair in pairs] for at in (0, 1)]),
        warnings=_warnings(*sides),
    )


def _examples(run: RunFolder, answer: Evaluation) -> list[Example]:
    """The examples of the answer; of a run that lists none there, those of its evidence."""
    if answer.kind == "certificate":
        raise DataError(f"{run.path} holds certificates and no attacks, so it cannot be compared by example.")
    if answer.examples or not (run.path / "evidence.sqlite").exists():
        found = answer.examples
    else:
        rows = run.evidence()
        columns = (rows["example"], rows["label"], rows["clean_prediction"], rows["success"], rows["distance"])
        found = [
            Example(
                index=index, label=label, clean_prediction=prediction, fooled_by="the attack" if success else None,
                distance=distance if math.isfinite(distance) else None, error=error,
            )
            for index, label, prediction, success, distance, error in zip(
                *(column.tolist() for column in columns), rows["error"], strict=True
            )
        ]  # fmt: skip
    if not found:
        raise DataError(f"{run.path} lists no examples (it is a {answer.kind}), so it cannot be compared by example.")
    return found


def _right(example: Example) -> bool:
    return example.error is None and example.clean_prediction == example.label


def _held(example: Example) -> bool:
    return _right(example) and example.fooled_by is None


def _names(a: Path, b: Path) -> tuple[str, str]:
    """The folders' names, or more of their paths where those are the same."""
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def _warnings(a: Side, b: Side) -> list[str]:
    found = []
    for name in ("data", "threat", "protocol", "attack", "seed"):
        ours, theirs = a.settings.get(name), b.settings.get(name)
        if ours != theirs:
            found.append(f"The {name} differs: {ours or 'none'} in {a.name}, {theirs or 'none'} in {b.name}.")
    if a.trust != b.trust:
        found.append(f"Their trust differs: {a.name} is {a.trust or 'unrated'}, {b.name} is {b.trust or 'unrated'}.")
    for side in (a, b):
        if side.trust in ("suspect", "invalid"):
            found.append(f"The number of {side.name} is {side.trust}: the truth may be lower. See its findings.")
    return found


# --- accuracy against the size of the change -----------------------------------------------------


def _panel(sides: list[Side], examples: list[list[Example]]) -> Panel | None:
    """Both curves over one axis, each as far as its run has looked; none where the norms differ or are not known."""
    norms, reach = zip(*(_threat(side) for side in sides), strict=True)
    if norms[0] is None or norms[0] != norms[1]:
        return None
    sizes = [[_size(e) for e in of] for of in examples]
    finite = [size for of in sizes for size in of if math.isfinite(size)]
    ends = [eps if math.isfinite(eps) else max(finite) for eps in reach]
    if not all(end > 0 for end in ends):
        return None
    curves, marks = [], []
    for side, of, end in zip(sides, sizes, ends, strict=True):
        grid = sorted({0.0, end, *(max(ends) * k / POINTS for k in range(POINTS) if max(ends) * k / POINTS < end)})
        ys = [clopper_pearson(sum(size > x for size in of), len(of)) for x in grid]
        curves.append(Curve(label=side.name, x=grid, y=ys, family=side.name))
        marks.append(Mark(label=f"eps {text.show(end)}", x=end, y=ys[-1], family=side.name))
    return Panel(
        id="distance",
        title="Accuracy against the size of the change",
        x_label=f"size of the change ({norms[0]})",
        curves=curves,
        marks=marks,
        caption="The share of the common examples that no change of at most this size, of those found, has fooled. An "
        "attack that stops at the first success within eps looks for no smaller one: its curve falls late.",
    )


def _threat(side: Side) -> tuple[str | None, float]:
    try:
        call = text.parse(side.settings.get("threat", ""))
        return call.name, float(call.values[0] if call.values else call.options["eps"])
    except (ParameterError, KeyError, TypeError, ValueError):
        return None, math.nan


def _size(example: Example) -> float:
    if not _right(example):
        return 0.0
    if example.fooled_by is None or example.distance is None:
        return math.inf if example.fooled_by is None else 0.0
    return example.distance


# --- shown ---------------------------------------------------------------------------------------


def tables(found: Comparison) -> list[Table]:
    """The comparison as rows of text: the numbers, what became of the pairs, and the examples that differ."""
    rows = [
        [name, percent(ours, interval=True), percent(theirs, interval=True), _points(pair), f"{pair.p_value:.3g}"]
        for name, ours, theirs, pair in (
            ("clean accuracy", found.a.clean, found.b.clean, found.clean),
            ("accuracy under attack", found.a.attacked, found.b.attacked, found.attacked),
        )
    ]
    a, b = found.a.name, found.b.name
    numbers = Table(
        id="accuracy", title=f"{a} and {b}, on {found.n} examples", columns=["measure", a, b, f"{a} − {b}", "p"],
        rows=rows, strong=[1], caption="The difference is paired, with its 95 % interval; p is McNemar's, exact.",
    )  # fmt: skip
    shown = [
        [f"only {side} holds", str(len(of)), ", ".join(map(str, of[:SHOWN])) + (" …" if len(of) > SHOWN else "")]
        for side, of in ((a, found.only_a), (b, found.only_b))
    ]
    outcomes = [["both hold", str(found.both), ""], *shown, ["neither holds", str(found.neither), ""]]
    columns = ["under attack", "examples", "which"]
    return [numbers, Table(id="outcomes", title="Pair by pair", columns=columns, rows=outcomes)]


def sentence(found: Comparison) -> str:
    """What came out, in one sentence."""
    pair, a, b = found.attacked, found.a.name, found.b.name
    if pair.low <= 0 <= pair.high:
        return (
            f"Under attack no difference between {a} and {b} is shown: {_points(pair)} points, p = {pair.p_value:.3g}."
        )
    better, worse = (a, b) if pair.difference > 0 else (b, a)
    return f"Under attack {better} holds on more examples than {worse}: {_points(pair)} points, p = {pair.p_value:.3g}."


def _points(pair: Paired) -> str:
    low, middle, high = (f"{100 * value:+.1f}" for value in (pair.low, pair.difference, pair.high))
    return f"{middle} [{low}, {high}]"


def draw(found: Comparison, folder: str | Path) -> list[Path]:
    """Write `comparison.json` and the plots, each as PNG and SVG; return the paths of the plots."""
    run = RunFolder(folder)
    run.write_text("comparison.json", found.to_json())
    written = []
    with encode.settings():
        figures = {"outcomes": _outcomes(found)}
        if found.panel is not None:
            figures = {found.panel.id: plots.panel(found.panel)} | figures
        for name, figure in figures.items():
            run.write_bytes(f"{name}.png", encode.png(figure, margin=12))
            run.write_text(f"{name}.svg", encode.svg(figure, margin=12))
            written += [run.path / f"{name}.png", run.path / f"{name}.svg"]
    return written


def _outcomes(found: Comparison) -> Figure:
    """What became of each pair under attack: a square in four, each as dark as its share is large."""
    cell, left, head = (130.0, 64.0), 118.0, 66.0
    wide, high = left + 2 * cell[0] + 8, head + 2 * cell[1]
    figure = Figure(figsize=(wide / 72, high / 72), dpi=72, facecolor=style.PAPER.light)
    FigureCanvasAgg(figure)
    a, b = (style.MODELS[0], found.a.name), (style.MODELS[1], found.b.name)
    cells: list[list[tuple[Any, int]]] = [
        [(style.GREY, found.both), (a[0], len(found.only_a))],
        [(b[0], len(found.only_b)), (style.GREY, found.neither)],
    ]
    annotate.text(figure, 0, high - 14, "Pair by pair, under attack", 12, style.INK, weight="bold")
    for at, words in enumerate(("holds", "does not")):
        across, down = left + at * cell[0], high - head - at * cell[1]
        for n, line in enumerate(letters.wrap(f"{b[1]} {words}", cell[0] - 6, annotate.SIZE)[-2:]):
            annotate.text(figure, across + 2, high - 36 - n * 11, line, annotate.SIZE, b[0])
        for n, line in enumerate(letters.wrap(f"{a[1]} {words}", left - 12, annotate.SIZE)[:4]):
            annotate.text(figure, 0, down - 18 - n * 11, line, annotate.SIZE, a[0])
    for row, of in enumerate(cells):
        for column, (colour, count) in enumerate(of):
            x, y = left + column * cell[0], high - head - (row + 1) * cell[1]
            place = ((x + 1) / wide, (y + 1) / high)
            box = Rectangle(place, (cell[0] - 2) / wide, (cell[1] - 2) / high, transform=figure.transFigure)
            box.set(facecolor=colour.light, alpha=0.08 + 0.3 * count / found.n, linewidth=0)
            figure.add_artist(box)
            annotate.text(figure, x + 10, y + cell[1] - 32, str(count), 18, style.INK, weight="bold")
            annotate.text(figure, x + 10, y + 12, f"{100 * count / found.n:.1f} %", annotate.SIZE, style.SOFT)
    return figure
