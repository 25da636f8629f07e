"""Chunks of several saved states: the checks that claim to have them do, on whatever card.

A check of short sequences on a large card has one saved state a chunk, and passes with kernels that take no other.
"""

import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from kernels.selective_scan.operands import ScanInputs, scan_inputs
from kernels.selective_scan.triton import agreement
from kernels.selective_scan.triton.lanes import plan
from kernels.testing import ScanCase, make_inputs

CPU, SEVERAL = torch.device("cpu"), 3
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "step_mask", "cu_seqlens")
INTERPRETED = {"AT_ONCE": 1, "THREADS": 32}
"""What `interpret.set_sizes` gives its short checks."""


def load_checks():
    spec = importlib.util.spec_from_file_location("checks", Path(__file__).with_name("checks.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECKS = load_checks()


@pytest.fixture
def card(monkeypatch):
    """Return a function that says how many multiprocessors there are."""
    return lambda count: monkeypatch.setattr(plan, "processors", lambda _device: count)


def operands(case: ScanCase) -> ScanInputs:
    inputs = make_inputs(case)
    return scan_inputs([inputs.get(name) for name in NAMES], case.bias)


def cut(x: ScanInputs) -> list[tuple[int, bool]]:
    """Return, both ways, how many saved states the longest chunk has, and whether a sequence has several chunks."""
    made, found = plan.Plan(x), []
    for backward in (False, True):
        chunks = made.chunks(x.cu_seqlens, backward=backward)
        steps = chunks.steps if chunks.table is None else int(chunks.table[:, 1].max())
        occupied = x.sequences if chunks.table is None else int(chunks.table[:, 4].sum())
        found.append((-(-steps // made.kind.saved_every), chunks.count > occupied))
    return found


def several(x: ScanInputs) -> bool:
    return all(states >= SEVERAL for states, _ in cut(x))


@pytest.mark.parametrize("processors", [16, 78, 132, 148, 188])
def test_the_designs_are_tried_on_chunks_of_several_saved_states(processors, card):
    card(processors)
    x = agreement.operands(torch.float32, CPU)
    assert several(x)
    assert all(is_cut for _, is_cut in cut(x))


@pytest.mark.parametrize("processors", [132, 188])
def test_a_large_check_has_several_saved_states_a_chunk(processors, card):
    card(processors)
    x = operands(CHECKS.LARGE["wide_and_long"])
    assert several(x)
    assert all(is_cut for _, is_cut in cut(x))
    assert not several(operands(CHECKS.LARGE["everything"]))  # long, and yet of one state a chunk


@pytest.mark.parametrize("name", CHECKS.SEGMENTS)
@pytest.mark.parametrize("large", [False, True])
def test_checks_on_one_processor_have_several_saved_states_a_chunk(name, large, card, monkeypatch):
    card(1)
    for size, value in () if large else INTERPRETED.items():
        monkeypatch.setattr(plan, size, value)
    x = operands((CHECKS.LARGE_SEGMENTS if large else CHECKS.SEGMENTS)[name])
    assert several(x)
    assert any(is_cut for _, is_cut in cut(x))
    assert (x.cu_seqlens is None) == (name == "whole")
