"""Stages that bring waveforms and labs in."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import add_licences
from pipeline.foundation.atomic import write_json, write_parquet
from pipeline.foundation.number_format import UNITS
from pipeline.foundation.schema import HOUR_US
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace, require
from pipeline.labs.cleaning import clean_labs, lab_counts
from pipeline.labs.versions import final_results
from pipeline.sources.base import Catalog, ClinicalSource, WaveformSource
from pipeline.sources.catalog import save_catalog
from pipeline.sources.detect import DESCRIPTION, open_clinical, open_waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.stages.provenance import recorded, refuse_another
from pipeline.stages.sources import missing_labs

COHORT_LICENCE = "synthetic, no patient: CC0, share freely"
PLANTED_NOTE = (
    "Planted waveforms: no PPG of these patients exists; the pulse was synthesised around their labs."
)


def waveform_source(workspace: Workspace) -> tuple[WaveformSource, Path]:
    """Return the waveform source in use and its folder."""
    root = workspace.waveforms or require(
        workspace.cohort / "waveforms", made_by="synthetic_cohort", asset="waveform_catalog"
    )
    source = open_waveforms(root)
    add_licences([source.licence])
    return source, source.root


def clinical_source(workspace: Workspace) -> ClinicalSource:
    """Return the lab source in use; real labs with planted waveforms come from the cohort's copy, once there is one."""
    planted = workspace.cohort / "clinical"
    if workspace.labs is not None and not (workspace.is_synthetic and planted.exists()):
        return open_clinical(workspace.labs)
    if not workspace.is_synthetic:
        raise missing_labs()
    return open_clinical(require(planted, made_by="synthetic_cohort", asset="lab_events"))


def source_note(workspace: Workspace) -> str:
    """Return one sentence on where the data come from, for reports and artefacts."""
    if not workspace.is_synthetic:
        return "Waveforms and labs from the user's folders."
    if workspace.labs is not None:
        return f"Real labs. {PLANTED_NOTE}"
    return "Synthetic cohort: planted waveforms and planted labs, no patient."


@recorded("synthetic_cohort")
def synthetic_cohort(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Write the embedded cohort, or nothing where the user names waveforms."""
    summary = StageSummary(stage="synthetic_cohort", counts={"used": "no: waveforms come from your folder"})
    if workspace.is_synthetic:
        refuse_another(
            workspace, experiment, "synthetic_cohort"
        )  # it is never replaced: it may have been long work
        licences = _licences_of_cohort(workspace)
        add_licences(licences)
        plan = experiment.cohort
        written = write_cohort(
            CohortParameters.load(),
            plan.size,
            workspace.cohort,
            coupling=plan.coupling,
            null=plan.null,
            seed=plan.seed,
            real_labs=workspace.labs,
            workers=min(2, os.cpu_count() or 1),
        )
        for folder, licence in zip(("waveforms", "clinical"), licences, strict=True):
            write_json(workspace.cohort / folder / DESCRIPTION, {"licence": licence})
        summary = StageSummary(
            stage="synthetic_cohort",
            counts={
                "used": source_note(workspace),
                "patients": written.n_patients,
                "records": written.n_records,
                "hours": round(written.hours, 1),
                "draws": written.n_labs,
                "coupling": plan.coupling,
                "parameters": written.parameters_sha256[:12],
            },
            artefacts={"cohort": workspace.cohort},
        )
    return summary.save(workspace.summary("synthetic_cohort"))


def _licences_of_cohort(workspace: Workspace) -> list[str]:
    """Planted waveforms, and planted labs or the user's."""
    return [
        COHORT_LICENCE,
        COHORT_LICENCE if workspace.labs is None else open_clinical(workspace.labs).licence,
    ]


@recorded("waveform_catalog")
def waveform_catalog(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Find every usable record."""
    source, root = waveform_source(workspace)
    catalog = source.catalog()
    save_catalog(workspace.catalog, catalog, root)
    return StageSummary(
        stage="waveform_catalog",
        counts=_catalog_counts(catalog),
        exclusions=catalog.exclusions,
        artefacts={"catalog": workspace.catalog},
    ).save(workspace.summary("waveform_catalog"))


def _catalog_counts(catalog: Catalog) -> dict[str, int | float]:
    hours = sum(record.end_us - record.start_us for record in catalog.records) / HOUR_US
    patients = len({record.patient_id for record in catalog.records})
    return {"patients": patients, "records": len(catalog.records), "recorded_hours": round(hours, 1)}


@recorded("lab_events")
def lab_events(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Read and clean the labs of the five analytes."""
    tables = clinical_source(workspace).tables()
    add_licences([tables.licence])
    events = clean_labs(tables, experiment.labs)
    write_parquet(workspace.lab_events, events.frame)
    write_parquet(workspace.admissions, tables.admissions)
    return StageSummary(
        stage="lab_events",
        counts={
            "patients": len(set(events.frame["patient_id"])),
            "admissions": len(tables.admissions),
            **{f"{lab}_results": n for lab, n in lab_counts(events).items()},
        },
        exclusions=events.exclusions,  # with the source's own, which clean_labs carries on
        tables={
            "values by lab": _lab_ranges(final_results(events.frame)),
            "rows changed and kept": [
                {"change": name, "rows": n} for name, n in sorted(events.repairs.items())
            ],
        },
        artefacts={"lab events": workspace.lab_events},
    ).save(workspace.summary("lab_events"))


def _lab_ranges(frame: pd.DataFrame) -> list[dict]:
    rows = []
    for lab, group in frame.groupby("lab"):
        low, median, high = np.quantile(group["value"].to_numpy(), [0.01, 0.5, 0.99]).round(2).tolist()
        rows.append(
            {
                "lab": str(lab),
                "unit": UNITS[str(lab)],
                "lowest 1 %": low,
                "median": median,
                "highest 1 %": high,
            }
        )
    return rows
