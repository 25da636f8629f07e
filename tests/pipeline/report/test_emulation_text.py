"""The text names the mean and the largest difference between emulated and rendered embeddings."""

import pandas as pd

from pipeline.report.emulation_text import EMULATED_TOO, RENDERED, emulation_text


def test_the_largest_difference_is_named() -> None:
    rows = [
        {"encoder": kind, "protocol": "start", "lab": lab, "n_labs": 9, "r2_mt_pcs": r2, "gain": gain,
         "gain_lower": -0.1, "gain_upper": 0.1}
        for kind, lab, r2, gain in (
            (RENDERED, "potassium", 0.5, None), (RENDERED, "sodium", 0.4, None),
            (EMULATED_TOO, "potassium", 0.52, 0.02), (EMULATED_TOO, "sodium", 0.34, -0.06),
        )
    ]  # fmt: skip
    text = emulation_text(pd.DataFrame(rows), "about")
    assert "mean difference -0.020, largest -0.060" in text
    assert "start sodium" in text
