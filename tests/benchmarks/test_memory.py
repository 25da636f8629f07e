"""Peak memory: of a GPU counted in this process, and nothing where there is no room for the call."""

import subprocess

import pytest
import torch

from benchmarks import memory
from benchmarks.driver import Case, Provider

CASE = Case(name="one", providers=list)


@pytest.fixture(autouse=True)
def on_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that holds 3 MB before a call, and 10 at its peak."""
    counts = {"is_available": True, "memory_allocated": 3_000_000, "max_memory_allocated": 10_000_000}
    for name, value in counts.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("another process was started"))


def test_on_a_card_it_is_counted_here_above_inputs_and_results() -> None:
    result = torch.zeros(250_000)  # 1 MB, which the caller gets
    assert memory.peak_of("benchmarks.x", CASE, Provider(name="x", run=lambda: result)) == pytest.approx(6.0)


def test_a_call_that_does_not_fit_has_no_peak() -> None:
    def large() -> object:
        raise torch.OutOfMemoryError

    assert memory.peak_of("benchmarks.x", CASE, Provider(name="x", run=large)) is None
