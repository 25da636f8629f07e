"""Where the steps of a run execute: ``UNIPHY_EXECUTOR`` chooses, for every job."""

import os
from collections.abc import Callable

import dagster as dg

from pipeline.foundation.errors import ConfigError

EXECUTOR_VARIABLE = "UNIPHY_EXECUTOR"


def _in_process() -> dg.ExecutorDefinition:
    return dg.in_process_executor


def _forkserver() -> dg.ExecutorDefinition:
    """One process a step, forked from a server that has the heavy imports already."""
    return dg.multiprocess_executor.configured(
        {
            "max_concurrent": 2,
            "start_method": {"forkserver": {"preload_modules": ["torch", "assets.definitions"]}},
        },
        name="forkserver",
    )


def _kubernetes() -> dg.ExecutorDefinition:
    from dagster_k8s import k8s_job_executor  # an extra; docs/operations.md

    return k8s_job_executor


EXECUTORS: dict[str, Callable[[], dg.ExecutorDefinition]] = {
    "in_process": _in_process,
    "forkserver": _forkserver,
    "kubernetes": _kubernetes,
}


def runs_in_one_process() -> bool:
    """Whether all steps of a run share one process."""
    return (os.environ.get(EXECUTOR_VARIABLE) or "in_process") == "in_process"


def chosen_executor() -> dg.ExecutorDefinition:
    """Return the executor that ``UNIPHY_EXECUTOR`` names, in-process when it names none.

    Raises
    ------
    ConfigError : there is no such executor, or its package is not installed
    """
    name = os.environ.get(EXECUTOR_VARIABLE) or "in_process"
    if name not in EXECUTORS:
        raise ConfigError(f"{EXECUTOR_VARIABLE} is {name!r}; choose one of {', '.join(EXECUTORS)}.")
    try:
        return EXECUTORS[name]()
    except ImportError:
        raise ConfigError(f"{EXECUTOR_VARIABLE}={name} needs a package: pip install dagster-k8s.") from None
