import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.foundation.schema import DAY_US, HOUR_US
from pipeline.labs.history import HistoryConfig, LabSeries, lab_history, last_available_before

CONFIGS = [HistoryConfig(features=name) for name in ("default", "paper", "authors")]


def series(*rows):
    """Results as (value, hour of draw, hour known)."""
    rows = sorted(rows, key=lambda row: (round(row[1] * HOUR_US), round(row[2] * HOUR_US)))
    columns = list(zip(*rows, strict=True)) if rows else [[], [], []]
    value, sampled, known = (np.array(column, dtype=float) for column in columns)
    return LabSeries(
        value=value,
        sampled_us=(sampled * HOUR_US).round().astype(np.int64),
        available_us=(known * HOUR_US).round().astype(np.int64),
    )


def at(*hours):
    return (np.array(hours) * HOUR_US).astype(np.int64)


def test_default_features_by_hand():
    history = lab_history(
        series((4.0, 0, 0), (5.0, 24, 24), (9.0, 30, 31)), at(24.0, 30.5, 31.0), HistoryConfig()
    )
    np.testing.assert_allclose(history.features[0, 0], (5 + 4 * np.exp(-1)) / (1 + np.exp(-1)))
    np.testing.assert_allclose(history.features[:, 1], [5, 5, 9])
    np.testing.assert_allclose(history.features[:, 2], np.log1p([0, 6.5, 1]))
    np.testing.assert_allclose(history.features[:, 3], np.log1p([2, 2, 3]))
    np.testing.assert_allclose(history.mean, [4.5, 4.5, 6])
    assert history.present.all()


def test_paper_features_are_the_plain_mean():
    history = lab_history(series((4.0, 0, 0), (5.0, 24, 24)), at(24.0), HistoryConfig(features="paper"))
    assert history.features.tolist() == [[4.5, 0, 0, 0]]


def test_authors_weigh_by_age_over_the_oldest_age():
    history = lab_history(series((4.0, 0, 0), (5.0, 12, 12)), at(24.0), HistoryConfig(features="authors"))
    old, young = np.exp(-3), np.exp(-1.5)
    np.testing.assert_allclose(history.features[0, 0], (4 * old + 5 * young) / (old + young))


def test_authors_mean_of_results_drawn_at_t0_is_defined():
    history = lab_history(series((4.0, 24, 24)), at(24.0), HistoryConfig(features="authors"))
    assert history.features[0, 0] == 4


def test_the_latest_draw_is_last_even_if_an_older_one_arrives_after_it():
    history = lab_history(series((4.0, 1, 9), (5.0, 2, 3)), at(10.0), HistoryConfig())
    assert history.last_value.tolist() == [5]
    assert history.last_sampled_us.tolist() == [2 * HOUR_US]


@pytest.mark.parametrize("config", CONFIGS)
def test_without_history_everything_is_absent(config):
    for results in (series(), series((4.0, 5, 5))):
        history = lab_history(results, at(4.0), config)
        assert np.isnan(history.features).all()
        assert np.isnan(history.last_value).all()
        assert np.isnan(history.mean).all()
        assert not history.present.any()


def test_weeks_of_history_do_not_underflow():
    history = lab_history(series((4.0, 0, 0)), at(29 * 24.0), HistoryConfig(decay_hours=0.01))
    assert history.features[0, 0] == 4


def test_age_limit_counts_from_the_draw():
    late = LabSeries(value=np.array([4.0]), sampled_us=np.array([0]), available_us=np.array([DAY_US]))
    assert lab_history(late, np.array([30 * DAY_US]), HistoryConfig()).present.all()
    assert not lab_history(late, np.array([30 * DAY_US + 1]), HistoryConfig()).present.any()


def test_a_correction_counts_from_when_it_was_known_and_a_withdrawn_draw_not_at_all():
    results = series((4.0, -3, -2), (140.0, 0, 1), (150.0, 0, 5), (np.nan, 0, 9))
    for config in CONFIGS:
        found = lab_history(results, at(0.5, 1, 4.99, 5, 8.99, 9), config)
        assert found.last_value.tolist() == [4.0, 140.0, 140.0, 150.0, 150.0, 4.0]
        assert found.mean.tolist() == [4.0, 72.0, 72.0, 77.0, 77.0, 4.0]
        assert found.present.all()
        assert np.isfinite(found.features).all()
    assert last_available_before(results, at(1.01, 5.01, 9.01)).tolist() == [140.0, 150.0, 4.0]
    assert results.final.value.tolist() == [4.0]


def test_last_available_before_is_strict():
    results = series((4.0, 1, 1), (5.0, 2, 3))
    np.testing.assert_array_equal(last_available_before(results, at(1.0, 1.1, 3.0, 3.1)), [np.nan, 4, 4, 5])
    assert np.isnan(last_available_before(series(), at(1.0))).all()


@pytest.mark.parametrize(
    ("field", "value"), [("features", "all"), ("decay_hours", 0.0), ("max_age_days", -1.0)]
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises((ValueError, TypeError), match=field):
        HistoryConfig(**{field: value})


results_strategy = st.lists(
    st.tuples(st.floats(0.1, 500), st.floats(0, 900), st.floats(0, 100)).map(
        lambda r: (r[0], r[1], r[1] + r[2])
    ),
    max_size=40,
)
corrections_strategy = st.lists(
    st.tuples(st.integers(0, 39), st.one_of(st.floats(0.1, 500), st.just(np.nan)), st.floats(0, 100)),
    max_size=6,
)


@pytest.mark.parametrize("config", CONFIGS)
@given(
    results=results_strategy, later=results_strategy, corrections=corrections_strategy, t0=st.floats(0, 1000)
)
def test_a_result_that_came_later_changes_not_one_bit(config, results, later, corrections, t0):
    """New results, corrections and withdrawals after t0."""
    later += [(v, results[i][1], results[i][2] + k) for i, v, k in corrections if i < len(results)]
    later = [(v, s, max(k, t0 + 0.001)) for v, s, k in later]
    before = lab_history(series(*[r for r in results if r[2] <= t0]), at(t0), config)
    after = lab_history(series(*[r for r in results if r[2] <= t0], *later), at(t0), config)
    assert before.features.tobytes() == after.features.tobytes()
    assert before.mean.tobytes() == after.mean.tobytes()
    assert before.last_value.tobytes() == after.last_value.tobytes()
    assert before.present.tolist() == after.present.tolist()


@given(results=results_strategy.filter(len), t0=st.floats(0, 1000))
def test_means_lie_within_the_values(results, t0):
    known = [v for v, s, k in results if round(k * HOUR_US) <= t0 * HOUR_US and t0 - s <= 30 * 24]
    for config in CONFIGS:
        history = lab_history(series(*results), at(t0), config)
        if known and history.present[0]:
            assert min(known) - 1e-9 <= history.features[0, 0] <= max(known) + 1e-9
