"""The sequence model: embeddings of a stay in, one estimate a step and lab out.

In: a pack of pieces with histories and pooled waveforms.
Out: scaled estimates, losses, states that a stream carries on.
Never: a file, a clinical unit.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["FIVE_LABS", "LabRegressorConfig"],
        "inputs": ["PackedInputs"],
        "lab_lines": ["LabLines", "LabLinesConfig"],
        "lab_regressor": ["LabRegressor"],
        "losses": ["parameter_groups", "uncertainty_weighted_l1", "weighted_error_sums", "weighted_l1"],
        "lstm": ["WindowLSTM", "WindowLSTMConfig"],
        "mamba_block": ["Mamba", "MambaBlock", "MambaConfig", "MambaState"],
        "patient_state": ["PatientState"],
        "slow_features": ["SlowFeatures"],
        "waveform_readout": ["WaveformReadout"],
        "window_reader": ["N_WINDOWS", "WindowReader"],
    },
)
