"""What a run of ours carries so that a person finds it: its experiment as a tag, and a place on the timeline.

A run typed on a command line belongs to no code location in Dagster's books, and the timeline and the job's own page
pass it by: "No runs" after a demo that succeeded.
"""

import dagster as dg
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

CODE_LOCATION = "uniphy-lab"
"""Its name in ``workspace.yaml`` and ``pyproject.toml``."""
EXPERIMENT_TAG = "experiment"


def mark(instance: dg.DagsterInstance, run: dg.DagsterRun, experiment: str) -> None:
    """Tag a run with its experiment, and give it a place on the timeline where it has none."""
    stored = instance.get_run_by_id(run.run_id)
    if stored is None:
        return
    origin = _origin(stored.job_name)
    placed = stored.remote_job_origin is not None
    label = {} if placed else {REPOSITORY_LABEL_TAG: origin.repository_origin.get_label()}
    instance.add_run_tags(run.run_id, {EXPERIMENT_TAG: experiment, **label})
    tagged = instance.get_run_by_id(run.run_id)
    if tagged is not None and not placed:
        instance.run_storage.replace_job_origin(tagged, origin)


def _origin(job: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(module_name="assets.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), job)
