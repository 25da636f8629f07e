from collections import Counter

import pandas as pd
import pytest

from pipeline.foundation.errors import LabError
from pipeline.sources.rows import normalise_patient_id, parse_times_us, usable_rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p000020", "20"), ("20", "20"), ("000020", "20"), ("20.0", "20"), (" 20\x00", "20"),
        ("\ufeff20", "20"), ("0", "0"), ("A-17", "A-17"), ("p12x", "p12x"),
        ("", None), ("nan", None), ("<NA>", None), ("None", None),
    ],
)  # fmt: skip
def test_one_spelling_of_a_patient(text, expected):
    assert normalise_patient_id(text) == expected


def test_times_beyond_nanoseconds_and_times_that_are_none():
    found = parse_times_us(
        pd.Series(["2300-01-02 10:00:00", "2150-01-02T00:00:00.25", "1970-01-01", "soon", ""], dtype="str"),
        "t",
    )
    assert found.dropna().tolist() == [10_413_914_400_000_000, 5_680_368_000_250_000, 0]
    assert found.isna().tolist() == [False, False, False, True, True]
    assert str(found.dtype) == "Int64"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_resolution(unit):
    stamps = pd.Series(pd.array(["2150-01-02T00:00:01", None], dtype=f"datetime64[{unit}]"))
    assert parse_times_us(stamps, "t").tolist() == [5_680_368_001_000_000, pd.NA]


@pytest.mark.parametrize(
    "times",
    [
        pd.Series(["2100-01-01T00:00:00Z"], dtype="str"),
        pd.Series(["2100-01-01T00:00:00+02:00", "2100-01-01T00:00:00"], dtype="str"),
        pd.Series(pd.to_datetime(["2100-01-01T00:00:00Z"])),
    ],
    ids=["all", "mixed", "timestamps"],
)
def test_time_zones_are_refused(times):
    with pytest.raises(LabError, match="column drawn carries time zones"):
        parse_times_us(times, "drawn")


def test_rows_that_lack_something_are_counted_once():
    exclusions = Counter()
    rows = pd.DataFrame(
        {"patient_id": ["1", None, None, "2"], "sampled_at_us": pd.array([5, 6, pd.NA, pd.NA], "Int64")}
    )
    found = usable_rows(rows, {"patient_id": "no patient", "sampled_at_us": "no time"}, exclusions)
    assert found["patient_id"].tolist() == ["1"]
    assert found["sampled_at_us"].dtype == "int64"
    assert exclusions == {"no patient": 2, "no time": 1}
