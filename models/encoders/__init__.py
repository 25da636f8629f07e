"""Window encoders: a prepared 30 s window in, an embedding out; the protocol in ``base``.

In: weights by name or path, windows at the encoder's rate.
Out: frozen embeddings, each from its own window alone, bit for bit; the networks and adapters that training moves.
Never: a file of a patient, a training loop.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["EMBED_BATCH", "Encoder", "GPU_EMBED_BATCH", "device_kind", "fixed_batch"],
        "lab_heads": ["LabHeads"],
        "lora": ["add_lora", "merge_lora"],
        "papagei": ["PaPaGeiS"],
        "part_names": ["PARTS_INDEX", "first_part", "holds_parts", "part_name"],
        "ppg_gpt": [
            "PPGGPT",
            "PPGGPTConfig",
            "PPG_GPT_SCALES",
            "Precision",
            "WINDOW_SAMPLES",
            "fast_precision",
            "scale_of",
        ],
        "ppg_gpt_frozen": ["Affine", "Product", "product"],
        "ppg_gpt_layers": ["CausalAttention"],
        "projection": ["Projection"],
        "pulse_ppg": ["PulsePPG"],
        "readout_names": ["KINDS", "READOUTS", "SPREAD"],
    },
)
