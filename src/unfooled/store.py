"""The run folder: what a run was asked for, its evidence shard by shard, and what was concluded.

    spec.json             the question: model, data, threat, attack, seed
    evidence.sqlite       one row per example
    adversarial/          the adversarial examples of each shard, safetensors, lossless
    pictures.safetensors  the images that the report shows
    evaluation.json       the answer
    report.html, plots/   drawn from the two before, at any time, without a model

A shard's examples are written under a temporary name and renamed before its rows enter the database in one
transaction: a killed run repeats the shard in flight and loses nothing else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .errors import DataError, MissingData, OutputError, UnfooledError
from .results import Evaluation, read

COLUMNS = ("example", "label", "clean_correct", "success", "distance", "forward", "backward")
Row = tuple[int, int, bool, bool, float, int, int]


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary name to write, which becomes `target` in the end: all of it is written or nothing is.

    Raises `OutputError` where that cannot be.
    """
    temporary = target.with_name(target.name + ".part")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.chmod(0o644)  # some writers make files that nobody else may read
            temporary.replace(target)
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


class RunFolder:
    """A folder that one run writes and any number of reports read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # --- writing ---------------------------------------------------------------------------------

    def begin(self, spec: Mapping[str, Any]) -> None:
        """Make the folder for this spec, or go on with it; refuse one that holds something else."""
        text = json.dumps(dict(spec), indent=2, sort_keys=True) + "\n"
        held = self.path / "spec.json"
        with writing(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise OutputError(f"{self.path} is a file. Choose another folder with --out.")
            self.path.mkdir(parents=True, exist_ok=True)
            if held.is_file():
                if held.read_text() != text:
                    raise OutputError(f"{self.path} holds another run (see its spec.json). Choose another --out.")
            elif any(self.path.iterdir()):
                raise OutputError(f"{self.path} is not empty and holds no run. Choose another --out.")
            else:
                self.write_text("spec.json", text)

    @contextmanager
    def running(self, spec: Mapping[str, Any]) -> Iterator[None]:
        """Begin, and take that back if an error of ours ends the run before anything was found: it leaves nothing."""
        self.begin(spec)
        try:
            yield
        except UnfooledError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        held = {place.name for place in self.path.iterdir()}
        if held <= {"spec.json", "evidence.sqlite"} and not self.shards():
            for name in held:
                (self.path / name).unlink()
            self.path.rmdir()

    def write_text(self, name: str, text: str) -> None:
        """Write a file at once: all of it or nothing."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file at once: all of it or nothing."""
        with whole(self.path / name) as temporary:
            temporary.write_bytes(data)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays as safetensors, all of them or nothing."""
        with whole(self.path / name) as temporary:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, temporary)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Write the answer."""
        self.write_text("evaluation.json", evaluation.to_json())

    def add_shard(
        self,
        number: int,
        arrays: Mapping[str, np.ndarray],
        rows: Sequence[Row],
        seconds: float = 0.0,
        notes: Sequence[str] = (),
    ) -> None:
        """Put one shard's adversarial examples and evidence on disk, with what it took and what was noted."""
        self.write_arrays(f"adversarial/{number:05d}.safetensors", arrays)
        with writing(self.path), self._database() as database:
            places = ", ".join("?" * (1 + len(COLUMNS)))
            database.executemany(f"INSERT INTO evidence VALUES ({places})", [(number, *row) for row in rows])
            database.execute("INSERT INTO shards VALUES (?, ?, ?)", (number, seconds, json.dumps(list(notes))))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path / "evidence.sqlite")
        try:
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, seconds REAL, notes TEXT)"
                )
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS evidence (shard INTEGER, example INTEGER PRIMARY KEY, label INTEGER, "
                    "clean_correct INTEGER, success INTEGER, distance REAL, forward INTEGER, backward INTEGER)"
                )
                yield connection
        finally:
            connection.close()

    # --- reading ---------------------------------------------------------------------------------

    def shards(self) -> set[int]:
        """The numbers of the shards that are finished."""
        if not (self.path / "evidence.sqlite").exists():
            return set()
        return {number for (number,) in self._rows("SELECT number FROM shards")}

    def seconds(self) -> float:
        """What the finished shards took in all."""
        return float(sum(seconds for (seconds,) in self._rows("SELECT seconds FROM shards")))

    def notes(self) -> list[str]:
        """What was noted in the finished shards, each note once."""
        found = [
            note for (text,) in self._rows("SELECT notes FROM shards ORDER BY number") for note in json.loads(text)
        ]
        return list(dict.fromkeys(found))

    def evidence(self) -> dict[str, np.ndarray]:
        """The evidence by column, in the order of the examples."""
        if not (self.path / "evidence.sqlite").exists():
            raise MissingData(f"{self.path} holds no evidence.")
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM evidence ORDER BY example")
        kinds = (int, int, bool, bool, float, int, int)
        columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        return {name: np.array(v, dtype=kind) for name, v, kind in zip(COLUMNS, columns, kinds, strict=True)}

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with self._database() as database:
                return database.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path / 'evidence.sqlite'} is damaged: {error}.") from None

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that were written under that name."""
        path = self.path / name
        if not path.is_file():
            raise MissingData(f"There is no {path}.")
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is damaged: {error}.") from None

    def evaluation(self) -> Evaluation:
        """The answer."""
        if not self.path.is_dir():
            raise MissingData(f"There is no run folder {self.path}.")
        return read(self.path / "evaluation.json")
