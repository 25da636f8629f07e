"""One rule for every claim: the difference in R2, its interval, Holm."""

import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig, compare
from pipeline.report.claims import NOT_ESTIMABLE, claim_sentences, claims, listed


@pytest.fixture(scope="module")
def compared(make_predictions):
    table = make_predictions(n_patients=40, methods=("locf", "mt_pcs", "mt_pcs_twin"))
    config = EvaluationConfig(bootstrap=250)
    pairs = (("mt_pcs", "locf"), ("mt_pcs", "mt_pcs_twin"))
    return pd.concat([compare(table, a, b, config) for a, b in pairs], ignore_index=True)


def test_what_ppg_added_comes_first_and_every_pair_is_judged_by_the_same_rule(compared) -> None:
    found = claims(compared)
    assert [(claim.other, claim.protocol) for claim in found] == [
        ("mt_pcs_twin", "start"), ("mt_pcs_twin", "anchored"), ("locf", "start"), ("locf", "anchored"),
    ]  # fmt: skip
    for claim in found:
        rows = claim.rows
        assert set(rows["metric"]) == {"r2"}
        counts = rows.loc[(rows["p_holm"] < 0.05) & ((rows["lower"] > 0) | (rows["upper"] < 0)), "lab"]
        assert {*claim.better, *claim.worse} == set(counts)
    added, locf = claim_sentences(found)  # a sentence a pair, its protocols side by side
    assert added.startswith("What PPG added to MT+PCS. start: R2 higher for")
    assert "; anchored: R2 higher for" in added
    assert locf.startswith("MT+PCS against LOCF. start: ")


def test_an_interval_clear_of_0_is_not_enough(compared) -> None:
    assert claims(compared)[0].better
    doubtful = compared.assign(p_holm=0.06)
    assert not any(claim.better or claim.worse for claim in claims(doubtful))


def test_harm_is_said(compared) -> None:
    turned = compared.assign(lower=-compared["upper"], upper=-compared["lower"])
    claim = claims(turned)[0]
    assert claim.better == ()
    assert f", lower for {listed(claim.worse, 5)}" in claim.verdict()


def test_equal_estimates_and_no_comparison(compared) -> None:
    assert claims(compared.assign(difference=float("nan")))[0].verdict() == NOT_ESTIMABLE
    assert claims(None) == []
    assert claims(compared.iloc[:0]) == []
    assert claims(compared, ("mt_assim",)) == []
    assert listed([], 5) == "none of 5 labs"
