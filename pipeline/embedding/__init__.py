"""Stage 1: windows through an encoder into the store.

In: a waveform source with its catalogue, an encoder, a store.
Out: committed embeddings of every new or changed patient, and counts of what was left out.
Never: a lab, a split, an admission.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["EmbeddingConfig", "EncodingConfig"],
        "encoders": [
            "chosen_device",
            "encoder_fields",
            "kept_encoder",
            "make_encoder",
            "prepare_for",
            "projection_file",
            "release_encoder",
            "weights_file",
        ],
        "names": ["EncoderName", "WITHOUT_READOUTS", "file_name"],
        "plan": ["EmbeddingPlan", "key_template", "plan_embedding"],
        "progress": ["ProgressMeter", "shown_progress"],
        "weights_files": ["WEIGHTS", "file_of"],
        "run": ["EmbeddingSummary", "embed", "embed_batch", "finish_embedding"],
    },
)
