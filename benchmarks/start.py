"""How long it takes until something happens. One command, one table; exit status 1 where a limit is not held.

    .venv/bin/python benchmarks/start.py [--runs 5]

Each is the median over whole, fresh processes, after one that nobody times:

1. `unfooled --help` and `unfooled --version`: the whole process, as a shell sees it. Limit for the help: 0.4 s.
2. A Tab, that is one completion of a word: the whole process.
3. `import unfooled` in a process that has imported torch: what it adds. Limit: 0.1 s. Beside it what `import torch` takes,
   and what it adds to have every public name at hand.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "unfooled"
HELP, ADDED = 0.4, 0.1  # seconds, at most
TAB = {"_UNFOOLED_COMPLETE": "complete_bash", "COMP_WORDS": "unfooled evaluate fash", "COMP_CWORD": "2"}
IMPORTS = """
import time
start = time.perf_counter()
import torch
first = time.perf_counter()
import unfooled
second = time.perf_counter()
for name in unfooled.__all__:
    getattr(unfooled, name)
print(first - start, second - first, time.perf_counter() - second)
"""


def whole(command: list[str], more: dict[str, str]) -> float:
    """Seconds that a process takes."""
    start = time.perf_counter()
    subprocess.run(command, env=os.environ | more, check=True, capture_output=True)
    return time.perf_counter() - start


def median(command: list[str], runs: int, more: dict[str, str] | None = None) -> float:
    times = [whole(command, more or {}) for _ in range(runs + 1)]
    return statistics.median(times[1:])


def imports(runs: int) -> list[float]:
    """Seconds of `import torch`, of `import unfooled` after it, of all public names after that."""
    done = [
        subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
        for _ in range(runs + 1)
    ]
    return [statistics.median(column) for column in zip(*(map(float, d.stdout.split()) for d in done[1:]), strict=True)]


def line(what: str, seconds: float, limit: float | None = None) -> bool:
    held = limit is None or seconds <= limit
    asked = "" if limit is None else f"   at most {limit:.1f} s: {'held' if held else 'NOT HELD'}"
    print(f"{what:<46}{seconds:8.3f} s{asked}")
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"medians of {runs} processes, Python {platform.python_version()}, {os.cpu_count()} cores\n")
    held = [line("unfooled --help", median([str(PROGRAM), "--help"], runs), HELP)]
    line("unfooled --version", median([str(PROGRAM), "--version"], runs))
    line("a Tab after 'unfooled evaluate fash'", median([str(PROGRAM)], runs, TAB))
    torch, package, names = imports(runs)
    line("import torch", torch)
    held.append(line("import unfooled, beyond import torch", package, ADDED))
    line("every public name of unfooled, beyond these", names)
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
