import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.calibration_line import calibration_lines


def test_slope_and_intercept_are_those_of_least_squares(make_predictions) -> None:
    table = make_predictions(n_patients=30, methods=("locf", "mt_pcs"), protocols=("start",))
    found = calibration_lines(table, replicates=100).set_index(["method", "lab"])
    for (method, lab), rows in table.groupby(["method", "lab"]):
        slope, intercept = np.polyfit(rows["estimate"], rows["truth"], 1)
        row = found.loc[(method, lab)]
        assert row["slope"] == pytest.approx(slope)
        assert row["intercept"] == pytest.approx(intercept)
        assert row["slope_lower"] < slope < row["slope_upper"]
        assert row["intercept_lower"] < row["intercept_upper"]


def test_an_estimate_that_is_too_extreme_has_a_slope_below_1(make_predictions) -> None:
    table = make_predictions(n_patients=30, methods=("mt_pcs",), labs=("sodium",), protocols=("start",))
    mean = table["truth"].mean()
    exact = table.assign(estimate=mean + 2 * (table["truth"] - mean))
    row = calibration_lines(exact, replicates=50).iloc[0]
    assert row["slope"] == pytest.approx(0.5)
    assert row["slope_upper"] == pytest.approx(0.5)
    assert row["intercept"] == pytest.approx(0.5 * mean)


def test_a_patients_draws_are_drawn_together(make_predictions) -> None:
    """Repeating every draw of everybody tells nothing new: the interval stays as wide."""
    table = make_predictions(n_patients=12, methods=("mt_pcs",), labs=("sodium",), protocols=("start",))
    again = table.assign(sampled_at=table["sampled_at"] + np.timedelta64(1, "s"))
    one, two = (calibration_lines(t, replicates=200).iloc[0] for t in (table, pd.concat([table, again])))
    assert two["slope_upper"] - two["slope_lower"] == pytest.approx(one["slope_upper"] - one["slope_lower"])


def test_few_patients_or_one_estimate_have_no_line(make_predictions) -> None:
    table = make_predictions(n_patients=4, methods=("mt_pcs",), labs=("sodium",), protocols=("start",))
    assert np.isnan(calibration_lines(table, replicates=20).iloc[0]["slope"])
    table = make_predictions(n_patients=8, methods=("mt_pcs",), labs=("sodium",), protocols=("start",))
    assert np.isnan(calibration_lines(table.assign(estimate=4.0), replicates=20).iloc[0]["intercept"])
