import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.assimilation.carried import (
    OLD_HOURS,
    YOUNG_HOURS,
    CarriedShare,
    CarriedShares,
    last_known,
)
from models.assimilation.events import HOUR_US
from models.assimilation.known import Query, Result
from models.errors import BadAssimilationInput

FILTERED, LAST, HOURS = np.array([4.0, 5.0, 3.0]), np.array([5.0, 4.5, np.nan]), np.array([2.0, 60.0, np.nan])


def both(**numbers) -> CarriedShares:
    return CarriedShares(young=CarriedShare(**numbers), old=CarriedShare(**numbers))


def test_special_cases_are_locf_and_shrunk_locf() -> None:
    locf = both(share=1.0, weight=1.0, centre=9.0)
    assert locf.joined(FILTERED, LAST, HOURS).tolist() == [5.0, 4.5, 3.0]
    shrunk = both(share=1.0, weight=0.6, centre=4.2)
    np.testing.assert_allclose(
        shrunk.joined(FILTERED, LAST, HOURS)[:2], 0.4 * 4.2 + 0.6 * LAST[:2], rtol=1e-14
    )
    decayed = both(share=1.0, weight=1.0, decay_per_hour=0.1, centre=4.2)
    expected = 4.2 + np.exp(-0.1 * HOURS[:2]) * (LAST[:2] - 4.2)
    np.testing.assert_allclose(decayed.joined(FILTERED, LAST, HOURS)[:2], expected, rtol=1e-14)


def test_without_a_share_or_a_result_it_is_the_filters_to_the_bit() -> None:
    assert CarriedShares().joined(FILTERED, LAST, HOURS) is FILTERED
    assert both(share=0.75, weight=0.3, centre=2.0).joined(FILTERED, LAST, HOURS)[2] == FILTERED[2]


def test_a_share_passes_evenly_from_young_to_old() -> None:
    shares = CarriedShares(
        young=CarriedShare(share=1.0, weight=1.0), old=CarriedShare(share=1.0, weight=0.0, centre=4.0)
    )
    hours = np.array([0.0, YOUNG_HOURS, (YOUNG_HOURS + OLD_HOURS) / 2, OLD_HOURS, 500.0])
    joined = shares.joined(np.full(5, 7.0), np.full(5, 6.0), hours)
    assert joined.tolist() == [6.0, 6.0, 5.0, 4.0, 4.0]


def test_what_a_result_counts_is_told_by_its_age() -> None:
    shares = CarriedShares(young=CarriedShare(share=0.5), old=CarriedShare(share=1.0))
    hours = np.array([np.nan, 0.0, (YOUNG_HOURS + OLD_HOURS) / 2, OLD_HOURS])
    assert shares.counted(hours).tolist() == [0.0, 0.5, 0.75, 1.0]
    assert not shares.whole
    assert both(share=1.0).whole


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 5),
    st.floats(0.1, 500),
    st.floats(0.1, 500),
    st.floats(0, 900),
)
def test_an_estimate_stays_between_what_it_is_made_of(share, weight, decay, centre, last, hours) -> None:
    """So that no lab on a log scale is ever estimated at 0 or below."""
    one = both(share=share, weight=weight, decay_per_hour=decay, centre=centre)
    (estimate,) = one.joined(np.array([2.0]), np.array([last]), np.array([hours]))
    ends = (2.0, last, centre)
    assert min(ends) * (1 - 1e-12) <= estimate <= max(ends) * (1 + 1e-12)


def test_what_was_set_comes_back_and_what_cannot_be_is_refused() -> None:
    shares = CarriedShares(young=CarriedShare(share=0.25, weight=0.5, decay_per_hour=0.1, centre=4.0))
    assert CarriedShares.of(shares.numbers) == shares
    for wrong in ({"share": 1.5}, {"weight": -0.1}, {"decay_per_hour": -1.0}, {"centre": float("nan")}):
        with pytest.raises(BadAssimilationInput, match=r"of the last result|The last result decays"):
            CarriedShare(**wrong)


@st.composite
def told(draw):
    results = []
    for sampled in draw(st.lists(st.integers(0, 20), max_size=5, unique=True)):
        known = sampled + draw(st.integers(0, 12))
        for _ in range(draw(st.integers(1, 3))):
            value = draw(st.one_of(st.just(float("nan")), st.floats(-3, 3)))
            results.append(Result(sampled_us=sampled * HOUR_US, available_us=known * HOUR_US, value=value))
            known += draw(st.integers(1, 8))
    return draw(st.permutations(results)), draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))


@given(told())
def test_the_last_result_is_the_latest_draw_whose_standing_version_is_known(case) -> None:
    results, times = case
    at = np.array([max(pair) * HOUR_US for pair in times], np.int64)
    known = np.array([min(pair) * HOUR_US for pair in times], np.int64)
    value, hours = last_known(results, Query(at_us=at, known_us=known))
    for i in range(len(times)):
        stands = {}
        for r in sorted(results, key=lambda r: r.available_us):
            if r.available_us <= known[i]:
                stands[r.sampled_us] = r
        left = {when: r for when, r in stands.items() if not np.isnan(r.value)}
        if left:
            newest = max(left)
            assert (value[i], hours[i]) == (left[newest].value, (at[i] - newest) / HOUR_US)
        else:
            assert np.isnan([value[i], hours[i]]).all()
