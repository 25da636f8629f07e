"""Records in, usable 30 s windows with their quality out.

In: stretches of samples.
Out: windows at the encoder's rate, each from its own samples alone, with quality scores.
Never: a look at a neighbour, at a lab, or past the window's end.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cutting": ["RawWindows", "WindowConfig", "iterate_windows"],
        "decoding": ["CHANGED", "EndOfPatient", "Prepare", "PreparedWindows", "UNREADABLE", "decoded"],
        "quality": ["window_quality"],
        "resample": ["prepare_ppg_gpt", "replace_rails"],
    },
)
