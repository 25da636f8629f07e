"""What is kept of a tensor's values: once for each tensor, until somebody writes to it or it is gone."""

import gc

import torch

from kernels.selective_scan import causal_conv1d, interface, remembered, selective_scan
from kernels.testing import ScanCase, make_inputs


def counting():
    made = []

    def make(tensor, *arguments):
        made.append((tensor.tolist(), *arguments))
        return len(made)

    return made, make


def test_a_tensor_is_read_once_for_each_question():
    made, make = counting()
    tensor = torch.tensor([0, 3])
    assert [remembered.remembered(tensor, make, n) for n in (1, 1, 2, 1)] == [1, 1, 2, 1]
    assert made == [([0, 3], 1), ([0, 3], 2)]


def test_a_tensor_that_was_written_to_is_read_again():
    made, make = counting()
    tensor = torch.tensor([0, 3])
    remembered.remembered(tensor, make)
    tensor[1] = 4
    remembered.remembered(tensor, make)
    tensor.add_(1)
    remembered.remembered(tensor, make)
    assert made == [([0, 3],), ([0, 4],), ([1, 5],)]


def test_equal_tensors_are_not_the_same_and_none_is_kept_alive():
    made, make = counting()
    before = len(remembered._kept)
    for _ in range(5):
        remembered.remembered(torch.tensor([0, 3]), make)
    gc.collect()
    assert len(made) == 5
    assert len(remembered._kept) == before


def test_nothing_is_kept_of_tensors_without_a_version():
    made, make = counting()
    with torch.inference_mode():
        tensor = torch.tensor([0, 3])
        remembered.remembered(tensor, make)
        remembered.remembered(tensor, make)
    assert len(made) == 2


def test_bounds_come_to_the_host_as_int64_once(monkeypatch):
    copies = []
    usual = remembered._to_the_host
    monkeypatch.setattr(remembered, "_to_the_host", lambda bounds: copies.append(1) or usual(bounds))
    wide, narrow = torch.tensor([0, 5, 8]), torch.tensor([0, 5, 8], dtype=torch.int32)
    assert remembered.on_the_host(wide) is wide
    assert remembered.on_the_host(narrow) is remembered.on_the_host(narrow)
    assert remembered.on_the_host(narrow).dtype == torch.int64
    assert copies == [1]


def test_scan_and_convolution_of_a_pack_share_one_reading(monkeypatch):
    inputs = make_inputs(ScanCase(batch=1, channels=3, length=8, lengths=(5, 3)))
    inputs["cu_seqlens"] = inputs["cu_seqlens"].to(torch.int32)
    copies = []
    usual = remembered._to_the_host
    monkeypatch.setattr(remembered, "_to_the_host", lambda bounds: copies.append(1) or usual(bounds))
    interface._scans.passed.clear()
    for _ in range(2):
        selective_scan(**inputs, backend="cpu")
        causal_conv1d(inputs["u"], torch.ones(3, 4), cu_seqlens=inputs["cu_seqlens"], backend="cpu")
    assert copies == [1]
