"""Paths and the experiment's name: all that Dagster knows of the science."""

import dagster as dg
from pydantic import Field

from assets.dead_runs import announce, settle_dead_runs
from pipeline.experiments import EXPERIMENTS, ExperimentConfig, default_experiment_name, experiment
from pipeline.landing import quiet_seconds_from_environment
from pipeline.workspace import Workspace


class Project(dg.ConfigurableResource):
    """Which experiment runs, on which folders.

    Empty fields fall back to ``UNIPHY_EXPERIMENT``, ``UNIPHY_WAVEFORMS``, ``UNIPHY_LABS`` and ``UNIPHY_ARTIFACTS``.
    """

    experiment: str = Field(
        default="",
        description=f"one of {', '.join(EXPERIMENTS)}; empty: demo, or default on your own folders",
    )
    overrides: dict[str, str] = Field(
        default={}, description="fields of the experiment by dotted name, for example training.epochs: '3'"
    )
    waveforms: str = Field(default="", description="folder of waveform records; empty: the synthetic cohort")
    labs: str = Field(default="", description="folder of lab tables; empty: the synthetic cohort's")
    artifacts: str = Field(
        default="", description="folder for everything that is written; empty: ./artifacts"
    )

    quiet_seconds: float = Field(
        default=-1.0,
        description="seconds that a landing folder must have been left alone; negative: UNIPHY_QUIET_SECONDS, or 60",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Free what killed runs hold before this run needs it."""
        if context.run is not None and context.instance is not None:
            announce(context.instance, context.run)
            settle_dead_runs(context.instance)

    def seconds_of_quiet(self) -> float:
        """Return how long a landing folder must have been left alone."""
        return self.quiet_seconds if self.quiet_seconds >= 0 else quiet_seconds_from_environment()

    def config(self) -> ExperimentConfig:
        """Return the whole configuration of the experiment."""
        return experiment(self.experiment or default_experiment_name(), dict(self.overrides))

    def workspace(self) -> Workspace:
        """Return the folders of the experiment."""
        return Workspace.from_environment(
            self.config().name,
            waveforms=self.waveforms or None,
            labs=self.labs or None,
            artifacts=self.artifacts or None,
        )
