import pandas as pd

from pipeline.report.initial_state import initial_state_table

ROW = {"method": "mt_pcs", "layer": "shared", "hours": 0.25, "pieces": 3, "mean": 0.5, "slowest": 0.9}


def test_each_method_and_layer_has_a_line_a_column_an_hour() -> None:
    rows = [
        ROW,
        ROW | {"hours": 4.0, "mean": 0.125, "slowest": 0.25},
        ROW | {"layer": "sodium", "mean": 0.75},
        ROW | {"method": "mt_pcs_twin"},
    ]
    text = initial_state_table(pd.DataFrame(rows))
    lines = text.splitlines()
    assert lines[1].split() == ["hours", "after", "t0", "0.25", "4"]
    assert lines[2].split() == ["MT+PCS", "shared", "0.50/0.90", "0.12/0.25"]
    assert lines[3].split() == ["MT+PCS", "sodium", "0.75/0.90"]
    assert len([line for line in lines if "/0." in line]) == 3
    assert max(map(len, lines)) <= 110


def test_without_rows_nothing_is_said() -> None:
    assert initial_state_table(pd.DataFrame()) == ""
