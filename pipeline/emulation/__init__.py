"""True physiology in, embeddings out, without a waveform; fitted on rendered windows for any encoder.

In: a synthetic cohort's physiology, an encoder.
Out: the emulator's file, its comparison with rendered windows (its text too: `report` lies above), whole emulated
    cohorts.
Never: a real patient.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "check": ["CHECK_BURSTS", "TOLERANCE", "compare_readouts", "readout_table"],
        "cohort": ["EMULATED_LICENCE", "EmulatedCohort", "write_emulated_cohort"],
        "fit": ["EmulatorFitConfig", "emulator_key", "fit_emulator"],
        "model": ["EMULATED", "Emulator", "EmulatorKey", "TENSORS_FILE", "emulator_folder"],
        "running_means": ["compare_running_means"],
        "same_windows": ["SameWindows"],
        "rendered": ["BurstPlan", "RenderedWindows", "render_windows", "rendered_patient"],
    },
)
