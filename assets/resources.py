"""Paths and the experiment's name: all that Dagster knows of the science."""

import enum
from contextlib import suppress

import dagster as dg
from pydantic import Field

from assets.dead_runs import announce, settle_dead_runs
from assets.run_marks import mark
from pipeline.experiments import ExperimentConfig, default_experiment_name, experiment
from pipeline.foundation.errors import ProjectError
from pipeline.foundation.workspace import Workspace
from pipeline.sources.landing import quiet_seconds_from_environment


class ExperimentName(enum.Enum):
    """The experiments; as an enumeration, the launchpad offers them and refuses others before anything runs."""

    from_environment = ""
    demo = "demo"
    default = "default"
    paper = "paper"
    authors = "authors"
    recovery = "recovery"
    tiny = "tiny"


class Project(dg.ConfigurableResource):
    """Which experiment runs, on which folders.

    What is left empty comes from UNIPHY_EXPERIMENT, UNIPHY_WAVEFORMS, UNIPHY_LABS, UNIPHY_ARTIFACTS, UNIPHY_EMBEDDINGS.
    Where no experiment is named, waveforms, wherever they are named, mean ``default``.
    """

    experiment: ExperimentName = Field(
        default=ExperimentName.from_environment,
        description="UNIPHY_EXPERIMENT, else demo, or default on your own folders, where it is from_environment",
    )
    overrides: dict[str, str] = Field(
        default={}, description="fields of the experiment by dotted name, for example training.epochs: '3'"
    )
    waveforms: str = Field(
        default="",
        description="folder of waveform records; empty: the synthetic cohort. predict_new_patients: the new patients'",
    )
    labs: str = Field(
        default="",
        description="folder of lab tables; empty: the synthetic cohort's. Of new patients, for predict_new_patients",
    )
    artifacts: str = Field(
        default="", description="folder for everything that is written; empty: ./artifacts"
    )
    embeddings: str = Field(
        default="",
        description="folder or URL (s3://bucket/prefix) below which each experiment has its embedding store; "
        "empty: in the artifacts",
    )
    quiet_seconds: float | None = Field(
        default=None,
        description="for the sensors: seconds that a landing folder must have been left alone; empty: "
        "UNIPHY_QUIET_SECONDS, or 60",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Free what killed runs hold before this run needs it, and write on the run which experiment it is of."""
        if context.run is not None and context.instance is not None:
            announce(context.instance, context.run)
            settle_dead_runs(context.instance)
            with suppress(ProjectError):  # the step that reads the configuration says it
                mark(context.instance, context.run, self.config().name)

    def seconds_of_quiet(self) -> float:
        """Return how long a landing folder must have been left alone."""
        return quiet_seconds_from_environment() if self.quiet_seconds is None else self.quiet_seconds

    def config(self) -> ExperimentConfig:
        """Return the whole configuration of the experiment."""
        name = self.experiment.value or default_experiment_name(self.waveforms or None)
        return experiment(name, dict(self.overrides))

    def workspace(self) -> Workspace:
        """Return the folders of the experiment."""
        return Workspace.from_environment(
            self.config().name,
            waveforms=self.waveforms or None,
            labs=self.labs or None,
            artifacts=self.artifacts or None,
            embeddings=self.embeddings or None,
            argument="'{}' of the resource 'project'",
        )
