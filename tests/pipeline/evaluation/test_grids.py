"""Zones on their borders, MARD and allowable errors by hand."""

import math

import numpy as np
import pytest

from pipeline.evaluation import grids

# reference, estimate, zone: inside, and on each border of Clarke's grid
CLARKE = [
    (100, 100, "A"), (100, 120, "A"), (100, 120.01, "B"), (100, 80, "A"), (100, 79.99, "B"),
    (60, 69.99, "A"), (60, 72, "A"), (60, 72.5, "D"), (50, 70, "D"), (69.9, 100, "D"), (70, 100, "B"),
    (60, 179.99, "D"), (60, 180, "E"), (70, 180, "E"), (70.1, 180, "B"), (71, 181.01, "C"), (100, 210, "B"),
    (100, 210.01, "C"), (180, 70, "E"), (180, 70.01, "B"), (300, 70, "E"), (241, 100, "D"), (240, 100, "B"),
    (240, 179.99, "B"), (300, 180, "B"), (150, 28, "B"), (150, 27.99, "C"), (130, 0, "B"), (129.9, 1, "B"),
    (179.99, 69.9, "C"), (241, 192.8, "A"),
]  # fmt: skip

# vertices and mid-borders of the Parkes grid: on the border the better zone, a hair beyond the worse
PARKES = [
    (30, 50, "A"), (30, 50.01, "B"), (140, 170, "A"), (140, 170.01, "B"), (85, 110, "A"), (85, 110.01, "B"),
    (280, 380, "A"), (280, 380.01, "B"), (10, 60, "B"), (10, 60.01, "C"), (70, 110, "B"), (70, 110.01, "C"),
    (25, 100, "C"), (25, 100.01, "D"), (80, 215, "C"), (80, 215.01, "D"), (35, 155, "D"), (35, 155.01, "E"),
    (0, 150, "D"), (0, 150.01, "E"), (50, 30, "A"), (50, 0, "A"), (50.01, 29.9, "B"), (170, 145, "A"),
    (170, 144.99, "B"), (385, 300, "A"), (385, 299.99, "B"), (120, 0, "B"), (120.01, 29.9, "C"),
    (260, 130, "B"),
    (260, 129.99, "C"), (250, 40, "C"), (250.01, 39.9, "D"), (550, 150, "C"), (550, 149.99, "D"),
    # beyond the printed grid the last piece goes on: slope of upper B is 170 / 150
    (580, 720, "A"), (580, 720.01, "B"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "estimate", "zone"), CLARKE)
def test_clarke(reference, estimate, zone):
    assert grids.clarke_zones(np.array([float(reference)]), np.array([float(estimate)]))[0] == zone


@pytest.mark.parametrize(("reference", "estimate", "zone"), PARKES)
def test_parkes(reference, estimate, zone):
    assert grids.parkes_zones(np.array([float(reference)]), np.array([float(estimate)]))[0] == zone


def test_perfect_estimates_are_in_zone_a_everywhere():
    values = np.linspace(10, 800, 500)
    assert set(grids.clarke_zones(values, values)) == {"A"}
    assert set(grids.parkes_zones(values, values)) == {"A"}


def test_parkes_zones_worsen_with_distance():
    reference = np.full(800, 60.0)
    zones = grids.parkes_zones(reference, np.linspace(60, 900, 800))
    assert list(zones) == sorted(zones)
    assert set(zones) == set("ABCDE")


def test_mard_by_hand():
    assert grids.mard(np.array([100.0, 200.0]), np.array([110.0, 150.0])) == pytest.approx((10 + 25) / 2)
    assert math.isnan(grids.mard(np.array([]), np.array([])))


def test_grid_table_covers_glucose_alone_and_shares_sum_to_one(predictions):
    table = grids.grid_table(predictions)
    assert tuple(table.columns) == grids.GRID_COLUMNS
    assert len(table) == 2 * 2 * predictions["method"].nunique()
    assert table[[f"zone_{zone}" for zone in "abcde"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_what_was_not_read_in_its_source_says_so(predictions):
    read = grids.allowable_error_table(predictions).groupby("scheme")["verified"].agg(set).to_dict()
    assert read == {"CLIA 1992": {True}, "CLIA 2025": {False}, "RCPAQAP": {True}}
    assert set(grids.grid_table(predictions)["verified"]) == {True}
    assert all(limit["source"] and limit["year"] for limit in grids.allowable_errors())
    assert all(grid["source"] and grid["year"] for grid in grids.error_grids().values())


def test_allowable_error_by_hand(make_predictions):
    table = make_predictions(n_patients=1, methods=("locf",), labs=("potassium", "glucose", "lactate")).query(
        "protocol == 'start'"
    )
    table = table.drop_duplicates("lab").assign(truth=[4.0, 100.0, 2.0], estimate=[4.3, 109.0, 2.0])
    found = grids.allowable_error_table(table).set_index(["scheme", "lab"])["share_within"]
    # potassium 0.3 is on the limit of 0.3 and beyond 0.2 = 5 % of 4; glucose 9 is over 8 % of 100 and under 10 %;
    # lactate has no rule
    assert found.to_dict() == {
        ("CLIA 1992", "potassium"): 1.0, ("CLIA 2025", "potassium"): 1.0,
        ("CLIA 1992", "glucose"): 1.0, ("CLIA 2025", "glucose"): 0.0, ("RCPAQAP", "potassium"): 0.0,
    }  # fmt: skip


def test_every_border_is_where_independent_programs_draw_it():
    """Points just inside and outside, their zones worked out from the line equations in the R package ega 2.0.0."""
    parkes = {(400, 313): "B", (400, 314): "A", (200, 120): "B", (300, 60): "C", (300, 57): "D", (60, 95.5): "C",
              (60, 94.5): "B", (30, 110): "D", (40, 300): "E", (500, 131): "D", (500, 132): "C"}  # fmt: skip
    clarke = {(58, 69): "A", (59, 71): "D", (59, 70.5): "A", (100, 211): "C", (300, 411): "C", (160, 41): "C",
              (160, 43): "B", (250, 179): "D", (250, 181): "B", (65, 185): "E", (185, 65): "E"}  # fmt: skip
    for zones_of, expected in ((grids.parkes_zones, parkes), (grids.clarke_zones, clarke)):
        reference, estimate = np.array(list(expected), dtype=float).T
        assert list(zones_of(reference, estimate)) == list(expected.values())
