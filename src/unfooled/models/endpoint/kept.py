"""Answers on disk, as they come, and how often an endpoint was asked; several processes may share the file."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...errors import DataError, ModelError
from ...files import writing

_SCHEMA = 1
_BUSY = 60  # seconds that another process may hold the file
_FAR = 3600  # seconds: a next request further off than this was reckoned by a clock that has been set back since
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB, number INTEGER, answer TEXT, PRIMARY KEY (key, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (endpoint TEXT, asked INTEGER, next REAL, changed REAL);
"""


class Kept:
    """The answers of one endpoint.

    path:      the file; made where it is not there.
    endpoint:  what tells this endpoint, and how it is asked, from others; a file that was begun for another is refused.

    Raises `OutputError` where the file cannot be written, `DataError` where it is no such file.
    """

    def __init__(self, path: Path, endpoint: str) -> None:
        self.path, self.endpoint = path, endpoint
        self._opened: list[sqlite3.Connection] = []
        self._open()

    def __len__(self) -> int:
        with self._locked() as held:
            return int(held.execute("SELECT count(*) FROM answers").fetchone()[0])

    @property
    def asked(self) -> int:
        """Images that were sent so far, by all runs on this file."""
        with self._locked() as held:
            return int(held.execute("SELECT asked FROM about").fetchone()[0])

    @property
    def changed(self) -> float:
        """When the last answer was kept, in seconds since 1970."""
        with self._locked() as held:
            return float(held.execute("SELECT changed FROM about").fetchone()[0])

    def answers(self, key: bytes, up_to: int) -> list[str]:
        """The first answers that are kept of an image, in order."""
        with self._locked() as held:
            rows = held.execute(
                "SELECT answer FROM answers WHERE key = ? AND number <= ? ORDER BY number", (key, up_to)
            )
            return [str(row[0]) for row in rows]

    def answer(self, key: bytes, number: int) -> str | None:
        """The answer of that number, from 1."""
        with self._locked() as held:
            row = held.execute("SELECT answer FROM answers WHERE key = ? AND number = ?", (key, number)).fetchone()
            return None if row is None else str(row[0])

    def keep(self, answers: Sequence[tuple[bytes, int, str]]) -> None:
        """Keep answers by image and number; those that another process has kept meanwhile stay."""
        with self._writing() as held:
            held.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", answers)
            held.execute("UPDATE about SET changed = ?", (time.time(),))

    def times(self, key: bytes) -> int:
        """How often this process was asked about an image."""
        with self._locked() as held:
            row = held.execute("SELECT times FROM heard WHERE key = ?", (key,)).fetchone()
            return 0 if row is None else int(row[0])

    def heard(self, keys: Sequence[bytes]) -> None:
        """Count that this process was asked about images, once for each mention."""
        with self._locked() as held:
            held.execute("BEGIN")
            held.executemany(
                "INSERT INTO heard VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET times = times + 1",
                [(k,) for k in keys],
            )
            held.execute("COMMIT")

    def reserve(self, images: int, budget: int | None, rate: float | None) -> float:
        """Count a request of so many images before it is sent; return the seconds to wait until it may be.

        Counted in the file, so that neither a run that goes on nor a second process spends a budget or a rate twice.
        Raises `ModelError` where the budget does not suffice: then nothing is counted.
        """
        with self._writing() as held:
            asked, start = held.execute("SELECT asked, next FROM about").fetchone()
            if budget is not None and asked + images > budget:
                raise ModelError(
                    f"The budget of {budget} questions is spent: {asked} images were sent, and {images} more are to be. All "
                    f"answers are kept in {self.path}: the same with a larger budget= goes on from there."
                )
            now = time.time()
            start = now if start > now + _FAR else max(start, now)
            after = start if rate is None else start + 1 / rate
            held.execute("UPDATE about SET asked = asked + ?, next = ?", (images, after))
        return float(start - now)

    def pause(self, seconds: float) -> None:
        """Have nothing be sent for so long."""
        with self._writing() as held:
            held.execute("UPDATE about SET next = max(next, ?)", (time.time() + seconds,))

    # --- the file ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            self._opened.append(held)  # that of a parent process stays open here: closing it would drop its locks
        try:
            self._begin(held)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                with writing(self.path):
                    raise
            raise DataError(
                f"{self.path} holds no answers ({error}). Remove it, or name another file: cache=…."
            ) from None

    def _begin(self, held: sqlite3.Connection) -> None:
        version = held.execute("PRAGMA user_version").fetchone()[0]
        others = held.execute("SELECT name FROM sqlite_master WHERE name != 'answers' AND name != 'about'").fetchall()
        if version not in (0, _SCHEMA) or others:
            raise DataError(f"{self.path} holds no answers of this version. Remove it, or name another file: cache=….")
        held.execute("PRAGMA journal_mode = WAL")
        held.execute(
            "PRAGMA synchronous = NORMAL"
        )  # what is committed outlives the process; a power cut may cost the last
        held.execute("CREATE TEMP TABLE heard (key BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")
        held.execute("BEGIN IMMEDIATE")
        try:
            for statement in _TABLES.strip().split(";\n"):
                held.execute(statement)
            held.execute(f"PRAGMA user_version = {_SCHEMA}")
            begun = held.execute("SELECT endpoint FROM about").fetchone()
            if begun is None:
                held.execute("INSERT INTO about VALUES (?, 0, 0, ?)", (self.endpoint, time.time()))
            elif begun[0] != self.endpoint:
                raise DataError(
                    f"{self.path} holds the answers of {begun[0]}, not those of {self.endpoint}. Name another file: cache=…."
                )
        finally:
            held.execute("COMMIT")

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():  # a connection must not cross a fork
            self._open()
        with self._lock, writing(self.path):
            yield self._opened[-1]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, beside other processes."""
        with self._locked() as held:
            held.execute("BEGIN IMMEDIATE")
            try:
                yield held
            except BaseException:
                held.execute("ROLLBACK")
                raise
            held.execute("COMMIT")
