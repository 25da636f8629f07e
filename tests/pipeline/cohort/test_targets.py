import numpy as np
import pytest

from pipeline.cohort.aligned import step_grid
from pipeline.cohort.alignment_config import AlignmentConfig, authors_alignment, paper_alignment
from pipeline.cohort.targets import lab_targets, window_of_draw
from pipeline.labs.history import LabSeries

STEP_US = 30_000_000
DAY_STEPS = 2880


def series(*draws):
    """Draws as (value, time in steps)."""
    times = np.array([round(t * STEP_US) for _, t in draws], dtype=np.int64)
    return LabSeries(value=np.array([float(v) for v, _ in draws]), sampled_us=times, available_us=times)


def targets(draws, *, n=20, masked=(), steps=None, config=None):
    usable = np.ones(n, bool)
    usable[list(masked)] = False
    config = config or AlignmentConfig()
    return lab_targets(series(*draws), step_grid(0, usable, config), steps or slice(0, n), config)


def test_between_draws_the_target_is_on_the_line_at_the_windows_end():
    found = targets([(10, 4), (20, 14)])
    # step k ends at k + 1 in steps; the draws at 4 and 14 are the targets of steps 3 and 13
    np.testing.assert_allclose(found.value[3:14], np.arange(10, 21))
    assert found.measured.nonzero()[0].tolist() == [3, 13]
    np.testing.assert_array_equal(found.weight[3:14], [1] + [0.2] * 9 + [1])


def test_none_outside_the_first_and_the_last_draw():
    found = targets([(10, 4), (20, 14)])
    assert (found.weight[:3] == 0).all()
    assert (found.weight[14:] == 0).all()
    assert np.isnan(found.value[found.weight == 0]).all()


def test_a_single_draw_is_the_only_target():
    assert targets([(10, 4.3)]).weight.nonzero()[0].tolist() == [3]


def test_no_draw_no_target():
    assert (targets([]).weight == 0).all()


def test_masked_steps_have_a_target_only_if_measured():
    found = targets([(10, 4), (20, 14)], masked=[3, 7, 8])
    assert found.weight[[3, 7, 8]].tolist() == [1, 0, 0]


def test_draws_before_and_after_the_sequence_join_over_it():
    found = targets([(0, -10), (30, 50)])
    np.testing.assert_allclose(found.value, (np.arange(1, 21) + 10) / 2)
    assert (found.weight == 0.2).all()


@pytest.mark.parametrize(("gap", "joined"), [(DAY_STEPS, True), (DAY_STEPS + 0.001, False)])
def test_draws_are_joined_over_24_hours_and_not_a_moment_more(gap, joined):
    found = targets([(10, 5), (20, 5 + gap)])
    assert (found.weight[5:] == 0.2).all() == joined
    assert (found.weight[5:] == 0).all() != joined
    unlimited = targets([(10, 5), (20, 5 + gap)], config=paper_alignment())
    assert (unlimited.weight[4:] == 1).all()


def test_part_of_a_sequence_has_the_targets_of_the_whole():
    whole = targets([(10, 4), (20, 14), (5, 18)])
    part = targets([(10, 4), (20, 14), (5, 18)], steps=slice(6, 16))
    np.testing.assert_array_equal(part.value, whole.value[6:16])
    np.testing.assert_array_equal(part.weight, whole.weight[6:16])


def test_two_draws_in_one_window_leave_the_later():
    found = targets([(10, 4.1), (12, 4.6), (20, 14)])
    assert found.value[3] == 12
    assert found.measured.sum() == 2


def test_a_draw_after_the_last_window_is_no_target():
    assert (targets([(10, 20.2)]).weight == 0).all()
    assert targets([(10, 20)]).measured.nonzero()[0].tolist() == [19]


def test_authors_interpolate_by_step_index_over_concatenated_windows():
    # usable windows 0..4 and 15..19; the draws lie in windows 2 and 16, which are steps 2 and 6
    found = targets(
        [(0, 2.5), (40, 16.5)], masked=range(5, 15), steps=slice(0, 10), config=authors_alignment()
    )
    np.testing.assert_allclose(found.value[2:7], [0, 10, 20, 30, 40])
    assert (found.weight[2:7] == 1).all()
    assert (found.weight[[0, 1, 7, 8, 9]] == 0).all()


class TestWindowOfDraw:
    STARTS = np.array([0, 1, 5], dtype=np.int64) * STEP_US

    @pytest.mark.parametrize(
        ("time", "index"), [(0.9, -1), (1, 0), (1.9, 0), (2, 1), (5.9, 1), (6, 2), (99, 2)]
    )
    def test_ends_before(self, time, index):
        drawn = np.array([round(time * STEP_US)])
        assert window_of_draw(self.STARTS, drawn, "ends_before").tolist() == [index]

    @pytest.mark.parametrize(
        ("time", "index"), [(0, -1), (0.1, 0), (1, 0), (1.1, 1), (3, 1), (3.1, -1), (7, 2), (7.1, -1)]
    )
    def test_starts_within_60s(self, time, index):
        drawn = np.array([round(time * STEP_US)])
        assert window_of_draw(self.STARTS, drawn, "starts_within_60s").tolist() == [index]
