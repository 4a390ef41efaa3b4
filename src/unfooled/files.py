"""Files that are written whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError

from .errors import OutputError


@contextmanager
def whole(target: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary name to write, which becomes `target` in the end: all of it is written or nothing is.

    durable:  have it on the disk itself before it gets its name, so that it outlives a power cut.

    Raises `OutputError` where that cannot be.
    """
    temporary = target.with_name(target.name + ".part")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.chmod(0o644)  # some writers make files that nobody else may read
            if durable:
                _sync(temporary, os.O_RDWR)
            temporary.replace(target)
            if durable:
                with suppress(OSError):  # not every system lets a folder be synced
                    _sync(target.parent, os.O_RDONLY)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into an `OutputError` that names the place."""
    try:
        yield
    except (OSError, SafetensorError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(f"Cannot write {place}: {reason}.") from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":  # a byte far beyond the text, since what is locked there cannot be read
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a folder; the system releases the lock of one that is killed.

    Raises `OutputError` that says which process holds it.
    """
    path = folder / "lock"
    with writing(path):
        descriptor = _locked(path)
    try:
        with writing(path):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the lock file, locked, and still that of the file by this name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):
            os.lseek(descriptor, 0, os.SEEK_SET)
            holder = os.read(descriptor, 100).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise OutputError(
                f"{path.parent} is being written by {holder}. Wait for its end, or choose another --out."
            ) from None
        except OSError:
            return descriptor  # a file system without locks: two processes on one folder go unnoticed there
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its holder has just ended and removed it
