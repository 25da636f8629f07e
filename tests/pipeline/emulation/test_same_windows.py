"""The emulated twin of a rendered cohort: window for window, resumable, drawn around those very windows' shape."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.emulation.same_windows import SameWindows
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, plan_patient
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.emulators import HANDMADE_KEY, handmade_emulator
from pipeline.windows.cutting import WindowConfig, iterate_windows

PATIENTS, WIDTH = 4, 6


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SameWindows:
    """A cohort whose windows were cut, its last patient without any, and its emulated twin."""
    root = tmp_path_factory.mktemp("same")
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=CohortSize(n_patients=PATIENTS, hours_low=0.5, hours_high=1.5),
        root=root / "cohort", coupling=1.0, null=None, seed=5, real_labs=None,
    )  # fmt: skip
    write_cohort(plan.parameters, plan.size, plan.root, seed=5)
    source = Mimic3Waveforms(plan.root / "waveforms")
    store = EmbeddingStore.open(root / "rendered", create=True)
    entries = []
    for patient in range(PATIENTS - 1):
        name = str(plan_patient(plan, patient)[0].subject_id)
        records = [record for record in source.catalog().records if record.patient_id == name]
        key = HANDMADE_KEY.store_key(f"{patient:032d}")
        with store.stage(name, key, width=WIDTH) as writer:
            for raw in iterate_windows(source, records, WindowConfig(), Counter()):
                zeros = np.zeros((len(raw.start_us), WIDTH), np.float32)
                writer.append(raw.start_us, zeros, raw.quality)
            entries.append(writer.finish({"window: flat": patient}))
    store.commit(entries)
    emulated = EmbeddingStore.open(root / "emulated", create=True)
    made = SameWindows(plan=plan, rendered=store, emulated=emulated, emulator=handmade_emulator(width=WIDTH))
    assert made.write() == sum(entry.n_windows for entry in entries) > 300
    return made


def names(pair: SameWindows) -> list[str]:
    return [str(plan_patient(pair.plan, patient)[0].subject_id) for patient in range(PATIENTS)]


def test_windows_quality_and_exclusions_are_the_rendered_ones(pair: SameWindows) -> None:
    for name in names(pair)[:-1]:
        ours, theirs = pair.emulated.read(name), pair.rendered.read(name)
        np.testing.assert_array_equal(ours.start_us, theirs.start_us)
        np.testing.assert_array_equal(ours.quality, theirs.quality)
        assert ours.entry.exclusions == theirs.entry.exclusions
        assert np.asarray(ours.embeddings[:]).std() > 0.1
    assert names(pair)[-1] not in pair.emulated
    assert "emulated:" in str(pair.emulated.one_encoding())


def test_embeddings_lie_around_the_shape_of_their_own_windows(pair: SameWindows, tmp_path: Path) -> None:
    """Without a residual an embedding is the mean of its window's shape: it moves with time as that does."""
    bare = handmade_emulator(width=WIDTH)
    quiet = replace(bare, fresh=0 * bare.fresh, lasting=0 * bare.lasting)
    still = EmbeddingStore.open(tmp_path / "still", create=True)
    replace(pair, emulated=still, emulator=quiet).write()
    for name in names(pair)[:-1]:
        means = np.asarray(still.read(name).embeddings[:], np.float64)
        noisy = np.asarray(pair.emulated.read(name).embeddings[:], np.float64)
        rest = noisy - means
        assert 0 < np.abs(np.diff(means, axis=0)).max() < np.abs(np.diff(noisy, axis=0)).max()
        assert rest.std() < 3 * (bare.fresh.std() + bare.lasting.std()) * np.sqrt(WIDTH)


def test_what_is_there_is_kept(pair: SameWindows) -> None:
    before = pair.emulated.manifest()
    assert pair.write() > 0
    assert pair.emulated.manifest() == before
