"""Numbers as printed."""

import math

import pytest

from pipeline.foundation.number_format import (
    ABSENT,
    count,
    counted,
    interval,
    number,
    p_value,
    short_label,
    signed,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.126, "0.13"),
        (-0.126, "-0.13"),
        (-0.001, "0.00"),
        (math.nan, ABSENT),
        (None, ABSENT),
        (math.inf, "unbounded"),
    ],
)
def test_number(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.126, "+0.13"), (-0.126, "-0.13"), (0.001, "0.00"), (math.nan, ABSENT)]
)
def test_signed(value, shown):
    assert signed(value) == shown


def test_interval():
    assert interval(-0.1, 0.25) == "[-0.10, 0.25]"
    assert interval(math.nan, 0.25) == ABSENT


def test_count_and_p():
    assert count(12345.0) == "12 345"
    assert count(math.nan) == ABSENT
    assert p_value(0.0004) == "< 0.001"
    assert p_value(0.0123) == "0.012"


def test_labels():
    assert short_label("live_locf") == "Live LOCF"
    assert short_label("mt_pcs_permuted") == "mt_pcs_permuted"


@pytest.mark.parametrize(
    ("n", "things", "shown"),
    [
        (1, "patients", "1 patient"),
        (0, "patients", "0 patients"),
        (1285, "numbers", "1 285 numbers"),
        (1, "draws, protocol start", "1 draw, protocol start"),
        (1, "training runs", "1 training run"),
        (None, "draws", f"{ABSENT} draws"),
    ],
)
def test_one_thing_is_not_several(n, things, shown):
    assert counted(n, things) == shown
