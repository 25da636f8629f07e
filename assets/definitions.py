"""The one Definitions object."""

import dagster as dg

from assets.automation import jobs, schedules, sensors
from assets.checks import asset_checks
from assets.cohort import cohort_splits, lab_alignment, normalization_stats
from assets.console import console
from assets.embeddings import ppg_embeddings
from assets.encoder_training import train_encoder
from assets.evaluation import evaluation, predictions, report
from assets.executors import chosen_executor
from assets.ingest import lab_events, synthetic_cohort, waveform_catalog
from assets.pretraining import pretrain_ppg_gpt
from assets.resources import Project
from assets.step_values import json_step_values
from assets.table1 import table1
from assets.training import training_assets

defs = dg.Definitions(
    assets=[
        synthetic_cohort,
        waveform_catalog,
        lab_events,
        ppg_embeddings,
        cohort_splits,
        normalization_stats,
        lab_alignment,
        *training_assets.values(),
        predictions,
        evaluation,
        report,
        table1,
        pretrain_ppg_gpt,
        train_encoder,
    ],
    asset_checks=asset_checks,
    jobs=jobs,
    schedules=schedules,
    sensors=sensors,
    resources={"project": Project(), "io_manager": json_step_values},
    loggers={"console": console},
    executor=chosen_executor(),
)
