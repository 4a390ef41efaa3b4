"""What training costs and what it buys. Three measurements, a command each.

    OMP_PROC_BIND=true python -m benchmarks.training step                       # one step beside the bare passes it needs
    OMP_PROC_BIND=true python -m benchmarks.training curves [--images 60000] [--epochs 4] [--recipes NAMES]
    python -m benchmarks.training cifar10 --device cuda                         # seconds to 45 % and 50 % under AutoAttack

**step**: a step of the training loop (batch, inner attack, loss, gradients, optimizer, average) beside the forward and
backward passes alone: for PGD-k, k gradients to the images with frozen weights and one to the weights; in turns, in one
process, the median of --pairs.

**curves**: robust accuracy of each recipe against seconds of training, on Fashion-MNIST at Linf 0.1: after each epoch under
PGD-10 on the images held out, whose time is not counted, and in the end under `fast` on 1,000 test images. One after the
other, each in a folder of its own under --out: what was stopped goes on.

**cifar10**: a ResNet-18, N-FGSM with averaged weights, autocast, channels-last, compiled. After each epoch, outside the
clock, `standard` on --images test images, until half of them hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import unfooled as uf
from unfooled import rng
from unfooled.inputs import Notes, prepared
from unfooled.models import Compute, build
from unfooled.training import RECIPES, Recipe, devices, guard
from unfooled.training.run import Run

from .common import IMAGES, ROOT, machine, table, write_section

DOCS = ROOT / "docs" / "benchmarks.md"
OUT = ROOT / "runs" / "benchmarks" / "training"
MEASURED = ("standard", "n-fgsm", "pgd-10", "trades")
CURVES = ("fast-at", "n-fgsm", "grad-align", "pgd", "pgd-10", "trades", "mart")


# --- one step ------------------------------------------------------------------------------------------------------


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run_of(recipe: Recipe, model: nn.Module, data, threat: uf.Threat, compute: Compute) -> Run:
    """A run that is stepped by hand, on (images, labels); no images are held out."""
    images, labels = prepared(data[0], threat, None, Notes()), data[1]
    where = devices.Alone(next(model.parameters()).device)
    return Run(
        model, images, labels, torch.arange(len(images)), recipe, threat, 0, where, compute, None, lambda _: None
    )


def bare(run: Run, looks: int, clean: int, forwards: int) -> None:
    """The passes of a step and nothing else: gradients to images, passes without one, and the gradient to the weights."""
    batch, _, _ = run.batch()
    x, y, model = batch.images, batch.goal.label, run.model
    model.eval()
    for p in model.parameters():
        p.requires_grad_(False)
    for _ in range(forwards):
        with torch.no_grad():
            model(x)
    for _ in range(looks):
        z = x.detach().requires_grad_(True)
        torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
    for p in model.parameters():
        p.requires_grad_(True)
    model.train()
    run.optimizer.zero_grad(set_to_none=True)
    sum(F.cross_entropy(model(x), y) for _ in range(clean)).backward()


def passes(recipe: Recipe) -> tuple[int, int, int]:
    """Gradients to the images, passes of the loss with a gradient to the weights, and passes without any."""
    if recipe.attack is None:
        return 0, 1, 0
    from unfooled.training import perturbations

    two = recipe.objective.partition(":")[0] in ("trades", "mart")
    return perturbations.parse(recipe.attack).steps, 1 + two, int(recipe.objective.startswith("trades"))


def step(asked) -> None:
    found = uf.data.load("fashion-mnist-sample")
    data, rows = (found.floats(), found.labels), []
    for network in ("seed-cnn", "small-cnn"):
        for name in MEASURED:
            recipe = dataclasses.replace(RECIPES[name], epochs=10**4, warm_up=0.0, average=0.999)
            with rng.forked(0):
                model = build(network, 1, 28, 10)
            compute = Compute("channels-last" if network == "small-cnn" else "same")
            run, counted = run_of(recipe, model, data, uf.Linf(0.1), compute), passes(recipe)
            ours, theirs = [], []
            for turn in range(asked.pairs + 1):
                pair = [lambda run=run: run.take_step(), lambda run=run, counted=counted: bare(run, *counted)]
                took = [seconds(pair[at]) for at in ((0, 1) if turn % 2 else (1, 0))]
                a, b = took if turn % 2 else took[::-1]
                if turn:  # the first one warms up
                    ours.append(a)
                    theirs.append(b)
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            rows.append(
                [
                    f"{name}, {network}", f"{1000 * statistics.median(theirs):.1f}", f"{1000 * statistics.median(ours):.1f}",
                    f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f} … {max(ratios):.3f}",
                ]
            )  # fmt: skip
            print(rows[-1], flush=True)
    head = ["", "bare passes, ms", "step, ms", "ratio", "from … to"]
    text = f"Batches of 128, averaged weights, median of {asked.pairs} pairs. {machine()}.\n\n{table(head, rows)}"
    write_section("training-step", text, DOCS)


# --- robust accuracy against seconds --------------------------------------------------------------------------------


def curves(asked) -> None:
    data, test = uf.data.load(f"fashion-mnist:train[0:{asked.images}]"), uf.data.load("fashion-mnist:test[0:1000]")
    rows, lines = [], {}
    for name in asked.recipes:
        folder = asked.out / f"{name}-{asked.images}-{asked.epochs}"
        told = folder / "told.json"
        if not told.exists():
            recipe = dataclasses.replace(RECIPES[name], epochs=asked.epochs, average=0.999, learning_rate=2e-3)
            with rng.forked(0):
                model = build("small-cnn", 1, 28, 10)
            clock = Clock()
            done = uf.train(
                model, data, uf.Linf(0.1), recipe, out=folder, compute=Compute("channels-last"), progress=clock.tell
            )
            found = uf.evaluate(done.model, test, "linf:0.1", "fast")
            told.write_text(
                json.dumps(
                    {
                        "clean": found.clean_accuracy.value, "robust": found.robust_accuracy.attacked.value,
                        "seconds": clock.at, "held": [entry.robust for entry in done.history], "ended": done.ended,
                    }
                )
            )  # fmt: skip
        one = json.loads(told.read_text())
        lines[name] = one
        rows.append(
            [
                name,
                f"{one['seconds'][-1]:.0f}",
                f"{100 * one['clean']:.1f}",
                f"{100 * one['robust']:.1f}",
                one["ended"][:24],
            ]
        )
        print(rows[-1], flush=True)
    plot(lines, asked)
    head = ["recipe", "seconds", "clean, %", "robust, % (`fast`)", "ended early"]
    text = (
        f"`small-cnn`, {asked.images} training images, {asked.epochs} epochs, averaged weights; 1,000 test images, Linf 0.1. "
        f"{machine()}.\n\n{table(head, rows)}\n\n![Robust accuracy against seconds of training](images/training.svg)"
    )
    write_section("training-curves", text, DOCS)


class Clock:
    """Seconds of steps alone, at the end of each epoch: what judging takes is left out."""

    def __init__(self) -> None:
        self.total, self.last, self.at, self.epoch = 0.0, time.perf_counter(), [], 0

    def tell(self, at) -> None:
        now = time.perf_counter()
        ended = at.held is not None and at.held.step == at.step
        if not ended:
            self.total += now - self.last
        else:
            self.total += self.total / max(
                1, at.step - 1
            )  # the step after which it was judged takes as long as the others
            self.at.append(self.total)
        self.last = now


def plot(lines, asked) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4))
    axes = figure.add_subplot()
    for name, one in lines.items():
        axes.plot(one["seconds"], [100 * value for value in one["held"]], marker="o", label=name)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("robust accuracy on images held out, % (PGD-10)")
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(IMAGES / "training.svg")


# --- CIFAR-10 on an accelerator --------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        same = stride == 1 and before == after
        self.short = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )  # fmt: skip

    def forward(self, x):
        inner = self.norms[0](self.one(x)).relu()
        return (self.norms[1](self.two(inner)) + self.short(x)).relu()


def resnet18(width: int = 64) -> nn.Module:
    """ResNet-18 for 32×32 images. He et al. 2016, arXiv:1512.03385."""
    parts, before = [], width
    for at, after in enumerate((width, 2 * width, 4 * width, 8 * width)):
        parts += [Block(before, after, 1 if at == 0 else 2), Block(after, after, 1)]
        before = after
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    network = nn.Sequential(*stem, *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))
    return uf.models.Normalized(network, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def cifar10(asked) -> None:
    found, test = uf.data.load("cifar10:train"), uf.data.load(f"cifar10:test[0:{asked.images}]")
    data = (found.floats()[: asked.limit], found.labels[: asked.limit])
    recipe = Recipe(
        "N-FGSM with averaged weights", "adversarial", "n-fgsm", epochs=asked.epochs, batch_size=256, optimizer="sgd",
        learning_rate=0.2, schedule="cyclic", weight_decay=5e-4, augment="shift:4,mirror=true", average=0.9995, held_out=1000,
    )  # fmt: skip
    device = torch.device(asked.device)
    with rng.forked(0):
        run = run_of(
            recipe,
            resnet18(asked.width).to(device),
            data,
            uf.Linf(8 / 255),
            Compute("channels-last", asked.compile, True),
        )
    reached: dict[float, float] = {}
    total = 0.0
    while run.step < run.steps and 0.5 not in reached:
        total += seconds(lambda: epoch(run, device))
        judged = run.average.module
        clean, robust = guard.Held(test.floats()[:500], test.labels[:500], uf.Linf(8 / 255)).judged(judged)
        print(f"epoch {run.step // run.per_epoch}: {total:.0f} s, clean {clean:.3f}, PGD-10 {robust:.3f}", flush=True)
        if robust < 0.4:
            continue
        held = uf.evaluate(judged, test, "linf:8/255", "standard").robust_accuracy.attacked
        print(f"  standard {100 * held.value:.1f} % [{100 * held.low:.1f}, {100 * held.high:.1f}]", flush=True)
        for wanted in (0.45, 0.5):
            if held.value >= wanted:
                reached.setdefault(wanted, total)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    for wanted in (0.45, 0.5):
        told = f"after {reached[wanted]:.0f} s on {name}" if wanted in reached else "not reached"
        print(f"{100 * wanted:.0f} % on {len(test)} test images: {told}")


def epoch(run: Run, device: torch.device) -> None:
    for _ in range(run.per_epoch):
        run.take_step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("step")
    one.add_argument("--pairs", type=int, default=15)
    one.set_defaults(do=step)
    two = parts.add_parser("curves")
    two.add_argument("--images", type=int, default=60_000)
    two.add_argument("--epochs", type=int, default=4)
    two.add_argument("--recipes", nargs="+", default=CURVES, choices=RECIPES)
    two.add_argument("--out", type=Path, default=OUT)
    two.set_defaults(do=curves)
    three = parts.add_parser("cifar10")
    three.add_argument("--device", default="cuda")
    three.add_argument("--epochs", type=int, default=30)
    three.add_argument("--images", type=int, default=1000)
    three.add_argument("--limit", type=int, default=50_000, help="training images")
    three.add_argument("--width", type=int, default=64)
    three.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    three.set_defaults(do=cifar10)
    asked = parser.parse_args()
    asked.do(asked)


if __name__ == "__main__":
    main()
