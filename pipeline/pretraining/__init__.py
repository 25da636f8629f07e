"""Waveforms in; encoder weights, and what they know, out.

In: waveforms of any source, synthetic PPG.
Out: weights of PPG-GPT, also in parts, projections of its read-outs, and what ``probing`` says of them.
Never: a lab; weights trained on a patient of the probe.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["PretrainingConfig"],
        "data": [
            "Corpus",
        ],
        "mix": ["CorpusMix", "corpora", "real_waveforms"],
        "parts": ["MEBIBYTE", "require_free", "write_parts"],
        "projection": ["ProjectionConfig", "fit_projection", "require_wider"],
        "run": ["RECORD_FILE", "WEIGHTS_FILE", "pretrain", "require_sizes"],
    },
)
