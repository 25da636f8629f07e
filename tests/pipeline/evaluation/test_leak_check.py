"""The leak check compares both kinds of estimates, and a look ahead of 30 s, or at one result, does not pass it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.sequences import SequenceConfig
from pipeline.evaluation.leak_check import changed_rows
from pipeline.foundation.schema import ADMISSION_COLUMNS, HOUR_US
from pipeline.prediction import live_sequence
from pipeline.prediction.live_sequence import Restart
from pipeline.testing.cohort import TINY_MODEL, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.inference import estimate_piece
from pipeline.training.method import train

KINDS = (("start",), ("start", "anchored"))


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=6, hours=3.0, draws=6)


@pytest.fixture(scope="module", params=KINDS, ids="+".join)
def run(request, cohort, tmp_path_factory):
    """A checkpoint that learnt from these kinds of pieces, for so long that history counts, and the kinds."""
    config = TrainingConfig(
        epochs=4, batch_pieces=4, learning_rate=1e-2, warmup_epochs=0.0, tensorboard=False, device="cpu",
        protocols=request.param,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    train(
        "mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, dict(TINY_MODEL), config, folder
    )
    return folder, request.param


def checked(cohort, folder, n_patients=1):
    admissions = pd.DataFrame(columns=list(ADMISSION_COLUMNS))
    patients = list(cohort.store.windows)[:n_patients]
    return changed_rows(folder, cohort.store, cohort.labs, admissions, patients, SequenceConfig())


def rows_before_the_change(cohort, n_patients):
    """Estimates of one kind until the middle window of each recording: five labs every 30 s."""
    counts = 0
    for own in list(cohort.store.windows.values())[:n_patients]:
        counts += 5 * int((own.start_us[len(own.start_us) // 2] - own.start_us[0]) // 30_000_000)
    return counts


def test_each_kind_that_was_learnt_is_compared_and_holds(cohort, run):
    folder, kinds = run
    compared, changed, changed_after = checked(cohort, folder, n_patients=2)
    assert (compared, changed) == (len(kinds) * rows_before_the_change(cohort, 2), 0)
    assert changed_after > compared / 4  # or nothing would have been tested


def test_a_look_at_the_next_window_is_found(cohort, run, monkeypatch):
    def ahead(*arguments):
        return np.roll(estimate_piece(*arguments), -1, axis=0)

    monkeypatch.setattr(live_sequence, "estimate_piece", ahead)
    assert checked(cohort, run[0])[1] >= len(run[1])


def test_a_look_at_later_results_is_found(cohort, run, monkeypatch):
    honest = Restart._history

    def ahead(self, series):
        return honest(replace(self, t0_us=self.t0_us + 12 * HOUR_US), series)

    monkeypatch.setattr(Restart, "_history", ahead)
    assert checked(cohort, run[0])[1] >= len(run[1])
