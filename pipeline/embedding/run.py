"""Stage 1: every usable window of every patient through the encoder, once, into the store.

Plan, embed batch by batch, commit after each batch. A run that is killed goes on where it was; two runs at
the same time share the work; a run with nothing to do costs one ``stat`` a source file.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from models.encoders.base import Encoder, device_kind
from pipeline.embedding.base import BatchResult, Executor, PatientMeter
from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.encoders import encoder_fields, encoder_label
from pipeline.embedding.flow import EmbeddingFlow
from pipeline.embedding.plan import EmbeddingPlan, PatientTask, plan_embedding
from pipeline.embedding.progress import ProgressCallback, ProgressMeter
from pipeline.foundation.provenance import to_plain, versions
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.sources.base import Catalog, WaveformSource
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.zarr_version import QUALITY_BINS

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EmbeddingSummary:
    """What a run did, and what the store holds after it.

    Attributes
    ----------
    embedded : patients whose windows went through the encoder
    adopted : patients that another run had finished without committing
    unchanged : patients that the store already had
    returned : of the unchanged, those that had been retired
    retired : patients whose source vanished since the last run; kept
    failures : patients without a result, by reason; their last embeddings are kept
    embedded_windows, seconds : of this run
    patients, windows, hours : in the store, retired patients left out
    exclusions : windows and segments of these patients left out, by reason
    quality_histogram : their windows per tenth of spectral concentration
    data_version : hash of the manifest
    """

    embedded: int
    adopted: int
    unchanged: int
    returned: int
    retired: int
    failures: Counter[str]
    embedded_windows: int
    seconds: float
    patients: int
    windows: int
    hours: float
    exclusions: Counter[str]
    quality_histogram: tuple[int, ...]
    data_version: str


def embed_batch(
    tasks: Sequence[PatientTask],
    source: WaveformSource,
    store: EmbeddingStore,
    encoder: Encoder,
    config: EncodingConfig,
    meter: PatientMeter | None = None,
) -> BatchResult:
    """Embed some patients of a plan; the result still has to be committed.

    Raises
    ------
    StoreError : an embedding that cannot be stored, or a disk that cannot be written
    """
    with executor(source, store, encoder, config, meter or ProgressMeter(tasks, None)) as here:
        return here.embed(tasks)


def embed(
    source: WaveformSource,
    store: EmbeddingStore,
    encoder: Encoder,
    config: EncodingConfig,
    *,
    catalog: Catalog | None = None,
    plan: EmbeddingPlan | None = None,
    progress: ProgressCallback | None = None,
) -> EmbeddingSummary:
    """Bring the store up to date with a source.

    Parameters
    ----------
    catalog : of `source`, when the caller has it already
    plan : what is to be done, when the caller has planned it: for a part of the patients, say
    progress : called after each encoder batch

    Raises
    ------
    StoreError : an embedding that cannot be stored, or a disk that cannot be written; commits stay
    """
    began = time.monotonic()
    plan = plan or plan_embedding(catalog or source.catalog(), store, encoder, config.window)
    log.info("%s", plan)
    results = []
    if plan.stale:
        with executor(source, store, encoder, config, ProgressMeter(plan.stale, progress)) as here:
            for tasks in plan.batches(config.batch_patients):
                results.append(here.embed(tasks))
                store.commit(results[-1].entries)
    return finish_embedding(store, plan, results, seconds=time.monotonic() - began)


def finish_embedding(
    store: EmbeddingStore, plan: EmbeddingPlan, results: Iterable[BatchResult], *, seconds: float = 0.0
) -> EmbeddingSummary:
    """Mark vanished patients as retired, take returned ones back, and sum up."""
    done = sum(results, BatchResult())
    version = store.commit(plan.returned, retired=plan.retired)
    held = [entry for entry in store.manifest().values() if not entry.retired]
    windows = sum(entry.n_windows for entry in held)
    histograms = [entry.quality_histogram for entry in held]
    return EmbeddingSummary(
        embedded=len(done.entries) - done.adopted,
        adopted=done.adopted,
        unchanged=plan.unchanged,
        returned=len(plan.returned),
        retired=len(plan.retired),
        failures=plan.failures + done.failures,
        embedded_windows=done.embedded_windows,
        seconds=seconds,
        patients=len(held),
        windows=windows,
        hours=windows * WINDOW_SECONDS / 3600,
        exclusions=sum((Counter(entry.exclusions) for entry in held), Counter[str]()),
        quality_histogram=tuple(map(sum, zip(*histograms, strict=True))) or (0,) * QUALITY_BINS,
        data_version=version,
    )


@contextmanager
def executor(
    source: WaveformSource,
    store: EmbeddingStore,
    encoder: Encoder,
    config: EncodingConfig,
    meter: PatientMeter,
) -> Iterator[Executor]:
    """Give what embeds batches of patients: this process, or actors that live as long as the block."""
    if config.executor == "ray":
        from pipeline.embedding.ray_executor import actors  # ray is an extra

        local = replace(config, executor="local")
        work = partial(embed_batch, source=source, store=store, encoder=encoder, config=local)
        with actors(work, config.actors, meter, on_gpu=device_kind(encoder) != "cpu") as pool:
            yield pool
    else:
        yield EmbeddingFlow(
            source=source,
            store=store,
            encoder=encoder,
            window=config.window,
            meter=meter,
            provenance=store.write_provenance(_provenance(source, encoder, config)),
            batch_windows=config.batch_windows,
            decode_workers=config.decode_workers,
            queue_blocks=config.queue_blocks,
        )


def _provenance(source: WaveformSource, encoder: Encoder, config: EncodingConfig) -> dict[str, object]:
    """Return what made the embeddings; no path, patient or time."""
    return {
        "encoder": {
            "name": encoder_label(encoder),
            "weights_hash": encoder.weights_hash,
            "width": encoder.width,
            **encoder_fields(encoder),
            "sampling_rate_hz": encoder.sampling_rate_hz,
            "config": to_plain(getattr(encoder, "config", None)),
        },
        "window": to_plain(config.window),
        "source": {"kind": source.name, "licence": source.licence},
        "versions": versions(),
    }
