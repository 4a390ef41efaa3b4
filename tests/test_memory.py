"""Rows in work are bounded by memory: measured on a CPU, by trial on an accelerator; and the options of Compute."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

import unfooled as uf
from helpers import problem
from unfooled.attacks import PGD
from unfooled.engine import attack
from unfooled.models import Compute, layout, memory
from unfooled.threats import Linf

F64 = torch.float64
METHOD = PGD(steps=6, step_size=0.3)


class Small(nn.Module):
    """A device on which no more than `room` rows fit into a pass."""

    def __init__(self, net, room):
        super().__init__()
        self.net, self.room, self.sizes = net, room, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("out of memory, as planted")
        return self.net(x)


def test_a_pass_that_does_not_fit_is_halved_and_the_answer_is_the_same():
    p = problem((2, 3, 3), dtype=F64)
    threat = p.threat(Linf)
    whole = attack(p.model, p.x, p.y, threat, METHOD)
    model = Small(p.model, 5)
    result = attack(model, p.x, p.y, threat, METHOD, batch_size=24)
    assert torch.equal(result.success, whole.success)
    torch.testing.assert_close(result.adversarial, whole.adversarial, rtol=0, atol=1e-9)
    assert any("Memory ran out with" in note for note in result.notes)
    assert max(model.sizes) > 5
    assert not whole.notes


def test_where_not_even_one_row_fits_it_says_so():
    p = problem((8,))
    with pytest.raises((uf.errors.ModelError, torch.OutOfMemoryError), match="emory"):
        attack(Small(p.model, 0), p.x, p.y, p.threat(Linf), METHOD)


def test_the_need_of_a_row_is_what_autograd_keeps():
    layer = nn.Linear(100, 100)
    known = {q.untyped_storage().data_ptr() for q in layer.parameters()}
    for rows in (2, 8):
        x = torch.rand(rows, 100, requires_grad=True)
        with memory.watched(known) as need:
            layer(x).relu().exp()
        # relu keeps its output and exp its own; the input of a frozen or plain layer may be kept too
        assert 2 * 2 * 400 <= need.row(rows) <= 2 * 4 * 400


def test_rows_are_as_many_as_memory_has_room_for(monkeypatch):
    p = problem((2, 3, 3), dtype=F64, count=40)
    threat = p.threat(Linf)
    whole = attack(p.model, p.x, p.y, threat, METHOD)
    sizes = []
    p.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(memory, "free", lambda device: 40_000)
    result = attack(p.model, p.x, p.y, threat, METHOD, batch_size=40)
    note = next(note for note in result.notes if "Memory has room for" in note)
    room = int(note.split()[4])
    assert 1 <= room < 40
    assert max(sizes[2:]) <= max(room, memory.PROBE)
    assert torch.equal(result.success, whole.success)


def test_the_free_memory_is_that_of_this_machine():
    free = memory.free(torch.device("cpu"))
    assert 1 << 20 < free < 1 << 63
    assert memory.fits(1 << 60, torch.device("cpu")) == 1


FAULTS = """
import resource, torch
import unfooled as uf
model, x = uf.models.load("fashion-mnist/plain"), torch.rand(128, 1, 28, 28)
uf.attack(model, x[:1], model(x[:1]).argmax(1), "linf:0.1", "fgsm")
x.requires_grad_(True)
def passes():
    for _ in range(10):
        torch.autograd.grad(model(x).sum(), x)
passes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_an_attack_has_freed_memory_kept():
    """What a pass frees is not given back to the system, to be faulted in anew by the next one, 5,000 pages each time."""
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 10_000


def test_a_budget_is_spent_on_looks_not_on_confirming_another_layout(monkeypatch):
    monkeypatch.setattr(layout, "LONG", 0)
    monkeypatch.setattr(layout, "_is_faster", lambda *_: True)
    p = problem((2, 3, 3))
    threat = p.threat(Linf, 1e-6)
    for method in (PGD(steps=100, step_size=0.3), uf.attacks.parse("square:steps=100")):
        result = attack(p.model, p.x, p.y, threat, method, budget=62)
        spent = (result.forward + result.backward)[result.clean_correct]
        assert 60 <= int(spent.min()) <= int(spent.max()) <= 62, method


@pytest.mark.parametrize("compute", [Compute(autocast=True), Compute(layout="channels-last", autocast=True)], ids=str)
def test_mixed_precision_takes_gradients_and_the_victim_confirms(compute):
    p = problem((2, 3, 3))
    threat = p.threat(Linf, 1.5)
    full = attack(p.model, p.x, p.y, threat, METHOD, compute=Compute(layout="same"))
    half = attack(p.model, p.x, p.y, threat, METHOD, compute=compute)
    with torch.no_grad():
        answer = p.model(half.adversarial).argmax(1)
    assert bool((answer != p.y)[half.success].all())
    assert abs(int(half.success.sum()) - int(full.success.sum())) <= 2
    assert int(full.success.sum()) > 5


@pytest.mark.slow
def test_a_compiled_surrogate_gives_the_same_answer():
    p = problem((2, 3, 3))
    threat = p.threat(Linf, 1.5)
    plain = attack(p.model, p.x, p.y, threat, METHOD, compute=Compute(layout="same"))
    compiled = attack(p.model, p.x, p.y, threat, METHOD, compute=Compute(layout="same", compile=True))
    assert torch.equal(plain.success, compiled.success)


def test_the_options_are_checked():
    with pytest.raises(uf.errors.ParameterError, match="'autocast' parameter of Compute must be true or false"):
        Compute(autocast=1)
