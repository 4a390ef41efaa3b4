"""Independent work on several threads."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from unfooled import Linf
from unfooled.certificates import bounded, linear, parallel
from unfooled.certificates.parallel import each


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_work_is_done_side_by_side_and_each_piece_by_one_thread():
    meet, seen = threading.Barrier(2, timeout=20), {}

    def work(item: int) -> None:
        meet.wait()  # breaks if nobody else is at work
        seen[item] = torch.get_num_threads()

    each(work, range(4))
    assert seen == dict.fromkeys(range(4), 1)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_are_on_or_off_as_they_were(wanted):
    seen = []
    with torch.set_grad_enabled(wanted):
        each(lambda _: seen.append(torch.is_grad_enabled()), range(4))
    assert seen == [wanted] * 4


@pytest.mark.usefixtures("two_threads")
def test_an_error_comes_out_and_threads_are_as_before():
    def work(item: int) -> None:
        if item == 2:
            raise ValueError("of the third")

    with pytest.raises(ValueError, match="of the third"):
        each(work, range(4))
    assert torch.get_num_threads() == 2


def test_a_thread_that_is_bound_to_a_core_does_the_work_itself(two_threads, monkeypatch):
    monkeypatch.setattr(parallel, "_cores", lambda: 1)
    seen = []
    each(lambda _: seen.append(threading.current_thread()), range(3))
    assert seen == [threading.current_thread()] * 3


def test_one_thread_works_in_order():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        each(seen.append, range(5))
    finally:
        torch.set_num_threads(before)
    assert seen == [0, 1, 2, 3, 4]


def test_bounds_are_the_same_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(linear, "TOGETHER", 0)  # image by image
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )
    images, before, found = torch.rand(7, 1, 8, 8), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(bounded(model, images, Linf(0.1)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0].lower, found[1].lower, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0].upper, found[1].upper, rtol=1e-12, atol=1e-12)
