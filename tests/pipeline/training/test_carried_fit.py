"""What the last result counts: nothing where the filter is right, much where histories are not its kind."""

import numpy as np
import pytest

from models.assimilation.carried import CarriedShare, CarriedShares
from models.assimilation.events import DRAW, READING
from models.assimilation.parameters import FilterParameters
from models.assimilation.transform import LabTransform
from models.testing.planted_labs import TYPICAL, planted_row
from pipeline.foundation.schema import HOUR_US
from pipeline.labs.history import LabSeries
from pipeline.training.carried_fit import Pairs, fit_carried
from pipeline.training.lab_events import LabEvents
from pipeline.training.patient import TrainingPatient
from pipeline.training.ten_minute_means import BlockMeans

SCALE = LabTransform(log=False, centre=4.0, spread=0.5)
BLOCKS_US = np.arange(1, 6 * 30, dtype=np.int64) * HOUR_US // 6


def patient(time_us, value, end_us=BLOCKS_US, number=0) -> TrainingPatient:
    when = np.asarray(time_us, np.int64)
    series = LabSeries(value=np.asarray(value, float), sampled_us=when, available_us=when)
    means = BlockMeans(end_us=end_us, mean=np.zeros((len(end_us), 1)))
    return TrainingPatient(
        features=means, series={"sodium": series}, oldest_us=-(10**15), fold=0, number=number
    )


def lab_of(patients, readings=None, scale=SCALE) -> LabEvents:
    return LabEvents(name="sodium", training=patients, transform=scale, readings=readings)


def planted(n: int, rng: np.random.Generator, scale=SCALE) -> LabEvents:
    """Return patients who follow the filter's law, with readings; their recordings begin after six hours."""
    patients, readings = [], []
    for number in range(n):
        row = planted_row(rng, TYPICAL, 30.0, 12).ordered()
        drawn, read = row.kind == DRAW, row.kind == READING
        value, recorded = scale.from_scale(row.value[drawn]), row.time_us[read] > 6 * HOUR_US
        patients.append(patient(row.time_us[drawn], value, row.time_us[read][recorded], number))
        readings.append(row.value[read][recorded])
    return lab_of(patients, readings, scale)


@pytest.mark.parametrize("scale", [SCALE, LabTransform(log=True, centre=0.7, spread=0.7)])
def test_of_labs_that_follow_the_filters_law_the_last_result_counts_nothing(scale) -> None:
    """Of logarithms too, where the filter's medians lie below the means that squares would have."""
    for seed in range(4):
        assert (
            fit_carried(planted(120, np.random.default_rng(seed), scale), TYPICAL, {}, 20) == CarriedShares()
        )


def test_where_the_filter_draws_everybody_to_the_mean_the_last_result_counts() -> None:
    rng, deaf = np.random.default_rng(2), FilterParameters.of(level_variance=1e-4, drift_variance=1e-4)
    times = np.arange(1, 13, dtype=np.int64) * 2 * HOUR_US
    told = lab_of([patient(times, rng.normal(4, 2) + 0.1 * rng.normal(size=12)) for _ in range(30)])
    found = fit_carried(told, deaf, {}, 20)
    assert (found.young.share, found.young.weight) == pytest.approx((1.0, 1.0), abs=0.051)
    assert found.old == CarriedShare()  # nobody had a result before the recording


def test_an_old_results_share_is_that_of_draws_which_know_none_since_the_recording_began() -> None:
    rng, wrong = np.random.default_rng(3), FilterParameters.of(draw_mean=-3.0, level_variance=1e-4)
    times = np.arange(-1, 12, dtype=np.int64) * 2 * HOUR_US
    told = lab_of([patient(times, rng.normal(4, 1, size=13)) for _ in range(30)])
    begun = Pairs.of(told, wrong, {}, known_before=True)
    assert sorted(set(begun.hours)) == [float(h) for h in range(2, 23, 2)]  # since the draw at 0
    assert begun.last.tolist() == [p.draws("sodium")[1][1] for p in told.training for _ in range(11)]
    found = fit_carried(told, wrong, {}, 20).old
    assert found.share == 1.0
    assert found.weight < 0.3  # what is drawn anew says little
    assert found.centre == pytest.approx(4.0, abs=0.2)


def test_draws_after_the_beginning_are_left_out_but_judged() -> None:
    told = lab_of([patient(np.array([-HOUR_US, HOUR_US, 2 * HOUR_US]), [5.0, 9.0, 9.0])])
    events = told.of({}, known_before=True)
    assert events.drawn.sum() == 1
    assert (events.kind == DRAW).sum() == 3
    later = lab_of([patient(np.array([-HOUR_US, HOUR_US, 2 * HOUR_US]), [5.0, 1.0, 2.0])])
    one, other = (Pairs.of(x, TYPICAL, {}, known_before=True) for x in (told, later))
    assert one.filtered.tolist() == other.filtered.tolist()


def test_draws_without_a_waveform_or_an_earlier_result_are_left_out() -> None:
    away = np.array([40 * HOUR_US, 41 * HOUR_US])  # an hour and more after the last block
    told = lab_of([patient(away, [4.0, 5.0]), patient(np.array([HOUR_US]), [4.0]), patient([], [])])
    assert not len(Pairs.of(told, TYPICAL, {}, known_before=False))
    assert fit_carried(told, TYPICAL, {}, 20) == CarriedShares()


def test_chance_in_a_few_patients_gives_no_share() -> None:
    few = [
        fit_carried(planted(n, np.random.default_rng(seed)), TYPICAL, {}, 20)
        for n in (12, 30)
        for seed in range(8)
    ]
    assert not any(shares.any for shares in few[:8])
    assert sum(shares.any for shares in few[8:]) <= 2


def test_labs_that_do_not_differ_give_no_share_and_of_equal_weights_the_greatest_is_taken() -> None:
    times = np.arange(1, 13, dtype=np.int64) * 2 * HOUR_US
    wrong = FilterParameters.of(draw_mean=2.0, level_variance=1e-4, drift_variance=1e-4)
    alike = lab_of([patient(times, np.full(12, 5.0)) for _ in range(20)])
    assert fit_carried(alike, wrong, {}, 20) == CarriedShares()
    constant = lab_of([patient(times, np.full(12, 4.0 + 0.1 * i)) for i in range(20)])
    assert fit_carried(constant, wrong, {}, 20).young.weight == 1.0
