"""What many machines cost: Ray against one process, and what the process that writes the run folder can take.

    OMP_NUM_THREADS=1 python -m benchmarks.cluster [--shards 20] [--images 512] [--pairs 3]

On the bundled hardened CNN and Fashion-MNIST's test images (the bundled 1,000 are repeated where the set is not there),
protocol `fast`, every process with one thread. In turns:

1. one process;
2. two plain processes, forked, each with half of the shards: what two cores of this machine can do without any cluster;
3. Ray with two workers, on a cluster that runs; 4. the same with one worker;
5. with two, the cluster's start and end included.

Ray's overhead is the time of 3 above that of 2, as a share of 1 (and of 4 above 1). Then, without a model, what the
process that writes does for each shard: images cut out and packed, a way to a worker and back, the folder written.
`--write` puts both tables into docs/scale.md.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import unfooled as uf
from benchmarks.common import ROOT, Absent, machine, subject, table, write_section
from unfooled import evaluation
from unfooled.board import Question
from unfooled.cluster import Ray
from unfooled.cluster.machines import QUIET
from unfooled.cluster.parcel import part_of
from unfooled.cluster.worker import Answer
from unfooled.shard import Outcome, examine
from unfooled.store import Row, RunFolder

DOCS = ROOT / "docs" / "scale.md"
SHAPES = ((1, 28, 28), (3, 224, 224))


def images_of(count: int):
    try:
        found = subject("fashion-mnist/hardened", count)
    except Absent:
        found = subject("fashion-mnist/hardened", 1000)
    times = -(-count // len(found.images))
    return found.model, found.images.repeat(times, 1, 1, 1)[:count], found.labels.repeat(times)[:count]


def forked(question, parts, ordered, progress=None):
    """Two processes with half of the shards each, and nothing else."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def work(mine):
        torch.set_num_threads(1)
        for number, index in mine:
            outcome = examine(question, index)
            answers.put((number, outcome.adversarial.numpy(), outcome.rows, outcome.log, outcome.notes))

    halves = [list(itertools.islice(parts.items(), at, None, 2)) for at in (0, 1)]
    workers = [context.Process(target=work, args=(mine,)) for mine in halves]
    for worker in workers:
        worker.start()
    for _ in parts:
        number, adversarial, rows, log, notes = answers.get()
        yield number, Outcome(torch.from_numpy(adversarial), rows, log, notes)
    for worker in workers:
        worker.join()


def evaluated(setting, cluster, protocol) -> float:
    """Seconds of a whole evaluation into a folder."""
    model, images, labels = setting
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        uf.evaluate(model, (images, labels), "linf:0.1", protocol, out=Path(place) / "run", cluster=cluster)
        return time.perf_counter() - start


def with_ray(setting, workers, protocol) -> float:
    """On a cluster that runs, and whose workers have been started once."""
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        return evaluated(setting, Ray("local"), protocol)
    finally:
        ray.shutdown()


def overhead(shards: int, images: int, pairs: int, protocol: str) -> str:
    evaluation.SHARD = images
    setting = images_of(shards * images)
    arms = {
        "one process": lambda: evaluated(setting, None, protocol),
        "two plain processes": lambda: evaluated(setting, forked, protocol),
        "Ray, two workers, the cluster runs": lambda: with_ray(setting, 2, protocol),
        "Ray, one worker, the cluster runs": lambda: with_ray(setting, 1, protocol),
        "Ray, two workers, its start and end too": lambda: evaluated(setting, Ray("local"), protocol),
    }
    took = {name: [] for name in arms}
    for turn in range(pairs):
        for name in list(arms)[:: 1 if turn % 2 == 0 else -1]:
            took[name].append(arms[name]())
            print(f"{name}: {took[name][-1]:.2f} s", flush=True)
    one, plain, two, single, cold = (statistics.median(times) for times in took.values())
    rows = []
    for name, seconds, base in zip(arms, (one, plain, two, single, cold), (None, None, plain, one, plain), strict=True):
        above = (
            [""] * 2
            if base is None
            else [f"{100 * (seconds - base) / one:.1f} %", f"{1000 * (seconds - base) / shards:.0f}"]
        )
        rows.append([name, f"{seconds:.2f}", f"{seconds / one:.3f}", *above])
    head = ["", "seconds", "to one process", "overhead, of one process", "overhead, ms a shard"]
    text = (
        f"{shards} shards of {images} images, protocol `{protocol}`, median of {pairs}. Overhead is above two plain "
        f"processes, for one worker above one process. {machine()}, one thread for each process."
    )
    return f"{text}\n\n{table(head, rows)}"


# --- the process that writes ----------------------------------------------------------------------------------


def median_ms(function, times: int = 9) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


class Echo:
    """A worker that makes no passes."""

    def __init__(self, answer):
        self.answer = answer

    def examine(self, part):
        return self.answer


def outcome_of(images, first: int) -> Outcome:
    rows = [Row(first + at, 0, 0, True, True, 0.1, 100, 90, "apgd:steps=100") for at in range(len(images))]
    return Outcome(images + 0.001, rows, {"attacks": []}, ())


def writer(size: int) -> str:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = []
    for shape in SHAPES:
        images = torch.randint(0, 256, (size, *shape)).float() / 255
        zeros = torch.zeros(size, dtype=torch.int64)
        asked = Question(torch.nn.Identity(), images, zeros, torch.arange(size), uf.Linf(0.1), uf.attacks.FGSM(), 0)
        index = torch.randperm(size)
        part = part_of(asked, index, False)
        actor = ray.remote(Echo).remote(Answer(outcome_of(images[:0], 0), images.numpy()))
        ray.get(actor.examine.remote(part))
        with tempfile.TemporaryDirectory() as place:
            folder, kept = RunFolder(place), []
            folder.begin({})
            for number in range(9):
                made = outcome_of(images, number * size)
                start = time.perf_counter()
                folder.add_shard(number, {"adversarial": made.adversarial.numpy()}, made.rows, log=made.log)
                kept.append(1000 * (time.perf_counter() - start))
        sent = part.images.nbytes
        rows.append(
            [
                "×".join(map(str, shape)), f"{sent / 1e6:.2f}", f"{images.nbytes / 1e6:.2f}",
                f"{median_ms(lambda asked=asked, index=index: part_of(asked, index, False)):.1f}",
                f"{median_ms(lambda actor=actor, part=part: ray.get(actor.examine.remote(part)).outcome):.1f}",
                f"{statistics.median(kept):.1f}",
            ]
        )  # fmt: skip
        ray.kill(actor)
    ray.shutdown()
    head = ["image", "MB to the worker", "MB back", "cut out and packed, ms", "there and back, ms", "written, ms"]
    return f"A shard of {size} images, median of 9. {machine()}.\n\n{table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--images", type=int, default=512, help="of a shard")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--protocol", default="fast")
    parser.add_argument("--only", choices=["overhead", "writer"])
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= QUIET
    parts = {
        "overhead": lambda: overhead(asked.shards, asked.images, asked.pairs, asked.protocol),
        "writer": lambda: writer(asked.images),
    }
    for name, part in parts.items():
        if asked.only in (None, name):
            text = part()
            print(text)
            if asked.write:
                write_section(name, text, DOCS)


if __name__ == "__main__":
    main()
