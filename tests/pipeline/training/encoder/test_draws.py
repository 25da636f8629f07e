"""Draws and the windows just before them: nothing after a draw, nothing of another patient."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.schema import LAB_NAMES, WINDOW_US
from pipeline.testing.cohort import ORIGIN_US, tiny_cohort
from pipeline.training.encoder.config import EncoderTrainingConfig
from pipeline.training.encoder.draws import TOO_MANY, WITHOUT_WINDOW, draws_with_windows

CONFIG = EncoderTrainingConfig(windows_a_draw=4, minutes_before=30.0)


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=5, hours=3.0, draws=5)


def found(cohort, config=CONFIG, most=10_000, patients=None):
    exclusions: Counter[str] = Counter()
    draws = draws_with_windows(
        cohort.aligned, patients or list(cohort.store.windows), config, most, exclusions
    )
    return draws, exclusions


def test_windows_are_the_latest_usable_ones_before_the_draw(cohort) -> None:
    draws, exclusions = found(cohort)
    assert len(draws.patient) > 20
    for row, (patient, sampled) in enumerate(zip(draws.patient, draws.sampled_us, strict=True)):
        name = draws.patients[patient]
        usable = cohort.store.windows[name].start_us
        ended = usable[(usable + WINDOW_US <= sampled) & (usable + WINDOW_US > sampled - 30 * 60_000_000)]
        rows = draws.window[row][draws.window[row] >= 0]
        assert draws.start_us[rows].tolist() == ended[::-1][:4].tolist()
        assert (draws.owner[rows] == patient).all()
        mine = cohort.labs.loc[
            (cohort.labs["patient_id"] == name) & (cohort.labs["sampled_at_us"] == sampled)
        ]
        expected = [mine.loc[mine["lab"] == lab, "value"] for lab in LAB_NAMES]
        np.testing.assert_array_equal(draws.target[row], [v.iloc[0] if len(v) else np.nan for v in expected])
    everything = len(cohort.labs[["patient_id", "sampled_at_us"]].drop_duplicates())
    assert len(draws.patient) + exclusions[WITHOUT_WINDOW] == everything
    assert exclusions[WITHOUT_WINDOW] > 0


def test_each_window_stands_once_in_order(cohort) -> None:
    draws, _ = found(cohort)
    places = list(zip(draws.owner, draws.start_us, strict=True))
    assert places == sorted(set(places))
    assert set(draws.window[draws.window >= 0]) == set(range(len(places)))


def test_results_of_one_moment_are_one_draw(cohort) -> None:
    patient, at = next(iter(cohort.store.windows)), ORIGIN_US + 100 * WINDOW_US
    panel = pd.DataFrame(
        {
            "patient_id": patient, "lab": LAB_NAMES, "value": [4.0, 8.0, 140.0, 100.0, 2.0], "sampled_at_us": at,
            "available_at_us": at, "source_code": "test",
        }
    )  # fmt: skip
    draws, _ = found(cohort.with_labs(panel), patients=[patient])
    assert draws.target.tolist() == [[4.0, 8.0, 140.0, 100.0, 2.0]]


def test_another_patient_changes_nothing_and_is_not_shown(cohort) -> None:
    first, *others = sorted(cohort.store.windows)
    alone, _ = found(cohort, patients=[first])
    labs = cohort.labs.assign(value=cohort.labs["value"] * np.where(cohort.labs["patient_id"] == first, 1, 2))
    windows = {p: w if p == first else w.keep(np.arange(10)) for p, w in cohort.store.windows.items()}
    changed, _ = found(cohort.with_labs(labs).with_windows(windows), patients=[first])
    assert changed.fingerprint() == alone.fingerprint()
    assert found(cohort, patients=[first, others[0]])[0].fingerprint() != alone.fingerprint()
    assert first not in repr(alone)


def test_too_many_windows_leave_each_patient_fewer_draws_evenly(cohort) -> None:
    all_draws, _ = found(cohort)
    thinned, exclusions = found(cohort, most=4 * 15)
    counts = np.bincount(thinned.patient)
    assert counts.tolist() == [3, 3, 3, 3, 3]
    assert exclusions[TOO_MANY] == len(all_draws.patient) - 15
    first = all_draws.sampled_us[all_draws.patient == 0]
    assert {first[0], first[-1]} <= set(thinned.sampled_us[thinned.patient == 0])


def test_nobody_is_no_draw(cohort) -> None:
    draws, _ = found(cohort, replace(CONFIG, minutes_before=1e-3), patients=["nobody"])
    assert (len(draws.patients), len(draws.patient), len(draws.start_us)) == (0, 0, 0)
    assert draws.window.shape == (0, 4)
