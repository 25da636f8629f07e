"""Pictures of recovery: what is in the table is drawn, what is not estimable leaves a gap."""

import re

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.schema import LAB_NAMES
from pipeline.report.recovery_figures import recovery_by_size_svg, recovery_by_svg


def rows(**columns: object) -> pd.DataFrame:
    base = {
        "condition": "c",
        "coupling": 1.0,
        "emulated": False,
        "protocol": "anchored",
        "train_patients": 96,
    }
    bounds = {"recovery": 0.5, "recovery_lower": 0.4, "recovery_upper": 0.6,
              "recovery_assim": 0.7, "recovery_assim_lower": np.nan, "recovery_assim_upper": np.nan}  # fmt: skip
    return pd.DataFrame([base | bounds | columns | {"lab": lab} for lab in LAB_NAMES])


@pytest.mark.parametrize("quantity", ["known_draws", "hours_recorded", "hours_since_last_lab"])
def test_every_part_has_its_name(quantity: str) -> None:
    table = pd.concat([rows(lower_edge=low, upper_edge=high) for low, high in ((0, 2), (2, 8), (8, np.inf))])
    svg = recovery_by_svg(table, quantity)
    for name in ("0 to 2", "2 to 8", "8+", "MT+PCS", "Assimilation", *LAB_NAMES):
        assert name in svg, name


def test_sizes_are_those_of_the_emulated_cohort_where_there_is_one() -> None:
    table = pd.concat([rows(), rows(train_patients=200, emulated=True), rows(train_patients=600, emulated=True),
                       rows(train_patients=555, coupling=0.0), rows(train_patients=444, protocol="start")])  # fmt: skip
    svg = recovery_by_size_svg(table)
    shown = re.findall(r">(\d{3})<", svg)
    assert {"200", "600"} <= set(shown)
    assert not {"555", "444"} & set(shown)
    assert ">96<" in recovery_by_size_svg(table.loc[~table["emulated"]])
