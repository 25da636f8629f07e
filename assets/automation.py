"""Re-embedding on its own: a sensor on the landing folder, and a nightly schedule as its net."""

import dagster as dg

from assets.cohort import cohort_splits, lab_alignment, normalization_stats
from assets.embeddings import ppg_embeddings
from assets.evaluation import report
from assets.ingest import lab_events, waveform_catalog
from assets.resources import Project
from pipeline.landing import labs_state, landing_state

STATE_TAG = "uniphy/landing_state"
MAX_ATTEMPTS = 5
"""A state whose runs fail is asked for again this often; every retry is a new run with its own key."""

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


def _attempt(instance: dg.DagsterInstance, state: str) -> int | None:
    """Return the number of the next attempt at `state`, or None where it is running, done or given up."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags={STATE_TAG: state}))
    settled = {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    if any(run.status not in settled for run in runs) or len(runs) >= MAX_ATTEMPTS:
        return None
    return len(runs)


def _request(instance: dg.DagsterInstance, state: str) -> dg.RunRequest | None:
    attempt = _attempt(instance, state)
    if attempt is None:
        return None
    return dg.RunRequest(run_key=f"{state}-{attempt}", tags={STATE_TAG: state})


@dg.sensor(
    job=re_embed_job, minimum_interval_seconds=30, description="Embeds recordings soon after they land."
)
def new_waveforms(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run when the set of complete, quiet records differs from the last one asked for."""
    landing = landing_state(project.workspace())
    waiting = f"; {landing.n_waiting} still being copied" if landing.n_waiting else ""
    if landing.n_landed == 0:
        return dg.SkipReason(f"No complete record in the landing folder{waiting}.")
    request = _request(context.instance, landing.state)
    if request is None:
        return dg.SkipReason(f"{landing.n_landed} records, nothing new{waiting}.")
    return dg.SensorResult(run_requests=[request], cursor=landing.state)


@dg.sensor(
    job=refresh_labs_job, minimum_interval_seconds=60, description="Reads lab tables again when they change."
)
def new_labs(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run when the lab tables differ from the last ones asked for."""
    state = labs_state(project.workspace())
    request = _request(context.instance, state) if state else None
    if state is None or request is None:
        return dg.SkipReason("Lab tables unchanged." if state else "No complete lab table yet.")
    return dg.SensorResult(run_requests=[request], cursor=state)


nightly_re_embed = dg.ScheduleDefinition(
    name="nightly_re_embed",
    job=re_embed_job,
    cron_schedule="0 2 * * *",
    description="The sensor's net: every night, whatever the sensor saw.",
)

jobs = [re_embed_job, refresh_labs_job, everything_job]
sensors = [new_waveforms, new_labs]
schedules = [nightly_re_embed]
