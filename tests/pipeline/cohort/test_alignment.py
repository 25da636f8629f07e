import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.alignment import align
from pipeline.cohort.alignment_config import AlignmentConfig, authors_alignment, paper_alignment
from pipeline.cohort.sequences import cut_sequences
from pipeline.cohort.splits import split_subjects
from pipeline.foundation.errors import ConfigError, MissingArtifactError, StoreError
from pipeline.foundation.schema import EXAMPLE_COLUMNS, HOUR_US, PIECE_COLUMNS, TARGET_COLUMNS, WINDOW_US
from pipeline.testing.handmade import BASE_US, admissions, lab_events, memory_store, memory_windows

MINUTE_US = 60_000_000
HOURS_12 = range(12 * 120)
DAYS_30 = 30 * 24 * 60


def cohort(rows, steps=HOURS_12, config=None):
    """Align one patient with labs (lab, value, minute of draw, minute of result) and windows on `steps`."""
    store = memory_store({"1": steps})
    events = lab_events([("1", *row) for row in rows])
    return align(cut_sequences(store, ["1"], admissions()), events, store, config or AlignmentConfig())


def drawn(lab, value, minute):
    return (lab, value, minute, minute)


def examples(aligned, protocol="start"):
    """The scored draws with times in minutes after the origin."""
    frame = aligned.examples[aligned.examples["protocol"] == protocol]
    minutes = {
        "drawn": (frame["sampled_at_us"] - BASE_US) / MINUTE_US,
        "t0": (frame["t0_us"] - BASE_US) / MINUTE_US,
        "window_end": (frame["prediction_window_end_us"] - BASE_US) / MINUTE_US,
    }
    return frame.assign(**minutes).sort_values(["drawn", "lab"]).reset_index(drop=True)


class TestStart:
    def test_history_takes_the_first_thirty_minutes_and_a_draw_at_t0_is_not_scored(self):
        aligned = cohort([drawn("sodium", 140, -60), drawn("sodium", 141, 30), drawn("sodium", 142, 30.5)])
        (example,) = examples(aligned).to_dict("records")
        assert example["t0"] == 30
        assert example["drawn"] == 30.5
        assert aligned.exclusions["start: draw at or before t0"] == 1

    def test_a_result_available_at_t0_is_seen_and_a_later_one_never(self):
        rows = [
            drawn("sodium", 140, -60),
            drawn("sodium", 141, 30),
            drawn("sodium", 142, 60),
            drawn("sodium", 143, 90),
        ]
        table = examples(cohort(rows))
        assert table["drawn"].tolist() == [60, 90]
        assert table["last_lab"].tolist() == [141, 141]
        assert table["live_last_lab"].tolist() == [141, 142]
        assert table["history_mean"].tolist() == [140.5, 140.5]
        assert table["hours_since_last_lab"].tolist() == [0.5, 1.0]

    def test_a_result_still_under_way_at_t0_is_not_seen(self):
        table = examples(
            cohort([drawn("sodium", 140, -60), ("sodium", 150, 10, 31), drawn("sodium", 142, 60)])
        )
        assert table["last_lab"].tolist() == [140]
        assert table["live_last_lab"].tolist() == [150]

    def test_live_value_is_available_strictly_before_the_draw(self):
        table = examples(
            cohort([drawn("sodium", 140, -60), ("sodium", 150, 40, 60), drawn("sodium", 142, 60)])
        )
        assert table.loc[table["drawn"] == 60, "live_last_lab"].tolist() == [140]

    def test_history_reaches_back_thirty_days_and_not_a_moment_more(self):
        t0 = 30
        assert len(examples(cohort([drawn("sodium", 140, t0 - DAYS_30), drawn("sodium", 141, 60)]))) == 1
        aligned = cohort([drawn("sodium", 140, t0 - DAYS_30 - 0.001), drawn("sodium", 141, 60)])
        assert len(examples(aligned)) == 0
        assert aligned.exclusions["start: no earlier result of that lab in the history"] == 1

    def test_the_length_of_the_waveform_history_is_configurable(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 20)]
        assert len(examples(cohort(rows, config=AlignmentConfig(start_history_windows=20)))) == 1
        assert len(examples(cohort(rows))) == 0


class TestAnchored:
    def test_results_of_one_panel_never_serve_each_other(self):
        rows = [
            (lab, v, m, m)
            for m in (-60, 100, 200)
            for lab, v in (("potassium", 4 + m / 1000), ("sodium", 140 + m))
        ]
        table = examples(cohort(rows), "anchored")
        assert table["drawn"].tolist() == [100, 100, 200, 200]
        assert table["t0"].tolist() == [30, 30, 100, 100]
        assert table["last_lab"].tolist() == pytest.approx([3.94, 80, 4.1, 240])

    def test_a_draw_at_a_cut_belongs_to_the_cut_before(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 100), drawn("sodium", 142, 200)]
        table = examples(cohort(rows), "anchored")
        assert table["t0"].tolist() == [30, 100]
        assert table["last_lab"].tolist() == [140, 141]
        assert (table["last_lab"] == table["live_last_lab"]).all()

    def test_results_of_one_panel_that_arrive_apart_cut_twice(self):
        rows = [drawn("potassium", 4, -60), drawn("glucose", 90, -60)]
        rows += [("potassium", 5, 100, 110), ("glucose", 120, 100, 160), drawn("glucose", 130, 150)]
        table = examples(cohort(rows), "anchored")
        assert table["t0"].tolist() == [30, 30, 110]
        assert table["last_lab"].tolist() == [90, 4, 90]

    def test_a_result_under_way_serves_no_draw_before_it_arrives(self):
        rows = [drawn("sodium", 140, -60), ("sodium", 150, 100, 200), drawn("sodium", 142, 199)]
        assert examples(cohort(rows), "anchored")["last_lab"].tolist() == [140, 140]

    def test_a_piece_runs_from_its_cut_to_the_last_draw_before_the_next(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 100), ("sodium", 142, 200, 260)]
        pieces = cohort(rows).pieces
        anchored = pieces[pieces["protocol"] == "anchored"]
        # the cut at 100.0 min is the start of step 200, and the draw at 200.0 min the end of step 399
        assert anchored["first_step"].tolist() == [60, 200]
        assert anchored["n_steps"].tolist() == [140, 200]

    def test_a_cut_within_a_window_leaves_that_window_out(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 100.1), drawn("sodium", 142, 200)]
        aligned = cohort(rows)
        anchored = aligned.pieces[aligned.pieces["protocol"] == "anchored"]
        assert anchored["first_step"].tolist() == [60, 201]
        starts = aligned.grid("00000000").start_us[anchored["first_step"]]
        assert (starts >= anchored["t0_us"]).all()

    def test_a_draw_without_a_window_after_its_cut_is_not_scored(self):
        steps = [step for step in HOURS_12 if not 200 <= step < 240]
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 100), drawn("sodium", 142, 115)]
        aligned = cohort(rows, steps)
        assert examples(aligned, "anchored")["drawn"].tolist() == [100]
        assert aligned.exclusions["anchored: no usable window between t0 and the draw"] == 1
        assert examples(aligned, "start")["drawn"].tolist() == [100, 115]


class TestPredictionWindow:
    def test_it_is_the_last_window_that_ends_at_or_before_the_draw(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 100), drawn("sodium", 142, 110.4)]
        table = examples(cohort(rows))
        assert table["window_end"].tolist() == [100, 110]
        assert table["step"].tolist() == [200 - 1 - 60, 220 - 1 - 60]

    @pytest.mark.parametrize(("minute", "scored"), [(139.9, True), (140, True), (140.1, False)])
    def test_it_ends_at_most_sixty_minutes_before_the_draw(self, minute, scored):
        steps = [step for step in HOURS_12 if not 160 <= step < 400]  # nothing from 80 to 200 minutes
        aligned = cohort([drawn("sodium", 140, -60), drawn("sodium", 142, minute)], steps)
        assert len(examples(aligned)) == scored
        assert aligned.exclusions["start: no usable window close before the draw"] == (not scored)
        if scored:
            assert examples(aligned)["window_end"].tolist() == [80]

    def test_quality_is_that_of_the_prediction_window(self):
        aligned = cohort([drawn("sodium", 140, -60), drawn("sodium", 142, 100)])
        windows = memory_windows(HOURS_12)
        assert examples(aligned)["spectral_concentration"].tolist() == [windows.quality[199, 5]]


class TestScoredSet:
    def test_draws_beyond_the_last_window_are_outside(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 141, 720), drawn("sodium", 142, 720.1)]
        aligned = cohort(rows)
        assert examples(aligned)["drawn"].tolist() == [720]
        assert aligned.exclusions["start: draw outside every sequence"] == 2

    def test_every_draw_is_scored_or_counted_once_for_each_protocol(self):
        rng = np.random.default_rng(3)
        steps = np.flatnonzero(rng.random(3000) < 0.3)
        rows = [("sodium", 140.0, *np.sort(rng.uniform(-500, 2000, 2))) for _ in range(40)]
        rows += [("lactate", 2.0, *np.sort(rng.uniform(-500, 2000, 2))) for _ in range(40)]
        aligned = cohort(rows, steps)
        for protocol in ("start", "anchored"):
            excluded = sum(n for reason, n in aligned.exclusions.items() if reason.startswith(protocol))
            assert excluded + len(examples(aligned, protocol)) == len(rows)

    def test_labs_of_a_patient_without_windows_are_counted(self):
        store = memory_store({"1": range(200)})
        events = lab_events([("1", "sodium", 140, 5, 5), ("2", "sodium", 140, 5, 5)])
        aligned = align(cut_sequences(store, ["1"], admissions()), events, store)
        assert aligned.exclusions["lab result of a patient without a sequence"] == 1

    def test_the_same_draws_are_scored_whatever_the_model_may_see_of_history(self):
        rows = [drawn("sodium", 140 + m / 100, m) for m in range(-60, 700, 37)]
        default = cohort(rows).examples
        paper = cohort(rows, config=paper_alignment()).examples
        start = default[default["protocol"] == "start"].reset_index(drop=True)
        pd.testing.assert_frame_equal(start, paper)


class TestDefinedResults:
    @pytest.mark.parametrize("rows", [[], [drawn("sodium", 140, 60)], [drawn("sodium", 140, -60)]])
    def test_no_lab_and_one_lab(self, rows):
        aligned = cohort(rows)
        assert list(aligned.examples.columns) == list(EXAMPLE_COLUMNS)
        assert list(aligned.pieces.columns) == list(PIECE_COLUMNS)
        assert list(aligned.targets.columns) == list(TARGET_COLUMNS)
        assert len(aligned.examples) == 0
        assert aligned.history.shape == (len(aligned.pieces), 5, 4)

    def test_a_sequence_shorter_than_the_waveform_history(self):
        aligned = cohort([drawn("sodium", 140, -60), drawn("sodium", 141, 5)], range(20))
        assert len(aligned.pieces) == 0
        assert aligned.exclusions["start: draw at or before t0"] == 1

    def test_no_sequence_at_all(self):
        aligned = align(cut_sequences(memory_store({}), [], admissions()), lab_events([]), memory_store({}))
        assert len(aligned.pieces) == len(aligned.examples) == len(aligned.targets) == 0

    def test_a_store_that_changed_since_is_refused(self):
        sequences = cut_sequences(memory_store({"1": range(100)}), ["1"], admissions())
        changed = memory_store({"1": range(0, 100, 2)})
        with pytest.raises(StoreError, match="store has changed"):
            align(sequences, lab_events([]), changed)

    def test_a_patient_in_no_split_is_refused_at_once(self):
        store = memory_store({"1": range(100)})
        with pytest.raises(ConfigError, match="in no split"):
            align(
                cut_sequences(store, ["1"], admissions()),
                lab_events([]),
                store,
                splits=split_subjects(map(str, range(5, 15))),
            )

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("protocols", ()),
            ("protocols", ("middle",)),
            ("start_history_windows", -1),
            ("recent_window_minutes", 0.0),
            ("interpolated_weight", 1.5),
            ("interpolation_cap_hours", 0.0),
        ],
    )
    def test_config_names_the_wrong_field(self, field, value):
        with pytest.raises(ValueError, match=field):
            AlignmentConfig(**{field: value})


class TestPresets:
    def test_authors_take_a_window_that_may_end_after_the_draw(self):
        rows = [drawn("sodium", 140, -60), drawn("sodium", 142, 100.25)]
        (example,) = examples(cohort(rows, config=authors_alignment())).to_dict("records")
        assert example["window_end"] == 100.5

    @pytest.mark.parametrize(("minute", "scored"), [(100, True), (100.5, True), (100.6, False)])
    def test_authors_drop_a_draw_more_than_sixty_seconds_after_the_windows_start(self, minute, scored):
        steps = [step for step in HOURS_12 if not 200 <= step < 240]  # the last window starts at 99.5 minutes
        rows = [drawn("sodium", 140, -60), drawn("sodium", 142, minute)]
        assert len(examples(cohort(rows, steps, authors_alignment()))) == scored

    def test_authors_steps_are_concatenated(self):
        steps = [step for step in HOURS_12 if not 100 <= step < 180]
        rows = [drawn("sodium", 140, -60), drawn("sodium", 142, 100)]
        aligned = cohort(rows, steps, authors_alignment())
        assert aligned.grid("00000000").usable.all()
        assert len(aligned.grid("00000000").start_us) == len(steps)
        assert examples(aligned)["step"].tolist() == [200 - 80 - 1 - 60]


class TestOnDisk:
    def test_round_trip(self, tmp_path):
        rows = [drawn("sodium", 140 + m / 100, m) for m in range(-60, 700, 37)]
        aligned = cohort(rows, config=authors_alignment())
        aligned.save(tmp_path / "aligned")
        back = AlignedCohort.load(tmp_path / "aligned")
        for name in ("sequences", "pieces", "draws", "examples", "targets"):
            pd.testing.assert_frame_equal(getattr(back, name), getattr(aligned, name))
        for name in ("history", "history_present", "usable"):
            np.testing.assert_array_equal(getattr(back, name), getattr(aligned, name))
        assert back.config == aligned.config
        assert back.exclusions == aligned.exclusions

    def test_a_folder_without_its_record_is_no_cohort(self, tmp_path):
        cohort([]).save(tmp_path)
        (tmp_path / "alignment.json").unlink()
        with pytest.raises(MissingArtifactError, match="alignment stage"):
            AlignedCohort.load(tmp_path)


def test_times_are_plain_microseconds():
    aligned = cohort([drawn("sodium", 140, -60), drawn("sodium", 142, 100)])
    assert aligned.examples["sampled_at_us"].iloc[0] == BASE_US + 100 * MINUTE_US
    assert aligned.pieces["t0_us"].iloc[0] - BASE_US == HOUR_US // 2 == 60 * WINDOW_US
