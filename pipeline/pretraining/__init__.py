"""Waveforms in; encoder weights, and what they know, out.

In: waveforms of any source, synthetic PPG; an encoder to be probed.
Out: weights of PPG-GPT, projections of its read-outs, the probe's table.
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
        "linear_readout": ["held_out_estimates"],
        "mix": ["CorpusMix", "corpora", "real_waveforms"],
        "probe_data": ["ProbeWindows", "bidmc_windows", "planted_windows"],
        "probe_text": ["planted_words", "probe_text", "real_words"],
        "probing": ["PlantedSize", "check_seed", "named", "plain_rows", "probe", "with_baseline"],
        "projection": ["ProjectionConfig", "fit_projection", "require_wider"],
        "run": ["RECORD_FILE", "WEIGHTS_FILE", "pretrain", "require_sizes"],
        "shape_probe": ["ShapeProbe"],
    },
)
