from dataclasses import replace

import pandas as pd

from pipeline.foundation.schema import LAB_NAMES
from pipeline.report.claims import RULE
from pipeline.report.made_of import (
    SILENT,
    headline_text,
    made_of_sentence,
    made_of_table,
    patients_sentence,
    verdict,
)
from pipeline.training.makeup import Makeup

ROW = {"protocol": "start", "lab": "sodium", "network": 0.0, "lines": 0.6, "reading": 0.0, "history": 0.4}
LINES = Makeup(
    method="lines", numbers={"lines": 389, "history": 20}, labs=LAB_NAMES, without_waveform=("lactate",)
)


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


def test_lines_are_said_to_be_lines_in_numbers() -> None:
    told = made_of_sentence(LINES)
    assert told == (
        "Lines: four fitted lines through the waveform, 389 numbers; five fitted lines through earlier results, 20 "
        "numbers; no network after the encoder; lactate uses no waveform."
    )


def test_a_share_is_told_as_a_range_and_a_network_that_says_nothing_is_called_that() -> None:
    network = Makeup(
        method="mt_pcs", numbers={"network": 1000, "lines": 40}, labs=LAB_NAMES, without_waveform=()
    )
    silent = pd.DataFrame([ROW, ROW | {"lab": "glucose", "lines": 1.0, "history": 0.0}])
    assert (
        "five fitted lines through the waveform, 40 numbers (60 to 100 % of the variance)"
        in made_of_sentence(network, silent)
    )
    assert SILENT in made_of_sentence(network, silent)
    assert SILENT not in made_of_sentence(network, silent.assign(network=[0.0, 0.2]))
    assert SILENT not in made_of_sentence(network)  # not known yet


def test_filters_and_readers_are_named() -> None:
    filters = Makeup(
        method="mt_assim", numbers={"lines": 1285, "filters": 55}, labs=LAB_NAMES, without_waveform=()
    )
    assert "five Kalman filters of 11 numbers each" in made_of_sentence(filters)
    carried = replace(filters, carried={"lactate": (0.0, 0.25), "sodium": (1.0, 1.0)})
    told = made_of_sentence(carried)
    assert "of lactate 0 % (once it is old 25 %) is the last result, carried forward" in told
    assert "of sodium 100 % (once it is old 100 %) is the last result" in told
    reader = Makeup(method="lines", numbers={"lines": 9, "reading": 700}, labs=LAB_NAMES, without_waveform=())
    assert "no network" not in made_of_sentence(reader)  # an LSTM is one


def test_under_a_table_stand_the_tested_patients_and_the_rule(make_predictions) -> None:
    table = make_predictions(n_patients=6, methods=("locf", "mt_pcs"), splits=("test", "calibration"))
    draws = table.loc[
        (table["split"] == "test") & (table["method"] == "locf") & (table["protocol"] == "start")
    ]
    assert f"3 patients that no model has seen, {len(draws)} draws (protocol start)" in patients_sentence(
        table
    )
    text = headline_text([LINES], pd.DataFrame(), table)
    assert text.splitlines()[0].startswith("Lines: ")
    assert text.endswith(RULE)
