"""The ideal reader: what it may see, what it makes of it, and that nobody who sees as much does better."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US, LAB_NAMES
from pipeline.sources.synthetic.cohort import write_without_waveforms
from pipeline.sources.synthetic.ideal import IdealReader, ShapeReadings
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize
from pipeline.sources.synthetic.truth import CohortTruth, oracle_estimates

START_US = 10 * HOUR_US


def truth_of(root: Path, coupling: float = 1.0, null: str | None = None, patients: int = 16) -> CohortTruth:
    size = CohortSize(n_patients=patients, hours_low=5.0, hours_high=6.0)
    plan = CohortPlan(
        parameters=CohortParameters.load(),
        size=size,
        root=root,
        coupling=coupling,
        null=null,
        seed=7,
        real_labs=None,
    )
    write_without_waveforms(plan)
    return CohortTruth.load(root)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> CohortTruth:
    return truth_of(tmp_path_factory.mktemp("cohort") / "cohort")


def examples_of(truth: CohortTruth, *, known: str) -> pd.DataFrame:
    """Every draw but a patient's first ten, asked with all draws before it known, or with the first ten alone."""
    rows = []
    for patient, draws in truth.draws.sort_values("sampled_at_us").groupby("patient_id"):
        times = np.unique(draws["sampled_at_us"])
        for row in draws.itertuples():
            place = int(np.searchsorted(times, row.sampled_at_us))
            if place < 3:
                continue
            t0 = times[place - 1] if known == "all" else times[2]
            past = draws.loc[(draws["lab"] == row.lab) & (draws["sampled_at_us"] <= t0), "sampled_at_us"]
            since = (row.sampled_at_us - past.max()) / HOUR_US if len(past) else 1e6
            rows.append((patient, row.lab, row.sampled_at_us, t0, row.measured, since))
    names = ["patient_id", "lab", "sampled_at_us", "t0_us", "truth", "hours_since_last_lab"]
    return pd.DataFrame(rows, columns=names)


def readings_of(truth: CohortTruth, minutes: float = 20.0) -> dict[str, ShapeReadings]:
    found = {}
    for patient, rows in truth.latents.groupby("patient_id"):
        at = np.arange(rows["time_us"].min(), rows["time_us"].max(), int(minutes * 60e6))
        found[str(patient)] = ShapeReadings(
            time_us=at, end_us=at, value=truth.shape_drivers(str(patient), at), share=np.ones(len(at))
        )
    return found


def squared(estimate: np.ndarray, examples: pd.DataFrame) -> pd.Series:
    error = (estimate - examples["truth"]) ** 2
    return error.groupby(examples["lab"]).mean()


def test_more_is_better_and_the_oracle_knows_most(truth: CohortTruth) -> None:
    examples, readings = examples_of(truth, known="all"), readings_of(truth)
    oracle = squared(oracle_estimates(truth, examples), examples)
    both = squared(IdealReader(readings=readings).estimates(truth, examples), examples)
    pulse = squared(IdealReader(readings=readings, results=False).estimates(truth, examples), examples)
    results = squared(IdealReader(readings={}).estimates(truth, examples), examples)
    for lab in LAB_NAMES:
        assert oracle[lab] < both[lab] < min(pulse[lab], results[lab]), lab


def test_the_filters_variance_is_its_error(truth: CohortTruth) -> None:
    """Exact means calibrated, too: standardised errors of normal labs have a variance of 1."""
    examples, readings = examples_of(truth, known="all"), readings_of(truth)
    estimate = IdealReader(readings=readings).estimates(truth, examples)
    sodium = (examples["lab"] == "sodium").to_numpy()
    process = truth.parameters.labs["sodium"]
    error = (estimate[sodium] - examples["truth"][sodium]) / process.sd
    assert 0.03 < np.square(error).mean() < 0.09  # noise .03, rounding .003, and what offsets hide


@pytest.mark.parametrize(("coupling", "null"), [(0.0, "a"), (0.0, "b")])
def test_in_the_nulls_the_pulse_tells_nothing(tmp_path: Path, coupling: float, null: str) -> None:
    truth = truth_of(tmp_path / "cohort", coupling, null, patients=4)
    examples = examples_of(truth, known="all")
    with_pulse = IdealReader(readings=readings_of(truth)).estimates(truth, examples)
    without = IdealReader(readings={}).estimates(truth, examples)
    assert with_pulse == pytest.approx(without, rel=1e-8)
    if null == "b":
        for lab, process in truth.parameters.labs.items():
            assert without[(examples["lab"] == lab).to_numpy()] == pytest.approx(process.mean, rel=1e-9)


def test_results_alone_are_what_the_oracle_makes_of_uncoupled_labs(tmp_path: Path) -> None:
    """Another implementation: at coupling 0 the oracle conditions each lab on its history by a dense solve."""
    truth = truth_of(tmp_path / "cohort", 0.0, "a", patients=4)
    examples = examples_of(truth, known="all")
    ideal = IdealReader(readings={}).estimates(truth, examples)
    oracle = oracle_estimates(truth, examples)
    for lab, process in truth.parameters.labs.items():
        own = (examples["lab"] == lab).to_numpy()
        # The oracle takes a rounded result for an unrounded one, which moves its weights a little.
        assert np.abs(ideal - oracle)[own].max() < 0.08 * process.sd, lab


def test_no_value_after_a_questions_limits_changes_its_answer(truth: CohortTruth) -> None:
    readings = readings_of(truth)
    for known in ("all", "first"):
        examples = examples_of(truth, known=known)
        patient = examples["patient_id"].iloc[0]
        own = examples.loc[examples["patient_id"] == patient]
        one = own.iloc[[len(own) // 2]]
        at, t0 = int(one["sampled_at_us"].iloc[0]), int(one["t0_us"].iloc[0])
        before = IdealReader(readings=readings).estimates(truth, examples)[own.index[len(own) // 2]]
        draws = truth.draws.copy()
        draws.loc[draws["sampled_at_us"] > t0, "measured"] *= 1.5
        kept = readings[patient]
        value = np.where((kept.end_us > at)[:, None], kept.value + 9.0, kept.value)
        changed = readings | {patient: dataclasses.replace(kept, value=value)}
        after = IdealReader(readings=changed).estimates(dataclasses.replace(truth, draws=draws), examples)
        assert after[own.index[len(own) // 2]] == before


def test_a_result_counts_from_when_it_is_available(truth: CohortTruth) -> None:
    examples = examples_of(truth, known="all")
    late = IdealReader(readings={}, result_delay_us=1000 * HOUR_US).estimates(truth, examples)
    none = IdealReader(readings={}, results=False).estimates(truth, examples)
    assert np.array_equal(late, none)
    soon = IdealReader(readings={}, result_delay_us=HOUR_US // 60).estimates(truth, examples)
    at_once = IdealReader(readings={}).estimates(truth, examples)
    assert not np.array_equal(soon, at_once)  # the last result before a question is not there yet


def test_real_labs_have_no_law(truth: CohortTruth) -> None:
    real = dataclasses.replace(truth, real_labs=True)
    with pytest.raises(ConfigError, match="real labs have no known law"):
        IdealReader(readings={}).estimates(real, examples_of(truth, known="all"))
