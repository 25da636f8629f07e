"""Re-embedding on its own: a sensor on the landing folder, and a nightly schedule as its net.

Sensors and schedule are off until a person switches them on (Automation page, or ``dagster sensor start --all``):
pointed at a hospital's folder they would otherwise start hours of work the moment the page opens.
"""

import hashlib
import time

import dagster as dg

from assets.cohort import cohort_splits, lab_alignment, normalization_stats
from assets.dead_runs import settle_dead_runs
from assets.embeddings import ppg_embeddings
from assets.evaluation import report
from assets.failures import explained
from assets.ingest import lab_events, waveform_catalog
from assets.prediction import predict_new_patients
from assets.resources import Project
from pipeline.foundation.workspace import Workspace
from pipeline.sources.landing import labs_state, landing_state

STATE_TAG = ".dagster/uniphy_landing_state"
"""Hidden on the page: a hash tells a person nothing."""
MAX_ATTEMPTS = 5
"""A state whose runs fail is asked for again so often; then the nightly schedule, or a new state, takes over."""
FIRST_PAUSE_SECONDS = 60.0
"""Pause after the first failure; doubled after each further one."""

re_embed_job = dg.define_asset_job(
    "re_embed",
    selection=[waveform_catalog, ppg_embeddings],
    description="Embed what is new or changed, only that.",
)
refresh_labs_job = dg.define_asset_job(
    "refresh_labs",
    selection=[lab_events, cohort_splits, normalization_stats, lab_alignment],
    description="Read the lab tables again and align them with the store.",
)
everything_job = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.assets(report).upstream(),
    description="The whole job, from source to report.",
)


def _failures_in_a_row(runs: list[dg.RunRecord], state: str) -> list[dg.RunRecord] | None:
    """Return the latest runs that failed at `state`, newest first; None where its latest run goes on or succeeded."""
    failed: list[dg.RunRecord] = []
    for record in runs:
        if record.dagster_run.tags.get(STATE_TAG) != state:
            return failed
        if record.dagster_run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
            return failed or None
        failed.append(record)
    return failed


def request_for(instance: dg.DagsterInstance, job: str, state: str) -> dg.RunRequest | str:
    """Return a request for `state` unless the job's latest run was for it; otherwise why there is none.

    A state whose run failed is asked for again, after a pause that doubles, and given up after `MAX_ATTEMPTS`.
    """
    records = instance.get_run_records(filters=dg.RunsFilter(job_name=job), limit=200)
    runs = [record for record in records if STATE_TAG in record.dagster_run.tags]
    failed = _failures_in_a_row(runs, state)
    if failed is None:
        return "nothing new"
    if len(failed) >= MAX_ATTEMPTS:
        return f"given up after {MAX_ATTEMPTS} failed runs; mend the cause and launch {job} by hand"
    pause = FIRST_PAUSE_SECONDS * 2 ** (len(failed) - 1) if failed else 0.0
    if failed and time.time() < (failed[0].end_time or 0.0) + pause:
        return f"the last run failed; it is asked for again {pause:.0f} s after that"
    earlier = sum(record.dagster_run.tags[STATE_TAG] == state for record in runs)
    return dg.RunRequest(run_key=f"{state}-{earlier}", tags={STATE_TAG: state})


def _of_experiment(workspace: Workspace, state: str) -> str:
    """Return the state of a landing folder for one experiment; another experiment embeds it anew."""
    return hashlib.blake2b(f"{workspace.root}|{state}".encode(), digest_size=16).hexdigest()


@dg.sensor(
    job=re_embed_job, minimum_interval_seconds=30, description="Embeds recordings soon after they land."
)
def new_waveforms(context: dg.SensorEvaluationContext, project: Project) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run when the set of complete, quiet records differs from the last one asked for."""
    with explained("new_waveforms"):
        workspace = project.workspace()
        settle_dead_runs(context.instance)
        landing = landing_state(workspace, quiet_seconds=project.seconds_of_quiet())
    waiting = f"; {landing.n_waiting} folders still being copied" if landing.n_waiting else ""
    if landing.n_landed == 0:
        return dg.SkipReason(f"No complete record in the landing folder{waiting}.")
    request = request_for(context.instance, re_embed_job.name, _of_experiment(workspace, landing.state))
    if isinstance(request, str):
        return dg.SkipReason(f"{landing.n_landed} folders with recordings: {request}{waiting}.")
    return request


@dg.sensor(
    job=refresh_labs_job, minimum_interval_seconds=60, description="Reads lab tables again when they change."
)
def new_labs(context: dg.SensorEvaluationContext, project: Project) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run when the lab tables differ from the last ones asked for."""
    with explained("new_labs"):
        workspace = project.workspace()
        state = labs_state(workspace, quiet_seconds=project.seconds_of_quiet())
    if state is None:
        return dg.SkipReason("No complete lab table yet.")
    if not (workspace.summary(ppg_embeddings.key.path[-1]).exists() and workspace.catalog.exists()):
        return dg.SkipReason("The lab tables wait for the first embeddings.")
    request = request_for(context.instance, refresh_labs_job.name, _of_experiment(workspace, state))
    return dg.SkipReason(f"Lab tables: {request}.") if isinstance(request, str) else request


nightly_re_embed = dg.ScheduleDefinition(
    name="nightly_re_embed",
    job=re_embed_job,
    cron_schedule="0 2 * * *",
    description="The sensor's net: every night at two, whatever the sensor saw.",
)

jobs = [re_embed_job, refresh_labs_job, everything_job, predict_new_patients]
sensors = [new_waveforms, new_labs]
schedules = [nightly_re_embed]
