"""The protocols beside AutoAttack: robust accuracy, seconds, and which images only one side fools. One command.

    OMP_PROC_BIND=true .venv/bin/python -m benchmarks.autoattack [--images 1000] [--models NAMES] [--arms NAMES]
    .venv/bin/python -m benchmarks.autoattack --report

pyautoattack is the official code, repackaged; it runs its `standard`. Images go in chunks of 100 (--chunk), and within a
chunk the arms run one after the other, beginning with another one each time, so that their seconds can be compared
although the machine's pace changes. Each (model, norm, chunk, arm) is a line in --file as soon as it is done, and is not
run again: a run that was killed goes on where it was. What came back is judged by us (`common.judge`).

--report makes the table of what the file has, and writes it to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import unfooled as uf
from unfooled.attacks import ATTACKS, Plan, parse
from unfooled.threats import Threat

from . import common, libraries
from .common import Subject

PEER = "pyautoattack"
ARMS = (PEER, "standard", "fast")


@dataclass(frozen=True)
class Line:
    """One arm on one chunk of one model's images."""

    model: str
    norm: str
    eps: float
    arm: str
    first: int  # the chunk's first image
    correct: tuple[bool, ...]
    fooled: tuple[bool, ...]
    seconds: float
    forward: int
    backward: int
    parts: dict[str, float]  # seconds of AutoAttack's parts
    machine: str

    @property
    def place(self) -> tuple[str, str, int, int, str]:
        return self.model, self.norm, self.first, len(self.correct), self.arm


def run(at: Subject, norm: str, arm: str, batch: int, seed: int) -> tuple[Tensor, dict[str, float]]:
    """Adversarial images of one arm."""
    threat = at.threat(norm)
    if arm == PEER:
        return libraries.timed_autoattack(at.model, at.images, at.labels, norm, threat.eps, batch, seed)
    found = uf.attack(at.model, at.images, at.labels, threat, plan_of(arm, threat), seed=seed)
    return found.adversarial, {part.attack: part.seconds for part in found.parts}


def plan_of(arm: str, threat: Threat) -> Plan:
    """A protocol by its name, or a plan by its text."""
    if ":" in arm or "(" in arm or arm in ATTACKS:
        return parse(arm)
    from unfooled import protocols

    return protocols.named(arm, threat)


def measure(at: Subject, norm: str, arm: str, first: int, seed: int) -> Line:
    """One arm on one chunk, `at`, in one batch."""
    with common.counted(at.model) as passes:
        start = time.perf_counter()
        z, parts = run(at, norm, arm, len(at.images), seed)
        seconds = time.perf_counter() - start
    verdict = common.judge(at.model, at.images, at.labels, z, norm, at.eps(norm))
    return Line(
        model=at.name, norm=norm, eps=at.eps(norm), arm=arm, first=first, correct=tuple(verdict.correct.tolist()),
        fooled=tuple(verdict.fooled.tolist()), seconds=seconds, forward=passes.forward, backward=passes.backward,
        parts=parts, machine=common.machine(),
    )  # fmt: skip


def read(file: Path) -> list[Line]:
    """What the file has; a last line that was cut off is not there."""
    if not file.exists():
        return []
    lines = []
    for text in filter(None, file.read_text().splitlines()):
        try:
            lines.append(Line(**json.loads(text)))
        except json.JSONDecodeError:
            print(f"{file}: a line is cut off and is run again")
    return lines


# --- report ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Total:
    """One arm on all chunks of a model that every arm has done."""

    correct: Tensor
    fooled: Tensor
    seconds: float
    forward: float
    backward: float
    parts: dict[str, float]

    @property
    def robust_accuracy(self) -> float:
        return float((self.correct & ~self.fooled).double().mean())


def total(lines: Sequence[Line]) -> Total:
    parts: dict[str, float] = {}
    for line in lines:
        for name, seconds in line.parts.items():
            parts[name] = parts.get(name, 0.0) + seconds
    lines = sorted(lines, key=lambda line: line.first)
    count = sum(len(line.correct) for line in lines)
    return Total(
        torch.tensor([v for line in lines for v in line.correct]), torch.tensor([v for line in lines for v in line.fooled]),
        sum(line.seconds for line in lines), sum(line.forward for line in lines) / count,
        sum(line.backward for line in lines) / count, parts,
    )  # fmt: skip


HEAD = (
    "model", "threat", "arm", "images", "clean", "robust accuracy", "seconds", "ratio", "forward", "backward",
    "only it fools", "only pyautoattack fools",
)  # fmt: skip


def report(lines: Sequence[Line]) -> str:
    """The table, and what AutoAttack's parts took."""
    rows, parts = [], []
    for model, norm, eps in dict.fromkeys((n.model, n.norm, n.eps) for n in lines):
        group = [n for n in lines if (n.model, n.norm, n.eps) == (model, norm, eps)]
        arms = sorted({n.arm for n in group}, key=lambda arm: (arm != PEER, arm))
        chunks = [{(n.first, len(n.correct)) for n in group if n.arm == arm} for arm in arms]
        common_to_all = set.intersection(*chunks)
        if not common_to_all:
            continue
        totals = {
            arm: total([n for n in group if n.arm == arm and (n.first, len(n.correct)) in common_to_all])
            for arm in arms
        }
        peer = totals.get(PEER)
        for arm, t in totals.items():
            versus = ["", "", ""] if peer is None or arm == PEER else [
                f"{t.seconds / peer.seconds:.3f}",
                str(int((t.fooled & ~peer.fooled).sum())), str(int((peer.fooled & ~t.fooled).sum())),
            ]  # fmt: skip
            rows.append([
                model, f"{norm} {eps:g}", arm, str(len(t.correct)), f"{float(t.correct.double().mean()):.4f}",
                f"{t.robust_accuracy:.4f}", f"{t.seconds:.1f}", versus[0], f"{t.forward:.0f}", f"{t.backward:.0f}",
                *versus[1:],
            ])  # fmt: skip
        for arm, t in totals.items():
            shares = ", ".join(f"{name} {seconds:.0f}" for name, seconds in t.parts.items() if seconds >= 0.5)
            parts.append(f"- {model}, {norm}, {arm}: {shares or 'less than 0.5 each'}")
    text = common.table(HEAD, rows, left=3)
    return "\n".join([text, "", "Seconds of the parts that took half a second or more:", "", *parts])


ABOUT = """## The protocols beside AutoAttack

`python -m benchmarks.autoattack`, then `--report`. pyautoattack is the official AutoAttack, repackaged, with its
`standard`. "ratio" is an arm's seconds over pyautoattack's on the same images, run in turns in chunks of at most {chunk}
images in one process; passes are per image, those that the model gets wrong included. The last columns count the
images that one side fools and the other does not. {machine}.
"""


def parsed() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--models", nargs="+", default=common.MODELS, metavar="NAME", help=common.NAMING)
    options.add_argument("--norms", nargs="+", default=("linf",), choices=("linf", "l2", "l1"))
    options.add_argument(
        "--arms", nargs="+", default=ARMS, metavar="NAME", help=f"{PEER}, a protocol, or a plan's text"
    )
    options.add_argument("--chunk", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--file", type=Path, default=common.RUNS / "autoattack.jsonl")
    options.add_argument("--report", action="store_true", help="only make the table, and write it to the docs")
    options.add_argument("--dry", action="store_true", help="write no docs")
    return options.parse_args()


def main() -> None:
    chosen = parsed()
    lines = read(chosen.file)
    if not chosen.report:
        lines += extend(chosen, {line.place for line in lines})
    if not lines:
        print(f"{chosen.file} has no results yet.")
        return
    print(f"\n{report(lines)}")
    if chosen.report and not chosen.dry:
        machines = "; ".join(dict.fromkeys(line.machine for line in lines))
        about = ABOUT.format(chunk=max(len(line.correct) for line in lines), machine=machines)
        common.write_section("autoattack", f"{about}\n{report(lines)}")


def extend(chosen: argparse.Namespace, done: set[tuple[str, str, int, int, str]]) -> list[Line]:
    """Run what is not done yet; each line is in the file before the next begins."""
    if PEER in chosen.arms:
        libraries.check(PEER)
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    if chosen.file.exists() and not chosen.file.read_text().endswith("\n"):
        with chosen.file.open("a") as kept:
            kept.write("\n")  # after a line that was cut off
    found = []
    for at in common.subjects(chosen.models, chosen.images):
        common.judge(at.model, at.images, at.labels, at.images, "linf")  # the model's first passes are slow
        for norm in chosen.norms:
            for first in range(0, len(at.images), chosen.chunk):
                part = at.rows(first, first + chosen.chunk)
                turn = first // chosen.chunk % len(chosen.arms)
                for arm in (*chosen.arms[turn:], *chosen.arms[:turn]):
                    if (at.name, norm, first, len(part.images), arm) in done:
                        continue
                    line = measure(part, norm, arm, first, chosen.seed)
                    with chosen.file.open("a") as kept:
                        kept.write(json.dumps(asdict(line)) + "\n")
                    found.append(line)
                    robust = sum(line.correct) - sum(line.fooled)
                    print(f"{at.name}  {norm}  {first}  {arm}: {robust} robust, {line.seconds:.1f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
