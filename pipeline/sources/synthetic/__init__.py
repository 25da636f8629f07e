"""A synthetic ICU cohort with a known truth, on disk like MIMIC-III.

In: one committed file of parameters, a size, a seed.
Out: WFDB records, clinical tables with defects to clean, and the truth beside them for the oracle.
Never: a parameter that was tuned to a result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cohort": ["write_cohort", "write_waveforms", "write_without_waveforms"],
        "defects": ["KINDS", "plan_defects"],
        "ideal": ["IdealReader", "ShapeReadings"],
        "law": ["ReadingErrors"],
        "parameters": ["CohortParameters"],
        "physiology": ["Course", "Stay", "morphology_at", "random_stream"],
        "plan": ["CohortPlan", "CohortSize", "claim", "patient_count", "plan_patient", "subject_id_of"],
        "ppg": ["BLOCK_SAMPLES", "SAMPLING_RATE_HZ", "amplitude_levels"],
        "tables": ["TABLE_FILES", "lab_rows", "stay_rows"],
        "truth": ["CohortTruth", "TRUTH_TABLES", "has_truth", "oracle_estimates", "truth_rows"],
        "wfdb_files": [
            "RecordPlan",
            "Segment",
            "digital_codes",
            "patient_folder",
            "plan_record",
            "plan_segments",
        ],
    },
)
