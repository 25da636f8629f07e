"""Stages that write what a rehearsal starts from: the emulated cohort, and generated WFDB records."""

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.emulation.cohort import EMULATED_LICENCE, EmulatedCohort, write_emulated_cohort
from pipeline.emulation.model import Emulator
from pipeline.foundation.artefact_notes import add_licences, noted
from pipeline.foundation.atomic import make_private_dir, write_json
from pipeline.foundation.schema import WINDOW_SECONDS
from pipeline.foundation.summary import StageSummary
from pipeline.rehearsal.headers import HeaderPlan, write_headers
from pipeline.rehearsal.measure import Outcome
from pipeline.rehearsal.plan import Rehearsal
from pipeline.sources.base import Catalog, Record
from pipeline.sources.catalog import save_catalog
from pipeline.sources.detect import DESCRIPTION
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan
from pipeline.stages.encoder_files import shown_encoder
from pipeline.stages.provenance import recording
from pipeline.store.embeddings import EmbeddingStore

logger = logging.getLogger(__name__)


def generate(rehearsal: Rehearsal) -> Outcome:
    """Write store, labs, stays and truth, and what the stages before would have said of them."""
    workspace, planted = rehearsal.workspace, rehearsal.staged.cohort
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=planted.size, root=workspace.cohort, coupling=planted.coupling,
        null=planted.null, seed=planted.seed, real_labs=None,
    )  # fmt: skip
    store = EmbeddingStore.open(workspace.store, create=True)
    cohort = EmulatedCohort(plan=plan, store=store, emulator=Emulator.load(rehearsal.emulator))
    tell = partial(_tell, time.monotonic())
    with recording(workspace, rehearsal.staged, "ppg_embeddings"):  # the note of the truth, too
        add_licences([EMULATED_LICENCE])
        records = write_emulated_cohort(cohort, workers=rehearsal.workers, progress=tell)
    make_private_dir(
        workspace.cohort / "waveforms" / "p00"
    )  # of the Matched Subset's layout, without a record
    for folder in ("waveforms", "clinical"):
        write_json(workspace.cohort / folder / DESCRIPTION, {"licence": EMULATED_LICENCE})
    root = (workspace.cohort / "waveforms").resolve()
    _summaries(rehearsal, store, records)
    beneath = tuple(_beneath(record, root) for record in records)
    with recording(workspace, rehearsal.staged, "waveform_catalog"):
        add_licences([EMULATED_LICENCE])
        save_catalog(workspace.catalog, Catalog(records=beneath), root)
    windows = sum(entry.n_windows for entry in store.manifest().values())
    return Outcome(
        counts={"patients": planted.size.n_patients, "windows": windows}, workers=rehearsal.workers
    )


def _beneath(record: Record, root: Path) -> Record:
    return replace(record, path=root / record.path)


def _tell(began: float, done: int, patients: int) -> None:
    left = (time.monotonic() - began) / done * (patients - done)
    logger.info("%d of %d patients written, %.0f s left", done, patients, left)


def _summaries(rehearsal: Rehearsal, store: EmbeddingStore, records: list[Record]) -> None:
    """Write the summaries that the report reads, of the stages that the emulator stands for."""
    workspace, entries = rehearsal.workspace, store.manifest().values()
    windows = sum(entry.n_windows for entry in entries)
    StageSummary(
        stage="waveform_catalog",
        counts={"patients": rehearsal.size.patients, "records": len(records)},
        artefacts={"catalog": workspace.catalog},
    ).save(workspace.summary("waveform_catalog"))
    StageSummary(
        stage="ppg_embeddings",
        counts={
            "encoder": shown_encoder(rehearsal.staged.encoder), "patients": len(entries), "windows": windows,
            "hours": round(windows * WINDOW_SECONDS / 3600, 1),
        },
        artefacts={"store": workspace.store},
        data_version=store.data_version(),
    ).save(workspace.summary("ppg_embeddings"))  # fmt: skip


def generate_headers(rehearsal: Rehearsal) -> Outcome:
    """Write WFDB headers and sparse data files in the Matched Subset's layout."""
    size = rehearsal.size
    plan = HeaderPlan(records=size.records, files=size.files, seed=size.seed)
    write_headers(plan, rehearsal.generated_records, workers=rehearsal.workers)
    return Outcome(
        counts={"records": size.records, "files": size.records * size.files}, workers=rehearsal.workers
    )


def catalogue_headers(rehearsal: Rehearsal) -> Outcome:
    """Catalogue the generated records as the stage does, and save the catalogue."""
    source = Mimic3Waveforms(rehearsal.generated_records)
    catalog = source.catalog()
    with noted(rehearsal.note("generated records")):
        save_catalog(rehearsal.root / "generated_catalog.parquet", catalog, source.root)
    return Outcome(counts={"records": len(catalog.records), "left_out": sum(catalog.exclusions.values())})


def plan_headers(rehearsal: Rehearsal) -> Outcome:
    """Plan the embedding of the generated records, all of them new to an empty store."""
    from pipeline.embedding.plan import plan_embedding
    from pipeline.sources.catalog import load_catalog
    from pipeline.stages.embed import experiment_encoder

    root = rehearsal.generated_records.resolve()
    catalog = load_catalog(rehearsal.root / "generated_catalog.parquet", root)
    store = EmbeddingStore.open(rehearsal.root / "empty_store", create=True)
    encoder = experiment_encoder(rehearsal.experiment)
    began = time.monotonic()
    plan = plan_embedding(catalog, store, encoder, rehearsal.experiment.window)
    seconds = time.monotonic() - began
    return Outcome(counts={"patients": len(plan.stale), "planning_seconds": round(seconds, 2)})


def recheck_headers(rehearsal: Rehearsal) -> Outcome:
    """Ask every file for size and time, as the nightly check of known patients does."""
    from pipeline.sources.catalog import load_catalog
    from pipeline.sources.content_hashes import fingerprint

    root = rehearsal.generated_records.resolve()
    catalog = load_catalog(rehearsal.root / "generated_catalog.parquet", root)
    fingerprint(catalog.records)
    return Outcome(counts={"files": sum(len(record.files) for record in catalog.records)})
