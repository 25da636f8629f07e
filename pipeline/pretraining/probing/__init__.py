"""What a frozen embedding of one window knows: linear read-outs of planted shape and of real patients' rates.

In: any encoder; planted patients of the probe's own seed, BIDMC.
Out: a row an encoder, each number with its interval over patients, and the table as text, which pretraining writes
    into a model card without `report`.
Never: a patient of an experiment or of pretraining; an estimate by a line that has seen its patient.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "linear_readout": ["held_out_estimates"],
        "rows": ["PlantedSize", "check_seed", "named", "plain_rows", "probe", "with_baseline"],
        "shape": ["ShapeProbe"],
        "text": ["planted_words", "probe_text", "real_words"],
        "windows": ["ProbeWindows", "bidmc_windows", "planted_windows"],
    },
)
