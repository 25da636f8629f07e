"""A run is found by its experiment and stands on the timeline, wherever it was started."""

import dagster as dg
import pytest

from assets.dead_runs import PROCESS_TAG, announce
from assets.run_marks import CODE_LOCATION, EXPERIMENT_TAG, mark


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as local:
        yield local


def test_a_typed_run_gets_its_experiment_and_its_place(instance) -> None:
    run = instance.add_run(
        dg.DagsterRun(job_name="everything", tags={"mine": "1"}, status=dg.DagsterRunStatus.STARTED)
    )
    announce(instance, run)
    mark(instance, run, "demo")
    stored = instance.get_run_by_id(run.run_id)
    assert stored.tags[EXPERIMENT_TAG] == "demo"
    assert stored.tags["mine"] == "1"
    assert PROCESS_TAG in stored.tags
    assert stored.status == dg.DagsterRunStatus.STARTED
    origin = stored.remote_job_origin
    assert origin.job_name == "everything"
    assert origin.repository_origin.code_location_origin.location_name == CODE_LOCATION
    label = origin.repository_origin.get_label()
    assert [r.run_id for r in instance.get_runs(dg.RunsFilter(tags={".dagster/repository": label}))] == [
        run.run_id
    ]


def test_a_run_that_has_a_place_keeps_it(instance) -> None:
    run = instance.add_run(dg.DagsterRun(job_name="everything", status=dg.DagsterRunStatus.STARTED))
    mark(instance, run, "demo")
    first = instance.get_run_by_id(run.run_id).remote_job_origin
    mark(instance, run, "tiny")
    again = instance.get_run_by_id(run.run_id)
    assert again.remote_job_origin == first
    assert again.tags[EXPERIMENT_TAG] == "tiny"


def test_what_tells_a_person_nothing_is_hidden(instance) -> None:
    from dagster._core.storage.tags import TagType, get_tag_type

    run = instance.add_run(dg.DagsterRun(job_name="everything", status=dg.DagsterRunStatus.STARTED))
    announce(instance, run)
    mark(instance, run, "demo")
    tags = instance.get_run_by_id(run.run_id).tags
    assert {name for name in tags if get_tag_type(name) != TagType.HIDDEN} == {EXPERIMENT_TAG}
