"""The job that estimates labs of new patients with a trained method; start it from Jobs, Launchpad."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.failures import explained
from assets.metadata import metadata
from assets.resources import Project
from pipeline import stages
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace


class NewPatients(dg.Config):
    """With what to estimate, and where to; whose labs, the resource ``project`` names (waveforms, labs)."""

    out: str = Field(
        description="folder for estimates.parquet and for the new patients' embeddings, which are cached there"
    )
    checkpoint: str = Field(
        default="", description="folder of a trained method; empty: this experiment's mt_pcs, first seed"
    )


@dg.op(pool="gpu")
def estimate_labs(project: Project, config: NewPatients) -> dg.Output[str]:
    """Embed the new recordings and estimate each lab every 30 s, with interval, age of the last lab and state."""
    with explained("predict_new_patients"):
        if not (project.waveforms and project.labs):
            raise ConfigError("name the new patients' folders: waveforms and labs of the resource 'project'")
        experiment = project.config()
        trained = config.checkpoint or str(project.workspace().checkpoint("mt_pcs", experiment.seeds[0]))
        folder = Path(config.out).expanduser().absolute()
        workspace = Workspace(
            root=folder,
            waveforms=Path(project.waveforms).expanduser().absolute(),
            labs=Path(project.labs).expanduser().absolute(),
        )
        out = folder / "estimates.parquet"
        summary = stages.predict_new_patients(workspace, experiment, trained, str(out))
    return dg.Output(str(out), metadata=dict(metadata(summary, experiment.name)))


@dg.job(description="Estimate labs of new patients every 30 s with a trained method, into estimates.parquet.")
def predict_new_patients() -> None:
    """Run `estimate_labs` once."""
    estimate_labs()
