"""Mean and spread over positions: as in float64, the same bits on every level, left to PyTorch where they must be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import position_spread
from kernels.position_spread import cpu
from kernels.selective_scan.cpu.build import LEVELS, BuildError, best_level

needs_compiler = pytest.mark.skipif(
    not position_spread.available(torch.zeros(1, 1, 1)), reason="no C++ compiler"
)
LEAST = torch.finfo(torch.float32).tiny


def spread_of(x: torch.Tensor, least: float = LEAST) -> torch.Tensor:
    return position_spread.mean_and_spread(x, least)[1]


def numbers(rows: int, positions: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, positions, width, generator=torch.Generator().manual_seed(seed)) + 3.0


@needs_compiler
@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 200), st.booleans())
def test_it_is_that_of_float64(rows: int, positions: int, width: int, later: bool) -> None:
    x = numbers(rows, positions + later, width)[:, int(later) :]
    mean, spread = position_spread.mean_and_spread(x, LEAST)
    torch.testing.assert_close(mean.double(), x.double().mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(spread.double(), x.double().std(1, correction=0), rtol=1e-5, atol=1e-6)


@needs_compiler
def test_a_row_does_not_depend_on_the_others() -> None:
    x = numbers(7, 30, 130)
    whole = torch.stack(position_spread.mean_and_spread(x, LEAST))
    for n in range(7):
        alone = torch.stack(position_spread.mean_and_spread(x[n : n + 1], LEAST))
        assert torch.equal(alone[:, 0], whole[:, n])


@needs_compiler
def test_a_far_offset_costs_no_digits_and_a_constant_has_the_least_spread() -> None:
    x = numbers(2, 30, 64) + 1e4
    torch.testing.assert_close(spread_of(x).double(), x.double().std(1, correction=0), rtol=1e-3, atol=0)
    assert torch.equal(spread_of(torch.ones(1, 30, 5), 0.25), torch.full((1, 5), 0.5))


@needs_compiler
def test_what_is_no_number_stays_none() -> None:
    x = numbers(1, 30, 70)
    x[0, 4, 66] = torch.nan
    assert spread_of(x).isnan().nonzero().tolist() == [[0, 66]]


@needs_compiler
def test_every_level_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, found = numbers(3, 30, 200), []
    levels = list(LEVELS)[list(LEVELS).index(best_level()) :]
    for level in levels:
        monkeypatch.setattr(cpu, "best_level", lambda level=level: level)
        found.append(torch.stack(position_spread.mean_and_spread(x, LEAST)))
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("x", [
    torch.zeros(2, 3, 4, dtype=torch.float64), torch.zeros(2, 3), torch.zeros(2, 3, 4).mT,
    torch.zeros(2, 3, 4, requires_grad=True),
], ids=["float64", "two axes", "columns apart", "with a gradient"])  # fmt: skip
def test_other_tensors_are_left_to_pytorch(x: torch.Tensor) -> None:
    assert not position_spread.available(x)
    with pytest.raises(ValueError, match="float32 tensors without gradients on a CPU"):
        position_spread.mean_and_spread(x, LEAST)


def test_without_a_compiler_nothing_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_library", lambda _level: "no C++ compiler was found")
    assert not position_spread.available(torch.zeros(2, 3, 4))
    with pytest.raises(BuildError, match="no C"):
        cpu.library()
