"""Group ingest: where waveforms and labs come from."""

from assets.common import stage_asset
from pipeline import stages

synthetic_cohort = stage_asset(
    stages.synthetic_cohort,
    group="ingest",
    kinds={"wfdb", "csv"},
    description="The embedded ICU cohort: WFDB waveforms in the MIMIC-III Matched Subset layout and MIMIC-III "
    "tables, with the truth beside them. Writes nothing when you point at folders of your own.",
)
waveform_catalog = stage_asset(
    stages.waveform_catalog,
    group="ingest",
    deps=[synthetic_cohort],
    kinds={"wfdb", "parquet"},
    description="Every usable PLETH record of every patient, and what was skipped with its reason.",
)
lab_events = stage_asset(
    stages.lab_events,
    group="ingest",
    deps=[synthetic_cohort],
    kinds={"csv", "parquet"},
    description="Clean results of the five labs: units, ranges, duplicates and result delay applied, drops counted.",
)
