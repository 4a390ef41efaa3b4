"""The leaderboard: every entry evaluated again, from its weights. One command.

    OMP_PROC_BIND=true .venv/bin/python -m benchmarks.leaderboard [--images 1000] [--only NAME ...] [--report]

docs/leaderboard.toml lists the entries. Each is evaluated by `unfooled.evaluate` with the protocol `standard` on the first
--images test images of its data set, in a run folder of its own under --out: a run that was stopped goes on. What the folder
then holds is verified once more, example by example, as `unfooled verify` does it. --report only makes the tables of what the
folders hold. The tables go into docs/leaderboard.md.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch

import unfooled as uf
from unfooled.store import RunFolder
from unfooled.verification import verify

from .common import ROOT, machine, table, write_section

ENTRIES = ROOT / "docs" / "leaderboard.toml"
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
    network, file, sha256:  for weights that do not ship with the package.
    """

    name: str
    data: str
    how: str
    command: str
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


def evaluated(entry: Entry, images: int, out: Path) -> None:
    """The entry's run folder, made or gone on with, and verified."""
    folder = out / f"{entry.name.replace('/', '-')}-{images}"
    uf.evaluate(entry.model(), f"{entry.data}:test[0:{images}]", BOARDS[entry.data], "standard", out=folder)
    answer = verify(folder, entry.model(), uf.data.load(f"{entry.data}:test[0:{images}]"))
    if not answer.holds:
        first = answer.problems[0]
        raise uf.errors.DataError(
            f"{entry.name}: {folder} does not hold when it is verified: example {first.example}: {first.what}."
        )


def board(data: str, images: int, out: Path) -> str:
    """The table of one board, best first; entries whose trust is not valid stand below the others, with what was found."""
    rows = []
    for entry in (one for one in entries() if one.data == data):
        folder = RunFolder(out / f"{entry.name.replace('/', '-')}-{images}")
        if not (folder.path / "evaluation.json").exists():
            continue
        found = folder.evaluation()
        told = found.robust_accuracy.attacked
        rows.append((told.value, entry, found, f"[{100 * told.low:.1f}, {100 * told.high:.1f}]"))
    rows.sort(key=lambda row: (row[2].trust != "valid", -row[0]))  # what is doubted stands below what is not
    head = ["", "clean, %", "robust, %", "95 % interval", "trust", "how", "parameters"]
    lines = [
        [
            f"`{entry.name}`", f"{100 * found.clean_accuracy.value:.1f}", f"**{100 * value:.1f}**", span, _trust(found),
            entry.how,
            f"{sum(p.numel() for p in entry.model().parameters()) / 1e6:.2f} M",
        ]
        for value, entry, found, span in rows
    ]  # fmt: skip
    told = f"Linf {BOARDS[data].partition(':')[2]}, protocol `standard`, the first {images} test images. {machine()}."
    return f"{told}\n\n{table(head, lines)}"


def _trust(found: uf.Evaluation) -> str:
    """The verdict, and the findings that took it from valid."""
    doubts = [one.code for one in found.findings if one.severity in ("suspect", "invalid")]
    return f"{found.trust}: {', '.join(doubts)}" if doubts else found.trust


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument("--report", action="store_true", help="make the tables of what has run")
    asked = parser.parse_args()
    failed = 0
    for entry in entries():
        if asked.report or (asked.only and entry.name not in asked.only):
            continue
        try:
            evaluated(entry, asked.images, asked.out)
        except uf.errors.MissingData as reason:
            print(f"skipped: {reason}")
        except uf.errors.UnfooledError as reason:
            print(f"failed: {reason}", file=sys.stderr)
            failed += 1
    for data in BOARDS:
        text = board(data, asked.images, asked.out)
        print(text)
        write_section(data, text, PAGE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
