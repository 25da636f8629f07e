"""Checkpoint and data in, estimates with intervals out.

In: a checkpoint, embeddings, labs so far.
Out: estimates of scored draws, and every 30 s of new patients, with calibrated intervals and states.
Never: a result or a window after the moment of the estimate.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["PredictionConfig"],
        "intervals": [
            "GAP_EDGES_HOURS",
            "Intervals",
            "coverage",
            "fit_intervals",
            "gap_labels",
            "gap_names",
            "reliability",
        ],
        "new_patients": ["predict"],
        "scoring": ["score", "score_estimator"],
    },
)
