"""The run folder: what a run was asked for, its evidence shard by shard, and what was concluded.

    spec.json             the question: model, data, threat, attack, seed
    evidence.sqlite       one row per example, one record per shard
    adversarial/          the adversarial examples of each shard, safetensors, lossless
    certificates/         of a run that proves: what was proved of the examples of each shard, in place of them
    kept/                 what the whole run goes by, such as its preflight, as JSON
    pictures.safetensors  the images that the report shows
    evaluation.json       the answer
    report.html, plots/   drawn from the two before, at any time, without a model
    damaged/              shards that were set aside
    lock                  held by the process that writes here, while it does

A shard's examples are written under a temporary name and renamed before its rows enter the database in one
transaction: a killed run repeats the shard in flight and loses nothing else. Rows, log and file of a shard carry
digests that are checked whenever they are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from .errors import DataError, InternalError, MissingData, OutputError, ParameterError, UnfooledError
from .files import locked, whole, writing
from .results import Evaluation, read


class Row(NamedTuple):
    """What became of one example.

    example:           what the image is called; no two rows of a run share it.
    clean_prediction:  what the model answers on the image.
    success:           right on the image and fooled.
    distance:          size of the change that fooled; 0 where the model was wrong anyway, inf where not fooled.
    forward, backward: passes spent on it.
    fooled_by:         the attack that fooled, or None.
    error:             why nothing can be said of it, or None.
    """

    example: int
    label: int
    clean_prediction: int
    clean_correct: bool
    success: bool
    distance: float
    forward: int
    backward: int
    fooled_by: str | None = None
    error: str | None = None


COLUMNS = Row._fields
KINDS = ("adversarial", "certificates")  # of what the files of shards hold
_KINDS = (int, int, int, bool, bool, float, int, int, object, object)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, file TEXT, seconds REAL, notes TEXT, log TEXT, "
    "rows_digest TEXT, log_digest TEXT, file_digest TEXT)",
    "CREATE TABLE IF NOT EXISTS evidence (shard INTEGER, example INTEGER PRIMARY KEY, label INTEGER, "
    "clean_prediction INTEGER, clean_correct INTEGER, success INTEGER, distance REAL, forward INTEGER, "
    "backward INTEGER, fooled_by TEXT, error TEXT)",
)
_BEFORE_SPEC = {"lock", "spec.json.part", ".unfooled-probe"}  # what a process killed at its very start may leave


def shard_file(number: int, kind: str = KINDS[0]) -> str:
    """The name of the file with a shard's adversarial examples, arrays `adversarial` and `example`; or certificates."""
    return f"{kind}/{number:05d}.safetensors"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunFolder:
    """A folder that one run writes and any number of reports read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # --- the run ---------------------------------------------------------------------------------

    @contextmanager
    def running(self, spec: Mapping[str, Any]) -> Iterator[None]:
        """Begin, alone on this folder until the end.

        If an error of ours ends the run before anything was found, nothing of it is left.
        """
        self._check_place()
        made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.path):
                self.begin(spec)
                try:
                    yield
                except UnfooledError:
                    self._abandon()
                    raise
        finally:
            with suppress(OSError):
                for place in (self.path, *made[1:]):
                    place.rmdir()  # only if it is empty

    def begin(self, spec: Mapping[str, Any]) -> None:
        """Make the folder for this spec, or go on with it; refuse one that holds something else, or is damaged."""
        self._check_place()
        if not (self.path / "spec.json").exists():
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self.write_text("spec.json", json.dumps(dict(spec), indent=2, sort_keys=True) + "\n")
            return
        if changes := _changes(self.spec(), json.loads(json.dumps(dict(spec)))):
            raise OutputError(f"{self.path} holds another run: {changes}. Choose another --out.")
        with writing(self.path):
            for leftover in list(self.path.rglob("*.part")):
                leftover.unlink()
        self.check()

    def _check_place(self) -> None:
        with writing(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise OutputError(f"{self.path} is a file. Choose another folder with --out.")
            if not self.path.exists() or (self.path / "spec.json").exists():
                return
            if any(place.name not in _BEFORE_SPEC for place in self.path.iterdir()):
                raise OutputError(f"{self.path} is not empty and holds no run. Choose another --out.")

    def _abandon(self) -> None:
        """Take `begin` back, unless something was found here."""
        removable = {"spec.json", "evidence.sqlite", "kept", *KINDS}
        with suppress(OSError, DataError):
            held = {place.name for place in self.path.iterdir()} - {"lock"}
            found = any(file for kind in KINDS for file in (self.path / kind).glob("*"))
            if held <= removable and not self.shards() and not found:
                for name in held & {"kept", *KINDS}:
                    shutil.rmtree(self.path / name)
                for name in held & {"spec.json", "evidence.sqlite"}:
                    (self.path / name).unlink()

    # --- writing ---------------------------------------------------------------------------------

    def write_text(self, name: str, text: str) -> None:
        """Write a file at once: all of it or nothing."""
        with whole(self.path / name, durable=True) as temporary:
            temporary.write_bytes(text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file at once: all of it or nothing. For what can be made again: it may not outlive a power cut."""
        with whole(self.path / name) as temporary:
            temporary.write_bytes(data)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> str:
        """Write arrays as safetensors, all of them or nothing; return the digest of the file."""
        # not save_file: it writes under a temporary name of its own, which stays where the process is killed
        data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
        with whole(self.path / name, durable=True) as temporary:
            temporary.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Write the answer."""
        self.write_text("evaluation.json", evaluation.to_json())

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name, whole, for the runs that go on with this one."""
        text = json.dumps(value)
        self.write_text(f"kept/{name}.json", json.dumps({"digest": _digest(text), "value": text}))

    def add_shard(
        self,
        number: int,
        arrays: Mapping[str, np.ndarray],
        rows: Sequence[Row],
        seconds: float = 0.0,
        notes: Sequence[str] = (),
        log: Any = None,
        kind: str = KINDS[0],
    ) -> None:
        """Put one shard on disk: its adversarial examples and evidence, what it took, what was noted.

        log:   the run's own record of the shard, any JSON value.
        kind:  what the arrays are: "adversarial" or "certificates".

        Raises `OutputError`; then nothing of the shard is left, and nothing of others is lost.
        """
        if self._finished(number):
            raise InternalError(f"Shard {number} of {self.path} is finished already.")
        held = sorted((_stored(Row(*row)) for row in rows), key=lambda row: row[0])
        told = (float(seconds), json.dumps(list(notes)), json.dumps(log))
        name = shard_file(number, kind)
        written = self.write_arrays(name, arrays)
        digests = (_digest(number, held), _digest(number, told), written)
        try:
            with writing(self.path / "evidence.sqlite"), self._writing() as database:
                places = ", ".join("?" * (1 + len(COLUMNS)))
                database.executemany(f"INSERT INTO evidence VALUES ({places})", [(number, *row) for row in held])
                database.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (number, name, *told, *digests))
        except OutputError:
            with suppress(OSError):
                (self.path / name).unlink()
            raise

    def drop_shard(self, number: int) -> Path:
        """Set a shard aside, damaged or not, so that the same command measures it again; return where it lies now.

        The answer that was drawn from it goes there too. Raises `ParameterError` if there is no such shard.
        """
        with locked(self.path):
            with self._reading() as database:
                record = database.execute("SELECT * FROM shards WHERE number = ?", (number,)).fetchall()
                rows = database.execute("SELECT * FROM evidence WHERE shard = ?", (number,)).fetchall()
            if not record and not rows:
                there = ", ".join(map(str, sorted(self.shards()))) or "none"
                raise ParameterError(f"{self.path} has no finished shard {number}. It has: {there}.")
            taken = len(list((self.path / "damaged").glob(f"{number:05d}*")))
            aside = f"damaged/{number:05d}" + (f"-{taken + 1}" if taken else "")
            self.write_text(f"{aside}/evidence.json", json.dumps({"shard": record, "rows": rows}, default=str))
            with writing(self.path), self._writing() as database:
                database.execute("DELETE FROM evidence WHERE shard = ?", (number,))
                database.execute("DELETE FROM shards WHERE number = ?", (number,))
            with writing(self.path / aside):
                for name in (*(shard_file(number, kind) for kind in KINDS), "evaluation.json"):
                    if (self.path / name).exists():
                        (self.path / name).replace(self.path / aside / Path(name).name)
            return self.path / aside

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path / "evidence.sqlite", timeout=60, isolation_level=None)
        with closing(connection), connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                connection.execute(table)
            yield connection

    # --- reading ---------------------------------------------------------------------------------

    def spec(self) -> dict[str, Any]:
        """What the run was asked for."""
        path = self.path / "spec.json"
        if not path.is_file():
            raise MissingData(f"There is no {path}.")
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}.") from None
        if not isinstance(found, dict):
            raise DataError(f"{path} is damaged: it holds no object.")
        return found

    def kept(self, name: str) -> Any:
        """The value kept under a name; None where there is none."""
        path = self.path / f"kept/{name}.json"
        if not path.exists():
            return None
        try:
            held = json.loads(path.read_bytes())
            if held["digest"] == _digest(held["value"]):
                return json.loads(held["value"])
        except (ValueError, TypeError, KeyError):
            pass
        raise DataError(f"{path} has changed since it was written. Delete it: the same command measures it again.")

    def shards(self) -> set[int]:
        """The numbers of the shards that are finished."""
        with self._reading() as database:
            return {number for (number,) in database.execute("SELECT number FROM shards")}

    def _finished(self, number: int) -> bool:
        with self._reading() as database:
            return database.execute("SELECT 1 FROM shards WHERE number = ?", (number,)).fetchone() is not None

    def seconds(self) -> float:
        """What the finished shards took in all."""
        return float(sum(seconds for _, seconds, _, _ in self._records()))

    def notes(self) -> list[str]:
        """What was noted in the finished shards, each note once."""
        return list(dict.fromkeys(note for _, _, notes, _ in self._records() for note in json.loads(notes)))

    def logs(self) -> dict[int, Any]:
        """The log of each finished shard, by its number; None where it has none."""
        return {number: json.loads(log) for number, _, _, log in self._records()}

    def _records(self) -> list[tuple[int, float, str, str]]:
        with self._reading() as database:
            found = database.execute("SELECT number, seconds, notes, log, log_digest FROM shards ORDER BY number")
            records = []
            for number, *told, digest in found:
                if _digest(number, tuple(told)) != digest:
                    raise self._damaged(number, "its record in evidence.sqlite has changed since it was written")
                records.append((number, *told))
        return records

    def evidence(self) -> dict[str, np.ndarray]:
        """The evidence by column, in the order of the examples; `fooled_by` and `error` hold text or None."""
        if not (self.path / "evidence.sqlite").exists():
            raise MissingData(f"{self.path} holds no evidence.")
        with self._reading() as database:
            digests = dict(database.execute("SELECT number, rows_digest FROM shards").fetchall())
            found = database.execute(f"SELECT shard, {', '.join(COLUMNS)} FROM evidence ORDER BY example").fetchall()
        rows: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
        for shard, *row in found:
            rows[shard].append(tuple(row))
        for number in sorted(digests.keys() | rows.keys(), key=str):
            if _digest(number, rows[number]) != digests.get(number):
                raise self._damaged(number, "its rows in evidence.sqlite have changed since they were written")
        columns = list(zip(*(row for _, *row in found), strict=True)) or [()] * len(COLUMNS)
        return {name: np.array(v, dtype=kind) for name, v, kind in zip(COLUMNS, columns, _KINDS, strict=True)}

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that were written under that name; those of a finished shard are checked."""
        if name.partition("/")[0] in KINDS:
            self._check_file(name)
        return self.found(name)

    def found(self, name: str) -> dict[str, np.ndarray]:
        """Arrays as they lie there now, whoever wrote them."""
        path = self.path / name
        if not path.is_file():
            raise MissingData(f"There is no {path}.")
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is damaged: {error}.") from None

    def some(self, name: str, array: str, row: int | None = None) -> np.ndarray:
        """One array of a file, or one row (1, …) of it: nothing else is read into memory, nor compared with its digest."""
        path = self.path / name
        if not path.is_file():
            raise MissingData(f"There is no {path}.")
        try:
            with safe_open(path, framework="numpy") as file:
                found: np.ndarray = file.get_tensor(array) if row is None else file.get_slice(array)[row : row + 1]
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is damaged: {error}.") from None
        return found

    def check(self) -> None:
        """Read all evidence. Raises `DataError` if a finished shard is not as it was written."""
        if (self.path / "evidence.sqlite").exists():
            self.evidence()
            self.logs()
            with self._reading() as database:
                files = [name for (name,) in database.execute("SELECT file FROM shards ORDER BY number")]
            for name in files:
                self._check_file(name)

    def _check_file(self, name: str) -> None:
        with self._reading() as database:
            found = database.execute("SELECT number, file_digest FROM shards WHERE file = ?", (name,)).fetchall()
        for number, digest in found:
            if not (self.path / name).is_file():
                raise self._damaged(number, f"{self.path / name} is missing")
            if _file_digest(self.path / name) != digest:
                raise self._damaged(number, f"{self.path / name} has changed since it was written")

    def _damaged(self, number: int, what: str) -> DataError:
        return DataError(
            f"Shard {number} of {self.path} is damaged: {what}. Set it aside with 'unfooled runs {self.path} --forget "
            f"{number}'; the command that made this run then measures it again, and nothing else."
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The database as it is at one moment; an empty one where there is none.

        Not opened as read-only, since what a killed process was writing may have to be taken back first.
        """
        path = self.path / "evidence.sqlite"
        place = path.resolve().as_uri() + "?mode=rw" if path.exists() else "file::memory:"
        try:
            with closing(sqlite3.connect(place, timeout=60, isolation_level=None, uri=True)) as connection:
                connection.text_factory = lambda raw: raw.decode(errors="replace")  # then the digest tells which shard
                connection.execute("BEGIN")
                if not connection.execute("SELECT name FROM sqlite_master").fetchone():  # made, but never written
                    for table in _TABLES:
                        connection.execute(table.replace("TABLE", "TEMP TABLE", 1))
                yield connection
        except sqlite3.Error as error:
            raise DataError(
                f"{path} is damaged: {error}. Move it away: the same command then measures every shard again."
            ) from None

    def evaluation(self) -> Evaluation:
        """The answer."""
        if not self.path.is_dir():
            raise MissingData(f"There is no run folder {self.path}.")
        return read(self.path / "evaluation.json")


def _stored(row: Row) -> tuple[Any, ...]:
    """A row as the database gives it back."""
    numbers = [int(value) for value in (*row[:5], *row[6:8])]
    distance = None if math.isnan(row.distance) else float(row.distance) + 0.0
    return (*numbers[:5], distance, *numbers[5:], row.fooled_by, row.error)


def _changes(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Which entries of two specs differ, in words; empty where none does."""

    def said(value: Any) -> str:
        text = value if isinstance(value, str) and value else json.dumps(value)
        return text if len(text) <= 60 else text[:57] + "…"

    parts = []
    for name in sorted(held.keys() | asked.keys()):
        if name not in asked:
            parts.append(f"its {name} was {said(held[name])}, here there is none")
        elif name not in held:
            parts.append(f"it had no {name}, here it is {said(asked[name])}")
        elif held[name] != asked[name]:
            parts.append(f"its {name} was {said(held[name])}, here {said(asked[name])}")
    return "; ".join(parts)
