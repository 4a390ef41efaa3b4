"""What the sequential decision of randomized smoothing saves, against a sample of fixed size.

    OMP_PROC_BIND=true .venv/bin/python benchmarks/smoothing.py [--images 40] [--draws 10000] [--no-model]

1. Simulated: shares of the certified class drawn from a distribution, draws from a binomial; Gaussian noise, alpha 0.001.
   For each radius the share of images that are certified and the mean and median draws, by both ways.
2. A bundled model under Gaussian noise on Fashion-MNIST's test images, real passes by both ways, the labels given.

The fixed size spends selection and draws on every image, whatever the radius: its radius is known for all radii at once.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import Absent, machine, subject, table

from unfooled.certificates.sequential import Race, certified_at
from unfooled.certificates.smoothing import Gaussian, Smoothing, certified, lower_bound

SHARES = {  # what shares look like: most images clear, as under noise that the model was trained with; or less so
    "clear: Beta(0.3, 0.15)": (0.3, 0.15),
    "high: Beta(5, 0.3)": (5.0, 0.3),
    "both ways: Beta(1/2, 1/2)": (0.5, 0.5),
    "any: uniform": (1.0, 1.0),
}
SIGMA, RADII = 0.5, (0.125, 0.25, 0.5, 1.0, 1.5)


def simulated(shares: np.ndarray, eps: float, smoothing: Smoothing, seed: int = 0) -> tuple[float, Race]:
    """Certified at eps by the fixed size, a share of images; and the race."""
    numbers = np.random.default_rng(seed)
    needed = smoothing.noise.needed(eps)
    hits = numbers.binomial(smoothing.draws, shares)
    fixed = np.mean([lower_bound(int(k), smoothing.draws, smoothing.alpha) >= needed for k in hits])
    race = Race(len(shares), needed, smoothing)
    while len(race.open):
        race.tell(torch.from_numpy(numbers.binomial(race.next - race.drawn, shares[race.open.numpy()])))
    return float(fixed), race


def simulation(images: int) -> str:
    smoothing = Smoothing(Gaussian(SIGMA))
    each = smoothing.selection + smoothing.draws
    rows = []
    for name, (a, b) in SHARES.items():
        shares = np.random.default_rng(5).beta(a, b, images)
        for eps in RADII:
            fixed, race = simulated(shares, eps, smoothing)
            draws = race.draws.double() + smoothing.selection
            won, undecided = race.won.double().mean(), (~race.won & ~race.lost).double().mean()
            numbers = (100 * fixed, 100 * won, 100 * undecided, draws.mean(), draws.median(), each / draws.mean())
            shown = [f"{v:.{d}f}" for v, d in zip(numbers, (1, 1, 1, 0, 0, 0), strict=True)]
            rows.append([name, f"{eps / SIGMA:g} σ", *shown[:5], f"{shown[5]}×"])
    head = [
        "shares",
        "radius",
        "fixed, certified %",
        "sequential, certified %",
        "open %",
        "mean draws",
        "median",
        "saving",
    ]
    return table(head, rows)


def on_a_model(images: int, draws: int, sigma: float, model: str) -> str:
    found = subject(model, images)
    rows = []
    smoothing = Smoothing(Gaussian(sigma), draws=draws)
    start = time.perf_counter()
    fixed = certified(found.model, found.images, smoothing)
    spent = time.perf_counter() - start
    right = fixed.prediction == found.labels
    each = smoothing.selection + draws
    for eps in (sigma / 2, sigma, 2 * sigma):
        start = time.perf_counter()
        race = certified_at(found.model, found.images, eps, smoothing, labels=found.labels)
        seconds = time.perf_counter() - start
        mean = float(race.draws.double().mean())
        whole = int((right & (fixed.radius >= eps)).sum())
        rows.append(
            [
                f"{eps:g}", f"{whole} of {images}", f"{each}", f"{spent:.0f}", f"{int(race.certified.sum())}",
                f"{int((~race.certified & ~race.refuted).sum())}", f"{mean:.0f}", f"{seconds:.1f}", f"{each / mean:.0f}×",
            ]
        )  # fmt: skip
    head = ["radius", "fixed: certified", "draws", "s", "sequential: certified", "open", "mean draws", "s", "saving"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=4000, help="simulated images for each distribution")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--model", default="fashion-mnist/hardened")
    parser.add_argument("--no-model", action="store_true", help="the simulation alone")
    given = parser.parse_args()
    print(f"Simulated: sigma {SIGMA}, 100 draws to select, at most 100,000, alpha 0.001, {given.simulated} images.\n")
    print(simulation(given.simulated))
    if given.no_model:
        return
    print(f"\n{given.model}, sigma {given.sigma:g}, at most {given.draws} draws, alpha 0.001. {machine()}.\n")
    try:
        print(on_a_model(given.images, given.draws, given.sigma, given.model))
    except Absent as reason:
        print(f"skipped: {reason}")


if __name__ == "__main__":
    main()
