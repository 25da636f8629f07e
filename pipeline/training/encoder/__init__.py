"""An encoder tuned on labs: draws with the windows before them in, the weights of an ordinary encoder out.

In: a PPG-GPT, the aligned cohort, the recordings of training and validation patients.
Out: its weights with low-rank updates folded in, and whom they know, in salted hashes; resumable to the bit.
Never: a window or a label of a calibration or test patient.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["ENCODER_FIELDS_OF_THE_MACHINE", "EncoderTrainingConfig"],
        "draws": ["EncoderDraws", "draws_with_windows"],
        "judging": ["Judgement", "judge"],
        "run": [
            "EncoderTrainingState",
            "TunedDraws",
            "UNFINISHED",
            "mean_features",
            "scaled_targets",
            "tune",
        ],
        "weights": ["WEIGHTS_FILE", "check_tunable", "read_record", "save_projection", "save_record"],
        "windows": ["cached_windows", "forget_windows", "readable_patients"],
    },
)
