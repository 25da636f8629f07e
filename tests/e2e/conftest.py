"""One tiny experiment, run once through Dagster for all end-to-end tests of a worker."""

from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import defs
from assets.resources import Project
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.workspace import Workspace


class TinyRun:
    """The folders and the outcome of one whole run."""

    def __init__(self, artifacts: Path) -> None:
        self.project = Project(experiment="tiny", artifacts=str(artifacts))
        self.workspace: Workspace = self.project.workspace()
        self.config: ExperimentConfig = self.project.config()
        with dg.DagsterInstance.ephemeral() as instance:
            self.outcome = defs.resolve_job_def("everything").execute_in_process(
                instance=instance, resources={"project": self.project}, raise_on_error=True
            )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return TinyRun(tmp_path_factory.mktemp("artifacts"))
