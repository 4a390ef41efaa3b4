"""How many rows fit: memory that is free, and what a pass needs for each row.

On CPUs Linux kills a process that asks for too much instead of raising, so the need is measured on a few rows first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

PROBE = 16  # rows of the first look, which is measured
SHARE = 0.5  # of the free memory; the rest is for the points, the caller and what the system caches

BLOCK = 31 << 20  # just under the largest block that glibc adapts to


class Need:
    """Bytes that passes keep for their backward passes, while it is being watched."""

    def __init__(self) -> None:
        self.bytes = 0

    def row(self, rows: int) -> int:
        """For each of so many rows; twice what is kept, since a layer's gradient is as large as what it kept."""
        return 2 * self.bytes // max(rows, 1)


@contextmanager
def watched(known: set[int]) -> Iterator[Need]:
    """Count the storage that autograd saves meanwhile, without that at the addresses `known`: the parameters."""
    need, seen = Need(), set(known)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            need.bytes += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield need


def keep_freed() -> None:
    """Have glibc keep up to 62 MiB of freed memory, where it would give it back after each pass and fault it in again.

    It keeps twice the size of the largest block that has been freed so far, if that had at most 32 MiB. Elsewhere this
    is an allocation that nothing touches.
    """
    torch.empty(BLOCK, dtype=torch.uint8)


def free(device: torch.device) -> int:
    """Bytes that can be had on a device: on CPUs the lesser of what the system and the control group have left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_meminfo()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return max(min(found), 0)


def _meminfo() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 62  # not Linux: such systems swap, or raise


def fits(row: int, device: torch.device) -> int:
    """Rows that may be in work at a time where each needs so many bytes; at least one."""
    return max(1, int(SHARE * free(device)) // max(row, 1))
