"""Parts of the draws by circumstance: every draw of the protocol in one part, small parts left out."""

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.judge import EvaluationConfig
from pipeline.evaluation.recovery import recovery_rows
from pipeline.evaluation.recovery_by import EDGES, HOURS_RECORDED, KNOWN_DRAWS, LEAST_PATIENTS, recovery_by

CONFIG = EvaluationConfig(bootstrap=100)


@pytest.fixture
def table(predictions):
    base = predictions.loc[predictions["method"] == "locf"]
    noise = np.random.default_rng(0).normal(size=len(base)) * base["truth"].groupby(base["lab"]).transform(
        "std"
    )
    errors = {"mt_pcs_twin": 0.9, "mt_pcs": 0.5, "oracle": 0.1}
    table = pd.concat(
        [base.assign(method=name, estimate=base["truth"] + e * noise) for name, e in errors.items()]
    )
    return table.assign(**{KNOWN_DRAWS: 3, HOURS_RECORDED: 5.0}).reset_index(drop=True)


def test_a_part_is_judged_as_a_table_of_its_own(table):
    found = recovery_by(table, CONFIG)
    known = found.loc[found["quantity"] == KNOWN_DRAWS]
    assert set(zip(known["lower_edge"], known["upper_edge"], strict=True)) == {(2.0, 4.0)}
    whole = pd.DataFrame(recovery_rows(table.loc[table["protocol"] == "anchored"], CONFIG))
    assert known["recovery"].to_list() == pytest.approx(whole["recovery"].to_list())
    assert set(found["protocol"]) == {"anchored"}


def test_edges_cover_every_draw(table):
    for edges in EDGES.values():
        assert edges[0] == 0
        assert np.isinf(edges[-1])
        assert (np.diff(edges) > 0).all()


def test_parts_of_few_patients_are_left_out(table):
    few = table["patient"].isin(table["patient"].unique()[: LEAST_PATIENTS - 1])
    found = recovery_by(table.assign(**{KNOWN_DRAWS: np.where(few, 10, 3)}), CONFIG)
    assert 8.0 not in set(found.loc[found["quantity"] == KNOWN_DRAWS, "lower_edge"])
