"""What a method is made of is counted from its own weights."""

from dataclasses import replace

import torch

from models.regressor.lab_lines import LabLines, LabLinesConfig
from pipeline.foundation.schema import LAB_NAMES
from pipeline.testing.training_runs import CONFIG, run
from pipeline.training.counting import counted, makeup_of


def lines() -> LabLines:
    return LabLines(LabLinesConfig(embed_width=6, mean_steps=(20.0, 60.0)))


def test_a_lab_without_a_line_through_the_waveform_is_named() -> None:
    model = lines()
    with torch.no_grad():
        model.waveform.line.weight[:4] = 1.0
        model.history_line[:] = 1.0
        model.bias[:] = 1.0
    numbers, silent = counted(model, LAB_NAMES)
    assert silent == ["lactate"]
    assert numbers == {"lines": 4 * 12 + 5, "reading": 0, "history": 20}


def test_a_trained_networks_numbers_add_up(cohort, tmp_path) -> None:
    run(cohort, tmp_path, "mt_pcs", replace(CONFIG, epochs=1))
    found = makeup_of(tmp_path)
    assert found.method == "mt_pcs"
    assert found.labs == LAB_NAMES
    assert found.without_waveform == ()
    assert set(found.numbers) == {"network"}
    assert found.numbers["network"] > 1000
