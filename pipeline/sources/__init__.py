"""Somebody's folders in, records and lab rows out: one adapter a file, the protocols in ``base``.

In: WFDB, NPY or Parquet waveforms, BIDMC, the Challenge's archive; lab tables of MIMIC-III, MEDS or any hospital;
    or a synthetic cohort's plan.
Out: a catalogue of records, their samples stretch by stretch, raw clinical tables, what has landed.
Never: a window, a clean lab, a network.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["content_hashes"],
    submod_attrs={
        "array_folder": ["ArrayFolder"],
        "base": [
            "Catalog",
            "ClinicalSource",
            "ClinicalTables",
            "Record",
            "Stretch",
            "UNKNOWN_RAILS",
            "WaveformSource",
            "in_time_order",
        ],
        "bidmc": ["BIDMC_LICENCE", "Bidmc", "NUMERICS"],
        "catalog": ["catalogued_patients", "load_catalog", "release_catalog", "save_catalog"],
        "challenge2015": ["Challenge2015"],
        "content_hashes": [
            "CACHE_FILE",
            "ContentDigest",
            "SourceHashes",
            "SourceState",
            "fingerprint",
            "forget_hash",
            "is_settled",
            "source_state",
        ],
        "csv_stream": ["find_table", "stream_csv"],
        "detect": ["DESCRIPTION", "open_clinical", "open_waveforms"],
        "landing": ["labs_state", "landing_state", "quiet_seconds_from_environment"],
        "mimic3": ["Mimic3Tables", "Mimic3Waveforms"],
        "rows": ["column", "normalise_patient_id", "parse_times_us"],
    },
)
