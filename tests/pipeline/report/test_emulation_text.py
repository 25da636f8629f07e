"""The text names the mean and the largest difference between emulated and rendered embeddings, of both tables."""

import math

import pandas as pd

from pipeline.report.emulation_text import emulation_text

TABLE = pd.DataFrame(
    [
        {"protocol": "start", "lab": lab, "n_labs": 9, "n_patients": 4, "rendered": rendered, "emulated": emulated,
         "difference": emulated - rendered, "difference_lower": -0.1, "difference_upper": 0.1, "spread": math.nan}
        for lab, rendered, emulated in (
            ("potassium", 0.5, 0.52), ("sodium", 0.4, 0.34), ("lactate", math.nan, math.nan),
        )
    ]
)  # fmt: skip
READOUTS = pd.DataFrame(
    [
        {"latent": "glucose", "rendered": 0.8, "emulated": 0.78, "spread": 0.01},
        {"latent": "tone", "rendered": 0.0, "emulated": 0.01, "spread": 0.02},
    ]
)


def test_the_largest_differences_are_named() -> None:
    methods, latents = emulation_text(TABLE, READOUTS, "about", method="fitted lines").split("R2 of latents")
    assert "R2 of fitted lines" in methods
    assert "mean difference -0.020, largest -0.060" in methods
    assert "start sodium" in methods
    assert "[-0.100, 0.100]" in methods
    assert "mean difference -0.005, largest -0.020" in latents
    assert "glucose" in latents
    assert "nan" not in methods + latents
