"""Measured results stand in the first row that could show them, and nowhere before."""

import numpy as np
import pytest

from pipeline.foundation.schema import LAB_NAMES
from pipeline.labs.history import LabSeries
from pipeline.prediction.measured import measured_draws

START_US = 1_000_000_000
END_US = START_US + 30_000_000 * np.arange(1, 11)
SODIUM = LAB_NAMES.index("sodium")


def series(*rows: tuple[float, float, float]) -> dict[str, LabSeries]:
    """Sodium by (value, seconds of the draw, seconds when it was known), after the start."""
    value, sampled, known = np.array(rows, dtype=float).T
    sampled_us, available_us = (
        START_US + np.round(1e6 * seconds).astype(np.int64) for seconds in (sampled, known)
    )
    return {"sodium": LabSeries(value=value, sampled_us=sampled_us, available_us=available_us)}


def shown(found) -> dict[int, tuple[float, float]]:
    """Value and seconds of the draw by row."""
    times = found.sampled_at[:, SODIUM]
    rows = np.flatnonzero(~np.isnat(times))
    seconds = (times[rows].astype(np.int64) - START_US) / 1e6
    return {int(row): (float(found.value[row, SODIUM]), s) for row, s in zip(rows, seconds, strict=True)}


def test_a_result_stands_where_it_became_known_under_the_time_of_its_draw() -> None:
    found = measured_draws(END_US, START_US, series((140.0, -600.0, 31.0), (141.0, 61.0, 90.0)))
    assert shown(found) == {
        1: (140.0, -600.0),
        2: (141.0, 61.0),
    }  # known at 90 s exactly: the row that ends then
    others = [column for column in range(len(LAB_NAMES)) if column != SODIUM]
    assert np.isnan(found.value[:, others]).all()
    assert np.isnat(found.sampled_at[:, others]).all()


@pytest.mark.parametrize("known", [0.0, -1.0, 301.0])
def test_what_was_known_before_or_becomes_known_after_the_rows_is_not_among_them(known: float) -> None:
    assert shown(measured_draws(END_US, START_US, series((140.0, -600.0, known)))) == {}


def test_a_correction_and_a_withdrawal_stand_in_rows_of_their_own() -> None:
    rows = series((140.0, 5.0, 10.0), (150.0, 5.0, 100.0), (np.nan, 5.0, 200.0))
    found = shown(measured_draws(END_US, START_US, rows))
    assert {row: seconds for row, (_, seconds) in found.items()} == {0: 5.0, 3: 5.0, 6: 5.0}
    assert [found[row][0] for row in (0, 3)] == [140.0, 150.0]
    assert np.isnan(found[6][0])


def test_of_several_at_once_the_latest_drawn_stands_there_and_all_are_counted() -> None:
    found = measured_draws(
        END_US, START_US, series((140.0, -60.0, 20.0), (141.0, 5.0, 10.0), (139.0, 50.0, 70.0))
    )
    assert shown(found) == {0: (141.0, 5.0), 2: (139.0, 50.0)}
    assert found.reported[:, SODIUM].tolist() == [2, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found.reported.sum() == 3


def test_rows_after_a_gap_show_what_came_in_it() -> None:
    ends = np.concatenate([END_US[:2], END_US[8:]])
    assert shown(measured_draws(ends, START_US, series((140.0, 65.0, 120.0)))) == {2: (140.0, 65.0)}


def test_no_row_and_no_result_are_nothing() -> None:
    assert measured_draws(END_US[:0], START_US, series((140.0, 5.0, 10.0))).value.shape == (0, len(LAB_NAMES))
    assert shown(measured_draws(END_US, START_US, {})) == {}
