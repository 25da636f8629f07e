"""The law says of shape and labs what the generator draws, at every coupling and in both nulls."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US
from pipeline.sources.synthetic.law import LinearLaw, ReadingErrors, cohort_law, with_errors
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import to_score
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, plan_patient

PARAMETERS = CohortParameters.load()
PATIENTS = 200


def covariance_over(law: LinearLaw, hours: float) -> np.ndarray:
    """Of shape and labs at one time with shape and labs `hours` later."""
    seen = np.vstack([law.shape, law.lab])
    return seen @ (law.covariance * np.exp(-hours / law.time_constant_hours)) @ seen.T


def drivers(course, at_us) -> np.ndarray:
    latents = dict(
        zip(
            PARAMETERS.latent_names,
            (np.interp(at_us, course.grid_us, row) for row in course.latents),
            strict=True,
        )
    )
    return np.array(
        [
            offset + sum(w * latents[name] for name, w in spec.loadings.items())
            for offset, spec in zip(course.offsets, PARAMETERS.morphology.values(), strict=True)
        ]
    )


@pytest.mark.parametrize(("coupling", "null"), [(1.0, None), (0.5, None), (0.0, "a")])
def test_the_law_is_the_generators(coupling: float, null: str | None) -> None:
    plan = CohortPlan(
        parameters=PARAMETERS, size=CohortSize(n_patients=PATIENTS, hours_low=0.1, hours_high=0.2), root=Path(),
        coupling=coupling, null=null, seed=7, real_labs=None,
    )  # fmt: skip
    signal = np.sqrt([1 - lab.noise_share for lab in PARAMETERS.labs.values()])
    rows = []
    for patient in range(PATIENTS):
        _, course = plan_patient(plan, patient)
        at = course.grid_us[0] + np.array([0, 2 * HOUR_US])
        labs = signal[:, None] * np.stack([np.interp(at, course.grid_us, row) for row in course.lab_scores])
        rows.append(np.vstack([np.stack([drivers(course, t) for t in at], axis=1), labs]))
    first, later = np.array(rows)[:, :, 0], np.array(rows)[:, :, 1]
    law = cohort_law(PARAMETERS, coupling, null)
    for sample, expected in (
        (first.T @ first, covariance_over(law, 0.0)),
        (first.T @ later, covariance_over(law, 2.0)),
    ):
        scale = np.sqrt(np.outer(np.diag(covariance_over(law, 0.0)), np.diag(covariance_over(law, 0.0))))
        assert np.abs(sample / PATIENTS - expected).max() < 5 * scale.max() * np.sqrt(2 / PATIENTS)
        assert np.abs((sample / PATIENTS - expected) / scale).max() < 5 * np.sqrt(2 / PATIENTS)


def test_a_draws_variance_is_one_and_its_noise_the_parameters() -> None:
    for coupling in (0.0, 0.3, 1.0):
        law = cohort_law(PARAMETERS, coupling, None)
        total = np.diag(law.lab @ law.covariance @ law.lab.T) + law.lab_noise
        assert total == pytest.approx(np.ones(5), abs=1e-12)


def test_null_b_knows_neither_labs_nor_offsets() -> None:
    law = cohort_law(PARAMETERS, 0.0, "b")
    assert not law.lab.any()
    assert law.lab_noise == pytest.approx(np.ones(5))
    plain = cohort_law(PARAMETERS, 1.0, None)
    offsets = [spec.offset_sd**2 for spec in PARAMETERS.morphology.values()]
    lost = np.diag(plain.shape @ plain.covariance @ plain.shape.T) - np.diag(
        law.shape @ law.covariance @ law.shape.T
    )
    assert lost == pytest.approx(offsets)


def test_states_that_nothing_sees_are_left_out() -> None:
    assert len(cohort_law(PARAMETERS, 1.0, None).covariance) == 19
    assert len(cohort_law(PARAMETERS, 0.5, None).covariance) == 29


def test_errors_of_readings_are_states_of_their_own() -> None:
    law, rng = cohort_law(PARAMETERS, 1.0, None), np.random.default_rng(0)
    factor = rng.normal(size=(3, 7, 7))
    constant, drift, window = (f @ f.T for f in factor)
    erring = with_errors(law, ReadingErrors(constant=constant, drift=drift, drift_hours=5.0, window=window))
    for hours in (0.0, 3.0):
        expected = covariance_over(law, hours)
        expected[:7, :7] += constant + drift * np.exp(-hours / 5.0)
        assert covariance_over(erring, hours) == pytest.approx(expected)
    assert erring.window_noise == pytest.approx(window)


def test_coupling_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"coupling 1.5 must lie in 0..1"):
        cohort_law(PARAMETERS, 1.5, None)


def test_scores_invert_values() -> None:
    lab = PARAMETERS.labs["glucose"]
    assert to_score(lab, np.array([lab.mean * np.exp(-(lab.log_sd() ** 2) / 2)])) == pytest.approx([0.0])
