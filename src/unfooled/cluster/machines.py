"""Workers that are actors of Ray: one for each GPU, or for each group of cores."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..board import Question
from ..errors import ClusterError, MissingExtra, Note, must_be
from ..pool import Progress
from ..shard import Arriving, Outcome
from .dispatch import Event, Lost, deliver
from .parcel import packed, part_of, readable
from .worker import Answer, Failure, Opened, Worker, other_versions

COUNTING = 10.0  # seconds after which the machines are counted again
REACH = 10.0  # seconds for the head of a cluster to answer
ALONE = 60.0  # seconds without any worker after which it is said that the run waits
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


@dataclass(frozen=True)
class Ray:
    """Where shards are examined: on a cluster of Ray.

    address:  "local": this machine, as a cluster that ends with the run; "auto": the cluster that this machine belongs to;
              or HOST:PORT of its head.
    cores:    of each worker, and threads of its torch.
    gpus:     of each worker; None: one, where the cluster has any.

    Where the process is connected to Ray already, that cluster is used. Raises `MissingExtra`, `ClusterError`.
    """

    address: str = "local"
    cores: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.address, str) and self.address.strip()):
            raise must_be("Ray", "address", "'local', 'auto' or HOST:PORT", self.address)
        if type(self.cores) is not int or self.cores < 1:
            raise must_be("Ray", "cores", "an int of at least 1", self.cores)
        if self.gpus is not None and not (isinstance(self.gpus, int | float) and self.gpus >= 0):
            raise must_be("Ray", "gpus", "a number of at least 0, or None", self.gpus)

    def __call__(
        self,
        question: Question,
        parts: Mapping[int, Tensor],
        ordered: bool,
        progress: Callable[[Progress], None] | None = None,
    ) -> Arriving:
        """The outcomes of shards, each with its number: in their order, or else as they come."""
        ray = self.checked()
        if not parts:
            return
        with _joined(ray, self.address):
            crew = RayCrew(ray, question, parts, self)
            try:
                yield from deliver(crew, parts, ordered)
            finally:
                crew.dismiss()

    def checked(self) -> Any:
        """Ray itself. Raises `MissingExtra` where it is not installed."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise MissingExtra('Many machines need Ray: pip install "unfooled[ray]"') from error
        return ray


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    """Be part of a cluster; one that was made for this is ended."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        _reached(address)
        with _terminable(), _unbound() if address == "local" else nullcontext():
            ray.init(address=address, include_dashboard=False if address == "local" else None, **quiet)
    except Exception as error:  # Ray raises many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        cure = "" if address == "local" else " Start one with 'ray start --head', or use this machine alone: local."
        raise ClusterError(f"There is no Ray cluster to be had at {address!r}: {reason.rstrip('.')}.{cure}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reached(address: str) -> None:
    """Raises `OSError` where nobody answers at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=REACH).close()


@contextmanager
def _terminable() -> Iterator[None]:
    """What Ray does to the handling of SIGTERM is undone."""
    main = threading.current_thread() is threading.main_thread()
    held = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if held is not None:
            signal.signal(signal.SIGTERM, held)


@contextmanager
def _unbound() -> Iterator[None]:
    """Processes that are started meanwhile do not bind their threads to cores: all would choose the same."""
    held = {name: os.environ.pop(name) for name in BINDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _bound() -> bool:
    return any(os.environ.get(name, "").lower() not in ("", "false", "disabled", "none") for name in BINDING)


@dataclass(eq=False)
class _Hand:
    """A worker, and what it has been asked: the reference of each answer with the number of the shard."""

    actor: Any
    begins: Any  # the reference of what it says of itself
    since: float
    reads: bool = False


class RayCrew:
    """The workers of a run: as many as the cluster has room for, and no more than there are shards."""

    def __init__(self, ray: Any, question: Question, parts: Mapping[int, Tensor], asked: Ray) -> None:
        self.ray, self.question, self.parts, self.asked = ray, question, parts, asked
        self.gpus = asked.gpus if asked.gpus is not None else float(self._total("GPU") > 0)
        self.actors: dict[int, _Hand] = {}
        self.asks: dict[Any, tuple[int, int]] = {}  # reference: worker, shard
        self.answers: dict[Any, Any] = {}  # reference of a short answer: that of the outcome
        self.hired, self.counted, self.lonely = 0, 0.0, time.monotonic()
        source = readable(question)
        self.reads = source is not None
        self.parcel = ray.put(packed(question, source, len(self._nodes())))
        self._check_room()
        self._hire()

    # --- workers -----------------------------------------------------------------------------------------

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _total(self, kind: str) -> float:
        return sum(node.get(kind, 0.0) for node in self._nodes())

    def _room(self) -> int:
        """How many workers fit on the machines, if nothing else runs there."""
        counts = []
        for node in self._nodes():
            fits = int(node.get("CPU", 0) // self.asked.cores)
            counts.append(min(fits, int(node.get("GPU", 0) / self.gpus)) if self.gpus else fits)
        return sum(counts)

    def _check_room(self) -> None:
        if self._room() == 0:
            nodes = self._nodes()
            what = f"{self.asked.cores} cores" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
            cores, gpus = (max((int(node.get(kind, 0)) for node in nodes), default=0) for kind in ("CPU", "GPU"))
            raise ClusterError(
                f"No machine of the cluster has the {what} of a worker: the largest of {len(nodes)} has {cores} cores and "
                f"{gpus} GPUs."
            )

    def _hire(self) -> None:
        """Have as many workers as there is room for; those beyond what is free now begin when it is."""
        self.counted = time.monotonic()
        remote = self.ray.remote(Worker).options(
            num_cpus=self.asked.cores,
            num_gpus=self.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        while len(self.actors) < min(self._room(), len(self.parts)):
            actor = remote.remote(self.asked.cores, self.gpus > 0, self.asked.address == "local" and _bound())
            self.hired += 1
            self.actors[self.hired] = _Hand(actor, actor.open.remote(self.parcel), time.monotonic())

    def _fire(self, worker: int) -> None:
        hand = self.actors.pop(worker)
        for reference in [one for one, (who, _) in self.asks.items() if who == worker]:
            del self.asks[reference], self.answers[reference]
        with suppress(Exception):
            self.ray.kill(hand.actor, no_restart=True)

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in list(self.actors):
            self._fire(worker)

    # --- what `deliver` needs ----------------------------------------------------------------------------

    def give(self, worker: int, number: int) -> None:
        """Have a worker examine a shard after those that it has."""
        hand = self.actors[worker]
        part = part_of(self.question, self.parts[number], hand.reads)
        short, outcome = hand.actor.examine.options(num_returns=2).remote(part)
        self.asks[short], self.answers[short] = (worker, number), outcome

    def wait(self, seconds: float) -> Iterable[Event]:
        """What has happened since; nothing, if that takes longer."""
        if time.monotonic() - self.counted > COUNTING:
            self._hire()
        begins = {hand.begins: worker for worker, hand in self.actors.items() if hand.begins is not None}
        references = [*begins, *self.asks]
        if not references:
            time.sleep(seconds)
        ready = self.ray.wait(references, timeout=seconds, fetch_local=False)[0] if references else []
        for reference in ready:
            yield self._begun(begins[reference]) if reference in begins else self._said(reference)
        self._lonely(len(begins) == len(self.actors) and not ready)

    def _begun(self, worker: int) -> Event:
        hand = self.actors[worker]
        try:
            opened: Opened = self.ray.get(hand.begins)
        except self.ray.exceptions.RayTaskError as error:
            raise ClusterError(
                f"A worker cannot open the model: {_reason(error)}. It needs the same packages as here."
            ) from error
        except self.ray.exceptions.RayError as error:
            return self._lost(worker, error)
        if different := other_versions(opened):
            raise ClusterError(f"{opened.machine} of the cluster has {different}. Have the same on all machines.")
        self.actors[worker] = replace(hand, begins=None, reads=self.reads and opened.reads)
        return Event("ready", worker)

    def _said(self, reference: Any) -> Event:
        worker, number = self.asks[reference]
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise ClusterError(f"A worker failed on shard {number}: {_reason(error)}.") from error
        except self.ray.exceptions.RayError as error:
            return self._lost(worker, error)
        del self.asks[reference]
        return Event("answered", worker, number, self.answers.pop(reference))

    def _lost(self, worker: int, error: Exception) -> Event:
        self._fire(worker)
        self.counted = 0.0  # another one is hired at once, if there is room
        return Event("lost", worker, reason=f"{_reason(error)}.")

    def fetch(self, answer: Any) -> Outcome:
        """What an answer says."""
        try:
            found: Answer | Failure = self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            raise Lost from error
        if isinstance(found, Failure):
            raise found.error
        return found.outcome

    def forget(self, answer: Any) -> None:
        """An answer that nobody needs: dropping the last reference is enough."""

    def _lonely(self, alone: bool) -> None:
        if not alone:
            self.lonely = time.monotonic()
        elif time.monotonic() - self.lonely > ALONE:
            self.lonely = float("inf")
            text = f"No worker has begun: the cluster has no {self.asked.cores} cores free. The run waits for them."
            warnings.warn(text, Note, stacklevel=2)


def _reason(error: Exception) -> str:
    """The line that says most."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).strip().splitlines() if line.strip()]
    told = lines[0].rstrip(".") if lines else ""
    return f"{type(cause).__name__}: {told}" if told else type(cause).__name__
