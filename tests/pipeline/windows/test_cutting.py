from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.windows.cutting import WindowConfig, iterate_windows

PARTIAL = "window: partial, at a gap or an end"
ORIGIN_US = 190_000_000 * WINDOW_US
"""Far in the future (year 2150), on the grid."""
RAILS = (-10.0, 10.0)


@dataclass
class FakeSource:
    """Records of given stretches."""

    content: dict[str, list[Stretch]] = field(default_factory=dict)
    name: str = "fake"
    licence: str = "none"
    root: Path = Path("fake")

    def catalog(self) -> Catalog:
        return Catalog(records=())

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        yield from self.content[record.name]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def stretch(samples: np.ndarray, start_s: float = 0.0, rate: float = 125.0, rails=RAILS) -> Stretch:
    return Stretch(
        start_us=ORIGIN_US + round(start_s * 1e6), sampling_rate_hz=rate, samples=samples, rails=rails
    )


def cut(*records: list[Stretch], **config):
    source = FakeSource({str(i): stretches for i, stretches in enumerate(records)})
    entries = [
        Record(
            patient_id="1",
            name=name,
            path=Path(name),
            files=(),
            start_us=s[0].start_us,
            end_us=s[-1].start_us,
        )
        for name, s in source.content.items()
    ]
    exclusions: Counter[str] = Counter()
    return list(iterate_windows(source, entries[::-1], WindowConfig(**config), exclusions)), exclusions


def starts_s(batches) -> list[float]:
    return [(int(start) - ORIGIN_US) / 1e6 for batch in batches for start in batch.start_us]


def samples_of(batches) -> np.ndarray:
    return np.concatenate([batch.samples for batch in batches])


def test_windows_lie_on_the_wall_clock():
    samples = noise(125 * 100)
    batches, exclusions = cut([stretch(samples, start_s=7.0)])
    assert starts_s(batches) == [30, 60]
    np.testing.assert_array_equal(samples_of(batches), samples[125 * 23 : 125 * 83].reshape(2, 3750))
    assert exclusions == {PARTIAL: 2}, "one before 30 s, one after 90 s"


def test_a_record_that_fills_its_windows_drops_nothing():
    batches, exclusions = cut([stretch(noise(3 * 3750))])
    assert starts_s(batches) == [0, 30, 60]
    assert not exclusions


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 3 * 3750 + 499), max_size=6),
    rate=st.sampled_from([125.0, 124.945, 62.4725]),
    start_s=st.sampled_from([0.0, 7.0, 29.992]),
)
def test_where_stretches_are_cut_does_not_matter(cuts, rate, start_s):
    """Chunks and segments of one record are joined: same windows, same bits, same counts."""
    samples = noise(3 * 3750 + 500)
    whole = cut([stretch(samples, start_s, rate)])
    edges = sorted({0, *cuts, len(samples)})
    pieces = [stretch(samples[a:b], start_s + a / rate, rate) for a, b in pairwise(edges)]
    parts = cut(pieces)
    assert starts_s(parts[0]) == starts_s(whole[0])
    assert parts[1] == whole[1]
    for name in ("samples", "quality"):
        joined = [np.concatenate([getattr(b, name) for b in batches[0]]) for batches in (parts, whole)]
        np.testing.assert_array_equal(*joined)


def test_a_window_takes_its_first_sample_at_or_after_its_start():
    rate, start = 124.945, 3.0017
    n = 15_000
    batches, _ = cut([stretch(np.arange(n, dtype=np.float32) % 7, start, rate)])
    first = [int(np.ceil((s - start) * rate - 0.01)) for s in starts_s(batches)]
    assert len(first) == 3
    for index, window in zip(first, samples_of(batches), strict=True):
        assert window.shape == (3748,)
        np.testing.assert_array_equal(window, np.arange(index, index + 3748) % 7)


@pytest.mark.parametrize(
    "second",
    [
        stretch(noise(3750), start_s=45.008),
        stretch(noise(3750), start_s=45.0, rails=(-5.0, 5.0)),
        stretch(noise(7500), start_s=45.0, rate=250.0),
    ],
    ids=["gap of one sample", "other rails", "other rate"],
)
def test_no_window_spans_a_change(second):
    batches, exclusions = cut([stretch(noise(45 * 125)), second])
    assert starts_s(batches) == [0]
    assert exclusions == {PARTIAL: 2}, "30-60 once, though both sides have a part of it, and 60-75"


def test_rates_may_change_between_segments():
    batches, exclusions = cut([stretch(noise(3750)), stretch(noise(7500), start_s=30.0, rate=250.0)])
    assert starts_s(batches) == [0, 30]
    assert [b.samples.shape for b in batches] == [(1, 3750), (1, 7500)]
    assert [b.sampling_rate_hz for b in batches] == [125.0, 250.0]
    assert not exclusions


def test_unusable_windows_are_dropped_and_counted_by_their_first_reason():
    samples = noise(6 * 3750)
    samples[10] = np.nan
    samples[3750 : 2 * 3750] = 0.25
    samples[2 * 3750 : 2 * 3750 + 1200] = 10.0
    samples[3 * 3750 : 3 * 3750 + 900] = -10.0
    samples[4 * 3750 : 5 * 3750] = np.nan
    batches, exclusions = cut([stretch(samples)])
    assert starts_s(batches) == [90, 150]
    assert exclusions == {"window: missing samples": 2, "window: flat": 1, "window: at the rails": 1}
    assert batches[0].quality[0, 2] == pytest.approx(900 / 3750)


def test_limits_come_from_the_config():
    samples = noise(3750)
    samples[:900] = 10.0
    assert len(cut([stretch(samples)])[0]) == 1
    assert not cut([stretch(samples)], rail_share_limit=0.1)[0]
    flat = np.concatenate([noise(125 * 15), np.zeros(125 * 15, np.float32)])
    assert len(cut([stretch(flat)])[0]) == 1
    assert not cut([stretch(flat)], flat_share_limit=0.5)[0]


@pytest.mark.parametrize(
    "bad", [{"rail_share_limit": 1.1}, {"flat_share_limit": 0.0}, {"flat_tolerance": 1.0}, {"version": ""}]
)
def test_config_names_what_is_wrong(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        WindowConfig(**bad)


def test_overlapping_records_earliest_first():
    early, late = noise(4 * 3750, seed=1), noise(4 * 3750, seed=2)
    batches, exclusions = cut([stretch(early)], [stretch(late, start_s=60.0)])
    assert starts_s(batches) == [0, 30, 60, 90, 120, 150]
    assert exclusions == {"window: overlaps an earlier record": 2}
    np.testing.assert_array_equal(samples_of(batches)[:4], early.reshape(4, 3750))
    np.testing.assert_array_equal(samples_of(batches)[4:], late.reshape(4, 3750)[2:])


def test_time_never_goes_backwards():
    batches, exclusions = cut([stretch(noise(7500), start_s=300.0), stretch(noise(7500))])
    assert starts_s(batches) == [300, 330]
    assert exclusions == {"window: overlaps an earlier record": 2}


def test_the_same_recording_twice_counts_once():
    batches, exclusions = cut([stretch(noise(7500))], [stretch(noise(7500))])
    assert starts_s(batches) == [0, 30]
    assert exclusions == {"window: overlaps an earlier record": 2}


def test_batches_are_bounded_and_hold_one_rate():
    batches, _ = cut([stretch(noise(600 * 600), rate=20.0)])
    assert [len(b.start_us) for b in batches] == [512, 88]
    assert all(b.start_us.dtype == np.int64 and b.samples.dtype == np.float32 for b in batches)


def test_empty_stretches_and_no_records_are_fine():
    assert cut()[0] == []
    batches, exclusions = cut([stretch(noise(0)), stretch(noise(3750))])
    assert starts_s(batches) == [0]
    assert not exclusions


@pytest.mark.parametrize("n", [1, 100, 3749])
def test_a_short_recording_is_one_partial_window(n):
    batches, exclusions = cut([stretch(noise(n))])
    assert not batches
    assert exclusions == {PARTIAL: 1}
