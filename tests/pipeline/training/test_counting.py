"""What a method is made of is counted from its own weights."""

from dataclasses import replace

import torch

from models.assimilation.lab_assimilation import LabAssimilation, LabAssimilationConfig
from models.assimilation.parameters import NAMES
from models.assimilation.reading_network import ReadingNetworkConfig
from models.regressor.lab_lines import LabLines, LabLinesConfig
from pipeline.foundation.schema import LAB_NAMES
from pipeline.testing.training_runs import CONFIG, run
from pipeline.training.counting import carried_of, counted, makeup_of


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


def filters(share: float, gain: float) -> LabAssimilation:
    network = ReadingNetworkConfig(features=2, d_model=4, n_blocks=1, d_state=2, members=2)
    model = LabAssimilation(
        LabAssimilationConfig(embed_width=3, task_labs=("sodium", "glucose"), network=network)
    )
    model.has_line[0], model.line_weight[0] = True, torch.ones(3)
    model.numbers[:, NAMES.index("gain")] = gain
    model.network.share[0] = share
    return model


def test_networks_that_a_filter_heeds_are_counted() -> None:
    heeding = filters(share=0.5, gain=0.7)
    numbers, silent = counted(heeding, ("sodium", "glucose"))
    weights = sum(weight.numel() for weight in heeding.network.members.parameters())
    assert numbers == {"network": weights, "lines": 4, "filters": 2 * len(NAMES)}
    assert silent == ["glucose"]
    assert counted(filters(share=0.0, gain=0.7), ("sodium", "glucose"))[0]["network"] == 0


def test_a_filter_that_readings_tell_nothing_uses_no_waveform() -> None:
    numbers, silent = counted(filters(share=0.5, gain=0.0), ("sodium", "glucose"))
    assert silent == ["sodium", "glucose"]
    assert (numbers["network"], numbers["lines"]) == (0, 0)


def test_what_the_last_result_counts_is_told_of_the_labs_of_which_it_counts() -> None:
    model = filters(share=0.5, gain=0.7)
    assert carried_of(model, ("sodium", "glucose")) == {}
    model.carried[1, 1] = torch.tensor([0.25, 1.0, 0.0, 5.0])
    assert carried_of(model, ("sodium", "glucose")) == {"glucose": (0.0, 0.25)}
    assert carried_of(lines(), LAB_NAMES) == {}


def test_a_trained_networks_numbers_add_up(cohort, tmp_path) -> None:
    run(cohort, tmp_path, "mt_pcs", replace(CONFIG, epochs=1))
    found = makeup_of(tmp_path)
    assert found.method == "mt_pcs"
    assert found.labs == LAB_NAMES
    assert found.without_waveform == ()
    assert set(found.numbers) == {"network"}
    assert found.numbers["network"] > 1000
