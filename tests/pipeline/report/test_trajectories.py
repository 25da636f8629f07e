"""A week of estimates is thinned to what a picture can show, all labs at the same times."""

import numpy as np
import pytest

from pipeline.foundation.schema import LAB_NAMES, MAX_SEQUENCE_STEPS, WINDOW_US
from pipeline.report.trajectories import SHOWN_ESTIMATES, _thinned


@pytest.mark.parametrize("steps", [1, SHOWN_ESTIMATES, SHOWN_ESTIMATES + 1, MAX_SEQUENCE_STEPS])
def test_every_nth_time_of_every_lab_is_shown(steps):
    times = np.repeat(np.arange(steps, dtype=np.int64) * WINDOW_US, len(LAB_NAMES))
    shown = times[_thinned(times)].reshape(-1, len(LAB_NAMES))
    assert (shown == shown[:, :1]).all()
    assert shown[0, 0] == 0
    assert (
        len(shown) == steps
        if steps <= SHOWN_ESTIMATES
        else SHOWN_ESTIMATES / 2 < len(shown) <= SHOWN_ESTIMATES
    )
    assert len(np.unique(np.diff(shown[:, 0]))) <= 1
