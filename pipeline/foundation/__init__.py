"""Facts, files and words that everything rests on.

In: nothing.
Out: the labs and their units, errors that a user can mend, whole files, configurations as JSON, folders of an
    experiment, the bootstrap, numbers as people read them.
Never: a patient, a tensor.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["bootstrap", "errors"],
    submod_attrs={
        "artefact_notes": [
            "ArtefactNote",
            "HEADER_KEY",
            "add_checkpoint",
            "add_licences",
            "current_note",
            "noted",
            "weights_texts",
        ],
        "artefact_records": ["ArtefactRecord", "file_states", "version_of"],
        "atomic": [
            "explained_os_errors",
            "flush_folder",
            "make_private_dir",
            "publish_folder",
            "require_writable",
            "write_bytes",
            "write_json",
            "write_parquet",
            "write_text",
        ],
        "bootstrap": ["PatientSums", "index_patients"],
        "errors": [
            "CheckpointError",
            "ConfigError",
            "LabError",
            "LeakError",
            "MissingArtifactError",
            "OtherRankError",
            "OtherRunError",
            "OtherSourceError",
            "ProjectError",
            "RecordError",
            "StaleArtefactError",
            "StoreError",
        ],
        "memory": ["available_memory_bytes"],
        "number_format": [
            "UNITS",
            "count",
            "error_digits",
            "interval",
            "number",
            "p_value",
            "short_label",
            "signed",
        ],
        "overrides": ["differences", "dotted", "overridden"],
        "provenance": ["canonical_json", "config_hash", "from_plain", "to_plain", "versions"],
        "schema": [
            "ADMISSION_COLUMNS",
            "DAY_US",
            "DENSE_SUM_COLUMNS",
            "EVALUATION_COLUMNS",
            "EXAMPLE_COLUMNS",
            "HISTORY_FEATURES",
            "HOUR_US",
            "LABS",
            "LAB_EVENT_COLUMNS",
            "LAB_NAMES",
            "MAX_SEQUENCE_STEPS",
            "METHODS",
            "METHOD_LABELS",
            "METRICS",
            "PIECE_COLUMNS",
            "PREDICTION_COLUMNS",
            "PROTOCOLS",
            "QUALITY_COLUMNS",
            "SEQUENCE_COLUMNS",
            "SPLITS",
            "TARGET_COLUMNS",
            "TRAINED_METHODS",
            "WINDOW_SECONDS",
            "WINDOW_US",
        ],
        "summary": ["Scalar", "StageSummary", "load_summary"],
        "units": ["in_own_unit"],
        "workspace": ["LABS_VARIABLE", "WAVEFORMS_VARIABLE", "Workspace", "require"],
    },
)
