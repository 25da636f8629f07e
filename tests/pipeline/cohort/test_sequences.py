import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cohort.sequences import SequenceConfig, cut_sequences
from pipeline.foundation.schema import MAX_SEQUENCE_STEPS, SEQUENCE_COLUMNS, WINDOW_US
from pipeline.testing.handmade import BASE_US, admissions, memory_store

HOUR = 120
DAY = 24 * HOUR


def cut(steps, stays=(), config=None):
    """Sequences of one patient as (admission, first step, steps, windows), and what was left out."""
    found = cut_sequences(memory_store({"1": steps}), ["1"], admissions(stays), config or SequenceConfig())
    frame = found.frame
    first = (frame["origin_us"] - BASE_US) // WINDOW_US
    columns = (frame["admission_id"], first, frame["n_steps"], frame["n_windows"])
    return list(zip(*(c.tolist() for c in columns), strict=True)), dict(found.exclusions)


def test_origin_is_the_first_usable_window():
    assert cut([5, 6, 9]) == ([("", 5, 5, 3)], {})


@pytest.mark.parametrize(("gap", "sequences"), [(DAY - 1, 1), (DAY, 2)])
def test_a_gap_of_24_hours_ends_a_sequence(gap, sequences):
    assert len(cut([0, 1, 2 + gap, 3 + gap])[0]) == sequences


def test_windows_belong_to_the_stay_with_twelve_hours_slack():
    # stay from hour 20 to hour 30: windows from hour 8 to hour 42 belong to it
    steps = [8 * HOUR - 1, 8 * HOUR, 42 * HOUR - 1, 42 * HOUR]
    sequences, exclusions = cut(steps, [("1", "77", 20, 30)], SequenceConfig(max_gap_hours=1000.0))
    assert sequences == [("77", 8 * HOUR, 34 * HOUR, 2)]
    assert exclusions == {"window outside every admission": 2}


def test_a_window_between_two_stays_goes_to_the_earlier_while_its_slack_lasts():
    stays = [("1", "late", 20, 30), ("1", "early", -10, 0)]
    sequences, _ = cut(range(0, 20 * HOUR, HOUR), stays)
    assert [(name, n) for name, _, _, n in sequences] == [("early", 12), ("late", 8)]
    assert cut([19 * HOUR], [*stays, ("1", "soon", 19.5, 19.6)])[0][0][0] == "soon"


@given(
    steps=st.lists(st.integers(0, 10 * DAY), unique=True, min_size=1, max_size=60),
    stays=st.lists(st.tuples(st.integers(-100, 0), st.integers(1, 300)), max_size=3),
    late=st.tuples(st.integers(0, 240), st.integers(1, 100)),
)
def test_an_admission_to_come_moves_no_window_of_an_earlier_one(steps, stays, late):
    table = [("1", f"{i}", begin, begin + length) for i, (begin, length) in enumerate(stays)]
    now = late[0] * HOUR  # what was there before the late admission began, cut without and with it
    before = [step for step in sorted(steps) if step < now]
    without = [row for row in cut(before, table)[0] if row[0]] if before else []
    known = cut(before, [*table, ("1", "late", late[0], sum(late))])[0] if before else []
    assert [row for row in known if row[0] != "late"] == without


def test_a_stay_inside_another_does_not_split_its_windows():
    stays = [("1", "inner", 5, 10), ("1", "outer", 0, 20)]
    assert cut(range(20 * HOUR), stays)[0] == [("outer", 0, 20 * HOUR, 20 * HOUR)]


def test_a_patient_without_a_stay_is_left_out_when_there_are_stays():
    assert cut(range(10), [("2", "77", 0, 30)]) == ([], {"window outside every admission": 10})


def test_what_comes_after_seven_days_is_dropped_and_counted():
    steps = range(0, MAX_SEQUENCE_STEPS + 40, 10)
    sequences, exclusions = cut(steps)
    assert sequences == [("", 0, MAX_SEQUENCE_STEPS - 9, MAX_SEQUENCE_STEPS // 10)]
    assert exclusions == {"window after the longest sequence": 4}


def test_the_last_step_of_the_seventh_day_still_counts():
    steps = [*range(0, MAX_SEQUENCE_STEPS, 1000), MAX_SEQUENCE_STEPS - 1, MAX_SEQUENCE_STEPS]
    ((_, _, n_steps, _),), exclusions = cut(steps)
    assert n_steps == MAX_SEQUENCE_STEPS
    assert exclusions == {"window after the longest sequence": 1}


def test_patients_without_windows_are_counted():
    store = memory_store({"1": [], "3": [0]})
    found = cut_sequences(store, ["1", "2", "3", "3"], admissions())
    assert found.frame["patient_id"].tolist() == ["3"]
    assert found.exclusions == {"patient without usable windows": 2}


def test_no_patient_gives_an_empty_table():
    found = cut_sequences(memory_store({}), [], admissions())
    assert list(found.frame.columns) == list(SEQUENCE_COLUMNS)
    assert len(found.frame) == 0


def test_ids_say_nothing_and_do_not_depend_on_the_order_of_patients():
    store = memory_store({"20": range(10), "10": [0, 2 * DAY]})
    one = cut_sequences(store, ["20", "10"], admissions()).frame
    two = cut_sequences(store, ["10", "20"], admissions()).frame
    assert one.equals(two)
    assert one["sequence_id"].tolist() == ["00000000", "00000001", "00000002"]


@pytest.mark.parametrize(
    ("field", "value"), [("admission_slack_hours", -1.0), ("max_gap_hours", 0.0), ("max_steps", 0)]
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises(ValueError, match=field):
        SequenceConfig(**{field: value})


@given(
    steps=st.lists(st.integers(0, 60 * DAY), unique=True, min_size=1, max_size=60),
    stays=st.lists(st.tuples(st.integers(0, 1400), st.integers(1, 200)), max_size=4),
)
def test_every_window_is_in_one_sequence_or_counted(steps, stays):
    table = [("1", f"{i}", begin, begin + length) for i, (begin, length) in enumerate(stays)]
    sequences, exclusions = cut(sorted(steps), table)
    assert sum(n for _, _, _, n in sequences) + sum(exclusions.values()) == len(steps)
    for _, first, n_steps, n_windows in sequences:
        inside = [step for step in steps if first <= step < first + n_steps]
        assert len(inside) == n_windows  # no other sequence's window lies in its span
        assert np.diff(np.sort(inside)).max(initial=0) - 1 < DAY
        assert n_steps <= MAX_SEQUENCE_STEPS
