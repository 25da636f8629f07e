"""Group align: who is in which split, how labs are scaled, and which window answers which draw."""

from assets.common import stage_asset
from assets.embeddings import ppg_embeddings
from assets.ingest import lab_events, waveform_catalog
from pipeline import stages

cohort_splits = stage_asset(
    stages.cohort_splits,
    group="align",
    deps=[waveform_catalog],
    kinds={"json"},
    description="Train, validation, calibration and test, by subject, seeded and stored.",
)
normalization_stats = stage_asset(
    stages.normalization_stats,
    group="align",
    deps=[lab_events, cohort_splits],
    kinds={"json"},
    description="Lowest and highest value of each lab among training patients: the only scaling the models know.",
)
lab_alignment = stage_asset(
    stages.lab_alignment,
    group="align",
    deps=[ppg_embeddings, lab_events, cohort_splits],
    kinds={"parquet"},
    description="Sequences of windows, pieces of both protocols, training targets, history, and the scored draws.",
)
