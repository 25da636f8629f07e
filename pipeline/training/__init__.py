"""Pieces in, checkpoints out.

In: the aligned cohort, its embeddings and scaling; to tune an encoder, its weights and the waveforms before draws.
Out: weights with all that made them, resumable to the bit; and the forward pass that estimating shares.
Never: a test patient.
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
        "config": ["FIELDS_OF_THE_MACHINE", "TrainingConfig", "TrainingProgress", "TrainingResult"],
        "curves": ["kept_epochs", "read_curves", "write_curves"],
        "dataset": ["PieceItem", "pack", "scale_history"],
        "distributed": ["Ranks", "joined_ranks", "pick_device"],
        "embedding_cache": ["CachedPatient", "EmbeddingCache"],
        "encoder_config": ["ENCODER_FIELDS_OF_THE_MACHINE", "EncoderTrainingConfig"],
        "encoder_draws": ["EncoderDraws", "draws_with_windows"],
        "encoder_judge": ["Judgement", "judge"],
        "encoder_run": [
            "EncoderTrainingState",
            "TunedDraws",
            "UNFINISHED",
            "mean_features",
            "scaled_targets",
            "tune",
        ],
        "encoder_weights": ["WEIGHTS_FILE", "check_tunable", "read_record", "save_projection", "save_record"],
        "encoder_windows": ["cached_windows", "forget_windows", "readable_patients"],
        "forecaster": ["Forecaster"],
        "hardware": ["autocast", "seeded"],
        "inference": ["estimate_piece", "estimate_windows"],
        "method": ["train"],
        "resume": ["RESUME_FILE", "load_resume", "progress_of", "read_resume", "save_resume"],
        "schedule": ["learning_rate", "plan_epoch", "seed_of"],
        "trailing": ["trailing_windows"],
    },
)
