"""Settings of all tests: the cores there are, and the same hypothesis examples in every run."""

import os
import signal

import hypothesis
import pytest
import torch

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
torch.set_num_threads(max(1, cores // workers))
hypothesis.settings.register_profile("here", deadline=None, derandomize=True, max_examples=40, database=None)
hypothesis.settings.load_profile("here")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: children would never be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where UNFOOLED_REQUIRE_DATA is set, a test on real data that was skipped has failed."""
    report = (yield).get_result()
    if report.skipped and item.get_closest_marker("data") and os.environ.get("UNFOOLED_REQUIRE_DATA"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although the real data are required: {report.longrepr}"


@pytest.fixture
def one_thread():
    """Small batches: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
