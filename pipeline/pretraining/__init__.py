"""Waveforms in; encoder weights, and what they know, out.

In: open PPG and synthetic PPG.
Out: weights of PPG-GPT, and the probe's table.
Never: a lab; a patient of the probe.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["PretrainingConfig"],
        "data": ["Challenge2015", "Corpus", "divide", "synthetic_source"],
        "probe_data": ["BIDMC_LICENCE", "ProbeWindows", "bidmc_windows", "synthetic_windows"],
        "probing": ["held_out_estimates", "named", "probe", "probe_table"],
        "projection": ["ProjectionConfig", "fit_projection", "require_wider"],
        "run": ["RECORD_FILE", "WEIGHTS_FILE", "pretrain"],
    },
)
