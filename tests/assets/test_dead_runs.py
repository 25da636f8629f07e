"""A killed run neither stays "started" for ever nor keeps the slot that the next run needs."""

import os
import socket
import subprocess
import sys

import dagster as dg
import pytest

from assets.dead_runs import PROCESS_TAG, announce, settle_dead_runs


@pytest.fixture
def instance(tmp_path):
    overrides = {"concurrency": {"pools": {"default_limit": 1, "granularity": "op"}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as local:
        yield local


def started(instance: dg.DagsterInstance, identity: str | None) -> dg.DagsterRun:
    tags = {} if identity is None else {PROCESS_TAG: identity}
    return instance.add_run(
        dg.DagsterRun(job_name="everything", tags=tags, status=dg.DagsterRunStatus.STARTED)
    )


def test_a_run_of_a_dead_process_is_failed_and_gives_its_slot_back(instance) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    run = started(instance, f"{socket.gethostname()}:{child.pid}:123")
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("gpu")
    assert storage.claim_concurrency_slot("gpu", run.run_id, "embed_batch").is_claimed
    assert not storage.claim_concurrency_slot("gpu", "next", "embed_batch").is_claimed
    assert settle_dead_runs(instance) == 1
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert storage.claim_concurrency_slot("gpu", "next", "embed_batch").is_claimed


def test_living_and_foreign_runs_are_left_alone(instance) -> None:
    mine = started(instance, None)
    announce(instance, mine)
    assert str(os.getpid()) in instance.get_run_by_id(mine.run_id).tags[PROCESS_TAG]
    started(instance, "another-host:1:1")
    started(instance, None)
    assert settle_dead_runs(instance) == 0


def test_a_number_that_was_given_to_another_process_counts_as_dead(instance) -> None:
    started(instance, f"{socket.gethostname()}:{os.getpid()}:1")
    assert settle_dead_runs(instance) == 1
