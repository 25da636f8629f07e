"""Checkpoint and data in, estimates with intervals out.

In: a checkpoint, embeddings, labs so far.
Out: estimates of scored draws, and every 30 s of new patients, with calibrated intervals and states.
Never: a result before it was available or a window after the moment of the estimate, but where a preset repeats
    published work and says so; at the bedside never.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["estimates_file"],
    submod_attrs={
        "config": ["HISTORY_ONLY", "NO_HISTORY", "NO_SIGNAL", "PredictionConfig", "STALE"],
        "dense_scoring": ["score_dense", "score_estimators_dense"],
        "explanations": ["explain", "made_of"],
        "files": ["PredictionWriter", "read_dense_sums", "read_predictions"],
        "intervals": ["GIVEN", "INTERVAL_STATE", "Intervals", "NO_ESTIMATE", "NO_INTERVALS", "fit_intervals"],
        "new_patients": ["Predictor", "predict"],
        "one_patient": ["OnePatient", "read_one_patient"],
        "protocols": ["bedside_protocol", "protocols_of"],
        "scoring": ["patients_of", "score", "score_estimator"],
    },
)
