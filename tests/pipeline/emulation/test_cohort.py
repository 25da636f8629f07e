"""Emulated cohorts: whole, resumable, the same whatever the workers, read by the stages' own readers."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.emulation import cohort as emulated
from pipeline.emulation.cohort import EmulatedCohort, write_emulated_cohort
from pipeline.foundation.schema import WINDOW_US
from pipeline.labs.cleaning import LabConfig, clean_labs
from pipeline.sources.mimic3 import Mimic3Tables
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, plan_patient
from pipeline.sources.synthetic.truth import CohortTruth
from pipeline.store.admin import verify_store
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.emulators import handmade_emulator

PATIENTS = 40  # two batches


def cohort(root: Path, patients: int = PATIENTS) -> EmulatedCohort:
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=CohortSize(n_patients=patients, hours_low=3.0, hours_high=3.0),
        root=root / "cohort", coupling=0.8, null=None, seed=4, real_labs=None,
    )  # fmt: skip
    store = EmbeddingStore.open(root / "embeddings", create=True)
    return EmulatedCohort(plan=plan, store=store, emulator=handmade_emulator())


def content(made: EmulatedCohort) -> dict[str, bytes]:
    """Files of the tables, and every patient's arrays."""
    files = {p.name: p.read_bytes() for p in sorted(made.plan.root.rglob("*")) if p.is_file()}
    for patient in range(made.plan.size.n_patients):
        windows = made.store.read(str(plan_patient(made.plan, patient)[0].subject_id))
        arrays = (windows.start_us, windows.embeddings[:], windows.quality)
        files[f"patient {patient}"] = b"".join(np.asarray(array).tobytes() for array in arrays)
    return files


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> EmulatedCohort:
    made = cohort(tmp_path_factory.mktemp("emulated"))
    records = write_emulated_cohort(made)
    assert len({record.patient_id for record in records}) == PATIENTS
    return made


def test_the_store_is_whole_and_knows_its_emulator(written: EmulatedCohort) -> None:
    report = verify_store(written.store)
    assert report.ok
    assert report.checked == PATIENTS
    encoding = written.store.one_encoding()
    assert encoding is not None
    assert "emulated:handmade" in str(encoding)


def test_windows_lie_on_the_grid_inside_the_recording(written: EmulatedCohort) -> None:
    usable = []
    for patient in range(PATIENTS):
        stay, _ = plan_patient(written.plan, patient)
        start_us = written.store.read(str(stay.subject_id)).start_us
        assert (start_us % WINDOW_US == 0).all()
        assert start_us[0] >= stay.recordings[0][0]
        assert start_us[-1] + WINDOW_US <= stay.recordings[-1][1]
        usable.append(len(start_us) / 360)
    assert 0.7 < np.mean(usable) < 0.99, "gaps and defects leave some windows out"


def test_tables_and_truth_are_read_as_any_cohorts(written: EmulatedCohort) -> None:
    events = clean_labs(Mimic3Tables(written.plan.root / "clinical").tables(), LabConfig())
    truth = CohortTruth.load(written.plan.root)
    assert set(events.frame["patient_id"]) <= set(truth.draws["patient_id"].astype(str))
    assert truth.latents["patient_id"].nunique() == PATIENTS
    assert not list(written.plan.root.glob("parts*"))


def test_a_killed_run_goes_on_and_workers_change_nothing(written: EmulatedCohort, tmp_path: Path) -> None:
    made = cohort(tmp_path)

    class KilledError(Exception):
        pass

    def kill(done: int, patients: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        write_emulated_cohort(made, progress=kill)
    assert len(made.store.manifest()) == 32
    before = dict(made.store.manifest())
    write_emulated_cohort(made, workers=2)
    assert before.items() <= made.store.manifest().items()
    assert content(made) == content(written)


def test_what_another_cohorts_killed_run_left_is_not_taken(tmp_path: Path) -> None:
    made = cohort(tmp_path, patients=2)
    other = dataclasses.replace(made, plan=dataclasses.replace(made.plan, coupling=0.0))

    def kill(done: int, patients: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_emulated_cohort(made, progress=kill)
    write_emulated_cohort(other)
    alone = cohort(tmp_path / "alone", patients=2)
    alone = dataclasses.replace(alone, plan=dataclasses.replace(alone.plan, coupling=0.0))
    write_emulated_cohort(alone)
    assert content(other) == content(alone)


def test_two_at_once_write_one_cohort_after_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second begins while the first has written one of two batches; neither takes the other's parts away."""
    monkeypatch.setattr(emulated, "BATCH_PATIENTS", 1)
    begun, go_on = threading.Event(), threading.Event()

    def pause(done: int, patients: int) -> None:
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(2) as both:
        first = both.submit(write_emulated_cohort, cohort(tmp_path, patients=2), progress=pause)
        assert begun.wait(60)
        second = both.submit(write_emulated_cohort, cohort(tmp_path, patients=2))
        while "another process is writing" not in caplog.text and not second.done():
            time.sleep(0.01)
        go_on.set()
        assert first.result() == second.result()
    alone = cohort(tmp_path / "alone", patients=2)
    write_emulated_cohort(alone)
    assert content(cohort(tmp_path, patients=2)) == content(alone)
    assert f"another process is writing {tmp_path / 'cohort'}: waiting" in caplog.text
    assert list(tmp_path.glob(".*")) == []


def test_a_patient_does_not_depend_on_how_many_others_there_are(
    written: EmulatedCohort, tmp_path: Path
) -> None:
    few = cohort(tmp_path, patients=3)
    write_emulated_cohort(few)
    mine, whole = content(few), content(written)
    assert all(mine[f"patient {patient}"] == whole[f"patient {patient}"] for patient in range(3))


def test_embeddings_follow_the_planted_physiology(written: EmulatedCohort) -> None:
    """Heart rate, the first input, is found again in the embeddings of patients left out."""
    x, y = [], []
    for patient in range(PATIENTS):
        stay, _ = plan_patient(written.plan, patient)
        windows = written.store.read(str(stay.subject_id))
        x.append(np.asarray(windows.embeddings[:], np.float64).mean(axis=0))
        y.append(windows.quality[:, 4].mean())
    design, target = np.c_[np.stack(x), np.ones(PATIENTS)], np.array(y)
    fitted = np.linalg.lstsq(design, target, rcond=None)[0]
    assert np.corrcoef(design @ fitted, target)[0, 1] > 0.5
