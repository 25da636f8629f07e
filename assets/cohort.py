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
    description="Which patient trains, validates (chooses the epoch), calibrates (intervals) or tests. By subject: "
    "nobody is in two splits. Drawn once from a seed and stored.",
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
    description="Which windows answer which blood draw.\n\n"
    "* **sequence**: the windows of one admission without a gap of a day, up to 7 days\n"
    "* **piece**: the part of a sequence after one start time t0, with its own initial state. Protocol *start*: one "
    "piece, from the 30th minute. Protocol *anchored*: a new piece whenever a lab result becomes available\n"
    "* **scored draws**: measured results that have a usable window shortly before them; those that found none are "
    "counted below with the reason",
)
