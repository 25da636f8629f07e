"""How calls are cut into programs."""

import pytest
import torch

pytest.importorskip("triton")

from kernels.selective_scan.operands import ScanInputs
from kernels.selective_scan.triton.lanes import plan


@pytest.mark.parametrize(
    ("channels", "threads"),
    [(1, 32), (33, 64), (65, 32), (96, 32), (128, 128), (130, 32), (192, 64), (500, 128)],
)
def test_programs_leave_few_threads_without_a_channel_and_are_large(channels, threads):
    assert plan.threads_for(channels) == threads


def lying_well(channels=6, states=4):
    activation, projection = torch.zeros(2, 5, channels).mT, torch.zeros(2, 5, states).mT
    return ScanInputs(
        u=activation, delta=activation, A=torch.zeros(channels, states), B=projection, C=projection,
        D=torch.zeros(channels), z=activation, delta_bias=torch.zeros(channels),
        initial_state=torch.zeros(2, channels, states), step_mask=None, cu_seqlens=None, delta_softplus=True, made={},
    )  # fmt: skip


def otherwise(tensor):
    """The same values, no two of them neighbours."""
    return torch.stack([tensor, tensor], -1)[..., 0]


TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", TENSORS)
def test_only_what_lies_otherwise_is_copied_whichever_kind_came_first(name, first):
    well = lying_well()
    badly = well._replace(**{name: otherwise(getattr(well, name))})
    for x in (well, badly) if first else (badly, well, badly):
        read, _ = plan.planned(x)
        for field in TENSORS:
            given, seen = getattr(x, field), getattr(read, field)
            assert (seen.mT if seen.dim() == 3 and field != "initial_state" else seen).is_contiguous()
            assert (seen is given) == (x is well or field != name), field


def test_a_mask_is_read_as_bytes():
    mask = torch.tensor([[True, False, True, True, False]] * 2)
    read, _ = plan.planned(lying_well()._replace(step_mask=mask))
    assert read.step_mask.tolist() == mask.int().tolist()
    assert read.step_mask.dtype == torch.uint8
