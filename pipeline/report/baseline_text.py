"""What carrying the last lab forward achieves on real labs, as text."""

import numpy as np
import pandas as pd


def baseline_table(baselines: pd.DataFrame) -> str:
    """Return R2 by lab and method as fixed-width text."""
    heads = {
        ("locf", "none"): "LOCF",
        ("shrunk_locf", "same_data"): "shrunk (same data)",
        ("shrunk_locf", "cross_validated"): "shrunk (other patients)",
        ("decayed_locf", "cross_validated"): "decayed (other patients)",
        ("patient_mean", "none"): "patient mean",
    }
    lines = [f"{'R2':<10} {'n':>5} {'patients':>8}  " + "  ".join(heads.values())]
    for lab, table in baselines.groupby("lab", sort=False):
        r2 = table.set_index(["method", "fit"])["r2"]
        cells = [f"{r2.get(key, np.nan):{len(head)}.2f}" for key, head in heads.items()]
        n, patients = table["n_labs"].iloc[0], table["n_patients"].iloc[0]
        lines.append(f"{lab:<10} {n:>5} {patients:>8}  " + "  ".join(cells))
    return "\n".join(lines)
