"""A synthetic ICU cohort with a known truth, on disk like MIMIC-III.

In: one committed file of parameters, a size, a seed.
Out: WFDB records, clinical tables with defects to clean, and the truth beside them for the oracle.
Never: a parameter that was tuned to a result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cohort": ["write_cohort"],
        "parameters": ["CohortParameters"],
        "physiology": ["morphology_at"],
        "plan": ["CohortPlan", "CohortSize", "plan_patient"],
        "truth": ["CohortTruth", "oracle_estimates"],
    },
)
