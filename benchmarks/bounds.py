"""What each method of certification costs and gives, on networks of about 10,000 ReLUs.

    OMP_NUM_THREADS=2 .venv/bin/python -m benchmarks.bounds [--images 100] [--networks conv dense]

Networks are trained on MNIST for a few hundred steps (seeded, with one step of FGSM from a random start within the same
radius, so that margins are realistic) and kept under runs/benchmarks. Each network and method is run in a process of its
own on the first test images, through the public functions: seconds of one call (tracing is in it), peak resident memory
above what imports, model and data take, the mean lower bound of the margin, the share certified, and the width, which is
the mean distance from a margin on the image itself down to its lower bound, relative to that of intervals. Results are
kept in a file beside the networks; `--report` writes their table into the docs and runs nothing. Images are shared out to
threads, which OMP_PROC_BIND would keep on one core: leave it unset.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import unfooled as uf
from unfooled.certificates import certify, margins

from .common import ROOT, RUNS, machine, table, write_section

METHODS = ("ibp", "crown", "alpha-crown", "auto")
STEPS, BATCH, RATE = 300, 128, 1e-3  # of training
FILE = RUNS / "bounds.jsonl"


class Residual(nn.Module):
    """Two 3×3 convolutions and the identity beside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + x)


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 2500), nn.ReLU(), nn.Linear(2500, 2500), nn.ReLU(), nn.Linear(2500, 2500), nn.ReLU(),
        nn.Linear(2500, 2500), nn.ReLU(), nn.Linear(2500, 10),
    )  # fmt: skip


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 11, 4, 2, 1), nn.ReLU(), Residual(11), nn.Conv2d(11, 22, 4, 2, 1), nn.ReLU(), Residual(22),
        nn.Flatten(), nn.Linear(22 * 7 * 7, 200), nn.ReLU(), nn.Linear(200, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A network to be trained and bounded, in words, and the Linf radius of both."""

    build: Callable[[], nn.Module]
    words: str
    eps: float


NETWORKS = {
    "conv": Subject(conv, "conv 16 4×4 stride 2, conv 16 3×3, conv 32 4×4 stride 2, 1024, 1024", 0.02),
    "dense": Subject(dense, "4 layers of 2500", 0.01),
    "residual": Subject(residual, "conv 11 4×4 stride 2, a block, conv 22 4×4 stride 2, a block, 200", 0.02),
}


def relus(model: nn.Module) -> int:
    """How many there are for one image: numbers that the layers before the last make, sums of blocks not counted twice."""
    counted: list[int] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)][:-1]
    hooks = [m.register_forward_hook(lambda _, given, made: counted.append(made[0].numel())) for m in layers]
    with torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def trained(name: str) -> nn.Module:
    """The network with its weights, which are made where they are not there yet."""
    file, subject = RUNS / f"bounds-{name}.safetensors", NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = subject.build()
    if not file.is_file():
        train(model, subject.eps)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), file)
    model.load_state_dict(load_file(file))
    return model.eval().requires_grad_(False)


def train(model: nn.Module, eps: float) -> None:
    """Adam on FGSM from a random start; the radius grows over the first half of the steps."""
    data = uf.data.load("mnist:train", download=False)
    images, labels, make = data.floats(), data.labels, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    for step in range(STEPS):
        index = torch.randint(len(images), (BATCH,), generator=make)
        x, y, radius = images[index], labels[index], eps * min(1.0, 2 * step / STEPS)
        start = (x + radius * (2 * torch.rand(x.shape, generator=make) - 1)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), y), start)
        z = (start.detach() + radius * gradient.sign()).clamp(x - radius, x + radius).clamp(0, 1)
        optimizer.zero_grad()
        F.cross_entropy(model(z), y).backward()
        optimizer.step()


# --- one measurement, in a process of its own --------------------------------------------------------------------------


def peak() -> float:
    """The most memory that this process has had so far, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measured(name: str, method: str, count: int) -> dict:
    """Time, memory and tightness of a method on a network."""
    model, subject = trained(name), NETWORKS[name]
    data = uf.data.load(f"mnist:test[0:{count}]", download=False)
    images, labels, threat = data.floats(), data.labels, uf.Linf(subject.eps)
    logits = model(images).double()
    margins(model, images[:1], labels[:1], threat, "ibp")  # what the first call loads is no cost of the method
    before, began, processor = peak(), time.perf_counter(), time.process_time()
    found: dict = {"network": name, "method": method, "images": count, "eps": subject.eps, "relus": relus(model)}
    if method == "auto":
        proved = certify(model, (images, labels), threat)
        found |= {"certified": float(proved.certified.double().mean())}
    else:
        least = margins(model, images, labels, threat, method)
        fall = (logits.gather(1, labels[:, None]) - logits - least)[least.isfinite()]
        right = (logits.argmax(1) == labels) & (least.amin(1) > 0)
        found |= {
            "margin": float(least.amin(1).mean()),
            "fall": float(fall.mean()),
            "certified": float(right.double().mean()),
        }
    spent = {"seconds": time.perf_counter() - began, "processor": time.process_time() - processor}
    return found | spent | {"memory": peak() - before, "clean": float((logits.argmax(1) == labels).double().mean())}


def in_a_process(name: str, method: str, count: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.bounds", "--one", name, method, "--images", str(count)]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found: dict = json.loads(told.splitlines()[-1])
    return found


# --- the table ---------------------------------------------------------------------------------------------------------

HEAD = ["network", "method", "images", "seconds", "peak MiB", "mean margin", "width", "certified", "clean"]


def rows(done: list[dict]) -> list[list[str]]:
    """One for each measurement; the last of a network and method counts."""
    last = {(d["network"], d["method"]): d for d in done}
    found = []
    for name in NETWORKS:
        for method in METHODS:
            if (name, method) not in last:
                continue
            d, by_intervals = last[name, method], last.get((name, "ibp"))
            width = f"{d['fall'] / by_intervals['fall']:.3g}" if by_intervals and "fall" in d else ""
            margin = f"{d['margin']:.4g}" if "margin" in d else ""
            cost = (f"{d['seconds']:.1f}", f"{d['memory']:.0f}")
            found.append(
                [name, method, str(d["images"]), *cost, margin, width, f"{d['certified']:.2f}", f"{d['clean']:.2f}"]
            )
    return found


def section(done: list[dict]) -> str:
    """The section of the docs."""
    counts = {d["network"]: d["relus"] for d in done}
    networks = "; ".join(
        f"{name}: {NETWORKS[name].words}, {counts[name]} ReLUs, Linf {NETWORKS[name].eps:g}"
        for name in NETWORKS
        if name in counts
    )
    setting = {d["machine"] for d in done}
    return (
        "## What bounds cost\n\n"
        "`OMP_NUM_THREADS=2 .venv/bin/python -m benchmarks.bounds`, then `--report`. The first MNIST "
        f"test images; {networks}. Trained for {STEPS} steps of Adam with one step of FGSM. \"seconds\" is one call of "
        "`margins` (for auto: of `certify`) on all images, tracing included; peak memory is resident memory above what "
        'imports, model and data take, in a process of its own; "mean margin" is the mean over the images of the smallest '
        'lower bound of a margin; "width" is the mean distance from a margin on the image down to its lower bound, '
        "relative to that of intervals. auto_LiRPA, the peer to compare with, cannot be installed beside current torch, so "
        f"it is not in the table. {'; '.join(sorted(setting))}.\n\n" + table(HEAD, rows(done), left=2)
    )  # fmt: skip


def kept() -> list[dict]:
    """The measurements made so far."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.is_file() else []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options.add_argument("--images", type=int, default=100)
    options.add_argument("--report", action="store_true", help="write what was measured into the docs; run nothing")
    options.add_argument("--one", nargs=2, metavar=("NETWORK", "METHOD"), help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.one:
        print(json.dumps(measured(*asked.one, asked.images)))
        return
    if asked.report:
        write_section("bounds", section(kept()))
        return
    for name in asked.networks:
        trained(name)
        for method in asked.methods:
            found = in_a_process(name, method, asked.images) | {"machine": machine()}
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
    print(table(HEAD, rows(kept()), left=2))


if __name__ == "__main__":
    main()
