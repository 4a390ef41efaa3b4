"""The installed program, killed by SIGKILL at 20 random moments, ends as an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from test_resume import MODEL, assert_same_end, command

pytestmark = pytest.mark.slow
COUNT, SHARD, KILLS = 300, 128, 20
STAGES = (  # a kill comes a random moment after one of these has been written
    "kept/preflight.json", "kept/strategy.json", "adversarial/00000.safetensors", "adversarial/00001.safetensors",
    "adversarial/00002.safetensors", "pictures.safetensors", "evaluation.json", "plots/distances.png", "report.html",
)  # fmt: skip


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Start the program on the tiny model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(MODEL)
    names = {"__name__": "tiny"}
    exec(compile(MODEL, "tiny.py", "exec"), names)
    names["write"](tmp_path / "data.npz", COUNT)
    script = str(Path(sys.executable).parent / "unfooled")
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([script, *command(out=out)], env=env, text=True, **quiet)

    return start


def test_killed_at_twenty_random_moments(program, tmp_path):
    """As many runs as it takes; each ends, after its kills, as the undisturbed one."""
    assert program("whole").wait() == 0
    draw, number, stages = random.Random(0), 0, []
    while len(stages) < KILLS:
        folder = tmp_path / f"run{number}"
        while len(stages) < KILLS and (stage := draw.choice(ahead(folder))):
            process = program(folder)
            if killed(process, folder / stage, draw.choice((0.02, 0.5)) * draw.random()):
                stages.append(stage)
        process = program(folder)
        assert process.wait() == 0, process.stderr.read()
        assert_same_end(folder, tmp_path / "whole", shards=-(-COUNT // SHARD))
        number += 1
    print(f"{number} runs, killed after {stages}")
    assert number > 1
    assert len(set(stages)) > 5


def ahead(folder):
    """The next stages of a run, the lock, and None where all has been written."""
    missing = [name for name in STAGES if not (folder / name).exists()]
    return ["lock", *missing[:2]] if missing else [None]


def killed(process, stage, later):
    """Kill a process so many seconds after it has written a file; false if it ended before."""
    began = time.time_ns()
    while process.poll() is None:
        with suppress(FileNotFoundError):
            if stage.stat().st_mtime_ns > began:
                break
        time.sleep(0.001)
    time.sleep(later)
    process.kill()
    said = process.communicate()[1]
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode != 0
