"""An encoder without weights: hand-made measures of the pulse, the baseline of every network.

In: prepared 30 s windows at 40 Hz.
Out: 75 numbers each: rhythm, shape of the beats, breath.
Never: a weight, a look at another window.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"features": ["PulseFeatures"]})
