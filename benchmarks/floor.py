"""What the engine costs above the passes that an attack needs. One command, one run, one table.

    OMP_PROC_BIND=true .venv/bin/python benchmarks/floor.py [--images 10000] [--pairs 9]

On the seed's CNN with its bundled weights and Fashion-MNIST's test images (the bundled 1,000 are repeated where the set
is not there). Each ratio is the median over pairs, measured in turns in one process:

1. FGSM: time against one clean gradient and one confirming forward pass for each image, in the same layout.
2. PGD-40, Linf, no early stop: share of time outside forward pass, loss and backward pass, by profiler; ratio to
   the bare loop in the same layout, and to the loop as one would write it (`loss.backward()`, parameters' gradients and all).
3. PGD-40 with early stop on the plain CNN: ratio to that bare loop.
4. Projections on L2 and L1 balls: time against one gradient of the same batch.
"""

from __future__ import annotations

import argparse
import cProfile
import platform
import pstats
import statistics
import time

import torch
from torch.nn import functional as F

import unfooled as uf
from unfooled.engine import default_batch

EPS = 0.1
STEPS, STEP = 40, 0.1


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratios(first, second, pairs: int) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of times, measured in turns after one round of warming up."""
    first(), second()
    found = []
    for turn in range(pairs):
        if turn % 2:
            b = timed(second)
            a = timed(first)
        else:
            a = timed(first)
            b = timed(second)
        found.append(a / b)
    return statistics.median(found), min(found), max(found)


def gradient(model, x, y):
    z = x.detach().requires_grad_(True)
    (g,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
    return g


def needed_by_fgsm(model, x, y, batch):
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        point = (a + EPS * gradient(model, a, b).sign()).clamp(0, 1)
        with torch.no_grad():
            model(point).argmax(1)


def bare_pgd(model, x, y, batch, step):
    """PGD as one would write it, from a random start; `step` takes the gradient."""
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        z = (a + EPS * (2 * torch.rand_like(a) - 1)).clamp(0, 1)
        for _ in range(STEPS):
            z = z + STEP * EPS * step(model, z, b).sign()
            z = torch.minimum(torch.maximum(z, a - EPS), a + EPS).clamp(0, 1)
        with torch.no_grad():
            model(z).argmax(1)


def as_written(model, z, y):
    z = z.detach().requires_grad_(True)
    F.cross_entropy(model(z), y).backward()
    return z.grad


def outside(model, x, y) -> float:
    """The share of a PGD run's time, by profiler, that is neither a forward pass, nor the loss, nor a backward pass."""
    profiler = cProfile.Profile()
    profiler.runcall(run_pgd, model, x, y, early_stop=False)
    stats = pstats.Stats(profiler).stats
    passes = 0.0
    for (file, _, function), (_, _, _, cumulative, _) in stats.items():
        inside = file.endswith("classifier.py") and function == "__call__"
        inside |= file.endswith("autograd/__init__.py") and function == "grad"
        inside |= file.endswith("losses.py") and function == "cross_entropy"
        passes += cumulative if inside else 0.0
    whole = max(cumulative for *_, cumulative, _ in stats.values())
    return 1 - passes / whole


def run_pgd(model, x, y, early_stop, layout="same"):
    attack = uf.attacks.PGD(steps=STEPS, step_size=STEP)
    return uf.attack(model, x, y, uf.Linf(EPS), attack, early_stop=early_stop, compute=uf.Compute(layout=layout))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument("--pgd-images", type=int, default=512)
    options.add_argument("--pairs", type=int, default=9)
    chosen = options.parse_args()
    torch.manual_seed(0)
    try:
        found = uf.data.load("fashion-mnist:test", download=False)
    except uf.errors.MissingData:
        found = uf.data.load("fashion-mnist-sample")
    repeat = -(-chosen.images // len(found))
    x, y = found.floats().repeat(repeat, 1, 1, 1)[: chosen.images], found.labels.repeat(repeat)[: chosen.images]
    model = uf.models.load("fashion-mnist/plain")
    batch = default_batch(x[0].numel(), x.device)
    rows = []

    for p in model.parameters():
        p.requires_grad_(False)
    got = ratios(
        lambda: uf.attack(model, x, y, uf.Linf(EPS), uf.attacks.FGSM()),
        lambda: needed_by_fgsm(model, x, y, batch),
        max(3, chosen.pairs // 3),
    )
    rows.append((f"FGSM, {len(x)} images / the passes it needs", got, "≤ 1.10"))

    px, py = x[: chosen.pgd_images], y[: chosen.pgd_images]
    share = [outside(model, px, py) for _ in range(3)]
    rows.append(
        ("PGD-40: share of time outside the passes", (statistics.median(share), min(share), max(share)), "≤ 0.04")
    )
    same = lambda: run_pgd(model, px, py, early_stop=False)  # noqa: E731
    got = ratios(same, lambda: bare_pgd(model, px, py, batch, gradient), chosen.pairs)
    rows.append(("PGD-40 / bare loop, same layout, no parameter gradients", got, "≤ 1.05"))
    for p in model.parameters():
        p.requires_grad_(True)
    written = lambda: bare_pgd(model, px, py, batch, as_written)  # noqa: E731
    got = ratios(lambda: run_pgd(model, px, py, early_stop=False, layout="auto"), written, chosen.pairs)
    rows.append(("PGD-40 / bare loop as one would write it", got, "< 1"))
    got = ratios(lambda: run_pgd(model, px, py, early_stop=True), written, chosen.pairs)
    rows.append(("PGD-40 with early stop, plain CNN / the same", got, "≤ 0.2"))

    for p in model.parameters():
        p.requires_grad_(False)
    bx, by = x[:batch], y[:batch]
    for threat, step in ((uf.L2(1.5), 0.375), (uf.L1(12.0), 3.0)):
        start = threat.project(bx + threat.eps * threat.steepest(torch.randn_like(bx), bx), bx)
        z = start + step * threat.steepest(gradient(model, start, by), start)
        got = ratios(lambda t=threat, z=z: t.project(z, bx), lambda: gradient(model, bx, by), 5 * chosen.pairs)
        rows.append((f"projection on {threat} / one gradient of the batch", got, "≤ 0.05"))

    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, seed 0"
    )
    print(f"{'':58}{'median':>8}{'min':>8}{'max':>8}   aim")
    for name, (median, least, most), aim in rows:
        print(f"{name:58}{median:8.3f}{least:8.3f}{most:8.3f}   {aim}")


if __name__ == "__main__":
    main()
