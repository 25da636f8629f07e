"""Which methods are judged with results that come later, and what the rows of that table are called."""

from pipeline.foundation.schema import BASELINES

DELAY_METHODS = (*BASELINES, "mt_pcs", "mt_pcs_twin")
ADDED = "mt_pcs - mt_pcs_twin"
"""Name, in column ``method``, of the rows that hold what PPG added."""
