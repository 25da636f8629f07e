"""How calls are cut into programs."""

import pytest

pytest.importorskip("triton")

from kernels.selective_scan.triton.lanes import plan


@pytest.mark.parametrize(
    ("channels", "threads"),
    [(1, 32), (33, 64), (65, 32), (96, 32), (128, 128), (130, 32), (192, 64), (500, 128)],
)
def test_programs_leave_few_threads_without_a_channel_and_are_large(channels, threads):
    assert plan.threads_for(channels) == threads
