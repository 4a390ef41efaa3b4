"""Training in two processes, and training that is killed."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from unfooled.models.weights import read

SCRIPT = """
    import sys, torch
    torch.set_num_threads(1)
    import unfooled as uf
    from unfooled import rng
    from torch import nn

    with rng.forked(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)).double()
        start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    data = uf.data.load("fashion-mnist-sample[0:203]")
    done = uf.train(
        model, (data.floats().double(), data.labels), uf.Linf(0.1),
        uf.Recipe("two", sys.argv[2], "pgd:steps=2,step_size=0.5", epochs=2, batch_size=30, held_out=20, average=0.9,
                  augment="shift:1", warm_up=0.3, awp=0.005, clip=5.0),
    )
    found = nn.utils.parameters_to_vector(done.model.parameters()).detach()
    import os
    if os.environ.get("RANK", "0") == "0":
        torch.save({"start": start, "end": found, "loss": [e.loss for e in done.history], "robust": [e.robust for e in done.history]}, sys.argv[1])
"""


@pytest.mark.parametrize("objective", [pytest.param("adversarial", marks=pytest.mark.slow), "trades:beta=3"])
def test_two_processes_learn_what_one_does(tmp_path, objective):
    pytest.importorskip("accelerate")
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    commands = {
        "one": [sys.executable, str(script)],
        "two": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--rdzv-backend=c10d",
                "--rdzv-endpoint=localhost:0", str(script)],
    }  # fmt: skip
    found = {}
    for name, command in commands.items():
        done = subprocess.run(
            [*command, str(tmp_path / name), objective], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found[name] = torch.load(tmp_path / name, weights_only=True)
    one, two = found["one"], found["two"]
    assert (one["end"] - one["start"]).abs().max() > 1e-3
    torch.testing.assert_close(two["end"], one["end"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two["robust"], one["robust"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_killed_at_ten_moments_ends_with_the_same_weights(tmp_path):
    """The installed program, SIGKILL at random moments, at last left alone."""
    program = [str(Path(sys.executable).parent / "unfooled")]
    words = [
        "train",
        "fashion-mnist-sample",
        "--recipe",
        "trades",
        "--epochs",
        "6",
        "--set",
        "average=0.99",
        "--set",
        "awp=0.005",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(name):
        return subprocess.Popen(
            [*program, *words, "--out", str(tmp_path / name)], env=environment, stderr=subprocess.PIPE
        )

    began = time.monotonic()
    whole = start("whole.safetensors")
    assert whole.wait(900) == 0, whole.stderr.read()
    length = time.monotonic() - began
    moments = random.Random(4)
    kills = 0
    while kills < 10:
        running = start("killed.safetensors")
        time.sleep(moments.uniform(0.1, 0.35) * length)
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        running.wait()
        running.stderr.close()
        if running.returncode == 0:  # it was faster than all ten: the rest falls on an ended run
            break
    last = start("killed.safetensors")
    assert last.wait(900) == 0, last.stderr.read()
    one, two = read(tmp_path / "whole.safetensors"), read(tmp_path / "killed.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
