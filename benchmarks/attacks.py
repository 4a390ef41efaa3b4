"""Every attack beside its peers and the bare loop, in one process. One command, one table.

    OMP_PROC_BIND=true .venv/bin/python -m benchmarks.attacks [--images 64] [--models NAMES] [--attacks NAMES] [--quick]

Same images, same threads, same steps. For each model and attack the arms run in turns, and the median of the repeats is
given. Peers and the bare loop get the batch size that was fastest in a short warm-up; ours chooses its own. Passes are
counted by hooks. What came back is judged by us, not by its maker (`common.judge`). Peak memory is taken in an own
process for each arm: the high-water mark of resident memory during the run above what was resident before it, when
imports, model and data were there and the model had run once. All subjects are the same network, so it is taken on one.

Writes the sections of docs/benchmarks.md between its markers and docs/images/attacks.svg, unless --quick or --dry.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import common, libraries, ours, peers
from .common import Subject

STEPS = {  # of one trial; the published defaults but for Square and HopSkipJump, which would take hours
    "fgsm": 1, "bim": 10, "pgd": 40, "mi-fgsm": 10, "apgd-ce": 100, "apgd-dlr": 100, "apgd-t": 100, "fab": 100,
    "fab-t": 100, "square": 1000, "deepfool": 50, "superdeepfool": 100, "cw": 900, "ddn": 100, "fmn": 100,
    "sigma-zero": 1000, "pdpgd": 500, "hopskipjump": 1000, "autoattack": 1,
}  # fmt: skip
ATTACKS = tuple(attack for attack in peers.PEERS if not attack.startswith("autoattack"))  # that one: `autoattack.py`
WHOLE = ("bim", "pgd", "mi-fgsm", "apgd-ce", "apgd-dlr")  # also run without early stop: no peer stops early
BARE = ("fgsm-linf", "bim-linf", "pgd-linf", "pgd-l2", "mi-fgsm-linf")
TOO_SLOW = {
    ("cw-l2", "art"): "an hour for what takes the others a minute: in each step it takes the gradient of every class"
}
BATCHES = (32, 64, 128, 256, 512)
OURS, ALL_STEPS, LOOP = "unfooled", "unfooled, all steps", "bare loop"

Run = Callable[[nn.Module, Tensor, Tensor, float | None, int, int | None, int], Tensor]


@dataclass(frozen=True)
class Row:
    """One arm on one subject."""

    model: str
    attack: str
    arm: str
    steps: int
    images: int
    batch: int | None
    seconds: tuple[float, ...]
    forward: float  # passes per image
    backward: float
    robust_accuracy: float  # of a minimum-norm attack: the images for which it found nothing at all
    distance: float | None  # minimum norm: the mean over the images that every arm fooled
    peak: float | None  # MiB

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


# --- the bare loop -----------------------------------------------------------------------------------


def bare(attack: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, batch: int, seed: int) -> Tensor:
    """An attack as one would write it: `loss.backward()`, parameters' gradients and all."""
    torch.manual_seed(seed)
    return torch.cat(
        [_bare(attack, model, a, b, eps, steps) for a, b in zip(x.split(batch), y.split(batch), strict=True)]
    )


def _bare(attack: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    name, norm = peers.family(attack), peers.norm_of(attack)
    length = eps * {"fgsm": 1.0, "bim": peers.PGD_STEP, "pgd": peers.PGD_STEP, "mi-fgsm": 1 / steps}[name]
    z, momentum = x.clone(), torch.zeros_like(x)
    if name == "pgd":
        z = _inside(x + eps * (2 * torch.rand_like(x) - 1), x, eps, norm)
    for _ in range(steps):
        z = z.detach().requires_grad_(True)
        F.cross_entropy(model(z), y).backward()
        g = z.grad
        if name == "mi-fgsm":
            g = momentum = momentum + g / g.abs().sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
        if norm == "linf":
            step = g.sign()
        else:
            step = g / g.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        z = _inside(z.detach() + length * step, x, eps, norm)
    model.zero_grad()
    return z


def _inside(z: Tensor, x: Tensor, eps: float, norm: str) -> Tensor:
    if norm == "linf":
        return torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    d = z - x
    length = d.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return (x + d * (eps / length).clamp(max=1)).clamp(0, 1)


# --- arms --------------------------------------------------------------------------------------------


def arms_of(attack: str) -> dict[str, Run]:
    """The arms that can run here; says which cannot."""
    arms: dict[str, Run] = {}
    if ours.registered(attack):
        arms[OURS] = partial(ours.run, attack)
        if peers.family(attack) in WHOLE:
            arms[ALL_STEPS] = partial(ours.run, attack, early_stop=False)
    else:
        print(f"skipped: this package has no {attack} yet")
    if attack in BARE:
        arms[LOOP] = partial(bare, attack)
    for name, peer in peers.PEERS[attack].items():
        if (attack, name) in TOO_SLOW:
            print(f"skipped: {name}'s {attack}: {TOO_SLOW[attack, name]}")
            continue
        try:
            libraries.check(name)
        except libraries.Missing as reason:
            print(f"skipped: {reason}")
        else:
            arms[name] = peer
    return arms


def warm_up(name: str, run: Run, at: Subject, attack: str, eps: float | None, steps: int) -> int | None:
    """A few steps, and the batch size that was fastest; None for ours, which chooses its own."""
    few = min(steps, 100 if peers.family(attack) in ("square", "hopskipjump") else 20 if "cw" in attack else 5)
    if name in (OURS, ALL_STEPS):
        timed(run, at, eps, few, None)
        return None
    sizes = [size for size in BATCHES if size < len(at.images)] + [len(at.images)]

    def seconds(batch: int) -> float:
        return min(timed(run, at, eps, few, batch)[1] for _ in range(2))

    return min(sizes[-3:], key=seconds)


def timed(run: Run, at: Subject, eps: float | None, steps: int, batch: int | None) -> tuple[Tensor, float]:
    start = time.perf_counter()
    z = run(at.model, at.images, at.labels, eps, steps, batch, 0)
    return z, time.perf_counter() - start


def compare(at: Subject, attack: str, steps: int, repeats: int, memory: bool) -> list[Row]:
    """All arms of one attack on one subject, in turns."""
    norm = peers.norm_of(attack)
    eps = None if peers.minimal(attack) else at.eps(norm)
    arms = arms_of(attack)
    batches = {name: warm_up(name, run, at, attack, eps, steps) for name, run in arms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    passes, verdicts = {}, {}
    for turn in range(repeats):
        names = list(arms)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            with common.counted(at.model) as passes[name]:
                z, took = timed(arms[name], at, eps, steps, batches[name])
            seconds[name].append(took)
            verdicts[name] = common.judge(at.model, at.images, at.labels, z, norm, eps)
    by_all = torch.stack([v.fooled for v in verdicts.values()]).all(0) if verdicts else torch.zeros(0)
    return [
        Row(
            model=at.name, attack=attack, arm=name, steps=steps, images=len(at.images), batch=batches[name],
            seconds=tuple(seconds[name]),
            forward=passes[name].forward / len(at.images), backward=passes[name].backward / len(at.images),
            robust_accuracy=verdicts[name].robust_accuracy,
            distance=float(verdicts[name].distance[by_all].mean()) if eps is None and bool(by_all.any()) else None,
            peak=peak_of(at, attack, name, steps, batches[name]) if memory else None,
        )
        for name in arms
    ]  # fmt: skip


# --- memory, in a process of its own -----------------------------------------------------------------


def peak_of(at: Subject, attack: str, arm: str, steps: int, batch: int | None) -> float | None:
    """MiB of an arm above what its process held before; None where that cannot be told."""
    few = min(steps, 10 if not attack.startswith(("square", "hopskipjump", "cw")) else 200)  # no attack's memory grows
    given = json.dumps([at.name, len(at.images), attack, arm, few, batch])
    command = [sys.executable, "-m", "benchmarks.attacks", "--one", given]
    answer = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        print(f"peak memory of {attack}, {arm}: {answer.stderr.strip().splitlines()[-1:]}")
        return None
    return float(answer.stdout.split()[-1])


def resident(field: str) -> float:
    """MiB by the kernel's account: VmRSS now, VmHWM at most since the mark was reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in status if line.startswith(field)) / 1024


def peak_here(given: str) -> float:
    """The same, in this process."""
    name, images, attack, arm, steps, batch = json.loads(given)
    at = common.subject(name, images)
    run = arms_of(attack)[arm]
    eps = None if peers.minimal(attack) else at.eps(peers.norm_of(attack))
    z = at.images[:8].clone().requires_grad_(True)
    at.model(z).sum().backward()
    at.model.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = resident("VmRSS")
    run(at.model, at.images, at.labels, eps, steps, batch, 0)
    return resident("VmHWM") - before


# --- report ------------------------------------------------------------------------------------------


HEAD = (
    "attack",
    "arm",
    "batch",
    "seconds",
    "of ours",
    "forward",
    "backward",
    "peak MiB",
    "robust accuracy",
    "distance",
)


def cells(row: Row, rows: Sequence[Row]) -> list[str]:
    mine = next((r.median for r in rows if (r.model, r.attack, r.arm) == (row.model, row.attack, OURS)), None)
    return [
        f"{row.attack}, {row.steps}", row.arm, str(row.batch or "auto"), f"{row.median:.2f}",
        "" if mine is None else f"{row.median / mine:.2f}", f"{row.forward:.1f}", f"{row.backward:.1f}",
        "" if row.peak is None else f"{row.peak:.0f}", f"{row.robust_accuracy:.3f}",
        "" if row.distance is None else f"{row.distance:.4g}",
    ]  # fmt: skip


def report(rows: Sequence[Row]) -> str:
    """The tables, one for each model."""
    return "\n\n".join(
        f"### {name}\n\n{common.table(HEAD, [cells(r, rows) for r in rows if r.model == name], left=2)}"
        for name in dict.fromkeys(row.model for row in rows)
    )


ABOUT = """## Attacks beside their peers

`{command}`
on {machine}. The first {images} test images, {repeats} repeats, of which the median is given. The number after an attack
is its steps (queries for Square and HopSkipJump) per trial. Arms run in turns on the same images with the same threads;
peers and the bare loop have the batch size that was fastest in a warm-up. "of ours" is an arm's seconds over ours.
Passes are per image, counted by hooks on the model; images that a model gets wrong are in the mean. Success and distance
are computed anew from the points that came back: outside the box or the ball by more than {tolerance:g} of its size is no
success. For a minimum-norm attack robust accuracy is the share of images for which it found nothing at all, and
distance the mean over the images that all arms fooled. Peak memory is resident memory above what imports, model and data
take, in a process of its own.

![Seconds of each arm relative to ours](images/attacks.svg)
"""


def plot(rows: Sequence[Row], file: Path) -> None:
    """Each arm's seconds relative to ours, one panel for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "unfooled"
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    mine = {(r.model, r.attack): r.median for r in rows if r.arm == OURS}
    rows = [r for r in rows if (r.model, r.attack) in mine and r.arm != OURS]
    models, attacks, names = (
        list(dict.fromkeys(getattr(r, field) for r in rows)) for field in ("model", "attack", "arm")
    )
    figure, axes = plt.subplots(
        1, max(1, len(models)), figsize=(3 * len(models) + 1.2, 0.2 * len(attacks) + 1.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, model in zip(axes[0], models, strict=False):
        for at, name in enumerate(names):
            found = [r for r in rows if r.model == model and r.arm == name]
            ratios = [r.median / mine[r.model, r.attack] for r in found]
            places = [-attacks.index(r.attack) for r in found]
            marker = {ALL_STEPS: "|", LOOP: "x"}.get(name, "o")
            axis.scatter(ratios, places, label=name, color=f"C{at}", marker=marker, s=20)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", title=model, xlabel="seconds / ours")
        axis.set(yticks=[-at for at in range(len(attacks))], yticklabels=attacks)
        axis.xaxis.set_major_locator(LogLocator(base=2))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(linewidth=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside lower center", ncols=4)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


# --- command -----------------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--models", nargs="+", default=common.MODELS, metavar="NAME", help=common.NAMING)
    options.add_argument("--attacks", nargs="+", default=ATTACKS, choices=tuple(peers.PEERS), metavar="NAME")
    options.add_argument("--steps", type=int, help="for all attacks, instead of their own numbers")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--no-memory", action="store_true")
    options.add_argument("--quick", action="store_true", help="16 images, few steps, one repeat; writes nothing")
    options.add_argument("--dry", action="store_true", help="write no docs")
    options.add_argument("--file", type=Path, default=common.RUNS / "attacks.jsonl", help="where each row is kept")
    options.add_argument("--resume", action="store_true", help="keep what the file has already")
    options.add_argument("--one", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.quick:
        chosen.images, chosen.repeats, chosen.dry, chosen.no_memory = min(chosen.images, 16), 1, True, True
        chosen.steps = chosen.steps or 10
        chosen.file = chosen.file.with_name("attacks-quick.jsonl")
    return chosen


def main() -> None:
    chosen = parsed()
    if chosen.one:
        print(peak_here(chosen.one))
        return
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    if not chosen.resume:
        chosen.file.write_text("")
    rows = [Row(**json.loads(line)) for line in chosen.file.read_text().splitlines()]
    done = {(row.model, row.attack) for row in rows}
    measured = {row.attack for row in rows if row.peak is not None}
    for at in common.subjects(chosen.models, chosen.images):
        for attack in chosen.attacks:
            if (at.name, attack) in done:
                continue
            steps = 1 if attack.startswith("fgsm") else chosen.steps or STEPS[peers.family(attack)]
            found = compare(at, attack, steps, chosen.repeats, not chosen.no_memory and attack not in measured)
            measured.add(attack)
            rows += found
            with chosen.file.open("a") as kept:
                kept.writelines(json.dumps(asdict(row)) + "\n" for row in found)
            print(f"{at.name}: {attack}", *(f"{r.arm} {r.median:.2f} s" for r in found), sep="  ", flush=True)
    print(f"\n{common.machine()}\n\n{report(rows)}")
    if not chosen.dry:
        about = ABOUT.format(
            command="OMP_PROC_BIND=true .venv/bin/python -m benchmarks.attacks " + " ".join(sys.argv[1:]),
            machine=common.machine(), images=chosen.images, repeats=chosen.repeats, tolerance=common.TOLERANCE,
        )  # fmt: skip
        common.write_section("attacks", f"{about}\n{report(rows)}")
        plot(rows, common.IMAGES / "attacks.svg")


if __name__ == "__main__":
    main()
