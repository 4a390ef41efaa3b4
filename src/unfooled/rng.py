"""Random numbers that belong to an example, not to a moment.

A number depends on (seed, example, trial, k, salt) alone: neither batch size, nor order, nor worker count can change it.
A key of 64 bits is hashed for each row, and SplitMix64 (Steele, Lea & Flood 2014) counts on from there; all of it in
wrapping int64 arithmetic, which every device does alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15


def _signed(number: int) -> int:
    """A 64-bit pattern as torch's int64 holds it."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser. Shifts are logical: the copies of the sign are masked away."""
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def keys(ids: Tensor, *parts: Tensor | int) -> Tensor:
    """Hash ids (N,) int64 and further integers (each (N,) or one for all) into a key for each row."""
    return further(_mix(ids + _signed(_GOLDEN)), *parts)


def further(key: Tensor, *parts: Tensor | int) -> Tensor:
    """Hash more integers into keys: `further(keys(ids, 1), 2)` is `keys(ids, 1, 2)`."""
    for part in parts:
        key = _mix(key * _signed(0xD1342543DE82EF95) + part + _signed(_GOLDEN))
    return key


def uniform(key: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Uniform draws in (0, 1), never 0 or 1: keys (N,) to (N, *shape). The same numbers in float32 and float64."""
    count = torch.arange(1, shape.numel() + 1, device=key.device) * _signed(_GOLDEN)
    bits: Tensor = _mix(key[:, None] + count) >> 41 & ((1 << 23) - 1)
    return ((bits.to(dtype) + 0.5) / (1 << 23)).reshape((len(key), *shape))


def normal(key: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Standard normal draws, by the inverse of the distribution function: keys (N,) to (N, *shape)."""
    draws: Tensor = torch.special.ndtri(uniform(key, shape, torch.float64))
    return draws.to(dtype)


def image_ids(images: Tensor, labels: Tensor) -> Tensor:
    """A hash of each image (as float32) and its label: (N, *shape), (N,) to (N,) int64."""
    count = torch.arange(1, images[0].numel() + 1, device=images.device)
    weights = _mix(count * _signed(_GOLDEN)) | 1
    total = torch.empty(len(images), dtype=torch.int64, device=images.device)
    for at in range(0, len(images), 1024):  # in parts: the int64 copy is twice the images' size
        bits = images[at : at + 1024].flatten(1).to(torch.float32).view(torch.int32)
        total[at : at + 1024] = (bits * weights).sum(1)
    return keys(total, labels.to(images.device))


def seed_globally(*seeds: int) -> None:
    """Seed the global generators; only inside `forked`, which puts back what the caller had."""
    seed = int(keys(torch.tensor([0]), *seeds)[0]) & ((1 << 32) - 1)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def forked(*seeds: int) -> Iterator[None]:
    """Seed the global generators (torch, its devices, numpy, random) that a model may use; restore them after."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        try:
            seed_globally(*seeds)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def torch_state(device: torch.device) -> bytes:
    """The state of torch's global generators: it changes when a forward pass has drawn from one."""
    state = torch.get_rng_state().numpy().tobytes()
    return state + torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else state


def other_states() -> tuple[object, ...]:
    """The states of numpy's and Python's global generators; dearer to read than torch's."""
    name, words, *rest = np.random.get_state()
    return (random.getstate(), name, *rest, np.asarray(words).tobytes())
