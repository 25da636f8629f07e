import pandas as pd

from pipeline.report.made_of import SILENT, made_of_table, verdict

ROW = {"protocol": "start", "lab": "sodium", "network": 0.0, "lines": 0.6, "reading": 0.0, "history": 0.4}


def test_each_method_has_a_line_a_protocol_and_lab_and_a_silent_network_is_named() -> None:
    rows = [
        ROW | {"method": "mt_assim"},
        ROW | {"method": "mt_pcs", "network": 0.7, "lines": 0.0, "history": 0.3},
        ROW | {"method": "mt_pcs", "lab": "potassium", "network": 0.9, "lines": 0.0, "history": 0.1},
    ]
    text = made_of_table(pd.DataFrame(rows))
    lines = [line for line in text.splitlines() if "start" in line]
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["Assimilation", "start", "sodium"]
    assert lines[0].endswith(SILENT)
    assert "potassium" in lines[1]  # labs in the schema's order
    assert not any(line.endswith(SILENT) for line in lines[1:])
    assert max(len(line) for line in text.splitlines()) <= 110


def test_constant_estimates_and_no_shares() -> None:
    assert verdict(ROW | {"network": None}) == "every estimate is the same"
    assert made_of_table(pd.DataFrame()) == ""
