"""An evaluation survives kills, full disks, damage, Ctrl-C and a second process, and ends as an undisturbed one.

Every run is the public command in a child of one warm process. What goes wrong goes wrong at a chosen file operation or
forward pass, which the child sees through an audit hook.
"""

import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from unfooled.store import RunFolder

MODEL = '''
import sys
import numpy as np, torch
from torch import nn

class Rounded(nn.Module):
    """Sees sixteen grey levels: its gradient is zero everywhere."""

    def forward(self, x):
        return torch.round(x * 15) / 15

class Linear(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
        self.layer = nn.Linear(64, 3)
        with torch.no_grad():
            self.layer.weight.copy_(weight + shift * torch.randn(3, 64, generator=torch.Generator().manual_seed(9)))
            self.layer.bias.copy_(-0.5 * weight.sum(1))

    def forward(self, x):
        sys.audit("forward", "")
        return self.layer(x.flatten(1))

def plain():
    return Linear()

def other():
    return Linear(0.01)

def masked():
    return nn.Sequential(Rounded(), Linear())

def write(path, count, seed=1):
    images = (torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(seed)) * 15).round() / 15
    labels = Linear()(images).argmax(1)
    labels[::10] = (labels[::10] + 1) % 3
    np.savez(path, images=images.numpy(), labels=labels.numpy())
'''
COUNT, SHARD = 40, 16
SQL = "evidence.sqlite"


def command(
    model="masked", out="run", data="data.npz", threat="linf:0.05", protocol="quick", more=("--precision", "0.02")
):
    words = ["evaluate", f"tiny.py:{model}", data, "--threat", threat, "--protocol", protocol]
    return [*words, *more, "--out", str(out)]


# --- a warm process that runs commands in children ----------------------------------------------------


WARM = (  # what the children would else import, each again
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "scipy.stats", "torch._dynamo",
    "unfooled.adapt", "unfooled.album", "unfooled.comparison", "unfooled.report", "unfooled.verification",
)  # fmt: skip


def serve():
    """Run jobs, one a line of standard input, until its end; what became of each is a line of standard output."""
    for name in WARM:
        importlib.import_module(name)
    import torch

    from unfooled import cli, evaluation, shard

    torch.set_num_threads(1)
    evaluation.SMALL = evaluation.SHARD = SHARD
    shard._without_gradients = lambda threat: shard.Square(steps=20)
    children = {}
    with contextlib.redirect_stdout(io.StringIO()):
        cli.run(["list", "models"])
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            pid = job["wait"]
        else:
            said = os.pipe()  # not a file: those may be limited
            if not (pid := os.fork()):
                _child(cli.run, job, said)
            os.close(said[1])
            children[pid] = said[0]
        answer = {"pid": pid}
        if not job.get("background"):
            with os.fdopen(children.pop(pid)) as pipe:
                answer["err"] = pipe.read()
            answer["status"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(answer), flush=True)


def _child(run, job, said):
    os.dup2(os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(said[1], 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    if not job["drawn"]:
        import unfooled.report

        unfooled.report.draw = lambda folder: Path(folder) / "report.html"
    if job["fault"]:
        sys.addaudithook(Fault(**job["fault"]))
    if job["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], resource.RLIM_INFINITY))
    status = run(job["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Fault:
    """Something goes wrong at the nth event on a file whose path ends so, once another has been touched.

    do: "kill", "interrupt", "full" (no space left), or "hold": go on only when the file `held` has been removed.
    """

    def __init__(self, do, event, name="", nth=1, after=""):
        self.do, self.event, self.name, self.left, self.after = do, event, name, nth, after

    def __call__(self, event, args):
        if event not in ("open", "os.rename", "sqlite3.connect", "forward") or not self.left:
            return
        path = str(args[0])
        if self.after and self.after in path:
            self.after = ""
        if self.after or event != self.event or self.name not in path or (event == "open" and args[1] == "r"):
            return
        self.left -= 1
        if not self.left:
            getattr(self, self.do)()

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def interrupt(self):
        os.kill(os.getpid(), signal.SIGINT)

    def full(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def hold(self):
        os.close(os.open("held", os.O_CREAT))
        while os.path.exists("held"):  # noqa: PTH110
            time.sleep(0.01)


class Driver:
    """The warm process, seen from a test."""

    def __init__(self, folder):
        self.folder = folder
        code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, '.']; import test_resume as t; t.serve()"
        env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=folder, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _ask(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __call__(self, argv, fault=None, limit=None, background=False, drawn=False):
        """Exit status, standard output and error of a command; with `background` its process number at once.

        drawn:  with the report of an evaluation, which takes longer than a tiny evaluation does.
        """
        done = self._ask(argv=argv, fault=fault, limit=limit, background=background, drawn=drawn)
        return done["pid"] if background else (done["status"], (self.folder / "out.txt").read_text(), done["err"])

    def wait(self, pid):
        """The exit status of a command in the background."""
        return self._ask(wait=pid)["status"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    (folder / "tiny.py").write_text(MODEL)
    made = Driver(folder)
    names = {"__name__": "tiny"}
    exec(compile(MODEL, "tiny.py", "exec"), names)
    names["write"](folder / "data.npz", COUNT)
    names["write"](folder / "other.npz", COUNT, seed=2)
    yield made
    made.process.stdin.close()
    made.process.wait(10)


@pytest.fixture(scope="module")
def undisturbed(driver):
    """The folders of undisturbed runs, by model, each made when it is first asked for."""
    made = {}

    def folder(model):
        if model not in made:
            assert driver(command(model, f"whole-{model}"))[0] == 0
            made[model] = driver.folder / f"whole-{model}"
        return made[model]

    return folder


@pytest.fixture
def place(driver, request, monkeypatch):
    """A folder for a run of this test alone."""
    monkeypatch.chdir(driver.folder)
    return driver.folder / "".join(c if c.isalnum() else "-" for c in request.node.name)


# --- two ends are the same -----------------------------------------------------------------------------


def timeless(value):
    """A JSON value without what differs between two runs of the same: times, and the command with its folder."""
    if isinstance(value, dict):
        if "columns" in value and "rows" in value:
            keep = [at for at, name in enumerate(value["columns"]) if name != "seconds"]
            rows = [[row[at] for at in keep] for row in value["rows"] if row[0] != "seconds"]
            return {**value, "columns": [value["columns"][at] for at in keep], "rows": rows}
        return {key: timeless(part) for key, part in value.items() if key not in ("seconds", "created", "command")}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def evidence(folder):
    """All that the database holds, but the seconds."""
    with sqlite3.connect(folder / SQL) as database:
        rows = database.execute("SELECT * FROM evidence ORDER BY example").fetchall()
        shards = database.execute(
            "SELECT number, file, notes, log, rows_digest, file_digest FROM shards ORDER BY number"
        ).fetchall()
    return rows, [(number, file, notes, timeless(json.loads(log)), *more) for number, file, notes, log, *more in shards]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def assert_same_end(folder, other, shards=-(-COUNT // SHARD)):
    """All rows, all arrays bit for bit, all findings and the whole answer; no file more or less."""
    assert files(folder) == files(other)
    assert evidence(folder) == evidence(other)
    assert RunFolder(folder).shards() == set(range(shards))
    for name in files(folder):
        if name.endswith((".safetensors", ".png")) or name == "spec.json":
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    for name in ("evaluation.json", "kept/preflight.json", "kept/strategy.json"):
        ours, theirs = (json.loads((place / name).read_bytes()) for place in (folder, other))
        if name.startswith("kept"):
            ours, theirs = json.loads(ours["value"]), json.loads(theirs["value"])
        assert timeless(ours) == timeless(theirs), name


def one_line(said):
    assert said.startswith("unfooled: "), said
    assert said.count("\n") == 1, said
    return said


# --- whatever goes wrong, and when ---------------------------------------------------------------------


def at(event, name="", **more):
    return {"event": event, "name": name, **more}


def written(name):
    """The moments before a file is begun and before it gets its name."""
    return [at("open", f"{name}.part"), at("os.rename", f"{name}.part")]


def third(number):
    return f"adversarial/{number:05d}.safetensors"


BEGUN = [at("open", "/lock"), *written("spec.json")]
PREFLIGHT, ADAPTING = at("forward", nth=5), at("forward", nth=9, after="kept/preflight.json")
ATTACKING = at("forward", nth=20, after="kept/strategy.json")
KEPT = [*written("kept/preflight.json"), *written("kept/strategy.json")]
SHARDS = [
    [*written(third(number)), at("sqlite3.connect", SQL, after=f"{third(number)}.part")] for number in range(3)
]  # before the arrays, before their name, before the rows
ANSWER = [*written("pictures.safetensors"), *written("evaluation.json")]
DRAWN = [at("os.rename", "plots/triptych.png.part"), *written("report.html")]
ALL = [
    *BEGUN, PREFLIGHT, *KEPT[:2], ADAPTING, *KEPT[2:], ATTACKING, *SHARDS[0], *SHARDS[1], ATTACKING, *SHARDS[2], *ANSWER
]  # fmt: skip
SOME = [ADAPTING, SHARDS[0][1], ANSWER[2]]
EACH = [pytest.param(SOME, id="some"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("moments", EACH)
def test_killed_at_many_steps_it_ends_as_an_undisturbed_run(driver, undisturbed, place, moments):
    """In preflight, adaptation and attacks, and at every write; each kill is followed by the same command."""
    for moment in moments:
        status, _, said = driver(command(out=place), {"do": "kill", **moment})
        assert status == -signal.SIGKILL, (moment, status, said)
    assert driver(command(out=place))[0] == 0
    assert_same_end(place, undisturbed("masked"))
    evaluation = RunFolder(place).evaluation()
    assert evaluation.remedies, "the setting must have something to adapt to"
    assert len(evaluation.examples) == COUNT


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param([KEPT[1], SHARDS[0][1], SHARDS[1][2]], id="some"),
        pytest.param([*BEGUN, *KEPT, *SHARDS[0], *SHARDS[1], *SHARDS[2], *ANSWER], id="all", marks=pytest.mark.slow),
    ],
)
def test_no_space_left_at_a_write(driver, undisturbed, place, moments):
    for moment in moments:
        status, _, said = driver(command("plain", place), {"do": "full", **moment})
        assert status == 73, (moment, said)
        assert "No space left on device" in one_line(said)
        assert str(place) in said
        assert not [name for name in (files(place) if place.exists() else ()) if name.endswith(".part")]
    assert driver(command("plain", place))[0] == 0
    assert_same_end(place, undisturbed("plain"))


def test_no_file_may_grow_further(driver, undisturbed, place):
    """A real limit of the system, met in the middle of a write: of the question, arrays, rows, the answer."""
    met = []
    for limit in (100, 1000, 8000, 14_000):
        status, _, said = driver(command("plain", place), limit=limit)
        assert status == 73, said
        assert one_line(said).startswith("unfooled: Cannot write ")
        met.append(Path(said.split(": ")[1].removeprefix("Cannot write ")).name)
    assert met[:3] == ["spec.json", "00000.safetensors", SQL]
    assert met[3] in (SQL, "pictures.safetensors", "evaluation.json")
    assert driver(command("plain", place))[0] == 0
    assert_same_end(place, undisturbed("plain"))


@pytest.mark.slow
@pytest.mark.parametrize("do", ["kill", "full"])
def test_a_report_that_was_cut_off_is_drawn_by_the_same_command(driver, undisturbed, finished, do):
    for moment in DRAWN:
        status = driver(command("plain", finished), {"do": do, **moment}, drawn=True)[0]
        assert status == (73 if do == "full" else -signal.SIGKILL)
    assert driver(command("plain", finished), drawn=True)[0] == 0
    assert {"report.html", "plots/triptych.png"} <= set(files(finished))
    assert not list(finished.rglob("*.part"))
    assert evidence(finished) == evidence(undisturbed("plain"))


def test_interrupted_it_keeps_what_is_finished_and_goes_on(driver, undisturbed, place):
    for moment in (PREFLIGHT, SHARDS[1][1], ATTACKING):
        before = RunFolder(place).shards()
        status, _, said = driver(command("plain", place), {"do": "interrupt", **moment})
        assert (status, said) == (130, "unfooled: interrupted; what was finished is on disk\n"), moment
        assert RunFolder(place).shards() >= before
        assert not (place / "lock").exists()
    assert RunFolder(place).shards() == {0}
    assert driver(command("plain", place))[0] == 0
    assert_same_end(place, undisturbed("plain"))


def test_a_second_process_is_turned_away(driver, undisturbed, place):
    held = driver.folder / "held"
    pid = driver(command("plain", place), {"do": "hold", **SHARDS[1][1]}, background=True)
    try:
        while not held.exists():
            time.sleep(0.01)
        before = contents(place)
        status, _, said = driver(command("plain", place))
        assert status == 73
        assert f"{place} is being written by process {pid}, since " in one_line(said)
        assert contents(place) == before
    finally:
        held.unlink()
    assert driver.wait(pid) == 0
    assert_same_end(place, undisturbed("plain"))


# --- damage ----------------------------------------------------------------------------------------------


@pytest.fixture
def finished(driver, undisturbed, place):
    """A copy of a finished run."""
    shutil.copytree(undisturbed("plain"), place)
    return place


def test_a_corrupt_row_is_named_and_measured_again(driver, undisturbed, finished):
    with sqlite3.connect(finished / SQL) as database:
        database.execute("UPDATE evidence SET success = 1 - success WHERE example = 7")
        shard = database.execute("SELECT shard FROM evidence WHERE example = 7").fetchone()[0]
    _is_mended_by_forgetting(driver, undisturbed, finished, shard)


def test_a_corrupt_array_file_is_named_and_measured_again(driver, undisturbed, finished):
    file = finished / "adversarial/00001.safetensors"
    held = bytearray(file.read_bytes())
    held[-3] ^= 1
    file.write_bytes(held)
    _is_mended_by_forgetting(driver, undisturbed, finished, 1)


def _is_mended_by_forgetting(driver, undisturbed, folder, shard):
    before = contents(folder)
    status, _, said = driver(command("plain", folder))
    assert status == 65
    assert f"Shard {shard} of {folder} is damaged" in one_line(said)
    assert f"unfooled runs {folder} --forget {shard}" in said
    assert contents(folder) == before
    assert driver(["runs", str(folder), "--forget", str(shard)])[0] == 0
    assert RunFolder(folder).shards() == {0, 1, 2} - {shard}
    assert driver(command("plain", folder))[0] == 0
    for file in (folder / "damaged").rglob("*.*"):
        file.unlink()
    assert_same_end(folder, undisturbed("plain"))


@pytest.mark.parametrize("keep", [0.5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_truncated_database_is_named_and_made_again(driver, undisturbed, finished, keep):
    file = finished / SQL
    held = file.read_bytes()
    file.write_bytes(held[: int(keep * len(held)) if keep < 1 else keep])
    before = contents(finished)
    status, _, said = driver(command("plain", finished))
    assert status == 65
    assert f"{file} is damaged" in one_line(said)
    assert contents(finished) == before
    file.unlink()  # as it says
    assert driver(command("plain", finished))[0] == 0
    assert_same_end(finished, undisturbed("plain"))


# --- another question ------------------------------------------------------------------------------------


OTHER = {
    "other weights": ({"model": "other"}, "model"),
    "the masked model": ({"model": "masked"}, "model"),
    "other data": ({"data": "other.npz"}, "data"),
    "fewer data": ({"data": "data.npz[0:39]"}, "data"),
    "another threat": ({"threat": "linf:0.06"}, "threat"),
    "another protocol": ({"protocol": "fast"}, "protocol"),
    "another seed": ({"more": ["--precision", "0.02", "--seed", "1"]}, "seed"),
    "a budget": ({"more": ["--precision", "0.02", "--budget", "50"]}, "budget"),
    "draws": ({"more": ["--precision", "0.02", "--draws", "2"]}, "draws"),
}


QUICK = ("other weights", "other data", "another seed")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in OTHER]
)
def test_another_question_is_refused_and_nothing_changes(driver, finished, case):
    changed, name = OTHER[case]
    before = contents(finished)
    status, _, said = driver(command(**({"model": "plain", "out": finished} | changed)))
    assert status == 73
    assert "holds another run: " in one_line(said)
    assert f"its {name} was" in said or f"its {name}_hash was" in said
    assert contents(finished) == before


def test_the_same_names_with_other_content_are_refused(driver, finished):
    """Weights and images changed behind the same file names."""
    before = contents(finished)
    mended = MODEL.replace("return Linear()\n\ndef other", "return Linear(0.01)\n\ndef other")
    assert mended != MODEL
    data = (driver.folder / "data.npz").read_bytes()
    try:
        (driver.folder / "tiny.py").write_text(mended)
        status, _, said = driver(command("plain", finished))
        assert status == 73
        assert "its model_hash was" in one_line(said)
        (driver.folder / "tiny.py").write_text(MODEL)
        (driver.folder / "data.npz").write_bytes((driver.folder / "other.npz").read_bytes())
        status, _, said = driver(command("plain", finished))
        assert status == 73
        assert "its data_hash was" in one_line(said)
    finally:
        (driver.folder / "tiny.py").write_text(MODEL)
        (driver.folder / "data.npz").write_bytes(data)
    assert contents(finished) == before


# --- the commands on such folders ------------------------------------------------------------------------


def test_the_commands_on_a_run_that_was_cut_off(driver, undisturbed, place):
    assert driver(command("plain", place), {"do": "kill", **SHARDS[1][1]})[0] == -signal.SIGKILL
    status, said, _ = driver(["runs", str(place), "--json"])
    assert status == 0
    assert json.loads(said)[0]["state"] == "unfinished: 1 of 3 shards"
    status, said, _ = driver(["verify", str(place)])
    assert (status, "16 examples" in said, "all hold" in said) == (0, True, True)
    for words in (["report", str(place)], ["compare", str(place), str(undisturbed("plain"))]):
        status, _, said = driver(words)
        assert status >= 64
        assert "evaluation.json" in one_line(said)
    assert driver(command("plain", place))[0] == 0
    assert_same_end(place, undisturbed("plain"))
    assert json.loads(driver(["runs", str(place), "--json"])[1])[0]["state"] == "finished"
    assert driver(["report", str(place)], drawn=True)[0] == 0
    assert (place / "report.html").is_file()


def test_runs_of_the_same_images_are_compared(driver, undisturbed):
    status, said, _ = driver(["compare", str(undisturbed("plain")), str(undisturbed("masked")), "--json"])
    assert status == 0
    assert json.loads(said)["a"]["name"] == "whole-plain"


def test_a_tampered_adversarial_image_is_found(driver, finished):
    """By its digest and by the model itself; by the model alone where the digest was forged too."""
    assert driver(["verify", str(finished)])[0] == 0
    name = "adversarial/00001.safetensors"
    held = load_file(finished / name)
    row = RunFolder(finished).evidence()
    fooled = set(row["example"][row["success"]].tolist())
    mine = next(k for k, example in enumerate(held["example"].tolist()) if example in fooled)
    held["adversarial"][mine] = 0.5
    forged = save(held)
    (finished / name).write_bytes(forged)
    status, said, _ = driver(["verify", str(finished)])
    assert status == 1
    assert "changed since" in said
    assert "2 do not hold" in said
    with sqlite3.connect(finished / SQL) as database:
        digest = hashlib.sha256(forged).hexdigest()
        database.execute("UPDATE shards SET file_digest = ? WHERE number = 1", (digest,))
    status, said, _ = driver(["verify", str(finished)])
    assert status == 1
    assert "1 does not hold" in said


# --- the end before the end ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(driver):
    """400 images, of which the plain model is right on nine in ten."""
    names = {"__name__": "tiny"}
    exec(compile(MODEL, "tiny.py", "exec"), names)
    names["write"](driver.folder / "many.npz", 400)
    return "many.npz"


EASY = "linf:0.0001"  # fools next to nothing: about 90 % of the images hold


def ended(driver, place, data, *more, threat=EASY):
    status, said, err = driver(command("plain", place, data, threat, more=more))
    return status, said, RunFolder(place).evaluation() if status < 64 else err


def test_precision_ends_early_and_going_on_stays_there(driver, many, place):
    _, _, found = ended(driver, place, many, "--precision", "0.1")
    n = found.robust_accuracy.attacked.n
    assert SHARD < n < 200
    assert n % SHARD == 0
    estimate = found.robust_accuracy.attacked
    assert estimate.method.startswith("confidence sequence")
    assert max(estimate.value - estimate.low, estimate.high - estimate.value) <= 0.1 + 0.05
    before = evidence(place)
    _, _, again = ended(driver, place, many, "--precision", "0.1")
    assert evidence(place) == before
    assert again.robust_accuracy == found.robust_accuracy


@pytest.mark.parametrize(
    ("claim", "status", "word"),
    [("attacked>=0.4", 0, "holds so far"), ("attacked>=0.99", 1, "refuted"), ("attacked>=0.9", 2, "undecided")],
)
def test_an_assertion_sets_the_status(driver, many, place, claim, status, word):
    got, said, found = ended(driver, place, many if status < 2 else "data.npz", "--assert", claim)
    assert got == status
    assert word in said
    n = found.robust_accuracy.attacked.n
    assert n == COUNT if status == 2 else n < 400


def test_an_invalid_evaluation_answers_no_assertion(driver, place):
    """Labels of another order of the classes: clean accuracy is below chance."""
    held = np.load(driver.folder / "data.npz")
    np.savez(driver.folder / "wrong.npz", images=held["images"], labels=(held["labels"] + 1) % 3)
    got, said, found = ended(driver, place, "wrong.npz", "--assert", "attacked>=0.4")
    assert got == 3
    assert found.trust == "invalid"
    assert "not answered" in said


@pytest.mark.parametrize("claim", ["attacked=0.4", "certified>=0.4"])
def test_an_assertion_that_cannot_be_is_refused(driver, place, claim):
    status, _, said = ended(driver, place, "data.npz", "--assert", claim)
    assert status == 64
    one_line(said)
    assert not place.exists()
