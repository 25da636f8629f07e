"""Waveforms are embedded and deleted, whatever kills the run; what is embedded is what a kept cohort gives."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.embedding.run import embed
from pipeline.experiments import ExperimentConfig, experiment
from pipeline.foundation.errors import ConfigError
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize
from pipeline.stages import rendered_once
from pipeline.stages.embed import encoding_config, experiment_encoder
from pipeline.stages.rendered_once import RenderedOnce, embed_rendered_once
from pipeline.store.embeddings import EmbeddingStore

SIZE = CohortSize(n_patients=5, hours_low=0.3, hours_high=0.4)


@pytest.fixture
def config() -> ExperimentConfig:
    return experiment("tiny", {"encoder": "ppg_gpt_1m_random"})


def once(config: ExperimentConfig, root: Path, **changes: object) -> RenderedOnce:
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=SIZE, root=root / "cohort", coupling=1.0, null=None, seed=7,
        real_labs=None,
    )  # fmt: skip
    encoder = experiment_encoder(config)
    return RenderedOnce(
        plan=dataclasses.replace(plan, **changes), store=EmbeddingStore.open(root / "store", create=True),
        folder=root / "waveforms", encoder=encoder, config=encoding_config(config, encoder),
    )  # fmt: skip


def test_embedded_as_a_kept_cohort_is_and_deleted(tmp_path: Path, config: ExperimentConfig) -> None:
    what = once(config, tmp_path)
    windows, _ = embed_rendered_once(what, batch_patients=2)
    assert windows == sum(entry.n_windows for entry in what.store.manifest().values()) > 0
    assert [path.name for path in what.folder.iterdir()] == ["started.json"]
    write_cohort(what.plan.parameters, SIZE, tmp_path / "kept", seed=7)
    kept = EmbeddingStore.open(tmp_path / "kept_store", create=True)
    embed(Mimic3Waveforms(tmp_path / "kept" / "waveforms"), kept, what.encoder, what.config)
    assert len(what.patients) == 5
    for patient in what.patients:
        one, other = what.store.read(patient), kept.read(patient)
        assert one.entry.key == other.entry.key
        assert np.array_equal(one.start_us, other.start_us)
        assert np.array_equal(one.embeddings[:], other.embeddings[:])


def test_a_killed_run_goes_on(
    tmp_path: Path, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, write, written = once(config, tmp_path), rendered_once.write_waveforms, []

    def killed_at_the_fourth(plan: CohortPlan, patient: int) -> object:
        written.append(patient)
        if len(written) == 4:
            raise KeyboardInterrupt
        return write(plan, patient)

    monkeypatch.setattr(rendered_once, "write_waveforms", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        embed_rendered_once(what, batch_patients=2)
    assert what.missing() == [2, 3, 4]
    written.clear()
    monkeypatch.setattr(rendered_once, "write_waveforms", lambda plan, p: (written.append(p), write(plan, p)))
    embed_rendered_once(what, batch_patients=2)
    assert written == [2, 3, 4]
    assert what.missing() == []
    assert embed_rendered_once(what)[0] == 0


def test_couplings_share_their_waveforms_and_null_b_has_its_own(
    tmp_path: Path, config: ExperimentConfig
) -> None:
    embed_rendered_once(once(config, tmp_path))
    for same in ({"coupling": 0.5}, {"coupling": 0.0, "null": "a"}):
        assert embed_rendered_once(once(config, tmp_path, **same))[0] == 0
    for other in ({"null": "b", "coupling": 0.0}, {"seed": 8}):
        with pytest.raises(ConfigError, match="holds another synthetic cohort"):
            embed_rendered_once(once(config, tmp_path, **other))
