"""The side of a worker: it opens the question once, and examines one shard after the other. It needs no Ray."""

from __future__ import annotations

import os
import socket
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from .._version import __version__
from ..errors import UnfooledError
from ..shard import Outcome, examine
from .parcel import Part, cloudpickle, shared, unpacked

VERSIONS = (("unfooled", __version__), ("torch", torch.__version__.partition("+")[0]))


@dataclass(frozen=True)
class Opened:
    """What a worker says of itself when it has opened the question.

    reads:     whether it reads the images that the run began with, as they are there.
    versions:  of the packages that evidence depends on.
    """

    machine: str
    reads: bool
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """The outcome of a shard; its adversarial examples apart, as an array, which Ray hands on without a copy."""

    bare: Outcome
    points: np.ndarray

    @property
    def outcome(self) -> Outcome:
        """All of it."""
        return replace(self.bare, adversarial=shared(self.points))


@dataclass(frozen=True)
class Failure:
    """What an examination has raised."""

    error: Exception


class Worker:
    """Holds a question, in a process of its own.

    cores:   threads of torch.
    gpu:     whether it has one.
    bound:   whether OpenMP has bound the process that began to some cores, which its children would share.
    """

    def __init__(self, cores: int, gpu: bool = False, bound: bool = False) -> None:
        if bound and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        torch.set_num_threads(cores)
        self.device = torch.device("cuda", 0) if gpu and torch.cuda.is_available() else None

    def open(self, data: bytes) -> Opened:
        """Take the question in."""
        self.parcel = unpacked(data, self.device)
        self.parcel.settings.use()
        return Opened(socket.gethostname(), self._reads(), VERSIONS)

    def _reads(self) -> bool:
        """Whether the sample is here as it is where the run began."""
        sample, source = self.parcel.sample, self.parcel.source
        if source is None:
            return False
        try:
            found = self.parcel.read(replace(sample, rows=source.images.rows[:1], images=None))
        except (UnfooledError, OSError):
            return False
        return torch.equal(found, self.parcel.read(sample))

    def examine(self, part: Part) -> tuple[bool, Answer | Failure]:
        """What became of a shard, or what has been raised; before it, whether it is the former."""
        try:
            question = self.parcel.of(part)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nobody reads them here; what matters is in the outcome's notes
                outcome = examine(question, torch.arange(len(part.index)))
        except Exception as error:
            return False, Failure(_sendable(error))
        return True, Answer(replace(outcome, adversarial=torch.empty(0)), outcome.adversarial.cpu().numpy())


def _sendable(error: Exception) -> Exception:
    """The error itself, where it can be sent; else one of ours that says the same."""
    pickling = cloudpickle()
    try:
        pickling.loads(pickling.dumps(error))
    except Exception:
        return UnfooledError(f"{type(error).__name__}: {error}")
    return error


def other_versions(opened: Opened) -> str:
    """Which versions differ from those here, in words; empty where none does."""
    pairs = zip(opened.versions, VERSIONS, strict=True)
    return " and ".join(f"{name} {there}, not {here}" for (name, there), (_, here) in pairs if there != here)
