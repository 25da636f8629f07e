"""Tiny cohorts, sources and trainings for tests, in milliseconds; reference definitions.

In: a few numbers.
Out: what the real rooms would have made, in memory or in tiny folders; which classes fill a protocol.
Never: used by the product.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "clinical_folders",
        "cohort",
        "conformance",
        "damage",
        "emulators",
        "estimates",
        "fake_ray",
        "fake_source",
        "handmade",
        "metrics",
        "networks",
        "notes",
        "training_runs",
        "waveform_folders",
        "waveforms",
    ],
)
