"""The cohort's labs: frozen parameters, the real demo's carry-forward figures, one law at every coupling."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LAB_NAMES
from pipeline.sources.synthetic.parameters import PARAMETERS_PATH, CohortParameters, LabProcess
from pipeline.sources.synthetic.physiology import (
    draw_offsets,
    ornstein_uhlenbeck,
    plan_course,
    plan_stay,
    random_stream,
    to_score,
    to_value,
)

FROZEN_SHA256 = "025f7134298f86dcf33b2efa09e59af659cfdca03700d5c1bc4983ca08e078dd"
REAL_LOCF = {"potassium": -0.05, "calcium": 0.39, "sodium": 0.69, "glucose": -0.47, "lactate": 0.84}
REAL_SHRUNK = {"potassium": 0.27, "calcium": 0.52, "sodium": 0.72, "glucose": 0.08, "lactate": 0.84}


def labs_only(parameters: CohortParameters, coupling: float, null: str | None, patients: int) -> pd.DataFrame:
    """Draws of a cohort without waveforms, each with its previous value; scored as the real ones were."""
    parts = []
    for patient in range(patients):
        stay = plan_stay(parameters, (12.0, 48.0), 7, patient, patient)
        draws = plan_course(parameters, stay, coupling=coupling, null=null, seed=7, patient=patient).draws
        draws = draws.sort_values("sampled_at_us").assign(patient=patient)
        draws["previous"] = draws.groupby("lab")["measured"].shift()
        gap_hours = (draws["sampled_at_us"] - draws.groupby("lab")["sampled_at_us"].shift()) / 3.6e9
        during = draws["sampled_at_us"].between(stay.recordings[0][0], stay.recordings[-1][1])
        parts.append(draws.assign(scored=during & (gap_hours <= 72)))
    return pd.concat(parts, ignore_index=True)


def carry_forward_r2(draws: pd.DataFrame, lab: str) -> tuple[float, float]:
    scored = draws[(draws["lab"] == lab) & draws["scored"]]
    truth, previous = scored["measured"].to_numpy(), scored["previous"].to_numpy()
    plain = 1 - ((truth - previous) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    return float(plain), float(np.corrcoef(truth, previous)[0, 1] ** 2)


@pytest.fixture(scope="module")
def parameters() -> CohortParameters:
    return CohortParameters.load()


def test_the_parameters_are_frozen() -> None:
    """Tune the model, never the cohort: whoever changes the file makes every earlier figure incomparable."""
    assert hashlib.sha256(PARAMETERS_PATH.read_bytes()).hexdigest() == FROZEN_SHA256


@pytest.mark.parametrize("coupling", [0.0, 0.5, 1.0])
def test_carry_forward_scores_as_on_the_real_demo(parameters: CohortParameters, coupling: float) -> None:
    draws = labs_only(parameters, coupling, None, 400)
    for lab in LAB_NAMES:
        plain, shrunk = carry_forward_r2(draws, lab)
        assert plain == pytest.approx(REAL_LOCF[lab], abs=0.1), lab
        assert shrunk == pytest.approx(REAL_SHRUNK[lab], abs=0.1), lab


def test_null_b_leaves_nothing_to_predict(parameters: CohortParameters) -> None:
    draws = labs_only(parameters, 1.0, "b", 200)
    for lab in LAB_NAMES:
        plain, shrunk = carry_forward_r2(draws, lab)
        assert plain == pytest.approx(-1, abs=0.2)
        assert shrunk < 0.01
        assert abs(draws.loc[draws["lab"] == lab, ["score", "latent"]].corr().iloc[0, 1]) < 0.08


@pytest.mark.parametrize(
    ("coupling", "null", "expected"), [(1.0, None, 1.0), (0.5, None, 0.5), (1.0, "a", 0.0)]
)
def test_coupling_is_the_correlation_of_lab_and_latent(
    parameters: CohortParameters, coupling: float, null: str | None, expected: float
) -> None:
    draws = labs_only(parameters, coupling, null, 150)
    for lab in LAB_NAMES:
        seen = draws.loc[draws["lab"] == lab, ["score", "latent"]].corr().iloc[0, 1]
        assert seen == pytest.approx(expected, abs=0.25 if expected < 1 else 1e-9)


def test_latents_are_the_same_at_every_coupling(parameters: CohortParameters) -> None:
    stay = plan_stay(parameters, (12.0, 13.0), 0, 0, 20)
    one, other = (plan_course(parameters, stay, coupling=c, null=None, seed=0, patient=0) for c in (0.0, 1.0))
    np.testing.assert_array_equal(one.latents, other.latents)
    np.testing.assert_array_equal(one.offsets, other.offsets)


def test_marginals_are_realistic(parameters: CohortParameters) -> None:
    draws = labs_only(parameters, 1.0, None, 200)
    for lab, process in parameters.labs.items():
        values = draws.loc[draws["lab"] == lab, "measured"]
        assert values.mean() == pytest.approx(process.mean, rel=0.12)
        assert values.std() == pytest.approx(process.sd, rel=0.25)
    assert draws["measured"].gt(0).all()


def test_draws_come_before_during_and_after_the_recording(parameters: CohortParameters) -> None:
    stay = plan_stay(parameters, (24.0, 30.0), 1, 3, 20)
    times = plan_course(parameters, stay, coupling=1.0, null=None, seed=1, patient=3).draws["sampled_at_us"]
    start, end = stay.recordings[0][0], stay.recordings[-1][1]
    assert times.lt(start).any()
    assert times.between(start, end).any()
    assert times.gt(end).any()
    assert times.between(stay.admitted_us, stay.discharged_us).all()


def test_offsets_vanish_in_null_b_only(parameters: CohortParameters) -> None:
    assert not draw_offsets(parameters, "b", random_stream(0, 0, "offsets")).any()
    assert draw_offsets(parameters, "a", random_stream(0, 0, "offsets")).all()


def test_the_latent_process_has_unit_variance_and_its_time_constant() -> None:
    path = ornstein_uhlenbeck(200_000, 0.05, np.random.default_rng(0))
    assert path.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(path[:-20], path[20:])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)


@pytest.mark.parametrize("lab", LAB_NAMES)
def test_values_and_scores_are_inverse(parameters: CohortParameters, lab: str) -> None:
    scores = np.linspace(-3, 3, 13)
    process = parameters.labs[lab]
    np.testing.assert_allclose(to_score(process, to_value(process, scores)), scores, atol=1e-9)


def test_the_order_of_keys_in_the_file_does_not_matter(parameters: CohortParameters) -> None:
    again = CohortParameters.from_dict(json.loads(json.dumps(parameters.raw, sort_keys=True)))
    assert again == parameters


@pytest.mark.parametrize(
    ("field", "value"),
    [("sd", 0.0), ("time_constant_hours", -1.0), ("patient_share", 1.5), ("noise_share", -0.1)],
)
def test_impossible_parameters_are_named(field: str, value: float) -> None:
    good = {"mean": 4.1, "sd": 0.6, "skewed": False, "patient_share": 0.3, "time_constant_hours": 4.0,
            "noise_share": 0.1, "decimals": 1}  # fmt: skip
    with pytest.raises(ValueError, match=rf"{field}.*{value}"):
        LabProcess(**{**good, field: value})


def test_a_damaged_file_gives_one_clear_error(tmp_path) -> None:
    path = tmp_path / "parameters.json"
    path.write_text('{"version": 1}')
    with pytest.raises(ConfigError, match="Restore the file"):
        CohortParameters.load(path)
