"""Results that come later: nothing is known too soon, and delay 0 is the headline."""

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.delay_methods import ADDED
from pipeline.evaluation.judge import EvaluationConfig, compare, evaluate
from pipeline.evaluation.result_delay import DELAY_COLUMNS, delay_table, delayed_events
from pipeline.foundation.schema import HOUR_US, PROTOCOLS
from pipeline.labs.carry_forward import fit_carry_forward
from pipeline.prediction.scoring import score, score_estimator
from pipeline.report.result_delay_text import delay_text
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train

QUICK = EvaluationConfig(bootstrap=20)
TRAINING = TrainingConfig(
    epochs=1, batch_pieces=8, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu"
)


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=10, hours=2.0, draws=5)


@pytest.fixture(scope="module")
def checkpoints(cohort, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for method in ("mt_pcs", "mt_pcs_twin"):
        train(
            method, cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), TRAINING,
            root / method,
        )  # fmt: skip
    return {method: [root / method] for method in ("mt_pcs", "mt_pcs_twin")}


@pytest.fixture(scope="module")
def table(cohort, checkpoints):
    return delay_table(
        cohort.aligned, cohort.labs, cohort.store, cohort.splits, checkpoints, QUICK, delays_minutes=(0, 45)
    )


def test_no_result_is_known_before_its_delay_and_none_sooner_than_it_was():
    events = pd.DataFrame({"sampled_at_us": [0, 0], "available_at_us": [0, 2 * HOUR_US], "value": 1.0})
    assert delayed_events(events, 60)["available_at_us"].tolist() == [HOUR_US, 2 * HOUR_US]
    assert events["available_at_us"].tolist() == [0, 2 * HOUR_US]


def test_without_delay_the_figures_are_the_headlines(cohort, checkpoints, table):
    of_training = cohort.aligned.examples["patient_id"].isin(cohort.splits.patients("train"))
    shrunk = fit_carry_forward(cohort.aligned.examples[of_training])["shrunk_locf"]
    parts = [
        score(folders[0], cohort.aligned, cohort.store, cohort.splits) for folders in checkpoints.values()
    ]
    parts.append(score_estimator("shrunk_locf", shrunk.estimate, cohort.aligned, cohort.splits))
    parts.append(score_estimator("locf", lambda e: e["last_lab"].to_numpy(), cohort.aligned, cohort.splits))
    scored = pd.concat(parts)
    metrics = evaluate(scored, QUICK).query("aggregation == 'pooled'")
    differences = compare(scored, "mt_pcs", "mt_pcs_twin", QUICK).query("aggregation == 'pooled'")
    now = table[table["delay_minutes"] == 0]
    key = ["method", "protocol", "lab"]
    both = now.merge(metrics, on=key, suffixes=("", "_headline"))
    assert len(both) == len(metrics) > 20
    assert both["mae"].to_numpy() == pytest.approx(both["mae_headline"].to_numpy())
    added = now[now["method"] == ADDED].merge(
        differences[differences["metric"] == "mae"], on=["protocol", "lab"]
    )
    assert len(added) == len(differences) / differences["metric"].nunique()
    assert added["mae"].to_numpy() == pytest.approx(added["difference"].to_numpy())


def test_a_delay_makes_locf_older_and_is_the_same_for_every_method(cohort, table):
    assert tuple(table.columns) == DELAY_COLUMNS
    sizes = table.groupby(["delay_minutes", "protocol", "lab"])["n_labs"].nunique()
    assert (sizes == 1).all()
    later = table[(table["delay_minutes"] == 45) & (table["method"] == "locf")]
    now = table[(table["delay_minutes"] == 0) & (table["method"] == "locf")]
    both = later.merge(now, on=["protocol", "lab"], suffixes=("", "_now"))
    assert not np.allclose(both["mae"], both["mae_now"])


def test_the_text_has_each_protocol_lab_and_delay(table):
    text = delay_text(table)
    assert [line for line in text.splitlines() if line.startswith("Protocol")]
    for words in (*PROTOCOLS, "0 min", "45 min", "what PPG added", "potassium (mmol/L)", "Shrunk LOCF"):
        assert words in text
    assert "nan" not in text
