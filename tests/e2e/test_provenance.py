"""One mechanism for every face: Dagster's assets and ``table1`` refuse, and go on, as the command line does."""

import dagster as dg

from assets.resources import Project
from assets.training import training_assets
from pipeline.stages import ppg_embeddings, provenance
from pipeline.stages.paper_comparison import UPSTREAM
from pipeline.testing.notes import lacking, noted_files


def test_an_asset_refuses_another_configuration(tiny) -> None:
    project = Project(
        experiment="tiny", artifacts=str(tiny.workspace.root.parent), overrides={"splits.seed": "3"}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize(
            [training_assets["mt_pcs"]],
            resources={"project": project},
            instance=instance,
            raise_on_error=False,
        )
    assert not outcome.success
    failure = outcome.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert failure is not None
    assert "splits.json was made with splits.seed = 0, and this run has splits.seed = 3" in str(
        failure.description
    )
    assert "(asset cohort_splits)" in str(failure.description)


def test_every_file_of_the_whole_job_carries_its_note(tiny) -> None:
    """Parquet files and checkpoints alike: stage, both hashes, licences, sharing limits."""
    assert len(noted_files(tiny.workspace.root)) > 40
    assert lacking(tiny.workspace.root) == {}


def test_everything_that_dagster_made_is_current(tiny) -> None:
    for stage in UPSTREAM:
        assert provenance.is_current(tiny.workspace, tiny.config, stage.__name__), stage.__name__
    assert provenance.is_current(tiny.workspace, tiny.config, "evaluation")
    before = tiny.workspace.record("ppg_embeddings").read_text()
    ppg_embeddings(tiny.workspace, tiny.config)
    assert tiny.workspace.record("ppg_embeddings").read_text() == before
