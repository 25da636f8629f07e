"""Cohorts on disk: true WFDB that wfdb and our own source read, equal bytes, resuming, clear refusals."""

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from hypothesis import given
from hypothesis import strategies as st

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LABS
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.synthetic.cohort import CohortSummary, write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.physiology import Course, Stay, plan_course, plan_stay, random_stream
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, plan_patient, subject_id_of
from pipeline.sources.synthetic.ppg import render
from pipeline.sources.synthetic.tables import lab_rows
from pipeline.sources.synthetic.wfdb_files import (
    EIGHT_BIT,
    PACKED_TWELVE_BIT,
    TWELVE_BIT,
    RecordPlan,
    SampleFormat,
    Segment,
    pack,
    plan_record,
    write_record,
)

PARAMETERS = CohortParameters.load()
SIZE = CohortSize(n_patients=6, hours_low=1.0, hours_high=3.0)


def cohort(root: Path, size: CohortSize = SIZE, **options: object) -> CohortSummary:
    return write_cohort(PARAMETERS, size, root, seed=3, **options)  # pyright: ignore[reportArgumentType]


def bytes_of(root: Path) -> dict[str, str]:
    """Hash of every file of a cohort."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> CohortSummary:
    return cohort(tmp_path_factory.mktemp("cohorts") / "one")


def test_every_master_is_read_by_wfdb(written: CohortSummary) -> None:
    masters = [p for p in (written.root / "waveforms").rglob("p*-*-*-*-*-*.hea") if not p.stem.endswith("n")]
    assert len(masters) == written.n_records
    samples = 0
    for path in masters:
        record = wfdb.rdrecord(str(path.with_suffix("")), channel_names=["PLETH"])
        assert record.fs == 125
        assert f"{record.base_datetime:%Y-%m-%d-%H-%M}" == path.stem[8:]
        assert 2100 <= record.base_datetime.year < 2200
        pleth = record.p_signal[:, 0]
        samples += pleth.size
        assert np.isfinite(pleth).mean() > 0.5
        assert np.nanmax(pleth) <= (4095 / 1023 + 1e-9 if record.adc_gain[0] == 1023 else 1)
    assert samples == written.n_samples


def test_our_source_and_wfdb_read_the_same(written: CohortSummary) -> None:
    source = Mimic3Waveforms(written.root / "waveforms")
    catalog = source.catalog()
    assert not catalog.exclusions
    assert len(catalog.records) == written.n_records
    record = catalog.records[0]
    whole = wfdb.rdrecord(str(record.path.with_suffix("")), channel_names=["PLETH"]).p_signal[:, 0]
    for stretch in source.stretches(record, Counter()):
        first = (stretch.start_us - record.start_us) // 8_000
        expected = whole[first : first + stretch.samples.size]
        np.testing.assert_allclose(stretch.samples, expected, atol=1e-6)


def planned(coding: SampleFormat, segments: tuple[Segment, ...]) -> RecordPlan:
    stay = plan_stay(PARAMETERS, (1.0, 2.0), 0, 0, 20)
    course = plan_course(PARAMETERS, stay, coupling=1.0, null=None, seed=0, patient=0)
    span = (stay.recordings[0][0], stay.recordings[0][0] + 600_000_000)
    plan = plan_record(PARAMETERS, course, span, 20, np.random.default_rng(0))
    return RecordPlan(**{**vars(plan), "format": coding, "segments": segments, "numerics": True})


@pytest.mark.parametrize("coding", [EIGHT_BIT, TWELVE_BIT, PACKED_TWELVE_BIT])
def test_each_format_keeps_the_same_wave(tmp_path: Path, coding: SampleFormat) -> None:
    """Odd lengths, an extra channel, an ECG alone and a gap; the value is the share of full scale either way."""
    both, pleth = ("II", "PLETH"), ("PLETH",)
    parts = (Segment(channels=(), samples=3750), Segment(channels=pleth, samples=40_001),
             Segment(channels=both, samples=20_003), Segment(channels=("II",), samples=1249),
             Segment(channels=pleth, samples=9_997))  # fmt: skip
    plan = planned(coding, parts)
    write_record(tmp_path, plan)
    record = wfdb.rdrecord(str(tmp_path / plan.name))
    assert record.sig_name == ["PLETH", "II"]
    pleth_values = record.p_signal[:, 0]
    full = (coding.highest - coding.lowest) / (255 if coding.code == 80 else 1023)
    reference = planned(TWELVE_BIT, parts)
    (tmp_path / "reference").mkdir()
    write_record(tmp_path / "reference", reference)
    other = wfdb.rdrecord(str(tmp_path / "reference" / plan.name)).p_signal[:, 0] / (4095 / 1023)
    np.testing.assert_array_equal(np.isnan(pleth_values), np.isnan(other))
    lowest = {80: 1 / 255, 16: 0.0, 212: 1 / 1023}[coding.code]
    np.testing.assert_allclose((pleth_values - lowest) / full, other, atol=0.006)
    edges = np.cumsum([0, *(part.samples for part in parts)])
    for (first, stop), part in zip(pairwise(edges), parts, strict=True):
        if "PLETH" not in part.channels:
            assert np.isnan(pleth_values[first:stop]).all()


@pytest.mark.parametrize("coding", [EIGHT_BIT, TWELVE_BIT, PACKED_TWELVE_BIT])
def test_headers_state_the_true_checksum(tmp_path: Path, coding: SampleFormat) -> None:
    plan = planned(coding, (Segment(channels=("PLETH",), samples=31_001),))
    write_record(tmp_path, plan)
    record = wfdb.rdrecord(str(tmp_path / f"{plan.stem}_0001"), physical=False)
    codes = record.d_signal[:, 0].astype(np.int64)
    assert record.init_value[0] == codes[0]
    assert (record.checksum[0] - codes.sum()) % 65_536 == 0


def test_numerics_are_decoys_of_their_own(tmp_path: Path) -> None:
    plan = planned(EIGHT_BIT, (Segment(channels=("PLETH",), samples=75_000),))
    write_record(tmp_path, plan)
    rates = wfdb.rdrecord(str(tmp_path / f"{plan.name}n")).p_signal[:, 0]
    assert rates.size == 10
    assert ((rates > 45) & (rates < 135)).all()


@given(codes=st.lists(st.integers(-2048, 2047), min_size=1, max_size=9))
def test_packing_in_format_212_can_be_undone(codes: list[int]) -> None:
    raw = np.frombuffer(pack(np.array(codes, np.int16), 212), np.uint8).astype(int)
    assert raw.size == (len(codes) * 3 + 1) // 2
    unpacked = []
    for pair in range(0, raw.size, 3):
        unpacked.append(raw[pair] | (raw[pair + 1] & 0x0F) << 8)
        if pair + 2 < raw.size:
            unpacked.append(raw[pair + 2] | (raw[pair + 1] & 0xF0) << 4)
    assert [value - 4096 * (value > 2047) for value in unpacked] == codes


def test_equal_arguments_give_equal_bytes_whatever_the_workers(
    written: CohortSummary, tmp_path: Path
) -> None:
    again = cohort(tmp_path / "two", workers=2)
    assert bytes_of(again.root) == bytes_of(written.root)


def test_a_patients_files_do_not_depend_on_the_others(written: CohortSummary, tmp_path: Path) -> None:
    fewer = cohort(tmp_path / "few", CohortSize(n_patients=2, hours_low=1.0, hours_high=3.0))
    all_files = bytes_of(written.root / "waveforms")
    few_files = {
        name: digest for name, digest in bytes_of(fewer.root / "waveforms").items() if name != "RECORDS"
    }
    assert few_files.items() < all_files.items()


def test_an_interrupted_cohort_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class PulledPlugError(Exception):
        pass

    def pull_the_plug(done: int, _patients: int) -> None:
        if done == 3:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        cohort(tmp_path / "cohort", progress=pull_the_plug)
    first = next((tmp_path / "cohort" / "waveforms").rglob("*.dat"))
    stamp = first.stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    done = cohort(tmp_path / "cohort", progress=lambda *counts: seen.append(counts))
    assert seen == [(i, 6) for i in range(1, 7)]
    assert first.stat().st_mtime_ns == stamp
    assert bytes_of(done.root) == bytes_of(cohort(tmp_path / "straight").root)
    assert cohort(done.root) == CohortSummary(**{**vars(done), "reused": True})


def test_files_are_private(written: CohortSummary) -> None:
    for path in written.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path.suffix


def test_tables_are_read_by_our_source(written: CohortSummary) -> None:
    tables = Mimic3Tables(written.root / "clinical").tables()
    truth = pd.read_parquet(written.root / "truth" / "draws.parquet")
    codes = {lab.name: str(lab.itemid) for lab in LABS}
    keys = ["patient_id", "code", "sampled_at_us"]
    merged = truth.assign(code=truth["lab"].map(codes)).merge(
        tables.labs, on=keys, how="left", suffixes=("", "_read")
    )
    first = merged.drop_duplicates(keys)
    assert len(first) == written.n_labs
    read = pd.to_numeric(first["value_read"], errors="coerce")
    assert (read == first["measured"]).mean() > 0.95  # the rest meets a planted duplicate
    assert set(tables.admissions["patient_id"]) == set(truth["patient_id"])


def test_planted_defects_are_there(tmp_path: Path) -> None:
    done = cohort(tmp_path / "many", CohortSize(n_patients=25, hours_low=0.2, hours_high=0.3))
    labs = pd.read_csv(done.root / "clinical" / "LABEVENTS.csv.gz")
    five = labs[labs["ITEMID"].isin([lab.itemid for lab in LABS])]
    assert five["VALUE"].eq("HEMOLYZED").any()
    assert five["VALUENUM"].eq(999_999).any()
    assert five["HADM_ID"].isna().any()
    assert five.duplicated(["SUBJECT_ID", "ITEMID", "CHARTTIME"]).any()
    assert {50808, 50822, 50912} <= set(labs["ITEMID"])
    assert labs["ROW_ID"].is_unique


def test_column_names_come_in_either_case(tmp_path: Path) -> None:
    size = CohortSize(n_patients=1, hours_low=0.2, hours_high=0.3, lower_case_columns=True)
    done = cohort(tmp_path / "lower", size)
    assert "charttime" in pd.read_csv(done.root / "clinical" / "LABEVENTS.csv.gz").columns
    assert len(Mimic3Tables(done.root / "clinical").tables().labs)


def test_subject_ids_are_unique_and_look_like_mimics() -> None:
    ids = {subject_id_of(3, patient) for patient in range(99_900)}
    assert len(ids) == 99_900
    assert min(ids) == 20
    assert max(ids) < 100_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupling": 1.5}, "coupling 1.5"),
        ({"null": "c"}, "null 'c'"),
        ({"null": "b", "real_labs": Path()}, "leave one of the two out"),
    ],
)
def test_impossible_arguments_are_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cohort(tmp_path / "never", **options)
    assert not (tmp_path / "never").exists()


def test_another_cohort_or_folder_is_not_overwritten(written: CohortSummary, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another synthetic cohort"):
        cohort(written.root, coupling=0.5)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        cohort(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "wrong", [{"n_patients": 0}, {"n_patients": 5, "hours_low": 0.0}, {"n_patients": 5, "hours_low": 50.0}]
)
def test_impossible_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="CohortSize"):
        CohortSize(**wrong)  # pyright: ignore[reportArgumentType]


def _planned(seed: int, patient: int, hours: tuple[float, float]) -> tuple[Stay, Course]:
    size = CohortSize(n_patients=patient + 1, hours_low=hours[0], hours_high=hours[1])
    plan = CohortPlan(
        parameters=PARAMETERS, size=size, root=Path(), coupling=1.0, null=None, seed=seed, real_labs=None
    )
    return plan_patient(plan, patient)


def test_beats_reach_the_end_of_a_long_record(tmp_path: Path) -> None:
    """Patient 14 of seed 12 once ran out of beats 18 s before the end: a chunk without any could not be made."""
    stay, course = _planned(12, 14, (48.0, 96.0))
    rng = random_stream(12, 14, "records")
    planned = [plan_record(PARAMETERS, course, span, stay.subject_id, rng) for span in stay.recordings]
    last = planned[-1]
    assert last.beats.onsets[-1] > last.samples
    assert len(last.beats.onsets) == len(last.beats.foot) == len(last.beats.amplitude) + 1
    assert len(last.beats.block) == len(last.beats.amplitude)
    shift = last.samples - 40 * 125  # the end alone: what precedes it takes seconds to render
    end = render(last.beats, shift, last.samples, 1.0, 0)
    assert np.isfinite(end).all()
    assert np.ptp(end.reshape(40, 125), axis=1).min() > 0.05, "a pulse in every second, not a flat line"
    write_record(tmp_path, last)
    assert (tmp_path / f"{last.name}.hea").exists()


def test_a_stay_without_any_draw_has_its_rows() -> None:
    stay, course = _planned(5, 468, (0.02, 0.05))
    assert course.draws.empty
    rows = lab_rows(PARAMETERS, stay, course, 5, 468)
    assert set(rows["ITEMID"]) <= {lab.itemid for lab in LABS}, "none but the planted outpatient rows"


def test_bits_of_todays_cohorts_stay(tmp_path: Path) -> None:
    """Hash of a cohort written before long records were mended: no later change may move a bit of it."""
    size = CohortSize(n_patients=3, hours_low=1.0, hours_high=3.0)
    summary = write_cohort(PARAMETERS, size, tmp_path / "cohort", seed=0)
    digest = hashlib.sha256()
    for path in sorted((summary.root / "waveforms").rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(summary.root)).encode() + path.read_bytes())
    assert digest.hexdigest() == "3f146e98ffed7150e88887b5084a780bd8ce20f57037b7e74f289d95bf6a941b"
