"""Shards on many machines: the same evidence, whatever becomes of the workers."""

import contextlib
import heapq
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from test_resume import MODEL, assert_same_end, command, evidence
from unfooled import cli, evaluation, shard
from unfooled.adapt import Strategy, plan
from unfooled.board import Question
from unfooled.checks.preflight import preflight
from unfooled.cluster import Event, Lost, Ray, deliver
from unfooled.cluster import dispatch as dispatching
from unfooled.cluster.machines import QUIET, RayCrew
from unfooled.cluster.parcel import compact, packed, part_of, readable, unpacked
from unfooled.cluster.worker import Failure, Worker
from unfooled.errors import ClusterError, MissingExtra, ModelError, ParameterError
from unfooled.inputs import Notes, prepared
from unfooled.models.access import Access, access_of
from unfooled.shard import examine
from unfooled.store import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
SHARD = 8


# --- workers that are lost, late, and out of order ------------------------------------------------------


class Fake:
    """Workers in this process, on a clock of its own. Each shard takes `takes(worker, number)`; `lost` says at which shard a
    worker is lost, `gone` which answers are lost before they are fetched."""

    def __init__(self, workers=2, takes=lambda worker, number: 1.0, lost=(), gone=(), work=lambda number: number):
        self.now, self.events, self.workers = 0.0, [], 0
        self.takes, self.lost, self.gone, self.work = takes, list(lost), list(gone), work
        self.free, self.given, self.dead, self.forgotten = {}, [], set(), []
        for _ in range(workers):
            self.hire()

    def clock(self):
        return self.now

    def hire(self):
        self.workers += 1
        heapq.heappush(self.events, (self.now, len(self.events), Event("ready", self.workers)))
        self.free[self.workers] = self.now

    def give(self, worker, number):
        assert worker not in self.dead
        self.given.append((worker, number))
        self.free[worker] = max(self.now, self.free[worker]) + self.takes(worker, number)
        kind = "answered"
        if number in self.lost:
            self.lost.remove(number)
            kind = "lost"
        event = Event(kind, worker, number, answer=number, reason="it was fake.")
        heapq.heappush(self.events, (self.free[worker], len(self.given) + 100, event))

    def wait(self, seconds):
        assert self.now < 1e5, "nothing goes on"
        if not self.events or self.events[0][0] > self.now + seconds:
            self.now += seconds
            return
        self.now, _, event = heapq.heappop(self.events)
        if event.worker in self.dead:
            return
        if event.kind == "lost":
            self.dead.add(event.worker)
            self.hire()
        yield event

    def fetch(self, answer):
        if answer in self.gone:
            self.gone.remove(answer)
            raise Lost
        return self.work(answer)

    def forget(self, answer):
        self.forgotten.append(answer)


def delivered(crew, count, ordered=False):
    return [number for number, _ in deliver(crew, range(count), ordered, crew.clock)]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_shard_comes_once_though_workers_and_answers_are_lost(workers, ordered):
    crew = Fake(workers, takes=lambda w, n: 1 + (7 * n + w) % 5, lost=[0, 0, 3, 9, 9, 19], gone=[1, 4, 4, 19])
    found = delivered(crew, 20, ordered)
    assert sorted(found) == list(range(20))
    assert not ordered or found == list(range(20))
    assert not crew.lost
    assert not crew.gone


def test_answers_come_in_their_order_though_the_first_is_the_last():
    crew = Fake(2, takes=lambda w, n: 50.0 if n == 0 else 1.0)
    assert delivered(crew, 30, ordered=True) == list(range(30))
    first = next(at for at, (worker, _) in enumerate(crew.given[2:], 2) if worker == crew.given[0][0])
    assert (
        max(n for _, n in crew.given[: first + 1]) <= 1 + 2 * dispatching.AHEAD
    )  # what comes before its turn is bounded
    assert delivered(Fake(2, takes=lambda w, n: 50.0 if n == 0 else 1.0), 30)[-1] == 0


def test_a_worker_has_its_next_shard_at_hand_but_keeps_none_from_others_at_the_end():
    crew = Fake(2)
    stream = deliver(crew, range(10), False, crew.clock)
    next(stream)
    assert len(crew.given) >= 4
    list(stream)
    per = [sum(worker == one for one, _ in crew.given) for worker in (1, 2)]
    assert per == [5, 5]
    assert crew.now == 5


def test_a_shard_that_loses_every_worker_ends_the_run():
    with pytest.raises(
        ClusterError, match=r"3 workers were lost while they examined shard 4: it was fake\. Where memory"
    ):
        delivered(Fake(3, lost=[4] * 9), 10)


def test_workers_that_never_start_end_the_run():
    class Stillborn(Fake):
        def wait(self, seconds):
            yield Event("lost", 1, reason="no memory.")

    with pytest.raises(ClusterError, match="No worker of the cluster has started, of 5: no memory"):
        delivered(Stillborn(), 3)


def test_the_last_shards_of_a_stuck_worker_are_repeated_by_an_idle_one():
    crew = Fake(2, takes=lambda worker, number: 1e4 if worker == 1 and number >= 6 else 1.0)
    assert sorted(delivered(crew, 10)) == list(range(10))
    assert crew.now < 100
    twice = {n for n in range(10) if sum(number == n for _, number in crew.given) == 2}
    assert twice


# --- the rule that ends a run, on out-of-order completion -------------------------------------------------


def setting(count=60, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    images = torch.rand(count, 1, 4, 4)
    labels = model(images).argmax(1)
    labels[::7] = (labels[::7] + 1) % 3
    return model, images, labels


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(evaluation, "SMALL", SHARD)
    monkeypatch.setattr(evaluation, "SHARD", SHARD)
    monkeypatch.setattr(shard, "sizes", lambda board: [])  # which takes most of the time


class Faked:
    """A runner on fake workers that are late and lost."""

    def __init__(self, **how):
        self.how = how

    def __call__(self, question, parts, ordered, progress=None):
        self.crew = Fake(work=lambda number: examine(question, parts[number]), **self.how)
        yield from deliver(self.crew, parts, ordered, self.crew.clock)


LATE = {
    "workers": 3,
    "takes": lambda w, n: 40.0 if n in (0, 3) else 1 + (5 * n + w) % 4,
    "lost": [1, 2, 5],
    "gone": [3],
}


@pytest.mark.parametrize("rule", [{}, {"precision": 0.2}, {"assertion": "attacked>=0.05"}])
def test_the_evidence_is_that_of_one_process_also_where_the_run_ends_early(small, tmp_path, rule):
    model, images, labels = setting(80)
    ask = {"threat": "linf:0.05", "protocol": uf.attacks.PGD(steps=3), **rule}
    one = uf.evaluate(model, (images, labels), out=tmp_path / "one", **ask)
    runner = Faked(**LATE)
    many = uf.evaluate(model, (images, labels), out=tmp_path / "many", cluster=runner, **ask)
    done = len(RunFolder(tmp_path / "one").shards())
    assert (done == 10) == (not rule)
    if rule:
        assert len({number for _, number in runner.crew.given}) > done, "nothing was ahead of its turn"
    assert_same_end(tmp_path / "many", tmp_path / "one", shards=done)
    assert many.robust_accuracy == one.robust_accuracy


def test_a_shard_set_aside_is_measured_before_the_rule_is_asked(small, tmp_path):
    model, images, labels = setting(80)
    ask = {"threat": "linf:0.05", "protocol": uf.attacks.PGD(steps=3), "precision": 0.2}
    uf.evaluate(model, (images, labels), out=tmp_path / "run", **ask)
    before = evidence(tmp_path / "run")
    RunFolder(tmp_path / "run").drop_shard(1)
    uf.evaluate(model, (images, labels), out=tmp_path / "run", cluster=Faked(**LATE), **ask)
    assert evidence(tmp_path / "run") == before


def test_what_is_done_stays_when_the_run_is_interrupted(small, tmp_path):
    model, images, labels = setting()
    ask = {"threat": "linf:0.05", "protocol": uf.attacks.PGD(steps=3)}
    uf.evaluate(model, (images, labels), out=tmp_path / "one", **ask)

    class Interrupted(Faked):
        closed = False

        def __call__(self, question, parts, ordered, progress=None):
            try:
                for count, found in enumerate(super().__call__(question, parts, ordered)):
                    if count == 3:
                        raise KeyboardInterrupt
                    yield found
            finally:
                Interrupted.closed = True

    with pytest.raises(KeyboardInterrupt):
        uf.evaluate(model, (images, labels), out=tmp_path / "many", cluster=Interrupted(**LATE), **ask)
    assert Interrupted.closed
    assert len(RunFolder(tmp_path / "many").shards()) == 3
    uf.evaluate(model, (images, labels), out=tmp_path / "many", cluster=Faked(), **ask)
    assert_same_end(tmp_path / "many", tmp_path / "one", shards=8)


def test_the_runner_is_ended_also_where_the_folder_cannot_be_written(small, tmp_path, monkeypatch):
    model, images, labels = setting()
    ended = []

    def runner(question, parts, ordered, progress=None):
        try:
            yield from Faked()(question, parts, ordered)
        finally:
            ended.append(True)

    monkeypatch.setattr(RunFolder, "add_shard", lambda *a, **k: (_ for _ in ()).throw(uf.errors.OutputError("full")))
    with pytest.raises(uf.errors.OutputError):
        uf.evaluate(model, (images, labels), "linf:0.05", uf.attacks.FGSM(), out=tmp_path / "run", cluster=runner)
    assert ended


# --- what is asked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{"address": ""}, {"cores": 0}, {"cores": 1.5}, {"gpus": -1}])
def test_bad_parameters(bad):
    with pytest.raises(ParameterError, match=f"The '{next(iter(bad))}' parameter of Ray must be"):
        Ray(**bad)


def test_a_cluster_that_is_none():
    model, images, labels = setting(8)
    with pytest.raises(ParameterError, match="The 'cluster' parameter of evaluate must be"):
        uf.evaluate(model, (images, labels), "linf:0.05", cluster=3)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    model, images, labels = setting(8)
    with pytest.raises(MissingExtra, match=r'pip install "unfooled\[ray\]"'):
        uf.evaluate(model, (images, labels), "linf:0.05", cluster="local")


def test_cores_without_a_cluster(capsys):
    assert cli.run(["evaluate", "fashion-mnist/plain", "fashion-mnist-sample", "--ray-cores", "2"]) == 64
    assert "--ray local" in capsys.readouterr().err


# --- what travels -----------------------------------------------------------------------------------------


class Rounded(nn.Module):
    """Sees sixteen grey levels: its gradient is zero everywhere."""

    def forward(self, x):
        return torch.round(x * 15) / 15


def question(model, images, labels, **more):
    black = access_of(model) < Access.GRADIENT
    method = uf.attacks.Square(steps=50) if black else uf.attacks.PGD(steps=3)
    usable = {"strategy": Strategy(usable=False)} if black else {}
    return Question(model, images, labels, torch.arange(len(labels)), uf.Linf(0.05), method, 0, **usable, **more)


def adapted(model, images, labels):
    """A question about a model with a strategy, as `evaluate` makes it."""
    asked = question(model, images, labels)
    found = preflight(model, images, labels, asked.threat, 0, asked.names)
    return replace(asked, strategy=plan(model, found, 0))


def examined(asked, index):
    """Here, and after the way to a worker; here first."""
    worker = Worker(1)
    opened = worker.open(packed(asked, readable(asked)))
    fine, there = worker.examine(part_of(asked, index, opened.reads))
    assert fine, there
    return examine(asked, index), there.outcome


def assert_same(here, there):
    assert here.rows == there.rows
    assert torch.equal(here.adversarial, there.adversarial)
    assert here.notes == there.notes
    assert {k: v for k, v in here.log.items() if k not in ("attacks", "ways")} == {
        k: v for k, v in there.log.items() if k not in ("attacks", "ways")
    }


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(shard, "sizes", lambda board: [])


def with_generator(model):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.draws = model, torch.Generator().manual_seed(3)

        def forward(self, x):
            return self.inner(x + 0.01 * torch.randn(x.shape, generator=self.draws))

    return Noisy()


def closure(model):
    return lambda x: model(x) * 2


@pytest.mark.parametrize(
    "made",
    [
        lambda model: model,
        closure,
        with_generator,
        lambda model: nn.Sequential(model).double(),
        lambda model: torch.jit.trace(model, torch.rand(2, 1, 4, 4)),
        lambda model: nn.Sequential(torch.jit.script(model[0]), model[1]),
        lambda model: uf.models.BlackBox(closure(model), "logits"),
        lambda model: uf.defend(model, uf.defenses.parse("blur:sigma=1")),
    ],
    ids=["module", "closure", "generator", "double", "traced", "scripted part", "black box", "defended"],
)
def test_a_model_of_any_kind_answers_on_a_worker_as_here(short, made):
    pytest.importorskip("ray")
    model, images, labels = setting(12)
    model = made(model).eval() if isinstance(made(model), nn.Module) else made(model)
    images = images.double() if any(p.dtype == torch.float64 for p in getattr(model, "parameters", list)()) else images
    draws = 2 if "Noisy" in type(model).__name__ else 1
    assert_same(*examined(question(model, images, labels, draws=draws), torch.arange(3, 9)))


@pytest.mark.parametrize("scripted", [False, True])
def test_ways_round_a_defense_travel_with_the_model(short, scripted):
    pytest.importorskip("ray")
    model, images, labels = setting(24)
    wall = torch.jit.script(Rounded()) if scripted else Rounded()
    asked = adapted(nn.Sequential(wall, model), images, labels)
    assert asked.strategy.ways
    here, there = examined(asked, torch.arange(12))
    assert_same(here, there)
    assert any(row.success for row in here.rows)


def test_a_user_s_own_files_travel_with_the_model(tmp_path, monkeypatch):
    """A worker in another process, where neither the factory's file nor the module that it imports can be found."""
    pytest.importorskip("ray")
    (tmp_path / "beside_it.py").write_text("SCALE = 3\ndef scaled(x):\n    return x * SCALE\n")
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nimport beside_it\nfrom beside_it import scaled\n"
        "class Mine(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.layer = nn.Linear(16, 3)\n"
        "    def forward(self, x):\n        return scaled(self.layer(x.flatten(1))) + beside_it.SCALE\n"
        "def make():\n    torch.manual_seed(0)\n    return Mine()\n"
    )
    model = uf.models.load(f"{tmp_path}/mine.py:make")
    _, images, labels = setting(4)
    data = packed(question(model, images, labels), None)
    (tmp_path / "parcel").write_bytes(data)
    (tmp_path / "mine.py").unlink()
    (tmp_path / "beside_it.py").unlink()
    code = (
        "import sys, torch\nfrom unfooled.cluster.parcel import unpacked\n"
        "parcel = unpacked(open(sys.argv[1], 'rb').read())\n"
        "print(parcel.question.model(torch.ones(1, 1, 4, 4)).tolist())"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "parcel")],
        capture_output=True,
        text=True,
        cwd="/",
        env=env,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert eval(done.stdout) == model(torch.ones(1, 1, 4, 4)).tolist()
    sys.modules.pop("beside_it", None)


def test_a_model_that_cannot_be_pickled_is_told_of():
    pytest.importorskip("ray")
    model, images, labels = setting(4)
    model.lock = threading.Lock()
    with pytest.raises(
        ModelError, match="The model cannot be sent to other machines: cannot pickle '_thread.lock' object"
    ):
        packed(question(model, images, labels), None)


def test_an_endpoint_s_budget_is_kept_on_one_machine(tmp_path):
    pytest.importorskip("ray")
    _, images, labels = setting(4)
    model = uf.models.load("http://127.0.0.1:1/", answers="labels", classes=3, cache=tmp_path / "answers.sqlite")
    asked = replace(question(model, images, labels), plan=uf.attacks.HopSkipJump(steps=10))
    with pytest.raises(ModelError, match=r"kept in a file of this machine, and the cluster has others\. Evaluate it"):
        packed(asked, None, machines=2)
    assert packed(asked, None, machines=1)


def test_what_an_examination_raises_is_raised_again():
    pytest.importorskip("ray")
    _, images, labels = setting(4)

    def failing(x):
        raise RuntimeError("no such layer")

    worker = Worker(1)
    asked = question(failing, images, labels)
    worker.open(packed(asked, None))
    fine, found = worker.examine(part_of(asked, torch.arange(2), False))
    assert not fine
    assert isinstance(found, Failure)
    assert isinstance(found.error, ModelError)
    assert "no such layer" in str(found.error)


def test_what_torch_does_otherwise_travels_too():
    pytest.importorskip("ray")
    model, images, labels = setting(4)
    torch.set_default_dtype(torch.float64)
    try:
        data = packed(question(model, images, labels), None)
    finally:
        torch.set_default_dtype(torch.float32)
    assert unpacked(data).settings.dtype == torch.float64


def test_images_travel_as_bytes_where_these_say_the_same():
    levels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(compact(levels.float() / 255), levels)
    other = levels.float() / 255
    other[3, 0, 0, 0] += 1e-7
    assert torch.equal(compact(other), other)
    assert torch.equal(compact(levels.double() / 255), levels.double() / 255)


def pictures(folder, count=6):
    from PIL import Image

    for number in range(count):
        place = folder / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        rows = np.random.default_rng(number).integers(0, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(rows).save(place / f"{number}.png")


def test_a_worker_reads_images_that_it_has_and_is_sent_those_that_it_has_not(short, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr("unfooled.data.lazy.LIMIT", 0)
    pictures(tmp_path / "pictures")
    found = uf.data.load(str(tmp_path / "pictures")).floats()
    assert not isinstance(found, torch.Tensor)
    images = prepared(found, uf.Linf(0.05), None, Notes())
    model, _, _ = setting(4)
    asked = question(model, images, torch.tensor([0, 1, 2, 0, 1, 2]))
    worker, index = Worker(1), torch.tensor([4, 1])
    assert worker.open(packed(asked, readable(asked))).reads
    part = part_of(asked, index, True)
    assert part.images is None
    assert_same(examine(asked, index), worker.examine(part)[1].outcome)
    pictures(tmp_path / "elsewhere")
    packed_now = packed(asked, readable(asked))
    (tmp_path / "pictures").rename(tmp_path / "gone")
    assert not worker.open(packed_now).reads


# --- Ray itself -------------------------------------------------------------------------------------------


@pytest.fixture
def two_nodes():
    """A cluster of two nodes with one core each; its address, and what ends the second."""
    pytest.importorskip("ray")
    os.environ |= QUIET
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    yield made.address, lambda: made.remove_node(second, allow_graceful=False)
    made.shutdown()


def processes(word):
    """The command lines of processes of this user's, among them those of Ray's workers, that have a word in them."""
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit() and word in (words := (place / "cmdline").read_bytes().decode(errors="replace")):
                found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", [{}, {"precision": 0.15}])
def test_a_node_is_killed_and_the_evidence_is_that_of_one_process(two_nodes, tmp_path, monkeypatch, rule):
    monkeypatch.setattr(evaluation, "SMALL", SHARD)
    monkeypatch.setattr(evaluation, "SHARD", SHARD)
    address, kill = two_nodes
    model, images, labels = setting(120)
    model = nn.Sequential(Rounded(), model)
    ask = {"threat": "linf:0.05", "protocol": "quick", **rule}
    one = uf.evaluate(model, (images, labels), out=tmp_path / "one", **ask)
    given, lost = [], []
    give, fire = RayCrew.give, RayCrew._lost
    monkeypatch.setattr(RayCrew, "give", lambda crew, *a: (given.append(a), give(crew, *a))[1])
    monkeypatch.setattr(RayCrew, "_lost", lambda crew, *a: (lost.append(a[0]), fire(crew, *a))[1])
    killed = []

    def progress(at):
        if not killed and len({worker for worker, _ in given}) == 2 and at.done < 60:
            killed.append(at.done)
            kill()

    many = uf.evaluate(model, (images, labels), out=tmp_path / "many", cluster=address, progress=progress, **ask)
    assert killed, "both nodes must have had work"
    assert lost
    assert len(given) > len({number for _, number in given}), "what was lost must have been given again"
    assert one.remedies, "the setting must have something to adapt to"
    assert many.robust_accuracy == one.robust_accuracy
    assert_same_end(tmp_path / "many", tmp_path / "one", shards=len(RunFolder(tmp_path / "one").shards()))


@pytest.mark.slow
def test_the_program_is_killed_and_interrupted_on_a_cluster_of_its_own_and_goes_on(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "tiny.py").write_text(MODEL)
    names = {"__name__": "tiny"}
    exec(compile(MODEL, "tiny.py", "exec"), names)
    names["write"](tmp_path / "data.npz", 600)
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out, *more):
        words = [str(Path(sys.executable).parent / "unfooled"), *command(out=out), *more]
        return subprocess.Popen(
            words, env=env, cwd=tmp_path, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def finished():
        place = tmp_path / "many"
        return len(RunFolder(place).shards()) if (place / "evidence.sqlite").exists() else 0

    assert start("one").wait() == 0
    for how, status, shards in ((signal.SIGKILL, -signal.SIGKILL, 1), (signal.SIGINT, 130, 2)):
        process = start("many", "--ray", "local")
        while process.poll() is None and finished() < shards:
            time.sleep(0.02)
        process.send_signal(how)
        said = process.communicate()[1]
        assert process.returncode == status, said
        assert how != signal.SIGINT or said.splitlines()[-1] == "unfooled: interrupted; what was finished is on disk"
        assert shards <= finished() < 5
        until = time.monotonic() + 30
        while processes("ray::Worker") and time.monotonic() < until:
            time.sleep(0.2)
        assert not processes("ray::Worker")
    process = start("many", "--ray", "local")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert said == "", "Ray must be silent"
    assert_same_end(tmp_path / "many", tmp_path / "one", shards=5)


@pytest.mark.slow
def test_what_a_cluster_cannot_do(two_nodes):
    address, _ = two_nodes
    model, images, labels = setting(8)
    with pytest.raises(
        ClusterError, match="No machine of the cluster has the 9 cores of a worker: the largest of 2 has 1"
    ):
        uf.evaluate(model, (images, labels), "linf:0.05", "quick", cluster=Ray(address, cores=9))

    with pytest.raises(ClusterError, match="no Ray cluster to be had at '127.0.0.1:1'"):
        uf.evaluate(model, (images, labels), "linf:0.05", "quick", cluster="127.0.0.1:1")
