"""Section 8: what happens after t changes nothing that a model or a baseline is given for t or before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohort.alignment import align
from pipeline.cohort.alignment_config import AlignmentConfig, paper_alignment
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.sequences import cut_sequences
from pipeline.foundation.schema import LAB_NAMES, WINDOW_US
from pipeline.labs.carry_forward import LIVE_LOCF, LOCF, PATIENT_MEAN
from pipeline.testing.cohort import MemoryStore, MemoryWindows
from pipeline.testing.handmade import BASE_US, MINUTE_US, admissions, lab_events, memory_windows
from pipeline.training.dataset import PieceDataset

MINUTES = 600
SCALER = LabScaler(
    low=dict.fromkeys(LAB_NAMES, 0.0),
    high=dict.fromkeys(LAB_NAMES, 200.0),
    fitted_on="train",
    n_patients=2,
    split_hash="abc",
)


def random_rows(rng, n, first, last, delay):
    """Results (patient, lab, value, minute of draw, minute of result); panels share their draw time."""
    times = rng.choice(np.round(rng.uniform(first, last, max(n // 2, 1)), 1), n)
    return [
        ("1", LAB_NAMES[rng.integers(5)], float(rng.uniform(1, 200)), t, t + delay * rng.uniform())
        for t in times
    ]


def unique(rows):
    """One result for each lab and draw time, as cleaning leaves it."""
    return list({(row[1], row[3]): row for row in rows}.values())


def store_of(windows, others=()):
    return MemoryStore(windows={"1": windows, **{f"{i + 2}": other for i, other in enumerate(others)}})


def changed_after(windows, t_us, rng):
    """The same windows up to t; after it other embeddings, and some of them gone."""
    late = windows.start_us + WINDOW_US > t_us
    keep = ~late | (rng.random(len(late)) < 0.6)
    embeddings = np.where(late[:, None], rng.normal(size=windows.embeddings.shape), windows.embeddings)
    return MemoryWindows(
        start_us=windows.start_us[keep],
        quality=windows.quality[keep],
        embeddings=embeddings.astype(np.float16)[keep],
    )


def inputs_until(aligned, store, t_us, *, twin=False, pooling="mean"):
    """All a model is given for pieces with t0 <= t, steps cut at t, and baselines for draws up to t."""
    dataset = PieceDataset(
        aligned, store, SCALER, patients=store.windows, pooling=pooling, twin=twin, protocol=None
    )
    pieces = aligned.pieces.set_index("piece_id")
    seen = {}
    for i, piece_id in enumerate(dataset.piece_ids):
        piece = pieces.loc[piece_id]
        if piece["patient_id"] == "1" and piece["t0_us"] <= t_us:
            item = dataset[i]
            first_end = piece["t0_us"] + (-piece["t0_us"]) % WINDOW_US + WINDOW_US
            n = max(0, min(len(item.step_mask), (t_us - first_end) // WINDOW_US + 1))
            seen[piece["protocol"], int(piece["t0_us"])] = (
                item.history.tobytes(), item.history_present.tobytes(), item.pooled.tobytes(),
                item.embeddings[:n].tobytes(), item.step_mask[:n].tobytes(),
            )  # fmt: skip
    examples = aligned.examples[
        (aligned.examples["patient_id"] == "1") & (aligned.examples["sampled_at_us"] <= t_us)
    ]
    values = zip(*(column.estimate(examples) for column in (LOCF, LIVE_LOCF, PATIENT_MEAN)), strict=True)
    keys = zip(examples["protocol"], examples["lab"], examples["sampled_at_us"], strict=True)
    columns = examples[["t0_us", "step", "prediction_window_end_us", "hours_since_last_lab"]].to_numpy()
    return seen, {key: (*v, *row) for key, v, row in zip(keys, values, columns, strict=True)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    minute=st.integers(31, MINUTES - 100),
    at_cut=st.booleans(),
    delay=st.sampled_from([0.0, 45.0]),
    pooling=st.sampled_from(["mean", "sampled"]),
    config=st.sampled_from([AlignmentConfig(), paper_alignment()]),
)
def test_what_comes_after_t_changes_no_input_and_no_baseline_at_or_before_t(
    seed, minute, at_cut, delay, pooling, config
):
    rng = np.random.default_rng(seed)
    windows = memory_windows(np.flatnonzero(np.append(True, rng.random(2 * MINUTES) < 0.8)), seed=seed)
    rows = unique(random_rows(rng, 40, -300, MINUTES, delay))
    if at_cut:  # t0 of a piece is where a window too many would show
        minute = min([row[4] for row in rows if minute < row[4] < MINUTES - 50], default=minute)
    t_us = BASE_US + round(minute * MINUTE_US)
    early = [row for row in rows if row[4] <= minute]
    late = [
        (p, lab, v, d, max(k, minute + 0.001)) for p, lab, v, d, k in random_rows(rng, 15, -300, 900, delay)
    ]
    # What is drawn up to t but known only after it stays as a target; only its value is another one.
    pending = [(p, lab, v / 2, d, k) for p, lab, v, d, k in rows if row_is_pending(d, k, minute)]
    drawn = {(row[1], row[3]) for row in early + pending}
    late = [row for row in unique(late) if (row[1], row[3]) not in drawn and row[3] > minute]

    def run(results, its_windows):
        store = store_of(its_windows)
        events = lab_events(results)
        aligned = align(cut_sequences(store, ["1"], admissions()), events, store, config)
        return inputs_until(aligned, store, t_us, pooling=pooling)

    one, one_baselines = run(rows, windows)
    two, two_baselines = run(early + pending + late, changed_after(windows, t_us, rng))
    # A piece that is running at t may end at another draw afterwards, or be dropped for want of one.
    for key in one.keys() & two.keys():
        assert one[key][:3] == two[key][:3]
        for a, b in zip(one[key][3:], two[key][3:], strict=True):
            assert a.startswith(b) or b.startswith(a)
    finished = [key for key in one if any(k[0] == key[0] and k[1] > key[1] for k in one)]
    assert all(one[key] == two[key] for key in finished)
    assert one_baselines == two_baselines


def row_is_pending(drawn, known, minute):
    """Drawn at or before t, but its result comes after t."""
    return drawn <= minute < known


def test_the_comparison_would_notice_a_change_before_t():
    rng = np.random.default_rng(0)
    rows = unique(random_rows(rng, 40, -300, MINUTES, 0.0))
    windows = memory_windows(range(2 * MINUTES))
    t_us = BASE_US + MINUTES * MINUTE_US

    def run(results, its_windows):
        store = store_of(its_windows)
        aligned = align(cut_sequences(store, ["1"], admissions()), lab_events(results), store)
        return inputs_until(aligned, store, t_us)

    reference, baselines = run(rows, windows)
    assert len(reference) > 5
    assert len(baselines) > 5
    moved, _ = run(rows, changed_after(windows, BASE_US + 100 * MINUTE_US, rng))
    assert moved != reference
    _, other = run([(p, lab, v + 1, d, k) for p, lab, v, d, k in rows], windows)
    assert other != baselines


def test_interpolated_values_are_never_an_input():
    rows = [("1", "sodium", 140, -60, -60), ("1", "sodium", 150, 200, 200), ("1", "sodium", 130, 400, 400)]
    windows = memory_windows(range(2 * MINUTES))
    store = store_of(windows)
    sequences = cut_sequences(store, ["1"], admissions())

    def inputs(weight, cap):
        config = AlignmentConfig(interpolated_weight=weight, interpolation_cap_hours=cap)
        return align(sequences, lab_events(rows), store, config)

    with_line, without = inputs(1.0, None), inputs(0.2, 0.001)
    assert (with_line.targets["weight"] == 1).sum() > 500
    assert without.targets["measured"].all()
    end = BASE_US + MINUTES * MINUTE_US
    assert inputs_until(with_line, store, end) == inputs_until(without, store, end)
    measured = {140.0, 150.0, 130.0}
    assert set(with_line.history[:, 2, 1][with_line.history_present[:, 2]].tolist()) <= measured


@pytest.mark.parametrize("twin", [False, True])
def test_another_patients_labs_and_later_windows_change_nothing(twin):
    rng = np.random.default_rng(4)
    rows = unique(random_rows(rng, 40, -300, MINUTES, 0.0))
    own, other = memory_windows(range(2 * MINUTES)), memory_windows(range(2 * MINUTES), seed=9)
    t_us = BASE_US + MINUTES * MINUTE_US

    def run(more, its_windows):
        store = store_of(own, [its_windows])
        aligned = align(cut_sequences(store, ["1", "2"], admissions()), lab_events(rows + more), store)
        return inputs_until(aligned, store, t_us, twin=twin)

    reference = run([("2", "sodium", 140, 10, 10)], other)
    assert reference == run([("2", "lactate", 3, 99, 99)], other)
    shuffled = MemoryWindows(
        start_us=other.start_us, quality=other.quality, embeddings=other.embeddings[::-1].copy()
    )
    assert (reference == run([], shuffled)) != twin
