"""Every result corrects what follows: a small Kalman filter a lab over draws and the waveform's readings of it.

In: draws and readings of a lab with their times, on the filter's scale; eleven numbers a lab.
Out: mean and variance of the lab at any time, from what was known at that time; the likelihood, differentiable.
Never: a result before it was available, a file, a waveform.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "carried": ["CarriedShare", "CarriedShares", "last_known"],
        "config": ["AssimilationConfig", "FitConfig"],
        "events": ["DRAW", "Events", "HOUR_US", "Row", "pack_rows"],
        "fitting": ["FITTED", "Fit", "fit_lab"],
        "judged": ["judged_draws"],
        "lab_assimilation": ["Answers", "LabAssimilation", "LabAssimilationConfig", "joined_reading"],
        "lab_filter": ["LabFilters"],
        "known": ["KnownRow", "Query", "Result"],
        "parameters": ["FilterParameters", "NAMES"],
        "reading_network": [
            "ReadingNetwork",
            "ReadingNetworkConfig",
            "gaps",
            "read_alone",
        ],
        "scan": ["filter_events", "log_likelihood"],
        "transform": ["LabTransform", "fit_transform"],
    },
)
