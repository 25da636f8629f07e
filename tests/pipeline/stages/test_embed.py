"""Stage 1 in batches: what a run needs once is read once, however many batches it has."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import stages
from pipeline.experiments import experiment
from pipeline.foundation.workspace import Workspace

OVERRIDES = {
    "cohort.size.n_patients": "4", "cohort.size.hours_low": "0.2", "cohort.size.hours_high": "0.3",
    "encoder": "ppg_gpt_1m_random+mean", "embedding.batch_patients": "1",
}  # fmt: skip


def test_the_catalogue_is_read_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the size of MIMIC-III it takes seconds, and was read again for each of 320 batches."""
    config, workspace = experiment("tiny", OVERRIDES), Workspace(root=tmp_path / "tiny")
    stages.synthetic_cohort(workspace, config)
    stages.waveform_catalog(workspace, config)
    batches = stages.plan_embedding_batches(workspace, config)
    assert len(batches) == 4
    reads: list[Path] = []
    original = pq.read_table

    def counted(path: Path, *rest: object, **named: object) -> object:
        reads.append(Path(path))
        return original(path, *rest, **named)

    monkeypatch.setattr(pq, "read_table", counted)
    counts = [stages.embed_patient_batch(workspace, config, batch) for batch in batches]
    assert [count["embedded"] for count in counts] == [1] * 4
    assert reads.count(workspace.catalog) == 0  # planning had read it
    stages.finish_embedding(workspace, config, counts)
    stages.plan_embedding_batches(workspace, config)
    assert reads.count(workspace.catalog) == 1  # the next run: it may have changed
