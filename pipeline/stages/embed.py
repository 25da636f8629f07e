"""Stage 1, in one call for the command line and in three steps (plan, batches, finish) for Dagster."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from pipeline.embedding.weights_files import file_of
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import add_licences
from pipeline.foundation.atomic import require_writable
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.foundation.summary import Scalar, StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.sources.base import WaveformSource
from pipeline.sources.catalog import catalogued_patients, load_catalog, release_catalog
from pipeline.stages.encoder_files import shown_encoder
from pipeline.stages.encoder_patients import encoder_patients, weights_licences
from pipeline.stages.ingest import waveform_source
from pipeline.stages.provenance import check_inputs, recorded
from pipeline.stages.sources import claim_store
from pipeline.store.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from models.encoders.base import Encoder
    from pipeline.embedding.config import EncodingConfig
    from pipeline.embedding.plan import EmbeddingPlan
    from pipeline.embedding.run import EmbeddingSummary

logger = logging.getLogger(__name__)

ASSET = "ppg_embeddings"
WINDOW_REASON = "window: "
"""How the reasons begin that count windows, not segments or patients."""
HOUR_EDGES = (0.0, 1.0, 6.0, 12.0, 24.0, 72.0, 168.0, float("inf"))


class BatchCounts(TypedDict):
    """What came of one batch; plain values, which Dagster passes between steps."""

    embedded: int
    windows: int
    failures: dict[str, int]


class _Inputs(NamedTuple):
    source: WaveformSource
    catalog_file: Path
    store: EmbeddingStore
    encoder: "Encoder"
    config: "EncodingConfig"

    def plan(self, only: Sequence[str] | None = None) -> "EmbeddingPlan":
        from pipeline.embedding.plan import plan_embedding

        patients = None
        if only is not None:
            wanted = set(only)
            everyone = catalogued_patients(self.catalog_file)
            patients = [patient for patient in everyone if self.store.patient_key(patient) in wanted]
        catalog = load_catalog(self.catalog_file, self.source.root, patients)
        return plan_embedding(catalog, self.store, self.encoder, self.config.window, only=only)


def _inputs(workspace: Workspace, experiment: ExperimentConfig) -> _Inputs:
    source, _ = waveform_source(workspace)
    catalog_file = require(workspace.catalog, made_by="waveform_catalog", asset=ASSET)
    store = EmbeddingStore.open(workspace.store, create=True)
    encoder = experiment_encoder(experiment)
    return _Inputs(source, catalog_file, store, encoder, encoding_config(experiment, encoder))


def experiment_encoder(experiment: ExperimentConfig) -> "Encoder":
    """Return the experiment's encoder on its device, where "auto" becomes a precision; kept for the next call."""
    from pipeline.embedding.encoders import kept_encoder  # imports torch, which definitions must not

    how = experiment.embedding
    return kept_encoder(
        experiment.encoder,
        precision=experiment.encoder_precision,
        device=how.device,
        gpu_batch_windows=how.gpu_batch_windows,
    )


def check_encoder(workspace: Workspace, experiment: ExperimentConfig) -> None:
    """Build the experiment's encoder before hours of work that end on it; stage 1 finds it built.

    Raises
    ------
    StoreError : the folder of the artefacts cannot be written
    ConfigError : there is no such encoder or projection, or not its device
    CheckpointError : weights that do not fit, or a projection of others
    """
    require_writable(workspace.record(ASSET))
    experiment_encoder(experiment)


def encoding_config(experiment: ExperimentConfig, encoder: "Encoder") -> "EncodingConfig":
    """Return how stage 1 runs on this machine, for an encoder that lies on its device."""
    import torch  # not at the top: definitions must not load it

    from models.encoders.base import device_kind

    return experiment.embedding.on(
        device_kind(encoder),
        window=experiment.window,
        executor=experiment.embedding_executor,
        gpus=torch.cuda.device_count(),
    )


def plan_embedding_batches(workspace: Workspace, experiment: ExperimentConfig) -> list[list[str]]:
    """Return the patients to embed, as keyed hashes, in batches of minutes of work."""
    check_inputs(workspace, experiment, ASSET)
    require_writable(workspace.record(ASSET))
    inputs = _inputs(workspace, experiment)
    claim_store(workspace, inputs.store)
    plan = inputs.plan()
    logger.info("%s", plan)
    return [[task.patient for task in batch] for batch in plan.batches(inputs.config.batch_patients)]


def embed_patient_batch(
    workspace: Workspace, experiment: ExperimentConfig, patient_keys: Sequence[str]
) -> BatchCounts:
    """Embed and commit what is still stale among `patient_keys`; return counts."""
    from pipeline.embedding.progress import ProgressMeter, shown_progress
    from pipeline.embedding.run import embed_batch

    inputs = _inputs(workspace, experiment)
    tasks = inputs.plan(patient_keys).stale
    with shown_progress() as told:
        meter = ProgressMeter(tasks, told)
        done = embed_batch(tasks, inputs.source, inputs.store, inputs.encoder, inputs.config, meter)
    inputs.store.commit(done.entries)
    return {
        "embedded": len(done.entries) - done.adopted,
        "windows": done.embedded_windows,
        "failures": dict(done.failures),
    }


@recorded(ASSET)
def finish_embedding(
    workspace: Workspace, experiment: ExperimentConfig, batches: Sequence[BatchCounts]
) -> StageSummary:
    """Retire vanished patients and describe the store."""
    from pipeline.embedding.encoders import release_encoder  # imports torch, as above
    from pipeline.embedding.plan import key_template
    from pipeline.embedding.run import finish_embedding as finish

    inputs = _inputs(workspace, experiment)
    if encoder_patients(experiment):  # what labs went into comes out again
        add_licences(weights_licences(file_of(experiment.encoder)))
    encoding = key_template(inputs.encoder, experiment.window)
    state = finish(inputs.store, inputs.plan(), ())
    release_encoder()
    release_catalog()
    failures = sum((Counter(batch["failures"]) for batch in batches), Counter[str]())
    embedded = sum(batch["embedded"] for batch in batches)
    hours = _patients_by_hours(inputs.store)
    return _summary(
        workspace, experiment, state, embedded, state.failures + failures, hours, encoding.arithmetic
    )


def ppg_embeddings(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Bring the store up to date in one call."""
    batches = [
        embed_patient_batch(workspace, experiment, keys)
        for keys in tracked(plan_embedding_batches(workspace, experiment), "embedding", "batches of patients")
    ]
    return finish_embedding(workspace, experiment, batches)


def _funnel(state: "EmbeddingSummary") -> list[dict[str, Scalar]]:
    """Return what is left of the recorded windows after each rule, the largest loss first."""
    losses = {reason: n for reason, n in state.exclusions.items() if reason.startswith(WINDOW_REASON)}
    left = state.windows + sum(losses.values())
    rows: list[dict[str, Scalar]] = [{"step": "30 s windows that hold PPG", "windows left": left}]
    for reason, n in sorted(losses.items(), key=lambda item: (-item[1], item[0])):
        left -= n
        rows.append({"step": f"without: {reason.removeprefix(WINDOW_REASON)}", "windows left": left})
    return rows


def _patients_by_hours(store: EmbeddingStore) -> list[dict[str, Scalar]]:
    hours = [
        entry.n_windows * WINDOW_SECONDS / 3600 for entry in store.manifest().values() if not entry.retired
    ]
    counts, _ = np.histogram(hours, HOUR_EDGES)
    edges = zip(HOUR_EDGES[:-1], HOUR_EDGES[1:], counts.tolist(), strict=True)
    return [
        {"hours of PPG": f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} or more", "patients": n}
        for low, high, n in edges
    ]


def _summary(
    workspace: Workspace,
    experiment: ExperimentConfig,
    state: "EmbeddingSummary",
    embedded: int,
    failures: Counter[str],
    hours_per_patient: list[dict[str, Scalar]],
    arithmetic: str,
) -> StageSummary:
    return StageSummary(
        stage=ASSET,
        counts={
            "encoder": shown_encoder(experiment.encoder),
            "arithmetic": arithmetic,
            "patients": state.patients,
            "patients_embedded_now": embedded,
            "patients_unchanged": state.unchanged - embedded,
            "patients_retired": state.retired,
            "windows": state.windows,
            "hours": round(state.hours, 1),
            "hours_per_patient": round(state.hours / max(state.patients, 1), 1),
        },
        exclusions=state.exclusions + failures,
        tables={
            "from recording to embedding": _funnel(state),
            "windows by quality": [
                {"spectral concentration": f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}", "windows": count}
                for tenth, count in enumerate(state.quality_histogram)
            ],
            "patients by hours of PPG": hours_per_patient,
        },
        artefacts={"store": workspace.store},
        data_version=state.data_version,
    ).save(workspace.summary(ASSET))
