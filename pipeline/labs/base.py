"""What every estimate without weights offers: values carried forward, and what two numbers a lab make of them."""

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float


@runtime_checkable
class CarryForward(Protocol):
    """A method that needs nothing but the examples."""

    def estimate(self, examples: pd.DataFrame) -> Float[np.ndarray, " examples"]:
        """Return one estimate for each of ``schema.EXAMPLE_COLUMNS``' rows, clinical units, never NaN."""
        ...
