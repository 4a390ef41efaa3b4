"""Which backward of a defense gives the stronger attack: the measurement that its default was chosen by.

    .venv/bin/python benchmarks/backwards.py [--images 256]

APGD with 20 steps, seed 0, before the bundled Fashion-MNIST networks (normal, hardened), on the first images of the bundled
sample; a lower accuracy is a stronger attack. JPEG by its own stand-in and by the identity; total variation by its solver's
derivative and by the identity; and the thermometer's ramps by their width, where `unfooled study defenses` has trained a
network on its codes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import unfooled as uf
from unfooled.defenses import JPEG, Defended, Thermometer, TotalVariation, codes, defend
from unfooled.models import SeedCNN, load_weights

NETWORKS = ("fashion-mnist/plain", "fashion-mnist/hardened")
EPS = (0.03, 0.1)
CODED = Path("runs/study/defenses/fashion-mnist/on-codes/model.safetensors")
ATTACK = "apgd:steps=20"


def left(model: Defended, data: uf.data.Dataset, eps: float, draws: int = 1) -> str:
    """Accuracy under the attack, in percent."""
    found = uf.attack(model, data.floats(), data.labels, uf.Linf(eps), ATTACK, seed=0, draws=draws)
    return f"{100 * found.robust_accuracy:.1f}"


def tables(data: uf.data.Dataset) -> Iterable[str]:
    """The three tables, line by line."""
    yield "| network | eps | JPEG quality | smooth | identity |\n| --- | ---: | ---: | ---: | ---: |"
    for name in NETWORKS:
        network = uf.models.load(name)
        for eps in EPS:
            for quality in (75, 25, 10):
                both = [left(defend(network, JPEG(quality, way)), data, eps) for way in ("smooth", "identity")]
                yield f"| {name} | {eps} | {quality} | {' | '.join(both)} |"
    yield "\n| network | eps | draws | TV exact | identity |\n| --- | ---: | ---: | ---: | ---: |"
    for name in NETWORKS:
        network = uf.models.load(name)
        for eps in EPS:
            for draws in (1, 4):
                walls = (TotalVariation(backward=way) for way in ("exact", "identity"))
                both = [left(defend(network, wall), data, eps, draws) for wall in walls]
                yield f"| {name} | {eps} | {draws} | {' | '.join(both)} |"
    if CODED.is_file():
        yield "\n| eps | thermometer, width of the ramp in levels | left |\n| ---: | ---: | ---: |"
        wall = Thermometer()
        model = load_weights(defend(SeedCNN(wall.levels), wall), CODED).eval()
        for eps in EPS:
            for width in (1.0, 2.0, 4.0, 8.0, 16.0):
                codes.WIDTH = width
                yield f"| {eps} | {width:g} | {left(model, data, eps)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    data = uf.data.load(f"fashion-mnist-sample[0:{parser.parse_args().images}]")
    for line in tables(data):
        print(line, flush=True)


if __name__ == "__main__":
    main()
