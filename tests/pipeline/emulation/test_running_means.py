"""Read-outs over hours: running means by their definition, and a store that forgets is told from one that lasts."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.emulation.cohort import EmulatedCohort, write_emulated_cohort
from pipeline.emulation.running_means import TIME_CONSTANTS, compare_running_means, running_means
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.emulators import handmade_emulator


def test_running_means_are_those_of_the_definition() -> None:
    windows = np.random.default_rng(0).normal(size=(50, 3))
    found = running_means(windows)
    for number, time_constant in enumerate(TIME_CONSTANTS):
        weights = np.exp(-np.arange(50)[::-1] / time_constant)
        wanted = (weights[:, None] * windows).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(found[-1, 3 * number : 3 * number + 3], wanted)
    np.testing.assert_allclose(found[0], np.tile(windows[0], 3))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[CohortPlan, list[EmbeddingStore]]:
    """One cohort by the same emulator: as it is, and twice with ten times the lasting residual."""
    root = tmp_path_factory.mktemp("means")
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=CohortSize(n_patients=24, hours_low=2.0, hours_high=3.0),
        root=root, coupling=1.0, null=None, seed=3, real_labs=None,
    )  # fmt: skip
    bare = handmade_emulator(width=24)
    made = []
    for number, factor in enumerate((0.05, 2.0, 4.0)):
        emulator = type(bare)(**{**vars(bare), "lasting": factor * bare.lasting, "fresh": 0.1 * bare.fresh})
        store = EmbeddingStore.open(root / f"store{number}", create=True)
        write_emulated_cohort(EmulatedCohort(plan=plan, store=store, emulator=emulator))
        made.append(store)
    return plan, made


def test_noise_that_lasts_for_hours_is_seen(stores: tuple[CohortPlan, list[EmbeddingStore]]) -> None:
    plan, (quiet, loud, louder) = stores
    rows = {row.latent: row for row in compare_running_means(plan, quiet, [loud, louder])}
    assert set(rows) == set(plan.parameters.latent_names)
    told = [row for row in rows.values() if row.rendered > 0.3]
    assert told
    assert all(row.emulated < row.rendered for row in told)
    assert all(row.spread > 0 for row in told)


def test_a_store_agrees_with_itself(stores: tuple[CohortPlan, list[EmbeddingStore]], tmp_path: Path) -> None:
    plan, (quiet, *_) = stores
    for row in compare_running_means(plan, quiet, [quiet]):
        assert row.rendered == row.emulated
        assert np.isnan(row.spread)
