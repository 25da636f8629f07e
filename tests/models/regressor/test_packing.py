import itertools

import pytest

from models.regressor.packing import chunks
from models.testing.regressor import inputs_of


@pytest.mark.parametrize("chunk_steps", [1, 7, 23, 24, 80, 1000])
def test_chunks_cover_the_pack(chunk_steps):
    bounds = inputs_of().cu_seqlens
    found = list(chunks(bounds, chunk_steps))
    assert [c.start for c in found] == list(range(0, 80, chunk_steps))
    assert found[-1].stop == 80
    for a, b in itertools.pairwise(found):
        assert a.stop == b.start
        assert b.is_entered == (a.stop not in bounds)
    for c in found:
        expected = [
            min(max(int(x), c.start), c.stop) - c.start for x in bounds[c.first_piece : c.end_piece + 1]
        ]
        assert c.cu_seqlens.tolist() == expected
        assert (expected[0], expected[-1]) == (0, c.stop - c.start)
    with pytest.raises(ValueError, match="chunk_steps is 0"):
        next(chunks(bounds, 0))
