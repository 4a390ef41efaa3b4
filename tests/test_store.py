"""The run folder: kills, full disks, damage and a second process cost at most the shard in flight."""

import errno
import json
import resource
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from test_results import evaluation
from unfooled import files as whole_files
from unfooled import results, store
from unfooled.cli.runs import runs
from unfooled.errors import DataError, InternalError, MissingData, OutputError, ParameterError
from unfooled.intervals import clopper_pearson
from unfooled.store import Row, RunFolder, shard_file

SPEC = {"seed": 0, "threat": "linf:8/255"}


def rows(number):
    """Two rows of a shard; one fooled, one with an error."""
    return [
        Row(2 * number + 1, 1, 1, True, True, 0.1 + number, 2, 1, "fgsm"),
        Row(2 * number, 0, -1, False, False, 0.0, 1, 0, error="its logits are not finite"),
    ]


def arrays(number, size=4):
    draw = np.random.default_rng(number)
    return {"adversarial": draw.random((2, size)), "example": np.array([2 * number + 1, 2 * number])}


def add(folder, number, **more):
    folder.add_shard(number, arrays(number), rows(number), seconds=number, notes=["same"], log={"n": number}, **more)


@pytest.fixture
def folder(tmp_path):
    """A run with the shards 0, 1 and 2."""
    found = RunFolder(tmp_path / "run")
    found.begin(SPEC)
    for number in range(3):
        add(found, number)
    return found


def files(folder):
    return sorted(str(p.relative_to(folder.path)) for p in folder.path.rglob("*") if p.is_file())


def assert_whole(folder, numbers):
    """These shards are there, as they were written, and no file is half-written."""
    assert folder.shards() == set(numbers)
    evidence = folder.evidence()
    wanted = sorted(row for number in numbers for row in rows(number))
    assert list(zip(*(evidence[name].tolist() for name in store.COLUMNS), strict=True)) == wanted
    assert folder.logs() == {number: {"n": number} for number in numbers}
    for number in numbers:
        found = folder.arrays(shard_file(number))
        assert all(np.array_equal(found[name], value) for name, value in arrays(number).items())
    assert not [name for name in files(folder) if name.endswith(".part")]


def change(folder, statement):
    with sqlite3.connect(folder.path / "evidence.sqlite") as database:
        assert database.execute(statement).rowcount == 1


# --- what is written comes back ------------------------------------------------------------------


def test_shards_come_back_in_the_order_of_the_examples(folder):
    assert_whole(folder, [0, 1, 2])
    evidence = folder.evidence()
    assert evidence["example"].tolist() == list(range(6))
    assert evidence["clean_correct"].dtype == bool
    assert evidence["distance"].dtype == float
    assert evidence["fooled_by"].tolist() == [None, "fgsm"] * 3
    assert evidence["error"].tolist() == ["its logits are not finite", None] * 3
    assert folder.seconds() == 3
    assert folder.notes() == ["same"]


def test_distances_without_a_number_survive(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(SPEC)
    odd = [Row(at, 0, 0, True, False, value, 1, 1) for at, value in enumerate((float("inf"), float("nan"), -0.0))]
    folder.add_shard(0, {"adversarial": np.zeros(1)}, odd)
    assert np.array_equal(folder.evidence()["distance"], [np.inf, np.nan, 0.0], equal_nan=True)
    assert folder.logs() == {0: None}


def test_before_the_first_shard_there_is_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.shards() == set()
    with pytest.raises(MissingData, match="holds no evidence"):
        folder.evidence()
    folder.begin(SPEC)
    (folder.path / "evidence.sqlite").touch()  # a process killed between making the file and its first transaction
    folder.begin(SPEC)
    assert folder.shards() == set()
    assert len(folder.evidence()["example"]) == 0
    add(folder, 0)
    assert_whole(folder, [0])


def test_a_value_is_kept_whole(folder):
    assert folder.kept("preflight") is None
    folder.keep("preflight", {"findings": [1.5, None, "é"]})
    assert folder.kept("preflight") == {"findings": [1.5, None, "é"]}
    place = folder.path / "kept/preflight.json"
    place.write_text(place.read_text().replace("1.5", "2.5"))
    with pytest.raises(DataError, match=r"preflight\.json has changed since it was written\. Delete it"):
        folder.kept("preflight")
    place.write_text("{}")
    with pytest.raises(DataError, match=r"preflight\.json"):
        folder.kept("preflight")


def test_a_shard_is_added_once(folder):
    with pytest.raises(InternalError, match="Shard 1 of .* finished already"):
        folder.add_shard(1, arrays(9), rows(9))
    assert_whole(folder, [0, 1, 2])


# --- the question --------------------------------------------------------------------------------


def test_another_question_is_refused_by_what_differs(folder):
    with pytest.raises(OutputError) as caught, folder.running({"seed": 1, "defense": "blur:1"}):
        pass
    assert str(caught.value) == (
        f"{folder.path} holds another run: it had no defense, here it is blur:1; its seed was 0, here 1; "
        "its threat was linf:8/255, here there is none. Choose another --out."
    )
    with pytest.raises(OutputError) as caught:
        folder.begin(SPEC | {"threat": "x" * 500})
    assert len(str(caught.value)) < 250 + len(str(folder.path))
    assert_whole(folder, [0, 1, 2])
    folder.begin(SPEC | {"seed": 0})


def test_a_refused_run_leaves_the_others_question(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(SPEC)
    with pytest.raises(OutputError, match="its seed was 0, here 1"), folder.running(SPEC | {"seed": 1}):
        pass
    assert files(folder) == ["spec.json"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for place, words in ((tmp_path, "is not empty and holds no run"), (tmp_path / "mine.txt", "is a file")):
        with pytest.raises(OutputError, match=words), RunFolder(place).running(SPEC):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_error_before_anything_was_found_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")

    def fail(after):
        with folder.running(SPEC):
            after()
            raise DataError("bad labels")

    with pytest.raises(DataError, match="bad labels"):
        fail(lambda: folder.keep("preflight", 1))
    assert not folder.path.exists()
    with pytest.raises(DataError, match="bad labels"):
        fail(lambda: add(folder, 0))
    assert_whole(folder, [0])
    assert "lock" not in files(folder)


def test_the_next_begin_sweeps_what_a_killed_process_left(folder):
    for name in ("adversarial/00003.safetensors.part", "evaluation.json.part", "lock"):
        (folder.path / name).write_bytes(b"half")
    with folder.running(SPEC):
        pass
    assert_whole(folder, [0, 1, 2])
    young = RunFolder(folder.path.parent / "young")
    young.path.mkdir()
    (young.path / "spec.json.part").write_text("{")
    (young.path / "lock").touch()
    with young.running(SPEC):
        add(young, 0)
    assert_whole(young, [0])


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "label = 7", "clean_prediction = 9", "clean_correct = 0", "success = 0", "distance = 1.10001", "forward = 3",
        "backward = 0", "fooled_by = 'pgd'", "error = ''", "example = 77", "shard = 2", "shard = 9",
        "label = CAST(x'ff' AS TEXT)",
    ],
)  # fmt: skip
def test_a_changed_row_is_found_and_measured_again(folder, setting):
    change(folder, f"UPDATE evidence SET {setting} WHERE example = 3")
    with pytest.raises(
        DataError, match=r"Shard 1 of .*/run is damaged: its rows in evidence.sqlite have changed.*--forget 1'"
    ):
        folder.evidence()
    with pytest.raises(DataError, match="Shard 1"):
        folder.begin(SPEC)
    folder.drop_shard(1)
    for other in (2, 9):  # where the row was moved to
        if "shard" in setting and other in (int(setting[-1]),):
            folder.drop_shard(other)
    for number in {0, 1, 2} - folder.shards():
        add(folder, number)
    assert_whole(folder, [0, 1, 2])


def test_a_shard_is_entered_whole_or_not_at_all(folder):
    with pytest.raises(OutputError, match="UNIQUE"):  # an error in mid-transaction
        folder.add_shard(3, arrays(3), [*rows(3), rows(0)[0]])
    assert_whole(folder, [0, 1, 2])
    assert shard_file(3) not in files(folder)


def test_a_lost_row_is_found(folder):
    change(folder, "DELETE FROM evidence WHERE example = 3")
    with pytest.raises(DataError, match="Shard 1 .*rows"):
        folder.evidence()


@pytest.mark.parametrize("setting", ["log = '{}'", "log = NULL", "seconds = 9", "notes = '[]'"])
def test_a_changed_record_is_found(folder, setting):
    change(folder, f"UPDATE shards SET {setting} WHERE number = 2")
    for read in (folder.logs, folder.notes, folder.seconds, folder.check):
        with pytest.raises(DataError, match="Shard 2 .*its record in evidence.sqlite has changed"):
            read()
    folder.evidence()


def test_a_damaged_array_file_is_found_and_set_aside(folder):
    place = folder.path / shard_file(1)
    good = place.read_bytes()
    flipped = bytearray(good)
    flipped[-3] ^= 1
    for bad in (good[:-5], b"", bytes(flipped)):
        place.write_bytes(bad)
        with pytest.raises(
            DataError, match=r"Shard 1 .*00001\.safetensors has changed since it was written.*--forget 1'"
        ):
            folder.arrays(shard_file(1))
    with pytest.raises(DataError, match="Shard 1"), folder.running(SPEC):
        pass
    folder.write_text("evaluation.json", "{}")
    aside = folder.drop_shard(1)
    assert sorted(p.name for p in aside.iterdir()) == ["00001.safetensors", "evaluation.json", "evidence.json"]
    assert len(json.loads((aside / "evidence.json").read_text())["rows"]) == 2
    assert_whole(folder, [0, 2])
    with folder.running(SPEC):
        add(folder, 1)
    assert_whole(folder, [0, 1, 2])
    place.unlink()
    with pytest.raises(DataError, match=r"Shard 1 .*00001\.safetensors is missing"):
        folder.arrays(shard_file(1))
    assert folder.drop_shard(1) != aside
    with pytest.raises(ParameterError, match="has no finished shard 1. It has: 0, 2"):
        folder.drop_shard(1)


def test_a_database_that_is_none_is_named(folder):
    place = folder.path / "evidence.sqlite"
    for bad in (b"this is no database, not at all" * 10, place.read_bytes()[:5000]):
        place.write_bytes(bad)
        with pytest.raises(DataError, match=r"evidence\.sqlite is damaged: .*Move it away"):
            folder.check()
    place.rename(folder.path.parent / "away")
    with folder.running(SPEC):
        for number in range(3):
            add(folder, number)
    assert_whole(folder, [0, 1, 2])


def test_a_damaged_question_is_named(folder):
    for bad in (b"{", b"\xff\xfe", b"[]"):
        (folder.path / "spec.json").write_bytes(bad)
        with pytest.raises(DataError, match=r"spec\.json is damaged"):
            folder.begin(SPEC)


# --- a full disk ---------------------------------------------------------------------------------


@contextmanager
def largest(size):
    """No file may grow beyond so many bytes: what a full disk does, from the system itself."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.parametrize("size", [0, 100, 30_000])
def test_no_room_for_the_arrays(folder, size):
    with largest(size), pytest.raises(OutputError, match=r"Cannot write .*00003\.safetensors: "):
        folder.add_shard(3, {"adversarial": np.zeros(100_000)}, rows(3))
    assert_whole(folder, [0, 1, 2])
    add(folder, 3)
    assert_whole(folder, [0, 1, 2, 3])


def test_no_room_for_the_rows(folder):
    with largest(20_000), pytest.raises(OutputError, match=r"Cannot write .*evidence\.sqlite: "):
        folder.add_shard(3, arrays(3), rows(3), log="x" * 100_000)
    assert_whole(folder, [0, 1, 2])
    assert shard_file(3) not in files(folder)
    add(folder, 3)
    assert_whole(folder, [0, 1, 2, 3])


def test_a_full_database_says_so(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "_TABLES", (*store._TABLES, "PRAGMA max_page_count = 1"))
        with pytest.raises(OutputError, match=r"evidence\.sqlite: database or disk is full"):
            folder.add_shard(3, arrays(3), rows(3), log="x" * 100_000)
    assert_whole(folder, [0, 1, 2])


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.write_bytes", "pathlib.Path.mkdir"])
def test_each_step_of_a_write_may_fail(folder, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = files(folder)
    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(OutputError, match="Cannot write .*: No space left on device"):
            folder.keep("preflight", 1)
        with pytest.raises(OutputError, match="Cannot write .*00003.*: No space left on device"):
            add(folder, 3)
        fresh = RunFolder(folder.path.parent / "fresh")
        with pytest.raises(OutputError, match="No space left on device"), fresh.running(SPEC):
            add(fresh, 0)
    assert files(folder) == before
    assert not fresh.path.exists()
    assert_whole(folder, [0, 1, 2])
    add(folder, 3)
    assert_whole(folder, [0, 1, 2, 3])


# --- the list of runs ----------------------------------------------------------------------------


def listed(capsys, *words):
    runs(*words, json=True)
    return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}


def finish(folder, **settings):
    fields = {
        "clean_accuracy": clopper_pearson(9, 10),
        "robust_accuracy": results.Bracket(attacked=clopper_pearson(4, 10)),
    }
    folder.write_evaluation(evaluation(kind="evaluation", settings=settings, trust="suspect", **fields))


def test_runs_are_listed_whatever_their_state(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    asked = {"model": "m", "defense": "blur:1", "data": "d", "threat": "linf:1", "protocol": "fast"}
    for name, shards in (("open", 2), ("done", 1), ("row", 1), ("text", 1), ("deep/er", 1), ("database", 1)):
        run = RunFolder(tmp_path / name)
        run.begin(asked | {"shards": 3})
        for number in range(shards):
            add(run, number)
        if name not in ("open", "row"):
            finish(run, **asked)
    change(RunFolder(tmp_path / "row"), "UPDATE evidence SET label = 5 WHERE example = 0")
    (tmp_path / "text" / "evaluation.json").write_text("{")
    (tmp_path / "database" / "evidence.sqlite").write_bytes(b"no" * 1000)
    (tmp_path / "no run").mkdir()
    RunFolder(tmp_path / "done" / "inside").write_text("spec.json", "{}")
    found = listed(capsys, tmp_path)
    assert found.keys() == {"open", "done", "row", "text", "deep/er", "database"}
    assert found["open"]["state"] == "unfinished: 2 of 3 shards"
    assert found["done"] | {"when": ""} == {
        "name": "done", "kind": "evaluation", "when": "", "model": "m behind blur:1", "data": "d", "threat": "linf:1",
        "protocol": "fast", "clean": "90.0 %", "attacked": "40.0 %", "proved": "", "trust": "suspect",
        "state": "finished",
    }  # fmt: skip
    for name, words in (("row", "Shard 0"), ("text", "evaluation.json is damaged"), ("database", "evidence.sqlite is")):
        assert found[name]["state"].startswith("damaged: "), name
        assert words in found[name]["state"]
    runs(tmp_path)
    said = capsys.readouterr().out
    assert "open: unfinished: 2 of 3 shards" in said
    assert "row: damaged: Shard 0" in said
    assert listed(capsys, tmp_path / "done").keys() == {"done"}
    runs(tmp_path / "no run")
    assert "There is no run in" in capsys.readouterr().out
    with pytest.raises(MissingData, match="There is no folder"):
        runs(tmp_path / "none")


def test_a_shard_is_forgotten_by_command(folder, tmp_path, capsys):
    finish(folder)
    runs(folder.path, forget=[1])
    assert "damaged/00001" in capsys.readouterr().out
    assert listed(capsys, folder.path)["run"]["state"] == "unfinished: 2 shards"
    with pytest.raises(ParameterError, match="--forget needs a run folder"):
        runs(tmp_path, forget=[1])


# --- two processes, and one that is killed -------------------------------------------------------

HOLDER = """
import sys, time
from unfooled.store import RunFolder
with RunFolder(sys.argv[1]).running({"seed": 0, "threat": "linf:8/255"}):
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_writes(folder):
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder.path], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "begun\n"
            said = rf"is being written by process {other.pid}, since \d{{4}}-.* UTC\. Wait for its end, or choose another --out"
            with pytest.raises(OutputError, match=said), folder.running(SPEC):
                pass
            with pytest.raises(OutputError, match=said):
                folder.drop_shard(1)
            assert_whole(folder, [0, 1, 2])  # readers need no lock
        finally:
            other.kill()
    with folder.running(SPEC):
        add(folder, 3)
    assert_whole(folder, [0, 1, 2, 3])
    assert "lock" not in files(folder)


def test_the_lock_is_not_taken_on_a_file_that_is_gone(tmp_path):
    with whole_files.locked(tmp_path):
        (tmp_path / "lock").unlink()
        with whole_files.locked(tmp_path), pytest.raises(OutputError), whole_files.locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_has_just_been_removed_is_taken_anew(tmp_path, monkeypatch):
    lock, calls = whole_files._lock, []

    def removed_by_its_holder(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / "lock").unlink()
        lock(descriptor)

    monkeypatch.setattr(whole_files, "_lock", removed_by_its_holder)
    with whole_files.locked(tmp_path):
        assert len(calls) == 2
        assert "process" in (tmp_path / "lock").read_text()


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[2])
from test_store import RunFolder, SPEC, add, assert_whole, shard_file

SHARDS = 10_000
folder, draw, finished = RunFolder(sys.argv[1]), random.Random(0), set()
for _ in range(20):
    child = os.fork()
    if not child:
        with folder.running(SPEC):
            for number in range(SHARDS):
                if number not in folder.shards():
                    add(folder, number)
        os._exit(1)
    awaited = len(finished) + draw.randint(0, 2)
    while not (folder.path / shard_file(awaited)).exists():
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.012))
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with folder.running(SPEC):
        finished = folder.shards()
        assert finished == set(range(len(finished)))
        if finished:
            assert_whole(folder, sorted(finished))
with folder.running(SPEC):
    add(folder, len(finished))
print(len(finished) + 1)
"""


def test_killed_while_writing(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path / "run", str(__file__).rpartition("/")[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split()[0])
    assert count > 20
    undisturbed = RunFolder(tmp_path / "undisturbed")
    with undisturbed.running(SPEC):
        for number in range(count):
            add(undisturbed, number)
    again = RunFolder(tmp_path / "run")
    assert_whole(again, list(range(count)))
    assert {name: column.tolist() for name, column in again.evidence().items()} == {
        name: column.tolist() for name, column in undisturbed.evidence().items()
    }
    assert files(again) == files(undisturbed)


def test_a_run_that_ends_before_it_began_leaves_no_folder_above_it_either(tmp_path):
    with pytest.raises(ParameterError), RunFolder(tmp_path / "runs" / "study" / "one").running({"kind": "none"}):
        raise ParameterError("no")
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()  # what was there before stays
    with pytest.raises(ParameterError), RunFolder(tmp_path / "runs" / "one").running({"kind": "none"}):
        raise ParameterError("no")
    assert [place.name for place in tmp_path.iterdir()] == ["runs"]
