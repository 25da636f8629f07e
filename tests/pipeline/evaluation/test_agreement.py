"""Repeated-measures Bland-Altman against hand-worked cases and a mixed model."""

import math

import numpy as np
import pytest
from statsmodels.regression.mixed_linear_model import MixedLM

from pipeline.evaluation.agreement import AGREEMENT_COLUMNS, agreement_table, repeated_bland_altman


def test_balanced_case_by_hand():
    # a: 1, 3 and b: 5, 7: means 2 and 6, bias 4; MS_between = 2 (4 + 4) / 1 = 16, MS_within = 4 / 2 = 2
    found = repeated_bland_altman(np.array([1.0, 3.0, 5.0, 7.0]), np.array(["a", "a", "b", "b"]))
    assert found.bias[0] == pytest.approx(4)
    assert found.sd_within[0] == pytest.approx(math.sqrt(2))
    assert found.sd_between[0] == pytest.approx(math.sqrt((16 - 2) / 2))
    assert found.limit_high[0] == pytest.approx(4 + 1.96 * 3)
    assert found.limit_low[0] == pytest.approx(4 - 1.96 * 3)


def test_unbalanced_case_by_hand():
    # a: 0, 2, 4 and b: 6; N 4, K 2, bias 3; MS_between = 3 (2-3)^2 + (6-3)^2 = 12, MS_within = 8 / 2 = 4,
    # n0 = (4 - 10 / 4) / 1 = 1.5
    found = repeated_bland_altman(np.array([0.0, 2.0, 4.0, 6.0]), np.array(["a", "a", "a", "b"]))
    assert found.sd_within[0] ** 2 == pytest.approx(4)
    assert found.sd_between[0] ** 2 == pytest.approx((12 - 4) / 1.5)


def test_no_patient_effect_gives_no_negative_variance():
    found = repeated_bland_altman(np.array([-1.0, 1.0, -1.0, 1.0]), np.array(["a", "a", "b", "b"]))
    assert found.sd_between[0] == 0


def test_one_draw_a_patient_is_the_plain_bland_altman():
    difference = np.array([1.0, 2.0, 4.0, 5.0])
    found = repeated_bland_altman(difference, np.arange(4))
    assert found.limit_high[0] == pytest.approx(3 + 1.96 * difference.std(ddof=1))
    assert math.isnan(found.sd_within[0])


def test_one_patient_has_no_limits():
    assert math.isnan(repeated_bland_altman(np.array([1.0, 2.0]), np.array(["a", "a"])).limit_high[0])


def test_balanced_variances_agree_with_a_mixed_model():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 4)
    difference = rng.normal(0, 2, 30)[patient] + rng.normal(0, 1, 120)
    model = MixedLM(difference, np.ones((120, 1)), groups=patient).fit(reml=True)
    found = repeated_bland_altman(difference, patient)
    assert found.sd_within[0] == pytest.approx(math.sqrt(model.scale), rel=1e-3)
    assert found.sd_between[0] == pytest.approx(math.sqrt(model.cov_re[0, 0]), rel=1e-3)


def test_a_replicate_equals_the_copied_patients():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(4), [3, 1, 2, 5])
    difference = rng.normal(size=patient.size)
    weights = np.array([[2.0, 0.0, 1.0, 1.0]])
    copies = np.concatenate([np.flatnonzero(patient == k) for k in (0, 0, 2, 3)])
    labels = np.repeat([0, 1, 2, 3], [3, 3, 2, 5])
    by_weight = repeated_bland_altman(difference, patient, weights)
    by_copy = repeated_bland_altman(difference[copies], labels)
    assert by_weight.limit_high[0] == pytest.approx(by_copy.limit_high[0])


def test_table_has_intervals_around_bias_and_limits(predictions):
    table = agreement_table(predictions, replicates=100)
    assert tuple(table.columns) == AGREEMENT_COLUMNS
    for name in ("bias", "limit_low", "limit_high"):
        assert (table[f"{name}_lower"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_upper"]).all()
    twin = table.query("method == 'mt_pcs_twin'")["limit_high"].to_numpy()
    assert (table.query("method == 'mt_pcs'")["limit_high"].to_numpy() < twin).all()


def test_slope_by_hand(make_predictions):
    table = make_predictions(n_patients=3, methods=("locf",), labs=("sodium",), protocols=("start",))
    # estimate = 140 + half of the deviation: difference -d/2 on mean 140 + 3d/4
    table = table.assign(estimate=140 + (table["truth"] - 140) / 2)
    assert agreement_table(table, replicates=10)["slope"].iloc[0] == pytest.approx(-2 / 3)
