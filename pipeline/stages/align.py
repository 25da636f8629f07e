"""Stages that divide patients, scale labs and bring labs and windows together."""

from collections import Counter

import pandas as pd

from pipeline.cohort.alignment import align
from pipeline.cohort.normalization import fit_lab_scaler
from pipeline.cohort.sequences import cut_sequences
from pipeline.cohort.splits import Splits, split_subjects
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.number_format import UNITS
from pipeline.foundation.schema import LAB_NAMES
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.labs.cleaning import LabEvents
from pipeline.sources.catalog import load_catalog
from pipeline.stages.encoder_patients import refuse_division
from pipeline.stages.ingest import waveform_source
from pipeline.stages.provenance import recorded
from pipeline.store.embeddings import EmbeddingStore


@recorded("cohort_splits")
def cohort_splits(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Divide the subjects that have waveforms."""
    _, root = waveform_source(workspace)
    catalog = load_catalog(
        require(workspace.catalog, made_by="waveform_catalog", asset="cohort_splits"), root
    )
    splits = split_subjects({record.patient_id for record in catalog.records}, experiment.splits)
    refuse_division(experiment, splits)
    splits.save(workspace.splits)
    return StageSummary(
        stage="cohort_splits",
        counts=splits.counts,
        artefacts={"splits": workspace.splits},
        data_version=splits.hash,
    ).save(workspace.summary("cohort_splits"))


@recorded("normalization_stats")
def normalization_stats(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Fit the labs' scaling on the training patients."""
    splits = Splits.load(require(workspace.splits, made_by="cohort_splits", asset="normalization_stats"))
    events = require(workspace.lab_events, made_by="lab_events", asset="normalization_stats")
    scaler = fit_lab_scaler(pd.read_parquet(events), splits, experiment.scaler)
    scaler.save(workspace.scaler)
    rows = [
        {"lab": lab, "unit": UNITS[lab], "low (0)": scaler.low[lab], "high (1)": scaler.high[lab]}
        for lab in LAB_NAMES
    ]
    return StageSummary(
        stage="normalization_stats",
        counts={"fitted_on": scaler.fitted_on, "patients": scaler.n_patients},
        tables={"scale": rows},
        artefacts={"normalization": workspace.scaler},
    ).save(workspace.summary("normalization_stats"))


@recorded("lab_alignment")
def lab_alignment(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Cut sequences and pieces, and match draws with windows."""
    events = LabEvents(
        frame=pd.read_parquet(require(workspace.lab_events, made_by="lab_events", asset="lab_alignment")),
        exclusions=Counter(),
    )
    admissions = pd.read_parquet(require(workspace.admissions, made_by="lab_events", asset="lab_alignment"))
    splits = Splits.load(require(workspace.splits, made_by="cohort_splits", asset="lab_alignment"))
    store = EmbeddingStore.open(require(workspace.store, made_by="ppg_embeddings", asset="lab_alignment"))
    embedded = [patient for patient in splits.patients(*splits.members) if patient in store]
    sequences = cut_sequences(store, embedded, admissions, experiment.sequences)
    aligned = align(sequences, events, store, experiment.alignment)
    aligned.save(workspace.aligned)
    pieces = aligned.pieces["protocol"].value_counts()
    return StageSummary(
        stage="lab_alignment",
        counts={
            "patients": len(set(aligned.sequences["patient_id"])),
            "patients_without_embeddings": sum(splits.counts.values()) - len(embedded),
            "sequences": len(aligned.sequences),
            **{f"pieces_{protocol}": int(n) for protocol, n in pieces.items()},
        },
        exclusions=sequences.exclusions + aligned.exclusions,
        tables={"scored draws": _scored_draws(aligned.examples)},
        artefacts={"alignment": workspace.aligned},
    ).save(workspace.summary("lab_alignment"))


def _scored_draws(examples: pd.DataFrame) -> list[dict]:
    keys = examples.groupby(["protocol", "lab"], as_index=False)
    return keys.agg(draws=("truth", "size"), patients=("patient_id", "nunique")).to_dict(orient="records")
