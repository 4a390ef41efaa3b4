"""Random small networks and boxes against the bounds: is any of them wrong?

    python -m benchmarks.soundness --networks 100000 --milp 1000 --seed 0 [--jobs 2]

Networks are those of `cases` in `tests/random_networks.py`: a structure that is traced once, and weights that are drawn anew
for each of its networks. Each gets three images and a threat (Linf, L2 or L1, at times a mask or other bounds).
Every logit and every margin is attacked over the set (`tests/unsound.py`: samples, corners, Frank-Wolfe), in float64 and, at
float32 points up to the tolerance of `Threat.contains`, by the model itself; a bound on the wrong side of any answer by any
amount is unsound. Every 49th network goes through `bounded`, `margins` and `certify` too, traced by them. For --milp
networks the exact minimum of every margin is computed by `tests/milp.py` as well. Finished chunks are kept under --out and
not done again until the code of the bounds or of the check changes. Ends with 1, and the seeds, if any answer was unsound or
any network failed. `--report` writes the table of the finished chunks into the docs; `--show SEED` prints one network;
`--fault NAME` puts an error into the bounds first, which must be found.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import hashlib
import inspect
import json
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from unfooled.certificates import bounds, certify, linear, parse, proof
from unfooled.certificates.graph import Traced
from unfooled.errors import UnfooledError
from unfooled.models.classifier import untouched

from .common import ROOT, RUNS, machine, table, write_section

sys.path.insert(0, str(ROOT / "tests"))
from milp import exact_margins
from random_networks import Case, case, cases
from unsound import Given, Seen, attacked, claims, contradictions, lowest

CHUNK = {"attack": 100, "milp": 20}
FAMILY = 25  # networks of one structure
PUBLIC = 49  # of so many networks one goes through the public functions: every place in a family comes up
METHODS = ("ibp", "crown", "alpha-crown:steps=5")  # any slope must be sound: few steps of them
ORDER = 1e-9  # relative: how much looser a bound may be than that of the method before it
SAME = 1e-9  # relative: how far apart a bound may be from that of the public function


def gap(c: Case, claimed: Given, lowest: Tensor) -> float:
    """How far the margins claimed are below the lowest ones found, in all."""
    others = torch.arange(lowest.shape[1]) != c.labels[:, None]
    return float((lowest - claimed.margins)[others].clamp(min=0).sum())


def solved(c: Case, traced: Traced) -> Callable[[str], Given]:
    """What a method claims of a case, by the `Problem` that the public functions make, from a graph that is there."""
    with torch.no_grad(), untouched(c.model), mock.patch.object(proof, "Traced", return_value=traced):
        problem = proof.Problem(proof._victim(c.model), c.images, c.threat, torch.arange(len(c.images)))
    unit = torch.eye(problem.logits.shape[1], dtype=torch.float64)
    logits, differences = unit.expand(len(c.images), -1, -1), proof._differences(c.labels, len(unit))

    def claimed(method: str) -> Given:
        with torch.no_grad():
            found = problem.least(parse(method), torch.cat([logits, -logits, differences], 1))
        low, high, margins = found.split(len(unit), 1)
        return Given(low, -high, margins.scatter(1, c.labels[:, None], torch.inf))

    return claimed


def public(c: Case, before: dict[str, Given], seen: Seen) -> list[str]:
    """What is wrong with the answers of the public functions, or otherwise than in `before` (optimised slopes: may be)."""
    wrong = []
    for method, ours in before.items():
        theirs = claims(c, method)
        wrong += contradictions(c, theirs, seen, method)
        if method.startswith("alpha"):
            continue
        for a, b in ((ours.lower, theirs.lower), (ours.upper, theirs.upper), (ours.margins, theirs.margins)):
            if not torch.allclose(a, b, SAME, SAME * float(b[b.isfinite()].abs().amax())):
                wrong.append(f"{c}: {method}: the public function gives another bound")
    found = certify(c.model, (c.images, c.labels), c.threat, list(before))
    fooled = (lowest(c, seen).scatter(1, c.labels[:, None], torch.inf) <= 0).any(1)
    if bool((found.certified & fooled).any()):
        wrong.append(f"{c}: {list(before)[-1]}: certify is wrong")
    return wrong


def check(
    kind: str,
    c: Case,
    claimed: Callable[[], Callable[[str], Given]],
    methods: tuple[str, ...],
    told: dict,
    wide: nn.Module | None = None,
) -> None:
    """One network: everything found goes into `told`.

    claimed:  makes what answers for each method;  wide: the network in float64.
    """
    seed = c.seed
    began = time.process_time()
    seen = attacked(c, wide=wide)
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
    gaps, given = {}, {}
    before: Given | None = None
    others = torch.arange(least.shape[1]) != c.labels[:, None]
    for method in methods:
        began = time.process_time()
        try:
            if not given:
                ask = claimed()
            given[method] = ask(method)
        except UnfooledError as error:
            told["refused"].append(f"seed {seed}, {method}: {type(error).__name__}: {error}")
            return
        except Exception as error:
            told["failed"].append(f"seed {seed}, {method}: {type(error).__name__}: {str(error).splitlines()[:1]}")
            return
        told["seconds"][method] += time.process_time() - began
        wrong = contradictions(c, given[method], seen, method)
        if kind == "milp" and bool((given[method].margins > least)[others].any()):
            wrong.append(f"{c}: {method}: a margin is above the exact one")
        told["unsound"] += wrong
        told["certified"][method] += int((given[method].margins.amin(1) > 0).sum())
        gaps[method] = gap(c, given[method], least)
        if before is not None:
            slack = ORDER * (1 + before.margins.abs())
            if bool((given[method].margins < before.margins - slack)[others].any()):
                told["looser"].append(f"seed {seed}, {method}")
        before = given[method]
    if kind == "attack" and seed % PUBLIC == 0:
        try:
            told["unsound"] += public(c, given, seen)
        except Exception as error:
            told["failed"].append(f"seed {seed}, public: {type(error).__name__}: {str(error).splitlines()[:1]}")
        told["public"] += 1
    told["holds"] += int((least.masked_fill(~others, torch.inf).amin(1) > 0).sum())
    widest = max(gaps.values())
    for method, value in gaps.items():
        told["gap"][method] += value / widest if 0 < widest < torch.inf else 0.0


def doubled(model: nn.Module, wide: nn.Module | None) -> nn.Module:
    """The model in float64; `wide` with its numbers, where there is one."""
    if wide is None:
        return copy.deepcopy(model).double()
    for mine, its in zip(wide.state_dict().values(), model.state_dict().values(), strict=True):
        mine.copy_(its)
    return wide


def attack_chunk(first: int, end: int, methods: tuple[str, ...], told: dict) -> None:
    """Networks with structures in common. A quarter of them is bounded image by image, as large ones are."""
    for start in range(first // FAMILY * FAMILY, end, FAMILY):
        traced: list[Traced] = []
        wide: nn.Module | None = None
        for c in cases(start, min(start + FAMILY, end)):
            if c.seed < first:
                continue

            def claimed(c: Case = c, traced: list[Traced] = traced) -> Callable[[str], Given]:
                if not traced:
                    traced.append(Traced(c.model, c.images[0]))
                return solved(c, traced[0])

            with mock.patch.object(linear, "TOGETHER", linear.TOGETHER if c.seed % 4 else 0):
                wide = doubled(c.model, wide)
                check("attack", c, claimed, methods, told, wide)


def chunk(work: tuple[str, int, int, tuple[str, ...]]) -> dict:
    """The networks of some seeds, in this process on one thread."""
    kind, first, end, methods = work
    torch.set_num_threads(1)
    told: dict = defaultdict(int)
    for name in ("unsolved", "refused", "failed", "unsound", "looser"):
        told[name] = []
    for name in ("seconds", "certified", "gap"):
        told[name] = defaultdict(float)
    if kind == "attack":
        attack_chunk(first, end, methods, told)
    else:
        for seed in range(first, end):
            c = case(seed, count=1, exact=True)
            check(kind, c, lambda c=c: functools.partial(claims, c), methods, told)
    return {"kind": kind, "first": first, "end": end, "methods": methods, "code": code(), **told}


FILES = (
    "bounds",
    "curves",
    "graph",
    "linear",
    "local",
    "lowering/*",
    "methods",
    "operations",
    "parallel",
    "patches",
    "reach",
    "slopes",
)


@functools.cache
def code() -> str:
    """A hash of all that decides the answers, as it was when this process began."""
    folder = ROOT / "src" / "unfooled" / "certificates"
    files = [file for name in FILES for file in sorted(folder.glob(f"{name}.py"))]
    files += [ROOT / "src" / "unfooled" / "norms.py", ROOT / "src" / "unfooled" / "threats.py", Path(__file__)]
    files += [ROOT / "tests" / f"{name}.py" for name in ("milp", "random_networks", "unsound")]
    sources = [file.read_text(encoding="utf-8") for file in files] + [inspect.getsource(proof.Problem)]
    return hashlib.sha256("".join(map(bare, sources)).encode()).hexdigest()[:16]


def bare(source: str) -> str:
    """What a source does: without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    return ast.dump(tree)


# --- errors that must be found -----------------------------------------------------------------------------------------


def _lines(found: bounds.Bounds, at: int, original: Callable = linear.lines_of) -> bounds.Lines:
    """The lines over curves a hundredth too low."""
    lines = original(found, at)
    return replace(lines, over=(lines.over[0], 0.99 * lines.over[1]))


def _constant(found: bounds.Bounds, number: int, original: Callable = bounds.Bounds.constant) -> Tensor:
    """A bias dropped: the first number of every affine step's."""
    constant = original(found, number).clone()
    constant.flatten()[0] = 0.0
    return constant


FAULTS: dict[str, list[tuple[object, str, object]]] = {
    "intercept": [(linear, "lines_of", _lines)],
    "bias": [(bounds.Bounds, "constant", _constant)],
    "rounding": [
        (bounds, "_sum_rounding", lambda affine, lows, highs, unit: torch.zeros_like(affine.function(*lows))),
        (bounds, "_curve_rounding", lambda operation, low, high, unit: torch.zeros_like(low)),
    ],
    "radius": [(proof.Reach, "hull", lambda reach: tuple(
        side.view_as(reach.images) for side in (reach.low + (reach.high - reach.low) / 1000, reach.high)
    ))],
}  # fmt: skip
"""By name: what is put in place of what."""


def faulty(asked) -> int:
    """Whether an error in the bounds is found in the networks asked for; ends with 0 if it is."""
    with ExitStack() as stack:
        for where, name, other in FAULTS[asked.fault]:
            stack.enter_context(mock.patch.object(where, name, other))
        told = chunk(("attack", asked.seed, asked.seed + asked.networks, asked.methods))
    seeds = {line.split(",")[0] for line in told["unsound"]}
    print(
        f"{asked.fault}: unsound answers in {len(seeds)} of {told['networks']} networks, failed {len(told['failed'])}"
    )
    print(*told["unsound"][:3], sep="\n")
    return 0 if seeds else 1


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


HEAD = [
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


def summary(done: list[dict], asked) -> str:
    """The section of the docs."""
    rows = []
    for kind, name in (("attack", "samples and attack"), ("milp", "and exact minimum by MILP")):
        parts = [d for d in done if d["kind"] == kind]
        networks, boxes = (sum(d.get(what, 0) for d in parts) for what in ("networks", "boxes"))
        for method in asked.methods if networks else ():
            mine = [w for d in parts for w in d["unsound"] if f": {method}:" in w]
            looser = sum(w.endswith(f", {method}") for d in parts for w in d["looser"])
            cost = sum(d["seconds"].get(method, 0.0) for d in parts) / networks
            proved = int(sum(d["certified"].get(method, 0) for d in parts))
            left = sum(d["gap"].get(method, 0.0) for d in parts) / networks
            row = (networks, boxes, proved, sum(d.get("holds", 0) for d in parts), f"{left:.3f}", looser)
            rows.append([name, method, *map(str, row), f"{1000 * cost:.1f}", str(len(mine))])
    lost = {what: sum(len(d[what]) for d in done) for what in ("refused", "failed", "unsolved")}
    return (
        "## Are the bounds sound?\n\n"
        f"`python -m benchmarks.soundness --networks {asked.networks} --milp {asked.milp} --seed {asked.seed} --methods "
        f"{','.join(asked.methods)}`, then `--report`. Random small networks, {sum(d.get('points', 0) for d in done)} points "
        f'in all, the public functions on {sum(d.get("public", 0) for d in done)} networks. "not fooled" counts the boxes in '
        "which no point found (by MILP: no point at all) fools the model, \"gap left\" the margins' distance from the lowest "
        "found (exact) ones, as a share of the loosest method's, \"looser\" the networks where a margin is below that of the "
        f"line above. Networks {', '.join(f'{what} {number}' for what, number in lost.items())}. {machine()}.\n\n"
        + table(HEAD, rows, left=2)
    )  # fmt: skip


def show(asked) -> int:
    """One network, printed with all that is wrong with it."""
    first = asked.show // FAMILY * FAMILY
    for kind, c in (("attack", list(cases(first, asked.show + 1))[-1]), ("milp", case(asked.show, 1, exact=True))):
        told = chunk((kind, asked.show, asked.show + 1, asked.methods))
        print(c, c.model, json.dumps(told, indent=1), sep="\n")
    return 0


def run(asked, done: list[dict]) -> None:
    """What is left to do, added to `done` and to the file."""
    left = list(chunks(asked, done))
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool, asked.out.open("a", encoding="utf-8") as file:
        for at, told in enumerate(pool.imap_unordered(chunk, left)):
            file.write(json.dumps(told) + "\n")
            file.flush()
            done.append(json.loads(json.dumps(told)))
            word = f"{at + 1}/{len(left)} {told['kind']} {told['first']}, {time.monotonic() - began:.0f} s"
            print(word, *told["unsound"], *told["failed"], sep="\n", flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--networks", type=int, default=1000)
    options.add_argument("--milp", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=METHODS)
    options.add_argument("--out", type=Path, default=RUNS / "soundness.jsonl")
    options.add_argument(
        "--report", action="store_true", help="write the table of what is done into the docs; run nothing"
    )
    options.add_argument("--show", type=int, metavar="SEED")
    options.add_argument("--fault", choices=FAULTS, help="look for this error, which is put into the bounds")
    asked = options.parse_args()
    if asked.show is not None:
        return show(asked)
    if asked.fault:
        return faulty(asked)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    done = wanted(asked, finished(asked.out))
    if not asked.report:
        run(asked, done)
    text = summary(done, asked)
    print(text)
    if asked.report:
        write_section("soundness", text)
    reasons = Counter(line.partition(": ")[2] for d in done for line in d["refused"])
    print(*(f"refused {n}: {why}" for why, n in reasons.most_common(20)), sep="\n")
    bad = [line for d in done for line in d["unsound"] + d["failed"]]
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
