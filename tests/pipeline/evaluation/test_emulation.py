"""Means over divisions and draws, intervals over patients who are taken with all their divisions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from pipeline.evaluation.emulation import DivisionPredictions, emulation_rows
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import PREDICTION_COLUMNS

CONFIG = EvaluationConfig(bootstrap=400)
PATIENTS = [f"p{i:02d}" for i in range(30)]


def predictions(held_out: list[str], seed: int, noise: float) -> pd.DataFrame:
    """Three potassium draws a patient, whose truth is the patient's own and whose estimate is off by `noise`."""
    rows = []
    luck = np.random.default_rng(seed)
    for patient in held_out:
        own = np.random.default_rng(int(patient[1:]))
        for hour, truth in enumerate(own.normal(4.0, 0.6, 3)):
            when = pd.Timestamp("2150-01-01") + pd.Timedelta(hours=hour)
            row = dict.fromkeys(PREDICTION_COLUMNS) | {
                "patient": patient, "sequence": patient, "lab": "potassium", "protocol": "start",
                "scoring": "measured", "split": "test", "seed": 0, "sampled_at": when, "truth": truth,
            }  # fmt: skip
            rows.append(row | {"method": "mt_pcs", "estimate": truth + noise * luck.standard_normal()})
            rows.append(row | {"method": "locf", "estimate": 4.0})
    return pd.DataFrame(rows)


def halves(noise: float, draws: int = 2) -> list[DivisionPredictions]:
    return [
        DivisionPredictions(
            rendered=predictions(held_out, 10 * number, 0.3),
            emulated=tuple(predictions(held_out, 10 * number + 1 + draw, noise) for draw in range(draws)),
        )
        for number, held_out in enumerate((PATIENTS[:20], PATIENTS[10:]))
    ]


def r2(frame: pd.DataFrame) -> float:
    ours = frame.loc[frame["method"] == "mt_pcs"]
    return r2_score(ours["truth"], ours["estimate"])


def test_means_over_divisions_and_draws() -> None:
    divisions = halves(noise=0.5)
    (row,) = emulation_rows(divisions, "mt_pcs", CONFIG).to_dict("records")
    by_draw = np.array([[r2(frame) for frame in division.emulated] for division in divisions])
    assert row["rendered"] == pytest.approx(np.mean([r2(division.rendered) for division in divisions]))
    assert row["emulated"] == pytest.approx(by_draw.mean())
    assert row["difference"] == pytest.approx(row["emulated"] - row["rendered"])
    assert row["spread"] == pytest.approx(by_draw.mean(axis=0).std(ddof=1))
    assert (row["n_labs"], row["n_patients"]) == (120, 30)
    assert row["difference_lower"] < row["difference"] < row["difference_upper"] < 0


def test_no_difference_is_none_and_one_draw_has_no_spread() -> None:
    divisions = halves(noise=0.3, draws=1)
    same = [DivisionPredictions(rendered=one.rendered, emulated=(one.rendered,)) for one in divisions]
    (row,) = emulation_rows(same, "mt_pcs", CONFIG).to_dict("records")
    assert (row["difference"], row["difference_lower"], row["difference_upper"]) == (0, 0, 0)
    assert np.isnan(row["spread"])


def test_a_patient_who_is_held_out_twice_counts_once_among_patients() -> None:
    """Two equal divisions tell no more than one: the interval must not shrink."""
    (division,) = halves(noise=0.5)[:1]
    (once,), (twice,) = (emulation_rows([division] * n, "mt_pcs", CONFIG).to_dict("records") for n in (1, 2))
    for bound in ("difference_lower", "difference_upper"):
        assert once[bound] == pytest.approx(twice[bound])
    assert once["n_patients"] == twice["n_patients"] == 20


def test_other_draws_are_refused() -> None:
    one, other = halves(noise=0.5)
    mixed = DivisionPredictions(rendered=one.rendered, emulated=other.emulated)
    with pytest.raises(ConfigError, match="not judged on the same draws"):
        emulation_rows([mixed], "mt_pcs", CONFIG)
