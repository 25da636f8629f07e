"""Designs that were found to disagree on a card: the first computes there, and only there."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from kernels.selective_scan.triton import agreement, backend, designs
from kernels.selective_scan.triton.lanes import launch

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    agreement._kept.cache_clear()
    yield
    agreement._kept.cache_clear()


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
    assert designs.design(x._replace(A=x.A.new_zeros(80, 17))) is backend
    monkeypatch.setattr(designs, "refused", lambda _: True)
    assert designs.design(x) is backend


@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_a_difference_is_seen_in_every_result(wrong: float) -> None:
    a = torch.ones(3, 4, dtype=torch.float64)
    assert agreement._apart(a, a + 1e-6) == pytest.approx(1e-6)
    b = a.clone()
    b[1, 2] += wrong
    assert agreement._apart(a, b) > agreement.TOLERANCE
