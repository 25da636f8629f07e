"""What tests of models are made of: small ones, made-up inputs, planted truth, references by brute force.

In: a few numbers, a seed.
Out: models, their inputs, and the answers that are known to be right.
Never: used by the product.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["dense_posterior", "planted_labs", "regressor"]
)
