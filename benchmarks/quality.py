"""Optimality of minimum-norm attacks at 2,000 passes per image, as AttackBench defines it. One command, one table.

    .venv/bin/python -m benchmarks.quality [--images 100] [--models NAMES] [--norms NAMES] [--passes 2000] [--quick]

Cinà et al. 2025, arXiv:2404.19460. Let a(d) be a model's accuracy against the points that an attack found within distance
d, and b(d) against the best point that any attack found for each image. Both fall from the clean accuracy c. On
d from 0 to D, the largest of the best distances,

    local optimality = 1 - (∫ a - ∫ b) / (c·D - ∫ b)

is 1 for an attack that found the best point for every image and 0 for one that found nothing. (∫ a is the mean of
min(distance, D), computed exactly; their code takes the trapezoids of the steps.) Global optimality is the mean over
the models. As there:

- every point that an attack asks the model about counts, clamped to [0, 1], not only what it returns;
- each forward and each backward pass of an image is one of its passes. When they are spent, the model answers the right
  class with no gradient. The images behind a batch's rows are found as the nearest ones (here in L2);
- a fixed-budget attack is run within a search for eps, with the passes shared out over 10 runs: 98 steps of APGD, or 20
  for each of the 5 likeliest classes (their settings, exp_configs/linf_1000_attacks.json). eps starts at 1/255 in Linf, 1
  in L2, 10 in L1, is doubled until an image is fooled, and then halved between. An attack that takes one eps at a time
  runs once for each value in the batch; adv-lib's take one for each image. Unlike there, an attack that ends its runs
  early goes on with what it has saved, to 20 runs at most.

Ours go through the same door and the same search as the peers'. "best" are the best distances of all that ran here.
Writes the section "quality" of docs/benchmarks.md and docs/images/quality-NORM.svg from the kept rows, unless --quick or
--dry; --resume goes on where a run has ended.
"""

from __future__ import annotations

import argparse
import json
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

RUNS, MOST_RUNS = 10, 20  # of the search
START = {"linf": 1 / 255, "l2": 1.0, "l1": 10.0}
MOST = {"linf": 1.0, "l2": torch.inf, "l1": torch.inf}
FIXED = ("apgd-ce", "apgd-dlr", "apgd-t5")  # run within the search
ATTACKS = {
    "linf": ("apgd-t5", "apgd-ce", "apgd-dlr", "fmn", "fab", "pdpgd", "deepfool"),
    "l2": ("ddn", "apgd-t5", "apgd-ce", "fmn", "fab", "superdeepfool", "deepfool", "cw", "pdgd", "pdpgd", "alma"),
    "l1": ("pdpgd", "apgd-ce", "apgd-t5", "fmn", "fab", "alma"),
    "l0": ("sigma-zero", "fmn"),
}
LIBRARIES = ("foolbox", "adv-lib", "pyautoattack")  # the others have the same attacks, later or slower
OURS = "unfooled"


class Spent(BaseException):
    """All images have spent their passes. Not an Exception, so that nobody on the way takes it for the model's failure."""


class Watched(nn.Module):
    """A model that counts each image's passes, keeps its smallest adversarial distance, and stops answering in time."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, norm: str, passes: int) -> None:
        super().__init__()
        self.model, self.x, self.y, self.norm, self.passes = model, x, y, norm, passes
        with torch.no_grad():
            logits = model(x)
        self.correct = logits.argmax(1) == y
        self.best = torch.where(self.correct, torch.inf, 0.0).double()
        self.forwards, self.backwards = (torch.zeros(len(x), dtype=torch.int64) for _ in range(2))
        self.silent = F.one_hot(y, logits.shape[1]) * float(logits.shape[1])

    @property
    def left(self) -> Tensor:
        return self.passes - self.forwards - self.backwards

    def forward(self, z: Tensor) -> Tensor:
        if not bool((self.left[self.correct] > 0).any()):
            raise Spent
        z = z.to(self.x.dtype).clamp(0, 1)
        row = torch.cdist(z.detach().flatten(1), self.x.flatten(1)).argmin(1)
        open_ = (_rank(row) < self.left[row]).nonzero().squeeze(1)
        self.forwards.index_add_(0, row[open_], torch.ones_like(open_))
        logits = self.silent[row] + 0 * z.flatten(1).sum(1, keepdim=True)
        if len(open_):
            some = z[open_]
            if some.requires_grad:
                some.register_hook(partial(self._backward, row[open_]))
            logits = logits.index_copy(0, open_, self.model(some))
            self._keep(some.detach(), row[open_], logits[open_].detach())
        return logits

    def _backward(self, row: Tensor, gradient: Tensor) -> Tensor:
        allowed = _rank(row) < self.left[row]
        self.backwards.index_add_(0, row, allowed.long())
        return torch.where(allowed.view(-1, *(1,) * (gradient.dim() - 1)), gradient, 0.0)

    def _keep(self, z: Tensor, row: Tensor, logits: Tensor) -> None:
        fooled = logits.argmax(1) != self.y[row]
        distance = torch.where(fooled, common.size(self.norm, z.double() - self.x[row].double()), torch.inf)
        self.best.scatter_reduce_(0, row, distance, "amin")


def _rank(row: Tensor) -> Tensor:
    """How many rows before have the same image."""
    return (row[:, None] == row[None, :]).tril(-1).sum(1)


# --- arms --------------------------------------------------------------------------------------------

Run = Callable[[nn.Module, Tensor, Tensor], object]
At = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # with an eps for each image


def search(norm: str, attack: At, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """AttackBench's search for the smallest eps at which a fixed-budget attack succeeds, image by image."""
    low = x.new_zeros(len(x))
    best = torch.full_like(low, 2 * MOST[norm])
    found = torch.zeros_like(low, dtype=torch.bool)
    eps = torch.full_like(low, START[norm])
    for _ in range(MOST_RUNS):
        z = attack(model, x, y, eps)
        with torch.no_grad():
            fooled = (model(z).argmax(1) != y) & (eps < best)
        found |= fooled
        low, best = torch.where(fooled, low, eps), torch.where(fooled, eps, best)
        eps = torch.where(found | (2 * low >= best), (low + best) / 2, 2 * low)


def one_by_one(attack: Callable[[nn.Module, Tensor, Tensor, float], Tensor]) -> At:
    """An attack that takes one eps, run for each value of a batch."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        z = x.clone()
        for value in eps.unique():
            those = eps == value
            z[those] = attack(model, x[those], y[those], float(value))
        return z

    return run


def steps_of(name: str, passes: int) -> int:
    """The steps that the passes allow. Attacks without a schedule that take more a step are cut off in time."""
    if name not in FIXED:
        return passes // 2
    return max(1, passes // RUNS // 10 if name == "apgd-t5" else passes // RUNS // 2 - 2)


def arms_of(attack: str, passes: int, seed: int = 0) -> dict[str, Run]:
    """The arms of one attack that can run here."""
    name, norm = peers.family(attack), peers.norm_of(attack)
    steps = steps_of(name, passes)
    arms: dict[str, Run] = {}
    if ours.registered(attack):
        if name in FIXED:
            mine = one_by_one(lambda m, x, y, e: ours.run(attack, m, x, y, e, steps, len(x), seed))
            arms[OURS] = partial(search, norm, mine)
        else:
            arms[OURS] = lambda m, x, y: ours.run(attack, m, x, y, None, steps, len(x), seed)
    for library, peer in {**peers.PEERS, **peers.EXTRA}[attack].items():
        if library not in LIBRARIES:
            continue
        try:
            libraries.check(library)
        except libraries.Missing as reason:
            print(f"skipped: {reason}")
            continue
        if name not in FIXED:
            arms[library] = lambda m, x, y, p=peer: p(m, x, y, None, steps, len(x), seed)
        elif library == "adv-lib":
            arms[library] = partial(search, norm, lambda m, x, y, e, p=peer: p(m, x, y, e, steps, len(x), seed))
        else:
            theirs = one_by_one(lambda m, x, y, e, p=peer: p(m, x, y, e, steps, len(x), seed))
            arms[library] = partial(search, norm, theirs)
    return arms


@dataclass(frozen=True)
class Row:
    """One arm on one model: the smallest distance found for each image within the passes."""

    model: str
    norm: str
    attack: str
    arm: str
    distances: tuple[float, ...]  # 0: wrong anyway; inf: none found
    forward: float
    backward: float
    seconds: float
    failed: str = ""  # the error that ended it: what it had found until then counts


def measure(at: Subject, attack: str, arm: str, run: Run, passes: int) -> Row:
    """One arm, watched."""
    norm = peers.norm_of(attack)
    model = Watched(at.model, at.images, at.labels, norm, passes).eval()
    start, failed = time.perf_counter(), ""
    try:
        run(model, at.images, at.labels)
    except Spent:
        pass
    except Exception as error:
        if arm == OURS:
            raise
        failed = f"{type(error).__name__}: {error}"
    return Row(
        model=at.name, norm=norm, attack=peers.family(attack), arm=arm, distances=tuple(model.best.tolist()),
        forward=float(model.forwards.double().mean()), backward=float(model.backwards.double().mean()),
        seconds=time.perf_counter() - start, failed=failed,
    )  # fmt: skip


def optimality(distances: Tensor, best: Tensor) -> float:
    """Local optimality of one attack's distances against the best ones; see above."""
    finite = best[best.isfinite()]
    most = float(finite.max()) if len(finite) else 0.0
    none = float((best > 0).double().mean()) * most
    least, area = (float(d.clamp(max=most).mean()) for d in (best, distances))
    return 1 - (area - least) / (none - least) if none > least else 1.0


# --- report ------------------------------------------------------------------------------------------


def local(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], float]:
    """Local optimality of each (model, norm, attack, arm)."""
    found = {}
    for model, norm in dict.fromkeys((r.model, r.norm) for r in rows):
        group = [r for r in rows if (r.model, r.norm) == (model, norm)]
        tensors = [torch.tensor(r.distances, dtype=torch.float64) for r in group]
        best = torch.stack(tensors).amin(0)
        for row, distances in zip(group, tensors, strict=True):
            found[model, norm, row.attack, row.arm] = optimality(distances, best)
    return found


def report(rows: Sequence[Row]) -> str:
    """One table for each norm: local optimality on each model and its mean, best first; then who is best."""
    values, parts = local(rows), []
    for norm in dict.fromkeys(r.norm for r in rows):
        models = list(dict.fromkeys(r.model for r in rows if r.norm == norm))
        arms = list(dict.fromkeys((r.attack, r.arm) for r in rows if r.norm == norm))
        lines = []
        for attack, arm in arms:
            mine = [values.get((model, norm, attack, arm)) for model in models]
            here = [r for r in rows if (r.norm, r.attack, r.arm) == (norm, attack, arm)]
            mean = sum(v for v in mine if v is not None) / max(1, sum(v is not None for v in mine))
            missed = sum(sum(d == float("inf") for d in r.distances) for r in here)
            costs = [sum(getattr(r, field) for r in here) / len(here) for field in ("forward", "backward")]
            cells = ["" if v is None else f"{v:.4f}" for v in mine]
            lines.append(
                (mean, [attack, arm, *cells, f"{mean:.4f}", str(missed), *(f"{c:.0f}" for c in costs)])
            )  # fmt: skip
        lines.sort(key=lambda line: -line[0])
        head = ("attack", "arm", *models, "global", "missed", "forward", "backward")
        best = {
            side: next((f"{v:.4f} ({c[0]})" for v, c in lines if (c[1] == OURS) == side and "" not in c), "none")
            for side in (True, False)
        }  # of the arms that ran on every model
        images = len(next(r for r in rows if r.norm == norm).distances)
        title = f"### {norm}\n\n{images} images. Best of ours {best[True]}, best of the peers {best[False]}."
        picture = f"![Accuracy against {norm} distance](images/quality-{norm}.svg)"
        errors = [
            f"{r.attack} of {r.arm} ended on {r.model} with {r.failed}: what it had found until then counts."
            for r in rows
            if r.norm == norm and r.failed
        ]
        parts.append("\n\n".join([title, common.table(head, [c for _, c in lines], left=2), *errors, picture]))
    return "\n\n".join(parts)


def shown(rows: Sequence[Row], norm: str, most: int = 5) -> list[tuple[str, str]]:
    """The arms worth a curve: the best of ours and the best of the peers by global optimality, most of each."""
    values = local([r for r in rows if r.norm == norm])
    means: dict[tuple[str, str], list[float]] = {}
    for (_, _, attack, arm), value in values.items():
        means.setdefault((attack, arm), []).append(value)
    order = sorted(means, key=lambda key: -sum(means[key]) / len(means[key]))
    return [k for k in order if k[1] == OURS][:most] + [k for k in order if k[1] != OURS][:most]


def curve(distances: Sequence[float], most: float) -> tuple[list[float], list[float]]:
    """Where accuracy falls, from 0 to `most`, and to what."""
    ends = [0.0, *sorted({d for d in distances if 0 < d < most}), most]
    return ends, [sum(d > end for d in distances) / len(distances) for end in ends]


def plot(rows: Sequence[Row], norm: str, file: Path) -> None:
    """Accuracy against distance: the security curves of the best arms, one panel for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "unfooled"
    from matplotlib import pyplot as plt

    rows = [r for r in rows if r.norm == norm]
    arms = shown(rows, norm)
    models = list(dict.fromkeys(r.model for r in rows))
    figure, axes = plt.subplots(
        1, len(models), figsize=(3.2 * len(models), 3.2), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, model in zip(axes[0], models, strict=True):
        group = {(r.attack, r.arm): r.distances for r in rows if r.model == model}
        best = [min(each) for each in zip(*group.values(), strict=True)]
        most = max((d for d in best if d < float("inf")), default=1.0)
        for at, key in enumerate(arms):
            if key in group:
                style = {"linestyle": "-" if key[1] == OURS else "--", "linewidth": 1.5 if key[1] == OURS else 1}
                axis.step(*curve(group[key], most), where="post", color=f"C{at}", label=", ".join(key), **style)
        axis.step(*curve(best, most), where="post", color="black", linewidth=0.8, label="best of all")
        axis.set(title=model, xlabel=f"{norm} distance", ylim=(0, 1))
        axis.grid(linewidth=0.3)
    axes[0][0].set_ylabel("accuracy")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside lower center", ncols=4)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


ABOUT = """## Optimality of minimum-norm attacks

AttackBench's measure (Cinà et al. 2025, arXiv:2404.19460) at {passes} passes per image, on the first test images:
`python -m benchmarks.quality`; its docstring has the definition and how fixed-budget attacks are run within a search
for eps. 1 is the best point that any attack here found, for every image; 0 is nothing found. "missed" counts the images
for which nothing was found. Passes are means over the models; {machine}. An arm that was not run
on a model has no number there, and its mean is over the others.
"""


def parsed() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=100)
    options.add_argument("--models", nargs="+", default=common.MODELS, metavar="NAME", help=common.NAMING)
    options.add_argument("--norms", nargs="+", default=tuple(ATTACKS), choices=tuple(ATTACKS))
    options.add_argument("--attacks", nargs="+", metavar="NAME", help="without the norm; default: all")
    options.add_argument("--arms", nargs="+", metavar="NAME", help=f"{OURS}, {', '.join(LIBRARIES)}; default: all")
    options.add_argument("--passes", type=int, default=2000)
    options.add_argument("--quick", action="store_true", help="8 images, 40 passes; writes nothing")
    options.add_argument("--dry", action="store_true", help="write no docs")
    options.add_argument("--file", type=Path, default=common.RUNS / "quality.jsonl", help="where each row is kept")
    options.add_argument("--resume", action="store_true", help="keep what the file has already")
    chosen = options.parse_args()
    if chosen.quick:
        chosen.images, chosen.passes, chosen.dry = min(chosen.images, 8), min(chosen.passes, 40), True
        chosen.file = chosen.file.with_name("quality-quick.jsonl")
    return chosen


def main() -> None:
    chosen = parsed()
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    if not chosen.resume:
        chosen.file.write_text("")
    rows = [Row(**json.loads(line)) for line in chosen.file.read_text().splitlines()]
    done = {(r.model, r.norm, r.attack, r.arm) for r in rows}
    for at in common.subjects(chosen.models, chosen.images):
        for norm in chosen.norms:
            for name in ATTACKS[norm]:
                if chosen.attacks and name not in chosen.attacks:
                    continue
                for arm, run in arms_of(f"{name}-{norm}", chosen.passes).items():
                    if (at.name, norm, name, arm) in done or (chosen.arms and arm not in chosen.arms):
                        continue
                    row = measure(at, f"{name}-{norm}", arm, run, chosen.passes)
                    rows.append(row)
                    with chosen.file.open("a") as kept:
                        kept.write(json.dumps(asdict(row)) + "\n")
                    print(f"{at.name}  {norm}  {name}, {arm}: {row.seconds:.1f} s", flush=True)
    print(f"\n{report(rows)}")
    if not chosen.dry:
        about = ABOUT.format(passes=chosen.passes, machine=common.machine())
        common.write_section("quality", f"{about}\n{report(rows)}")
        for norm in dict.fromkeys(r.norm for r in rows):
            plot(rows, norm, common.IMAGES / f"quality-{norm}.svg")


if __name__ == "__main__":
    main()
