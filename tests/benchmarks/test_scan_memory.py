"""What a scan takes of memory is counted; where all models are, the second design takes no more than the first."""

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import scan_memory


def test_a_block_counts_once_and_while_somebody_has_it():
    given = torch.zeros(8)
    with scan_memory.Counted([given]) as counter:
        kept = torch.empty(10)
        shown, of_givens = kept[2:], given.mul_(2)
        dropped = torch.empty(100)
        del dropped
        assert counter.in_use() == kept.nbytes
        del kept
        assert counter.in_use() == 10 * shown.element_size()
    assert counter.peak == 110 * of_givens.element_size()


@pytest.mark.parametrize("dtype", scan_memory.DTYPES)
@pytest.mark.parametrize("size", [(4, 20160, 512, 16), (1, 20160, 512, 16), (8, 2048, 512, 16)])
def test_the_second_design_takes_no_more_than_the_first(size, dtype):
    batch, length, channels, states = size
    stays, stays_second, peak, peak_second = scan_memory.of_both_designs(*size, dtype=dtype)
    assert stays_second <= stays
    assert peak_second <= peak
    outputs = batch * channels * (length * dtype.itemsize + states * 4)
    assert stays_second == outputs + batch * length // 32 * channels * states * 4
