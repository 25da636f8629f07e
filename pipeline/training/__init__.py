"""Pieces in, checkpoints out.

In: the aligned cohort, its embeddings and scaling.
Out: weights with all that made them, resumable to the bit; and the forward pass that estimating shares.
Never: learns from a test patient.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["PieceSource"],
        "checkpoints": [
            "LoadedModel",
            "check_encoder",
            "check_encoding",
            "checkpoint_folders",
            "encoding_of",
            "load_model",
            "model_tensors",
            "weights_sha256",
        ],
        "closed_form_config": ["AssimilationShape", "LinesShape"],
        "config": ["FIELDS_OF_THE_MACHINE", "TrainingConfig", "TrainingProgress", "TrainingResult"],
        "counting": ["makeup_of"],
        "curves": ["kept_epochs", "read_curves", "write_curves"],
        "dataset": ["PieceItem", "pack", "scale_history"],
        "distributed": ["Ranks", "joined_ranks", "pick_device"],
        "embedding_cache": ["CachedPatient", "EmbeddingCache"],
        "estimated": ["Estimated"],
        "filter_forecaster": ["FilterForecaster", "PatientFilter", "oldest_draw"],
        "forecaster": ["AnyForecaster", "Forecaster", "forecaster_of"],
        "hardware": ["autocast", "seeded"],
        "initial_state": ["SURVIVAL_COLUMNS", "survival"],
        "inference": ["estimate_piece", "estimate_windows"],
        "makeup": ["Makeup"],
        "method": ["train"],
        "reading_network_config": ["ReadingNetworkShape"],
        "resume": ["RESUME_FILE", "load_resume", "progress_of", "read_resume", "save_resume"],
        "ridge": ["FOLDS", "Ridge", "ridge"],
        "schedule": ["learning_rate", "plan_epoch", "seed_of"],
        "shares": ["MOST_PATIENTS", "SHARE_COLUMNS", "shares"],
        "ten_minute_means": ["BlockReader"],
        "trailing": ["trailing_windows"],
    },
)
