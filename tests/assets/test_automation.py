"""The sensors ask once for each state of the landing folder, and again where its run failed."""

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from assets import automation
from assets.automation import MAX_ATTEMPTS, STATE_TAG, new_labs, new_waveforms, request_for
from assets.resources import Project
from pipeline.foundation.errors import ConfigError
from pipeline.sources.landing import quiet_seconds_from_environment

AN_HOUR_AGO = time.time() - 3600


def land(folder: Path, *, present: int = 1000) -> None:
    """Write a record of 1000 samples, of which `present` have arrived."""
    folder.mkdir(parents=True)
    (folder / "1_0001.hea").write_text("1_0001 1 125 1000\n1_0001.dat 80 255(-128)/NU 8 0 0 0 0 PLETH\n")
    (folder / "1_0001.dat").write_bytes(b"\x90" * present)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("waveforms", "labs"):
        (tmp_path / name).mkdir()
    return Project(
        experiment="tiny",
        waveforms=str(tmp_path / "waveforms"),
        labs=str(tmp_path / "labs"),
        artifacts=str(tmp_path / "artifacts"),
        quiet_seconds=0.0,
    )


def tick(instance: dg.DagsterInstance, project: Project, sensor=new_waveforms):
    return sensor(dg.build_sensor_context(instance=instance), project=project)


def finish(
    instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus, job: str = "re_embed"
) -> None:
    """Record a run as the daemon would have."""
    run = dg.DagsterRun(job_name=job, tags=dict(request.tags), status=status)
    instance.add_run(run)


def test_a_landed_record_is_asked_for_once(instance, project, tmp_path: Path) -> None:
    assert isinstance(tick(instance, project), dg.SkipReason)
    land(tmp_path / "waveforms" / "p1")
    request = tick(instance, project)
    assert isinstance(request, dg.RunRequest)
    finish(instance, request, dg.DagsterRunStatus.SUCCESS)
    assert "nothing new" in tick(instance, project).skip_message


def test_a_half_copied_record_waits_and_disturbs_nobody(instance, project, tmp_path: Path) -> None:
    land(tmp_path / "waveforms" / "p1")
    first = tick(instance, project)
    finish(instance, first, dg.DagsterRunStatus.SUCCESS)
    land(tmp_path / "waveforms" / "p2", present=10)
    assert "1 folders still being copied" in tick(instance, project).skip_message
    (tmp_path / "waveforms" / "p1" / "1_0001.dat").write_bytes(b"\x90" * 10)
    assert "2 folders still being copied" in tick(instance, project).skip_message, "p1 counts as it was"
    (tmp_path / "waveforms" / "p2" / "1_0001.dat").write_bytes(b"\x90" * 1000)
    assert isinstance(tick(instance, project), dg.RunRequest)


def test_a_copy_that_keeps_its_old_times_still_waits(instance, project, tmp_path: Path) -> None:
    land(tmp_path / "waveforms" / "p1", present=10)
    for file in (tmp_path / "waveforms" / "p1").iterdir():
        os.utime(file, (0, 0))
    assert "still being copied" in tick(instance, project).skip_message


def test_a_vanished_record_and_its_return_are_both_asked_for(instance, project, tmp_path: Path) -> None:
    land(tmp_path / "waveforms" / "p1")
    land(tmp_path / "waveforms" / "p2")
    requests = [tick(instance, project)]
    finish(instance, requests[0], dg.DagsterRunStatus.SUCCESS)
    (tmp_path / "waveforms" / "p2").rename(tmp_path / "elsewhere")
    requests.append(tick(instance, project))
    finish(instance, requests[1], dg.DagsterRunStatus.SUCCESS)
    (tmp_path / "elsewhere").rename(tmp_path / "waveforms" / "p2")
    requests.append(tick(instance, project))
    assert len({request.run_key for request in requests}) == 3
    assert requests[0].tags == requests[2].tags


def test_a_failed_state_is_asked_for_again_after_a_pause_and_given_up_in_the_end(
    instance, monkeypatch
) -> None:
    now = time.time()
    keys = set()
    for attempt in range(MAX_ATTEMPTS):
        monkeypatch.setattr(automation.time, "time", lambda later=attempt: now + 86_400 * later)
        request = request_for(instance, "re_embed", "s")
        assert isinstance(request, dg.RunRequest)
        keys.add(request.run_key)
        finish(instance, request, dg.DagsterRunStatus.FAILURE)
    assert len(keys) == MAX_ATTEMPTS, "Dagster launches a run key once"
    assert "given up" in request_for(instance, "re_embed", "s")
    assert isinstance(request_for(instance, "re_embed", "another"), dg.RunRequest)


def test_the_pause_after_a_failure_counts_from_its_end(instance, monkeypatch) -> None:
    request = request_for(instance, "re_embed", "s")
    finish(instance, request, dg.DagsterRunStatus.STARTED)
    run = instance.get_runs()[0]
    instance.report_run_failed(run)
    assert "asked for again" in request_for(instance, "re_embed", "s")
    after = time.time() + automation.FIRST_PAUSE_SECONDS + 1
    monkeypatch.setattr(automation.time, "time", lambda: after)
    assert isinstance(request_for(instance, "re_embed", "s"), dg.RunRequest)


def test_a_running_state_is_not_asked_for_again(instance) -> None:
    request = request_for(instance, "re_embed", "s")
    finish(instance, request, dg.DagsterRunStatus.STARTING)
    assert request_for(instance, "re_embed", "s") == "nothing new"


def test_runs_started_by_hand_do_not_count(instance) -> None:
    instance.add_run(dg.DagsterRun(job_name="re_embed", tags={}, status=dg.DagsterRunStatus.SUCCESS))
    assert request_for(instance, "re_embed", "s").tags == {STATE_TAG: "s"}


def test_another_experiment_asks_for_the_same_folder(instance, project, tmp_path: Path) -> None:
    land(tmp_path / "waveforms" / "p1")
    finish(instance, tick(instance, project), dg.DagsterRunStatus.SUCCESS)
    fields = {name: getattr(project, name) for name in ("experiment", "waveforms", "labs", "quiet_seconds")}
    other = Project(**fields, artifacts=str(tmp_path / "other"))
    assert isinstance(tick(instance, other), dg.RunRequest)


def test_changed_labs_are_asked_for_once_there_are_embeddings(instance, project, tmp_path: Path) -> None:
    assert "No complete lab table" in tick(instance, project, new_labs).skip_message
    (tmp_path / "labs" / "LABEVENTS.csv").write_text("subject_id\n")
    assert "wait for the first embeddings" in tick(instance, project, new_labs).skip_message
    workspace = project.workspace()
    summary = workspace.summary("ppg_embeddings")
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    workspace.catalog.write_bytes(b"")
    request = tick(instance, project, new_labs)
    finish(instance, request, dg.DagsterRunStatus.SUCCESS, "refresh_labs")
    assert "nothing new" in tick(instance, project, new_labs).skip_message
    (tmp_path / "labs" / "LABEVENTS.csv").write_text("subject_id\n1\n")
    assert isinstance(tick(instance, project, new_labs), dg.RunRequest)


def test_what_the_sensor_remembers_names_no_patient(instance, project, tmp_path: Path) -> None:
    land(tmp_path / "waveforms" / "p004711")
    request = tick(instance, project)
    memory = (project.workspace().root / "landing.json").read_text()
    assert "4711" not in f"{request} {memory}"


@pytest.mark.parametrize("text", ["soon", "-1", "inf"])
def test_quiet_seconds_must_be_a_number_of_seconds(monkeypatch, text: str) -> None:
    monkeypatch.setenv("UNIPHY_QUIET_SECONDS", text)
    with pytest.raises(ConfigError, match=f"UNIPHY_QUIET_SECONDS is '{text}'"):
        quiet_seconds_from_environment()


def test_nothing_runs_on_its_own_until_it_is_switched_on() -> None:
    definitions = [*automation.sensors, *automation.schedules]
    off = {dg.DefaultSensorStatus.STOPPED, dg.DefaultScheduleStatus.STOPPED}
    assert {definition.default_status for definition in definitions} <= off
