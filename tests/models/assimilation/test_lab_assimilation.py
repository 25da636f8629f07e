import numpy as np
import pytest
import torch

from models.assimilation.carried import CarriedShare, CarriedShares
from models.assimilation.events import HOUR_US
from models.assimilation.known import KnownRow, Query, Result, queried
from models.assimilation.lab_assimilation import LabAssimilation, LabAssimilationConfig
from models.assimilation.lab_filter import LabFilters
from models.assimilation.parameters import FilterParameters
from models.assimilation.reading_network import ReadingNetwork, ReadingNetworkConfig
from models.assimilation.tracker import LabTracker
from models.assimilation.transform import LabTransform
from models.errors import BadAssimilationInput

MEANS = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
ENDS = np.array([HOUR_US, 2 * HOUR_US])
PLAIN = LabTransform(log=False, centre=4.0, spread=0.5)
LOG = LabTransform(log=True, centre=0.7, spread=0.4)
OWN = FilterParameters.of(drift_hours=20.0, gain=0.9)


def made() -> LabAssimilation:
    config = LabAssimilationConfig(embed_width=3, task_labs=("potassium", "lactate"), log_scale=("lactate",))
    model = LabAssimilation(config)
    model.set_lab("potassium", PLAIN, OWN, (np.array([0.5, -1.0, 0.25]), 0.1))
    model.set_lab("lactate", LOG, FilterParameters.of(), None)
    return model


def rows(model: LabAssimilation) -> list[KnownRow]:
    ends = np.array([HOUR_US, 2 * HOUR_US])
    reading = model.readings(MEANS, ends)
    results = [Result(sampled_us=0, available_us=HOUR_US // 2, value=0.8)]
    return [
        KnownRow(results=results, reading_end_us=ends, reading=reading[:, lab], lab=lab) for lab in range(2)
    ]


def test_a_reading_is_a_line_through_its_own_block_and_missing_without_one() -> None:
    reading = made().readings(MEANS, ENDS)
    assert reading[:, 0].tolist() == [0.5 + 0.5 + 0.1, -1.0 + 0.1]
    assert np.isnan(reading[:, 1]).all()
    assert made().readings(MEANS[:0], ENDS[:0]).shape == (0, 2)


def test_networks_join_the_lines_by_their_share_of_each_lab() -> None:
    size = ReadingNetworkConfig(features=2, d_model=8, n_blocks=1, d_state=2, members=2)
    labs = ("potassium", "sodium", "lactate")
    config = LabAssimilationConfig(embed_width=3, task_labs=labs, log_scale=("lactate",), network=size)
    model = LabAssimilation(config)
    for lab, line in zip(labs, ((np.ones(3), 0.1), (np.ones(3), 0.1), None), strict=True):
        model.set_lab(lab, LOG if lab == "lactate" else PLAIN, OWN, line)
    lines = model.readings(MEANS, ENDS)
    np.testing.assert_array_equal(lines, model.line_readings(MEANS))  # shares are 0
    torch.manual_seed(0)
    members = [ReadingNetwork(size, 3) for _ in range(2)]
    for member in members:
        torch.nn.init.normal_(member.head.weight)
    share = torch.tensor([0.25, 0.0, 0.5], dtype=torch.float64)
    model.network.set(np.zeros(3), np.eye(3)[:2], share, members)
    said, joined = model.network.read(MEANS, ENDS), model.readings(MEANS, ENDS)
    assert (said != 0).all()
    np.testing.assert_allclose(joined[:, 0], 0.75 * lines[:, 0] + 0.25 * said[:, 0], rtol=1e-12)
    assert joined[:, 1].tolist() == lines[:, 1].tolist()
    assert np.isnan(joined[:, 2]).all()  # no line, no reading
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_answers_are_those_of_each_labs_own_filter_in_clinical_units() -> None:
    model, query = made(), Query.anchored(np.array([HOUR_US, 3 * HOUR_US]))
    answers = model.answers(rows(model), query)
    for lab, (transform, numbers) in enumerate(((PLAIN, OWN), (LOG, FilterParameters.of()))):
        row = rows(model)[lab]
        plan = queried([KnownRow(**{**vars(row), "lab": 0})], [query])
        mean, variance = plan.answers(numbers, LabFilters.of(numbers)(plan.events))
        spread = (variance + numbers.draw_noise).sqrt() * transform.spread
        np.testing.assert_allclose(answers.median[:, lab], transform.median(mean.numpy()), rtol=1e-12)
        np.testing.assert_allclose(answers.draw_spread[:, lab], spread.numpy(), rtol=1e-12)


def test_a_share_of_the_last_result_joins_in_clinical_units_and_nothing_later_shows() -> None:
    half = CarriedShare(share=0.5, weight=0.8, centre=2.0)
    model, query = made(), Query.anchored(np.array([HOUR_US // 4, HOUR_US, 3 * HOUR_US]))
    alone = model.answers(rows(model), query)
    model.set_lab("lactate", LOG, FilterParameters.of(), None, CarriedShares(young=half, old=half))
    joined = model.answers(rows(model), query)
    assert joined.median[:, 0].tolist() == alone.median[:, 0].tolist()
    assert joined.median[0, 1] == alone.median[0, 1]  # no result is known yet
    last = float(LOG.from_scale(np.array([0.8]))[0])
    expected = 0.5 * alone.median[1:, 1] + 0.5 * (2.0 + 0.8 * (last - 2.0))
    np.testing.assert_allclose(joined.median[1:, 1], expected, rtol=1e-12)
    assert joined.draw_spread.tolist() == alone.draw_spread.tolist()
    later = Result(sampled_us=HOUR_US // 2, available_us=2 * HOUR_US, value=3.0)
    told = [KnownRow(**{**vars(row), "results": [*row.results, later]}) for row in rows(model)]
    again = model.answers(told, query).median
    assert again[:2].tolist() == joined.median[:2].tolist()
    assert (again[2] != joined.median[2]).all()


def test_a_bedside_joins_the_last_result_as_the_batch_does() -> None:
    shares = CarriedShares(
        young=CarriedShare(share=0.5, weight=0.8, centre=2.0), old=CarriedShare(share=0.75, centre=1.5)
    )
    model, times = made(), [HOUR_US // 4, HOUR_US, 9 * HOUR_US, 70 * HOUR_US]
    model.set_lab("potassium", PLAIN, OWN, (np.array([0.5, -1.0, 0.25]), 0.1), shares)
    row, tracker = rows(model)[0], LabTracker(OWN)
    for end, value in zip(row.reading_end_us.tolist(), row.reading.tolist(), strict=True):
        tracker.add_reading(end, value)
    for result in row.results:
        tracker.add_result(result)
    told = [tracker.estimate(time) for time in times]
    mean, last, hours = (
        np.array([getattr(e, name) for e in told]) for name in ("mean", "last", "last_hours")
    )
    joined = shares.joined(PLAIN.median(mean), PLAIN.from_scale(last), hours)
    batch = model.answers(rows(model), Query.anchored(np.array(times))).median[:, 0]
    np.testing.assert_allclose(joined, batch, rtol=1e-12)


def test_a_lab_that_is_the_last_result_alone_reads_no_waveform() -> None:
    model, whole = made(), CarriedShare(share=1.0, weight=0.9, centre=4.0)
    line = np.array([0.5, -1.0, 0.25]), 0.1
    for old, reads in ((CarriedShare(), True), (whole, False)):
        model.set_lab("potassium", PLAIN, OWN, line, CarriedShares(young=whole, old=old))
        assert model.reads_waveform.tolist() == [reads, False]


def test_what_was_set_comes_back() -> None:
    model = made()
    assert model.transforms == (PLAIN, LOG)
    assert model.log_scale.tolist() == [False, True]
    assert model.reads_waveform.tolist() == [True, False]
    assert model.parameters_by_lab.drift_hours.tolist() == pytest.approx([20.0, 12.0])
    assert not list(model.parameters())  # nothing learns


def test_a_scale_that_contradicts_the_configuration_and_impossible_numbers_are_refused() -> None:
    model = made()
    with pytest.raises(BadAssimilationInput, match="contradicts log_scale"):
        model.set_lab("lactate", PLAIN, OWN, None)
    model.numbers[0, 6] = -1.0
    with pytest.raises(BadAssimilationInput, match="draw_noise of row 0"):
        _ = model.parameters_by_lab
    with pytest.raises(ValueError, match="none twice"):
        LabAssimilationConfig(embed_width=3, task_labs=("sodium", "sodium"))
    with pytest.raises(ValueError, match="embed_width is 0"):
        LabAssimilationConfig(embed_width=0, task_labs=("sodium",))
