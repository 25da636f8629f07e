"""Rows of the first design: its kernels compute them, forward and backward, and the second's all others."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime import jit

from benchmarks import driver, peers, selective_scan, training
from benchmarks.driver import Provider
from benchmarks.first_design import first_design, in_first_design
from kernels.selective_scan import backends
from kernels.selective_scan.triton import agreement, designs
from models.regressor.inputs import PackedInputs

FIRST = {
    "forward": {"summarize_chunks", "pass_over_chunks", "write_chunks"},
    "backward": {"summarize_adjoints", "differentiate_chunks"},
}
SECOND = {"forward": {"write"}, "backward": {"differentiate", "finish"}}
CUT = {"summarize", "carry", "summarize_back"}
"""Of the second design, where sequences are cut, as a card's many multiprocessors ask for."""
CONVOLUTION = {"convolve", "differentiate_filter", "spread"}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of kernels, launched by real calls on the CPU: the launches do nothing."""
    names: list[str] = []
    monkeypatch.setattr(jit.JITFunction, "run", lambda kernel, *_, **__: names.append(kernel.fn.__name__))
    monkeypatch.setattr(backends, "triton_is_interpreted", lambda: True)
    monkeypatch.setattr("kernels.selective_scan.triton.lanes.plan.processors", lambda _device: 132)
    return names


def scans_of(provider: Provider, launched: list[str]) -> set[str]:
    """Return the scan's kernels that one call of a provider launches."""
    launched.clear()
    provider.run()
    return set(launched) - CONVOLUTION


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backward", [False, True])
def test_providers_that_take_turns_are_computed_by_their_own_design(
    backward: bool, dtype: torch.dtype, launched: list[str]
) -> None:
    x = selective_scan.make(1, 200, 64, "cpu", dtype=dtype, gated=True)
    timed = selective_scan.forward_backward if backward else selective_scan.forward
    ours = Provider(
        name="ours: triton",
        run=partial(timed, partial(selective_scan.ours, "triton"), x, torch.ones_like(x[0])),
    )
    first = in_first_design(ours, dtype, "cpu")
    assert (first.name, first.check(), first.rounds) == ("ours: triton, first design", "", None)
    seen: dict[str, list[set[str]]] = {ours.name: [], first.name: []}

    def clock(run: Callable[[], Any]) -> float:  # stands where the time is taken
        launched.clear()
        run()
        seen[ours.name if run is ours.run else first.name].append(set(launched))
        return 1.0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(driver, "seconds", clock)
        case = driver.Case(name="case", providers=lambda: [ours, first])
        driver.run_case(case, 3, lambda *_: None)
    passes = ("forward", "backward") if backward else ("forward",)
    assert seen[first.name] == [set().union(*[FIRST[each] for each in passes])] * 3
    wanted = set[str]().union(*[SECOND[each] for each in passes])
    assert len(seen[ours.name]) == 3
    assert all(wanted <= names <= wanted | CUT for names in seen[ours.name])


def test_a_training_step_is_computed_by_its_own_design(
    launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_pick", lambda _device: "triton")
    step = partial(training.training_step, training.model_of(16), training.inputs_of(1, 50), None)
    ours = Provider(name="ours", run=step)
    first = in_first_design(ours, torch.float32, "cpu")
    second_kernels = SECOND["forward"] | SECOND["backward"]
    for _ in range(2):
        assert scans_of(first, launched) == FIRST["forward"] | FIRST["backward"]
        assert second_kernels <= scans_of(ours, launched) <= second_kernels | CUT


def test_the_thread_in_which_autograd_computes_gradients_on_a_gpu_has_the_same_design() -> None:
    x = agreement.operands(torch.float32, torch.device("cpu"))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(designs.design, x).result() is designs.launch
        with first_design():
            assert pool.submit(designs.design, x).result() is designs.backend
        assert pool.submit(designs.design, x).result() is designs.launch


def test_a_call_that_fails_leaves_the_second_design_in_its_place() -> None:
    def too_large() -> object:
        raise torch.OutOfMemoryError

    usual = designs.refused
    with pytest.raises(torch.OutOfMemoryError):
        in_first_design(Provider(name="ours", run=too_large), torch.float32, "cpu").run()
    assert designs.refused is usual


def test_where_the_first_design_computes_ours_it_has_no_row_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = partial(in_first_design, Provider(name="ours"), device="cpu")
    assert first(torch.float32).check() == ""
    assert first(torch.float64).check().startswith("not measured: ours is the first design")
    monkeypatch.setattr(designs, "refused", lambda _device: True)
    assert first(torch.float32).check().startswith("not measured: ours is the first design")


def test_on_a_gpu_both_tables_have_the_first_design_behind_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(peers, "mamba_ssm_cuda", lambda: None)
    made = selective_scan.make(1, 4, 2, "cpu")
    monkeypatch.setattr(selective_scan, "make", lambda *_, **__: made)
    scan = selective_scan.providers(1, 4, 2, backward=True)
    assert [p.name for p in scan[:2]] == ["ours: triton", "ours: triton, first design"]
    for kind in (torch.nn.Module, PackedInputs):
        monkeypatch.setattr(kind, "to", lambda self, _device: self)
    step = [p.name for p in training.providers(20, "cuda", 8)]
    assert step[:3] == ["ours", "ours, chunks of 8", "ours, first design"]
    monkeypatch.setattr(training, "WEEK_STEPS", 20)
    weeks = [p.name for p in training._full_batch("cuda")]
    assert weeks == ["ours, chunks of 4096", "ours, chunks of 4096, first design"]
    assert len(training._full_batch("cpu")) == 1
