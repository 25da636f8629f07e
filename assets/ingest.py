"""Group ingest: where waveforms and labs come from."""

from assets.common import stage_asset
from pipeline import stages

synthetic_cohort = stage_asset(
    stages.synthetic_cohort,
    group="ingest",
    kinds={"wfdb", "csv"},
    description="The embedded ICU cohort: WFDB waveforms in the MIMIC-III Matched Subset layout and MIMIC-III "
    "tables, with the truth beside them. Writes nothing when you point at folders of your own.\n\n"
    "**coupling**: how far the labs follow from the physiology behind the pulse. At 0 no method can find anything.",
)
waveform_catalog = stage_asset(
    stages.waveform_catalog,
    group="ingest",
    deps=[synthetic_cohort],
    kinds={"wfdb", "parquet"},
    description="Every recording with a PPG channel (PLETH), of every patient; what was skipped stands below with its "
    "reason. How many of the recorded hours are usable shows in *ppg_embeddings*.",
)
lab_events = stage_asset(
    stages.lab_events,
    group="ingest",
    deps=[synthetic_cohort],
    kinds={"csv", "parquet"},
    description="Clean results of potassium, calcium, sodium, glucose and lactate: units brought to one, implausible "
    "values and duplicates dropped, the delay of results applied. Every drop is counted below with its reason.",
)
