"""The truth beside the cohort, the oracle that reads it, and planted waveforms for real labs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError, MissingArtifactError
from pipeline.foundation.schema import LAB_NAMES
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import plan_course, plan_stay
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.sources.synthetic.truth import TRUTH_TABLES, CohortTruth, oracle_estimates, truth_rows

REAL = Path(__file__).parents[5] / "shared" / "data" / "mimic_iii_demo"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="../shared is absent")
PARAMETERS = CohortParameters.load()
READ = ("draws", "latents", "morphology")


def truth_of(coupling: float, null: str | None = None, patients: int = 60) -> CohortTruth:
    """Truth of a cohort without waveforms."""
    rows = []
    for patient in range(patients):
        stay = plan_stay(PARAMETERS, (12.0, 48.0), 11, patient, patient + 20)
        course = plan_course(PARAMETERS, stay, coupling=coupling, null=null, seed=11, patient=patient)
        rows.append(truth_rows(PARAMETERS, str(stay.subject_id), course, real_labs=False))
    assert set(rows[0]) == set(TRUTH_TABLES)
    tables = {name: pd.concat([r[name] for r in rows], ignore_index=True) for name in READ}
    tie = 0.0 if null else coupling
    return CohortTruth(**tables, parameters=PARAMETERS, coupling=tie, null=null, real_labs=False)


def examples_of(truth: CohortTruth) -> pd.DataFrame:
    """Every draw with an earlier one, as the evaluation scores it."""
    draws = truth.draws.sort_values("sampled_at_us")
    groups = draws.groupby(["patient_id", "lab"])
    gap_hours = (draws["sampled_at_us"] - groups["sampled_at_us"].shift()) / 3.6e9
    examples = draws.assign(hours_since_last_lab=gap_hours, last_lab=groups["measured"].shift())
    return examples.dropna(subset="last_lab").reset_index(drop=True)


def r2(examples: pd.DataFrame, estimates: np.ndarray, lab: str) -> float:
    rows = (examples["lab"] == lab).to_numpy()
    truth = examples["measured"].to_numpy()[rows]
    return float(1 - ((truth - estimates[rows]) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def test_at_full_coupling_the_oracle_leaves_only_noise() -> None:
    truth = truth_of(1.0)
    examples = examples_of(truth)
    estimates = oracle_estimates(truth, examples)
    for lab in LAB_NAMES:
        share = PARAMETERS.labs[lab].noise_share
        assert r2(examples, estimates, lab) == pytest.approx(1 - share, abs=0.06), lab


def test_the_oracle_gains_with_coupling_and_beats_carrying_forward() -> None:
    scores = {}
    for coupling in (0.0, 0.5, 1.0):
        truth = truth_of(coupling)
        examples = examples_of(truth).iloc[::5]
        estimates = oracle_estimates(truth, examples)
        scores[coupling] = [r2(examples, estimates, lab) for lab in LAB_NAMES]
        shrunk = [
            examples[examples["lab"] == lab][["measured", "last_lab"]].corr().iloc[0, 1] ** 2
            for lab in LAB_NAMES
        ]
        assert all(best > simple - 0.02 for best, simple in zip(scores[coupling], shrunk, strict=True))
    assert all(a < b for a, b in zip(scores[0.0], scores[1.0], strict=True))
    assert np.mean(scores[0.0]) < np.mean(scores[0.5]) < np.mean(scores[1.0])


def test_in_null_b_the_oracle_knows_nothing() -> None:
    truth = truth_of(1.0, "b")
    examples = examples_of(truth)
    estimates = oracle_estimates(truth, examples)
    for lab in LAB_NAMES:
        assert np.ptp(estimates[(examples["lab"] == lab).to_numpy()]) < 1e-9
        assert estimates[(examples["lab"] == lab).to_numpy()][0] == pytest.approx(PARAMETERS.labs[lab].mean)


def test_the_oracle_sees_no_draw_that_was_not_available() -> None:
    truth = truth_of(0.5, patients=6)
    examples = examples_of(truth).groupby(["patient_id", "lab"]).nth(3).reset_index(drop=True)
    before = oracle_estimates(truth, examples)
    last_us = examples["sampled_at_us"] - (examples["hours_since_last_lab"] * 3.6e9).round()
    known = examples.assign(last_us=last_us)[["patient_id", "lab", "last_us"]]
    later = truth.draws.merge(known, on=["patient_id", "lab"], how="left")
    hidden = later["sampled_at_us"] > later["last_us"] + 1_000_000
    assert hidden.any()
    changed = truth.draws.assign(measured=truth.draws["measured"].where(~hidden.to_numpy(), 9.9))
    after = oracle_estimates(CohortTruth(**{**_fields(truth), "draws": changed}), examples)
    np.testing.assert_array_equal(after, before)


def _fields(truth: CohortTruth) -> dict[str, object]:
    names = (*READ, "parameters", "coupling", "null", "real_labs")
    return {name: getattr(truth, name) for name in names}


def test_the_truth_survives_the_disk(tmp_path: Path) -> None:
    size = CohortSize(n_patients=2, hours_low=0.5, hours_high=1.0)
    done = write_cohort(PARAMETERS, size, tmp_path / "cohort", coupling=0.5, seed=4)
    truth = CohortTruth.load(done.root)
    assert truth.parameters == PARAMETERS
    assert truth.coupling == 0.5
    assert len(truth.draws) == done.n_labs
    labs = pd.read_parquet(done.root / "truth" / "labs.parquet")
    grid = labs[(labs["lab"] == "sodium") & (labs["patient_id"] == truth.draws["patient_id"][0])]
    assert grid["sampled_at_us"].diff().dropna().eq(300_000_000).all()
    draws = truth.draws[
        (truth.draws["lab"] == "sodium") & (truth.draws["patient_id"] == grid["patient_id"].iloc[0])
    ]
    between = np.interp(draws["sampled_at_us"], grid["sampled_at_us"], grid["value"])
    np.testing.assert_allclose(between, draws["value"], atol=1e-6)


def test_a_folder_without_truth_gives_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="holds no truth"):
        CohortTruth.load(tmp_path)


@needs_real
def test_real_labs_get_planted_waveforms(tmp_path: Path) -> None:
    size = CohortSize(n_patients=4, hours_low=6.0, hours_high=7.0)
    done = write_cohort(PARAMETERS, size, tmp_path / "real", coupling=1.0, seed=0, real_labs=REAL)
    catalog = Mimic3Waveforms(done.root / "waveforms").catalog()
    admissions = Mimic3Tables(done.root / "clinical").tables().admissions.set_index("patient_id")
    assert done.n_patients == len({record.patient_id for record in catalog.records}) == 4
    for record in catalog.records:
        stays = admissions.loc[[record.patient_id]]
        assert (
            (stays["admitted_us"] <= record.start_us + 43_200_000_000)
            & (stays["discharged_us"] >= record.start_us)
        ).any()
    assert (done.root / "clinical" / "LABEVENTS.csv.gz").read_bytes() == (
        REAL / "LABEVENTS.csv.gz"
    ).read_bytes()
    truth = CohortTruth.load(done.root)
    assert truth.real_labs
    np.testing.assert_allclose(truth.draws["latent"], truth.draws["score"], atol=0.05)  # a grid of 5 min
    examples = examples_of(truth)
    estimates = oracle_estimates(truth, examples)
    assert r2(examples, estimates, "potassium") > 0.95


@needs_real
def test_stays_that_are_too_short_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower hours_low"):
        write_cohort(
            PARAMETERS,
            CohortSize(n_patients=4, hours_low=5000.0, hours_high=6000.0),
            tmp_path / "real",
            real_labs=REAL,
        )


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no LABEVENTS"):
        write_cohort(PARAMETERS, CohortSize(n_patients=1), tmp_path / "x", real_labs=tmp_path)
