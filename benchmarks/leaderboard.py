"""The leaderboard: every entry evaluated again, from its weights. One command.

    OMP_PROC_BIND=true .venv/bin/python -m benchmarks.leaderboard [--images 1000] [--only NAME ...] [--report]

docs/leaderboard.toml lists the entries. Each is evaluated by `unfooled.evaluate` with the protocol `standard` on the first
--images test images of its data set, in a run folder of its own under --out: a run that was stopped goes on. What the folder
then holds is verified once more, example by example, as `unfooled verify` does it, and its numbers go into
docs/leaderboard.json with the machine and the digest of the weights. --report only makes the tables of docs/leaderboard.md
from that file; an entry whose weights have changed since is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import unfooled as uf
from unfooled.fingerprint import state_hash
from unfooled.results import Estimate
from unfooled.verification import verify

from .common import ROOT, table, write_section

ENTRIES = ROOT / "docs" / "leaderboard.toml"
NUMBERS = ROOT / "docs" / "leaderboard.json"
PAGE = ROOT / "docs" / "leaderboard.md"
RUNS = ROOT / "runs" / "leaderboard"
BOARDS = {"fashion-mnist": "linf:0.1", "mnist": "linf:0.3"}


@dataclass(frozen=True)
class Entry:
    """One network on one board.

    name:     unique, as `unfooled.models.load` takes it, or free where `file` and `network` are given.
    data:     the board.
    how:      the objective and what it cost, in a few words.
    command:  what trains it.
    certify:  what proves, as `evaluate` takes it; empty: nothing is to be proved.
    network, file, sha256:  for weights that do not ship with the package.
    """

    name: str
    data: str
    how: str
    command: str
    certify: str = ""
    network: str = ""
    file: str = ""
    sha256: str = ""

    def model(self) -> torch.nn.Module:
        """The network with its weights, if they are those of the entry."""
        if not self.file:
            return uf.models.load(self.name)
        path = ROOT / self.file
        if not path.is_file():
            raise uf.errors.MissingData(f"{self.name}: there is no {self.file}; make it with: {self.command}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise uf.errors.DataError(f"{self.name}: {self.file} has the hash {found}, the entry says {self.sha256}.")
        return uf.models.load(self.network, path)


def entries() -> list[Entry]:
    found = tomllib.loads(ENTRIES.read_text())
    return [Entry(**one) for one in found["entry"]]


def evaluated(entry: Entry, images: int, out: Path) -> dict[str, Any]:
    """The entry's numbers, from its run folder, which is made or gone on with, and verified."""
    model = entry.model()
    folder = out / f"{entry.name.replace('/', '-')}-{images}-{state_hash(model)[:8]}"  # other weights are another run
    data = f"{entry.data}:test[0:{images}]"
    found = uf.evaluate(model, data, BOARDS[entry.data], "standard", entry.certify or None, out=folder)
    answer = verify(folder, model, uf.data.load(data))
    if not answer.holds:
        first = answer.problems[0]
        raise uf.errors.DataError(
            f"{entry.name}: {folder} does not hold when it is verified: example {first.example}: {first.what}."
        )
    robust = found.robust_accuracy
    return {
        "images": images, "weights": state_hash(model), "clean": found.clean_accuracy.value,
        "attacked": _numbers(robust.attacked), "certified": robust.certified and _numbers(robust.certified),
        "trust": _trust(found), "parameters": sum(p.numel() for p in model.parameters()),
        "machine": f"{found.environment.machine}, torch {found.environment.torch}",
    }  # fmt: skip


def _numbers(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _trust(found: uf.Evaluation) -> str:
    """The verdict, and the findings that took it from valid."""
    doubts = [one.code for one in found.findings if one.severity in ("suspect", "invalid")]
    return f"{found.trust}: {', '.join(doubts)}" if doubts else found.trust


def board(data: str, held: dict[str, Any]) -> str:
    """The table of one board, best first; entries whose trust is not valid stand below the others, with what was found."""
    mine = [entry for entry in entries() if entry.data == data and entry.name in held]
    mine.sort(key=lambda entry: (held[entry.name]["trust"] != "valid", -held[entry.name]["attacked"][0]))
    head = ["", "clean, %", "attacked, %", "proved, %", "trust", "how", "parameters", "images", "machine"]
    lines = []
    for entry in mine:
        row = held[entry.name]
        if state_hash(entry.model()) != row["weights"]:
            print(f"left out: the weights of {entry.name} have changed since it was evaluated.", file=sys.stderr)
            continue
        lines.append([
            f"`{entry.name}`", f"{100 * row['clean']:.1f}", _shown(row["attacked"]),
            _shown(row["certified"]) if row["certified"] else "–", row["trust"], entry.how,
            f"{row['parameters'] / 1e6:.2f} M", str(row["images"]), row["machine"],
        ])  # fmt: skip
    return f"Linf {BOARDS[data].partition(':')[2]}, protocol `standard`, the first test images.\n\n{table(head, lines)}"


def _shown(numbers: Sequence[float]) -> str:
    value, low, high = (100 * number for number in numbers)
    return f"**{value:.1f}** [{low:.1f}, {high:.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument("--report", action="store_true", help="only make the tables")
    asked = parser.parse_args()
    failed = 0
    held = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    for entry in entries():
        if asked.report or (asked.only and entry.name not in asked.only):
            continue
        try:
            held[entry.name] = evaluated(entry, asked.images, asked.out)
            NUMBERS.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
        except uf.errors.MissingData as reason:
            print(f"skipped: {reason}")
        except uf.errors.UnfooledError as reason:
            print(f"failed: {reason}", file=sys.stderr)
            failed += 1
    for data in BOARDS:
        text = board(data, held)
        print(text)
        write_section(data, text, PAGE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
