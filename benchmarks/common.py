"""What the benchmarks and the reference tests share: subjects, an own judge, counted passes, tables in the docs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import unfooled as uf
from unfooled.environment import environment
from unfooled.threats import THREATS, Threat

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
RUNS = ROOT / "runs" / "benchmarks"

TOLERANCE = 1e-5  # relative to eps and to the box's width: what a peer's arithmetic may be off by
STILL = 1e-6  # for L0, a component that moves less than this has not changed: rounding of x + (z - x)

EPS = {
    "fashion-mnist": {"linf": 0.1, "l2": 1.5, "l1": 12.0, "l0": 20.0},
    "mnist": {"linf": 0.3, "l2": 2.0, "l1": 15.0, "l0": 20.0},
}
TRAINED = {  # models that do not ship: the file, and the command that makes it
    "mnist/plain": ("runs/models/mnist-plain.safetensors", "unfooled train mnist --recipe seed --out {}"),
    "mnist/hardened": (
        "runs/models/mnist-hardened.safetensors",
        "unfooled train mnist --recipe pgd --threat linf:0.3 --epochs 6 --out {}",
    ),
}
MODELS = ("fashion-mnist/plain", "fashion-mnist/hardened", *TRAINED)
NAMING = f"{', '.join(MODELS)}, or MODEL@DATA, as in file.py:factory@fashion-mnist"


class Absent(Exception):
    """A model or its data is not here; says what to do about it."""


@dataclass(frozen=True)
class Subject:
    """A model with test images of its data set."""

    name: str
    data: str
    model: nn.Module
    images: Tensor
    labels: Tensor

    def eps(self, norm: str) -> float:
        return EPS[self.data][norm]

    def threat(self, norm: str) -> Threat:
        return THREATS[norm](self.eps(norm))

    def rows(self, first: int, end: int) -> Subject:
        return replace(self, images=self.images[first:end], labels=self.labels[first:end])


def subject(name: str, images: int) -> Subject:
    """A model with the first test images of its data set; raises `Absent`.

    name:  one of `MODELS`, or "MODEL@DATA": whatever `unfooled.models.load` takes, as in "file.py:factory@fashion-mnist".
    """
    spec, _, data = name.partition("@")
    data = data or name.partition("/")[0]
    if data not in EPS:
        raise Absent(f"{name}: no radii are set for {data!r}, only for {', '.join(EPS)}")
    if name in TRAINED:
        file, command = TRAINED[name]
        if not (ROOT / file).is_file():
            raise Absent(f"{name} is not here; make it with: {command.format(file)}")
        model = uf.models.load("seed-cnn", ROOT / file)
    else:
        model = uf.models.load(spec)
    try:
        found = uf.data.load(f"{data}:test[0:{images}]", download=False)
    except uf.errors.MissingData as error:
        if data != "fashion-mnist" or images > 1000:
            raise Absent(f"{name}: {error}") from error
        found = uf.data.load(f"fashion-mnist-sample[0:{images}]")  # the same images
    return Subject(name, data, model, found.floats(), found.labels)


def subjects(names: Sequence[str], images: int) -> Iterator[Subject]:
    """Those of the models that are here; says what to do about the others."""
    for name in names:
        try:
            yield subject(name, images)
        except Absent as reason:
            print(f"skipped: {reason}")


# --- judged and counted by us ------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """One row per image: right on the image; fooled inside the set; distance (0 where wrong anyway, inf where not fooled)."""

    correct: Tensor
    fooled: Tensor
    distance: Tensor

    @property
    def robust(self) -> Tensor:
        return self.correct & ~self.fooled

    @property
    def robust_accuracy(self) -> float:
        return float(self.robust.double().mean())


def size(norm: str, delta: Tensor) -> Tensor:
    """The size of each row's change in float64, by plain formulas."""
    d = delta.double().flatten(1).abs()
    if norm == "linf":
        return d.amax(1)
    if norm == "l2":
        return d.square().sum(1).sqrt()
    return d.sum(1) if norm == "l1" else (d > STILL).sum(1).double()


def in_box(z: Tensor) -> Tensor:
    """Which rows are finite and inside [0, 1], up to the tolerance."""
    flat = z.flatten(1)
    return (torch.isfinite(flat) & (flat >= -TOLERANCE) & (flat <= 1 + TOLERANCE)).all(1)


def judge(model: nn.Module, x: Tensor, y: Tensor, z: Tensor, norm: str, eps: float | None = None) -> Verdict:
    """What the points z are worth, whatever their maker says of them: every number is computed anew.

    eps:  a point farther away is no success; None: any distance is (minimum-norm attacks).
    """
    if z.shape != x.shape:
        raise ValueError(f"An attack returned points of shape {tuple(z.shape)} for images of shape {tuple(x.shape)}.")
    z = z.to(x.dtype)
    with torch.no_grad():
        correct = torch.cat([model(part).argmax(1) for part in x.split(500)]) == y
        wrong = torch.cat([model(part).argmax(1) for part in z.split(500)]) != y
    distance = size(norm, z.double() - x.double())
    inside = in_box(z) & (distance <= (torch.inf if eps is None else eps * (1 + TOLERANCE)))
    fooled = correct & wrong & inside
    return Verdict(correct, fooled, torch.where(correct, torch.where(fooled, distance, torch.inf), 0.0))


@dataclass
class Passes:
    """Rows that went forward through a model, and rows that a gradient arrived for."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    """Count passes by hooks on the model: the images of each call, and the gradients that reach them."""
    passes = Passes()

    def forward(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z, *rest = given
        passes.forward += len(z)
        if not (torch.is_grad_enabled() and z.requires_grad):
            return given
        z = z.view_as(z)  # an own node of the graph: its hook runs once for each backward pass

        def backward(gradient: Tensor) -> None:
            passes.backward += len(gradient)

        z.register_hook(backward)
        return (z, *rest)

    hook = model.register_forward_pre_hook(forward)
    try:
        yield passes
    finally:
        hook.remove()


# --- in the docs -------------------------------------------------------------------------------------


def machine() -> str:
    """The machine and the settings that timings depend on, in words."""
    here = environment()
    bound = "bound" if os.environ.get("OMP_PROC_BIND") else "not bound"
    return f"{here.machine}, {here.threads} threads ({bound}), torch {here.torch}, Python {here.python}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are text, the others numbers."""
    marks = ["---" if at < left else "---:" for at in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *rows))


def write_section(name: str, text: str, docs: Path = DOCS) -> None:
    """Put the text between the section's markers in the docs; they are added at the end where they are not there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = docs.read_text(encoding="utf-8")
    if begin not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{end}\n"
    whole = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    docs.write_text(whole.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", page), encoding="utf-8")
