"""Where and when something was measured."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from ._version import __version__
from .results import Environment


def environment() -> Environment:
    """This machine and these versions."""
    return Environment(
        unfooled=__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),
        machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def now() -> str:
    """The time, in UTC to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def command_line() -> str:
    """How this program was called, so that a report says how to repeat it."""
    return shlex.join(["unfooled", *sys.argv[1:]])
