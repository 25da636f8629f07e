"""Designs that were found to disagree on a card: the first computes there, and only there."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from kernels.selective_scan.operands import ScanOperands
from kernels.selective_scan.triton import agreement, backend, designs, device
from kernels.selective_scan.triton.lanes import launch

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    device.rounds_to_bfloat16.cache_clear()
    agreement._kept.cache_clear()
    yield
    agreement._kept.cache_clear()
    device.rounds_to_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("apart", "agrees"),
    [((1e-5, 5e-3), True), ((2e-3, 5e-3), False), ((1e-5, 0.5), False), ((float("inf"), 0.0), False)],
)
def test_what_was_found_is_kept_for_this_card_alone(
    apart: tuple[float, float], agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not agreement.refused(CARD)  # nobody has tried
    found = iter(apart)
    monkeypatch.setattr(agreement, "operands", lambda *_: None)
    monkeypatch.setattr(agreement, "difference", lambda _: next(found))
    assert tuple(agreement.try_designs(CARD).values()) == apart
    assert agreement.refused(CARD) is not agrees
    assert not agreement.refused(torch.device("cuda", 1))
    assert not agreement.refused(CPU)
    monkeypatch.setattr(agreement, "_sources", lambda: "others")
    agreement._kept.cache_clear()
    assert not agreement.refused(CARD)  # of other sources nobody knows


def test_bfloat16_goes_to_the_first_design_on_cards_that_do_not_round_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (7, 5) if card == CARD else (8, 0))
    assert [launch.takes(torch.bfloat16, card) for card in (CARD, torch.device("cuda", 1), CPU)] == [
        False, True, True
    ]  # fmt: skip
    assert launch.takes(torch.float16, CARD)
    monkeypatch.setattr(agreement, "operands", lambda dtype, _: dtype)
    monkeypatch.setattr(agreement, "difference", lambda dtype: 0.0 if dtype == torch.float32 else 1.0)
    assert agreement.try_designs(CARD) == {torch.float32: 0.0}
    assert not agreement.refused(CARD)
    x = ScanOperands(*[torch.zeros(1, 2, 2, dtype=torch.bfloat16)] * 2, torch.zeros(2, 3), *[None] * 8, True)
    assert designs.design(x) is launch
    monkeypatch.setattr(launch, "rounds_to_bfloat16", lambda _: False)
    assert designs.design(x) is backend
    assert designs.design(x._replace(u=x.u.half())) is launch


def test_a_design_that_does_not_run_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(launch, "forward", broken)
    monkeypatch.setattr(backend, "forward", lambda x, y, save: (y, y))
    monkeypatch.setattr(backend, "backward", lambda *_: ())
    assert agreement._tried(agreement.operands(torch.float32, CPU)) == float("inf")


def test_the_first_design_computes_where_they_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    x = agreement.operands(torch.float32, CPU)
    assert designs.design(x) is launch
    assert designs.design(x._replace(A=x.A.new_zeros(len(x.A), 17))) is backend
    monkeypatch.setattr(designs, "refused", lambda _: True)
    assert designs.design(x) is backend


@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_a_difference_is_seen_in_every_result(wrong: float) -> None:
    a = torch.ones(3, 4, dtype=torch.float64)
    assert agreement._apart(a, a + 1e-6) == pytest.approx(1e-6)
    b = a.clone()
    b[1, 2] += wrong
    assert agreement._apart(a, b) > agreement.TOLERANCE
