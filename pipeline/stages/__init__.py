"""Every stage of the job: read its inputs from the experiment's folder, call one domain function, write the result.

A stage is ``stage(workspace, experiment) -> StageSummary``. The command line and the Dagster assets call these alike.
Modules that need torch are imported inside those stages that are assets, so that Dagster loads its definitions in a
few seconds; the studies (emulation_check, planted_cohort, recovery, scale_study) import it with their module.

In: an experiment's folder and configuration.
Out: the next artefact in that folder, and a summary that a person can read.
Never: domain logic, Dagster, torch when this face is imported.
"""

import lazy_loader

from pipeline.stages.align import cohort_splits, lab_alignment, normalization_stats
from pipeline.stages.cross_validation import printed_cross_validation
from pipeline.stages.delayed_results import printed_result_delay
from pipeline.stages.embed import (
    check_encoder,
    embed_patient_batch,
    finish_embedding,
    plan_embedding_batches,
    ppg_embeddings,
)
from pipeline.stages.evaluate import evaluation, predictions, printed_table
from pipeline.stages.ingest import lab_events, synthetic_cohort, waveform_catalog
from pipeline.stages.paper_comparison import reproduce_table1, table1
from pipeline.stages.predict import predict_new_patients
from pipeline.stages.pretraining import pretrain_ppg_gpt
from pipeline.stages.reporting import report
from pipeline.stages.train_encoder import train_encoder
from pipeline.stages.training import check_devices, train

# Whole modules, some of which need torch, for the command line, the checks and the rehearsal.
__getattr__, __dir__, _modules = lazy_loader.attach(
    __name__,
    submodules=[
        "checks",
        "embed",
        "emulation_check",
        "encoder_files",
        "encoder_patients",
        "evaluate",
        "lineage",
        "pretraining",
        "provenance",
        "recovery",
        "recovery_regimes",
        "scale_study",
        "sources",
    ],
)

__all__ = [
    *_modules,
    "check_devices",
    "check_encoder",
    "cohort_splits",
    "embed_patient_batch",
    "evaluation",
    "finish_embedding",
    "lab_alignment",
    "lab_events",
    "normalization_stats",
    "plan_embedding_batches",
    "ppg_embeddings",
    "predict_new_patients",
    "predictions",
    "pretrain_ppg_gpt",
    "printed_cross_validation",
    "printed_result_delay",
    "printed_table",
    "report",
    "reproduce_table1",
    "synthetic_cohort",
    "table1",
    "train",
    "train_encoder",
    "waveform_catalog",
]
