"""Independent pieces of work on the threads that torch has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch


def each(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Call `work` for each of the items, several at a time, each computed by one thread.

    What one image's bounds take are many products too small to be worth dividing: two images side by side are faster than
    one after the other on two threads. Not so where this thread is bound to one core (OMP_PROC_BIND): new ones are, too.
    Raises what `work` raises first.
    """
    given, threads, gradients = list(items), torch.get_num_threads(), torch.is_grad_enabled()
    at_once = min(threads, _cores(), len(given))
    if at_once < 2:
        for item in given:
            work(item)
        return

    def alike(item: int) -> None:
        with torch.set_grad_enabled(gradients):  # which each thread has of its own
            work(item)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(at_once, "bounds") as pool:
            list(pool.map(alike, given))  # which raises what one of them raised
    finally:
        torch.set_num_threads(threads)


def _cores() -> int:
    """How many cores new threads may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
