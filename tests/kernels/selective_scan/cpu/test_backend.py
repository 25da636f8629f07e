"""The CPU kernels among threads and processes."""

import multiprocessing
import threading

import pytest
import torch

from kernels.selective_scan import selective_scan
from kernels.selective_scan.cpu import backend
from kernels.testing import ScanCase, make_inputs

CASE = ScanCase(channels=6, length=8, groups=2, mask=True)


def run():
    return selective_scan(**make_inputs(CASE), backend="cpu")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernels_take_as_many_threads_as_torch(threads, monkeypatch):
    taken = []
    monkeypatch.setattr(backend, "call", lambda _function, arguments, _keep: taken.append(arguments.threads))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        selective_scan(**make_inputs(ScanCase(channels=600, length=90, state=16)), backend="cpu")
        run()  # too small to share
    finally:
        torch.set_num_threads(before)
    assert taken == [threads, 1]


def _child(queue):
    queue.put(float(run().sum()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kernels_survive_a_fork():
    expected = float(run().sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_threads_may_call_at_once():
    expected, results = run(), []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)
