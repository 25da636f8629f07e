"""Stage 1, in one call for the command line and in three steps (plan, batches, finish) for Dagster."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.foundation.summary import Scalar, StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.sources.base import Catalog, WaveformSource
from pipeline.sources.catalog import load_catalog
from pipeline.stages.ingest import waveform_source
from pipeline.stages.provenance import check_inputs, recorded
from pipeline.store.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from models.encoders.base import Encoder
    from pipeline.embedding.plan import EmbeddingPlan
    from pipeline.embedding.run import EmbeddingSummary, EncodingConfig

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
    catalog: Catalog
    store: EmbeddingStore
    encoder: "Encoder"
    config: "EncodingConfig"

    def plan(self, only: Sequence[str] | None = None) -> "EmbeddingPlan":
        from pipeline.embedding.run import plan_embedding  # imports torch, which definitions must not

        return plan_embedding(self.catalog, self.store, self.encoder, self.config.window, only=only)


def _inputs(workspace: Workspace, experiment: ExperimentConfig) -> _Inputs:
    from models.encoders.ppg_gpt import fast_precision  # imports torch, which definitions must not
    from pipeline.embedding.encoders import kept_encoder
    from pipeline.embedding.run import EncodingConfig

    source, root = waveform_source(workspace)
    catalog = load_catalog(require(workspace.catalog, made_by="waveform_catalog", asset=ASSET), root)
    store = EmbeddingStore.open(workspace.store, create=True)
    config = EncodingConfig(window=experiment.window, executor=experiment.embedding_executor)
    precision = fast_precision() if experiment.encoder_precision == "auto" else experiment.encoder_precision
    encoder = kept_encoder(experiment.encoder, precision=precision)
    return _Inputs(source, catalog, store, encoder, config)


def plan_embedding_batches(workspace: Workspace, experiment: ExperimentConfig) -> list[list[str]]:
    """Return the patients to embed, as keyed hashes, in batches of minutes of work."""
    check_inputs(workspace, experiment, ASSET)
    inputs = _inputs(workspace, experiment)
    plan = inputs.plan()
    logger.info(
        "%d patients to embed, %d unchanged, %d vanished", len(plan.stale), plan.unchanged, len(plan.retired)
    )
    return [[task.patient for task in batch] for batch in plan.batches(inputs.config.batch_patients)]


def embed_patient_batch(
    workspace: Workspace, experiment: ExperimentConfig, patient_keys: Sequence[str]
) -> BatchCounts:
    """Embed and commit what is still stale among `patient_keys`; return counts."""
    from pipeline.embedding.run import ProgressMeter, embed_batch, log_progress  # imports torch, as above

    inputs = _inputs(workspace, experiment)
    tasks = inputs.plan(patient_keys).stale
    meter = ProgressMeter(tasks, log_progress())
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
    from pipeline.embedding.run import finish_embedding as finish

    inputs = _inputs(workspace, experiment)
    state = finish(inputs.store, inputs.plan(), ())
    release_encoder()
    failures = sum((Counter(batch["failures"]) for batch in batches), Counter[str]())
    embedded = sum(batch["embedded"] for batch in batches)
    hours = _patients_by_hours(inputs.store)
    return _summary(workspace, experiment, state, embedded, state.failures + failures, hours)


def ppg_embeddings(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Bring the store up to date in one call."""
    batches = [
        embed_patient_batch(workspace, experiment, keys)
        for keys in plan_embedding_batches(workspace, experiment)
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
) -> StageSummary:
    return StageSummary(
        stage=ASSET,
        counts={
            "encoder": experiment.encoder,
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
