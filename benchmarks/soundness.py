"""Random small networks and boxes against the bounds: is any of them wrong?

    python -m benchmarks.soundness --networks 100000 --milp 1000 --seed 0 [--jobs 2] [--methods ibp,crown,alpha-crown]

Each network of `tests/random_networks.py` gets three images and a threat (Linf, L2 or L1, at times a mask or other bounds).
Every logit and every margin is attacked over the set (`tests/unsound.py`: samples, corners, Frank-Wolfe), in float64 and, at
float32 points up to the tolerance of `Threat.contains`, by the model itself; a bound on the wrong side of any answer by any
amount is unsound. For --milp networks the exact minimum of every margin is computed by `tests/milp.py` as well. Finished
chunks are kept under --out and not done again until the code of certificates or of the check changes. Ends with 1, and the
seeds, if any answer was unsound or any network failed; `python -m benchmarks.soundness --show SEED` prints one of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from unfooled.errors import UnfooledError

from .common import ROOT, RUNS, machine, table, write_section

sys.path.insert(0, str(ROOT / "tests"))
from milp import exact_margins
from random_networks import Case, case
from unsound import Given, attacked, claims, contradictions, lowest

CHUNK = {"attack": 100, "milp": 20}
METHODS = ("ibp", "crown", "alpha-crown")
ORDER = 1e-9  # relative: how much looser a bound may be than that of the method before it


def gap(c: Case, claimed: Given, lowest: torch.Tensor) -> float:
    """How far the margins claimed are below the lowest ones found, in all."""
    others = torch.arange(lowest.shape[1]) != c.labels[:, None]
    return float((lowest - claimed.margins)[others].clamp(min=0).sum())


def check(kind: str, seed: int, methods: tuple[str, ...], told: dict) -> None:
    """One network: everything found goes into `told`."""
    c = case(seed, count=1 if kind == "milp" else 3, exact=kind == "milp")
    began = time.process_time()
    seen = attacked(c)
    least = lowest(c, seen)
    if kind == "milp":
        try:
            least = exact_margins(c)
        except ArithmeticError as error:
            told["unsolved"].append(f"seed {seed}: {error}")
            return
    told["networks"] += 1
    told["boxes"] += len(c.images)
    told["points"] += seen.wide.shape[0] * seen.wide.shape[1] + seen.own.shape[0] * seen.own.shape[1]
    told["seconds"]["check"] += time.process_time() - began
    gaps, before = {}, None
    others = torch.arange(least.shape[1]) != c.labels[:, None]
    for method in methods:
        began = time.process_time()
        try:
            claimed = claims(c, method)
        except UnfooledError as error:
            told["refused"].append(f"seed {seed}, {method}: {type(error).__name__}: {error}")
            return
        except Exception as error:
            told["failed"].append(f"seed {seed}, {method}: {type(error).__name__}: {str(error).splitlines()[:1]}")
            return
        told["seconds"][method] += time.process_time() - began
        wrong = contradictions(c, claimed, seen, method)
        if kind == "milp" and bool((claimed.margins > least)[others].any()):
            wrong.append(f"{c}: {method}: a margin is above the exact one")
        told["unsound"] += wrong
        told["certified"][method] += int((claimed.margins.amin(1) > 0).sum())
        gaps[method] = gap(c, claimed, least)
        if before is not None:
            slack = ORDER * (1 + before.margins.abs())
            if bool((claimed.margins < before.margins - slack)[others].any()):
                told["looser"].append(f"seed {seed}, {method}")
        before = claimed
    told["holds"] += int((least.masked_fill(~others, torch.inf).amin(1) > 0).sum())
    widest = max(gaps.values())
    for method, value in gaps.items():
        told["gap"][method] += value / widest if 0 < widest < torch.inf else 0.0


def chunk(work: tuple[str, int, int, tuple[str, ...]]) -> dict:
    """The networks of some seeds, in this process on one thread."""
    kind, first, end, methods = work
    torch.set_num_threads(1)
    told: dict = defaultdict(int)
    for name in ("unsolved", "refused", "failed", "unsound", "looser"):
        told[name] = []
    for name in ("seconds", "certified", "gap"):
        told[name] = defaultdict(float)
    for seed in range(first, end):
        check(kind, seed, methods, told)
    return {"kind": kind, "first": first, "end": end, "methods": methods, "code": code(), **told}


def code() -> str:
    """A hash of all that decides the answers."""
    files = [*sorted((ROOT / "src" / "unfooled" / "certificates").glob("*.py")), ROOT / "src" / "unfooled" / "norms.py"]
    files += [ROOT / "tests" / f"{m}.py" for m in ("milp", "random_networks", "unsound")] + [Path(__file__)]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


# --- many ------------------------------------------------------------------------------------------------------------


def finished(path: Path) -> list[dict]:
    """The chunks done with this code; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    here = code()
    return [done for done in found if done["code"] == here]


def chunks(asked, done: list[dict]) -> Iterator[tuple[str, int, int, tuple[str, ...]]]:
    """What is left to do."""
    have = {(d["kind"], d["first"], d["end"], tuple(d["methods"])) for d in done}
    for kind, count in (("milp", asked.milp), ("attack", asked.networks)):
        for first in range(asked.seed, asked.seed + count, CHUNK[kind]):
            work = (kind, first, min(first + CHUNK[kind], asked.seed + count), asked.methods)
            if work not in have:
                yield work


def wanted(asked, done: list[dict]) -> list[dict]:
    """Those of the finished chunks that were asked for."""
    end = {"attack": asked.seed + asked.networks, "milp": asked.seed + asked.milp}
    return [
        d
        for d in done
        if asked.seed <= d["first"] and d["end"] <= end[d["kind"]] and tuple(d["methods"]) == asked.methods
    ]


def summary(done: list[dict], asked) -> str:
    """The section of the docs."""
    rows = []
    for kind, name in (("attack", "samples and attack"), ("milp", "and exact minimum by MILP")):
        parts = [d for d in done if d["kind"] == kind]
        networks, boxes = (sum(d[what] for d in parts) for what in ("networks", "boxes"))
        for method in asked.methods if networks else ():
            mine = [w for d in parts for w in d["unsound"] if f": {method}:" in w]
            looser = sum(w.endswith(f", {method}") for d in parts for w in d["looser"])
            cost = sum(d["seconds"].get(method, 0.0) for d in parts) / networks
            proved = int(sum(d["certified"].get(method, 0) for d in parts))
            left = sum(d["gap"].get(method, 0.0) for d in parts) / networks
            row = (networks, boxes, proved, sum(d.get("holds", 0) for d in parts), f"{left:.3f}", looser)
            rows.append([name, method, *map(str, row), f"{1000 * cost:.1f}", str(len(mine))])
    head = [
        "checked by",
        "method",
        "networks",
        "boxes",
        "proved",
        "not fooled",
        "gap left",
        "looser",
        "ms a network",
        "unsound",
    ]
    points = sum(d["points"] for d in done)
    lost = {what: sum(len(d[what]) for d in done) for what in ("refused", "failed", "unsolved")}
    count = ", ".join(f"{what} {number}" for what, number in lost.items())
    return (
        "## Are the bounds sound?\n\n"
        f"`python -m benchmarks.soundness --networks {asked.networks} --milp {asked.milp} --seed {asked.seed}`. Random small "
        f'networks, {points} points in all; "not fooled" counts the boxes in which no point found (by MILP: no point at all) '
        "fools the model, \"gap left\" the margins' distance from the lowest found (exact) ones, as a share of the loosest "
        'method\'s, "looser" the networks where a margin is below that of the line above. Networks '
        f"{count}. {machine()}.\n\n" + table(head, rows, left=2)
    )  # fmt: skip


def show(asked) -> int:
    """One network, printed with all that is wrong with it."""
    for kind in ("attack", "milp"):
        c = case(asked.show, exact=kind == "milp", count=1 if kind == "milp" else 3)
        told = chunk((kind, asked.show, asked.show + 1, asked.methods))
        print(c, c.model, json.dumps(told, indent=1), sep="\n")
    return 0


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--networks", type=int, default=1000)
    options.add_argument("--milp", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=METHODS)
    options.add_argument("--out", type=Path, default=RUNS / "soundness.jsonl")
    options.add_argument("--no-docs", action="store_true", help="print the table only")
    options.add_argument("--show", type=int, metavar="SEED")
    asked = options.parse_args()
    if asked.show is not None:
        return show(asked)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    done = wanted(asked, finished(asked.out))
    left = list(chunks(asked, done))
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool, asked.out.open("a", encoding="utf-8") as file:
        for at, told in enumerate(pool.imap_unordered(chunk, left)):
            file.write(json.dumps(told) + "\n")
            file.flush()
            done.append(json.loads(json.dumps(told)))
            bad = told["unsound"] + told["failed"]
            print(
                f"{at + 1}/{len(left)} {told['kind']} {told['first']}, {time.monotonic() - began:.0f} s",
                *bad,
                sep="\n",
                flush=True,
            )
    text = summary(done, asked)
    print(text)
    if not asked.no_docs:
        write_section("soundness", text)
    reasons = Counter(line.partition(": ")[2] for d in done for line in d["refused"])
    print(*(f"refused {n}: {why}" for why, n in reasons.most_common(20)), sep="\n")
    bad = [line for d in done for line in d["unsound"] + d["failed"]]
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
