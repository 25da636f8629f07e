"""Estimate labs of new patients with a trained method."""

import dataclasses
import logging
from collections import Counter
from pathlib import Path

import pandas as pd

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.atomic import require_writable, write_parquet
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.foundation.provenance import from_plain
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace
from pipeline.labs.cleaning import LabEvents
from pipeline.prediction.intervals import Intervals
from pipeline.stages.embed import ppg_embeddings
from pipeline.stages.ingest import lab_events, waveform_catalog
from pipeline.stages.provenance import noted_as
from pipeline.stages.sources import check_sources
from pipeline.store.embeddings import EmbeddingStore

logger = logging.getLogger(__name__)


@noted_as("predict")
def predict_new_patients(
    workspace: Workspace, experiment: ExperimentConfig, checkpoint: str, out: str
) -> StageSummary:
    """Catalogue, embed and clean the new patients' data, then estimate each lab every 30 s.

    Encoder, windows and lab cleaning are those the checkpoint was trained with; `workspace` says where the new data
    lie and where their embeddings are cached.

    Raises
    ------
    CheckpointError
        No checkpoint there, or one that cannot serve.
    ConfigError
        The output folder is that of an experiment, whose patients the new ones would replace.
    """
    from pipeline.prediction.new_patients import (  # imports torch, which definitions must not
        PredictionConfig,
        predict,
    )

    require_writable(Path(out))
    check_sources(workspace, labs_needed=True)
    workspace = _of_their_own(workspace)
    folder = Path(checkpoint)
    trained_with = _experiment_of(folder, experiment.name)
    catalog = waveform_catalog(workspace, trained_with)
    embedded = ppg_embeddings(workspace, trained_with)
    cleaned = lab_events(workspace, trained_with)
    patients = sorted(set(pd.read_parquet(workspace.catalog, columns=["patient_id"])["patient_id"]))
    store = EmbeddingStore.open(workspace.store)
    exclusions: Counter[str] = Counter()
    table = predict(
        folder,
        store,
        LabEvents(frame=pd.read_parquet(workspace.lab_events), exclusions=Counter()),
        PredictionConfig(sequences=trained_with.sequences),
        patients=[patient for patient in patients if patient in store],
        admissions=pd.read_parquet(workspace.admissions),
        intervals=_intervals_of(folder),
        exclusions=exclusions,
    )
    write_parquet(Path(out), table)
    dropped = sum(map(Counter, (catalog.exclusions, embedded.exclusions, cleaned.exclusions)), exclusions)
    states = {f"rows_{state}": int(n) for state, n in table["state"].value_counts().items()}
    return StageSummary(
        stage="predict",
        counts={"patients": len(set(table["patient"])), "rows": len(table), **states},
        exclusions=dropped,
        artefacts={"predictions": Path(out)},
    )


def _of_their_own(workspace: Workspace) -> Workspace:
    """Return the workspace with a store of its own: in the experiment's, its own patients would be retired."""
    if (workspace.root / "checkpoints").exists():
        raise ConfigError(
            f"{workspace.root} holds a trained experiment, and the new patients would replace its own. Name a folder "
            "for them: --artifacts DIR on the command line, 'out' in the job's configuration."
        )
    return dataclasses.replace(workspace, embeddings=None)


def _experiment_of(folder: Path, name: str) -> ExperimentConfig:
    from pipeline.training.checkpoints import checkpoint_folders, load_model  # imports torch, as above

    stored = load_model(checkpoint_folders(folder)[0]).experiment
    try:
        return dataclasses.replace(from_plain(ExperimentConfig, stored), name=name)
    except (ConfigError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"{folder} does not hold the configuration of its experiment ({problem}); train the method again."
        ) from None


def _intervals_of(folder: Path) -> Intervals | None:
    """Return the intervals that were calibrated beside this checkpoint, if any."""
    path = folder / "intervals.json"
    if not path.exists():
        logger.warning("no calibrated intervals beside the checkpoint: lower and upper stay empty")
        return None
    return Intervals.from_json(path.read_text())
