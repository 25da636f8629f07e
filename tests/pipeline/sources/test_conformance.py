"""What every waveform source must hold, whatever its layout; a source that nobody lists here fails too."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.pretraining.pulse_families import PulseFamilies
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.base import Record, Stretch, WaveformSource
from pipeline.sources.bidmc import Bidmc
from pipeline.sources.challenge2015 import Challenge2015
from pipeline.sources.detect import open_waveforms
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.rows import normalise_patient_id
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.sources.wfdb.folder import WfdbFolder
from pipeline.testing.conformance import forgotten
from pipeline.testing.damage import CONTENT_ALONE, DAMAGES, emptied, removed, spoilt_inside
from pipeline.testing.waveform_folders import (
    waveform_table,
    write_bidmc_recording,
    write_matched_subset_record,
    write_npy_record,
    write_wfdb_record,
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One kind of source: two patients and three records or more, written below a root that is not there yet.

    `alone` says that a damaged record leaves the others readable: each has files of its own.
    """

    write: Callable[[Path], object]
    source: type
    open: Callable[[Path], WaveformSource] = open_waveforms
    alone: bool = True


def matched_subset(root: Path) -> None:
    write_matched_subset_record(root, 20, "3000002", "2183-04-29 10:00:00")
    write_matched_subset_record(root, 20, "3000001", "2183-04-28 17:47:00", n=5_001)
    write_matched_subset_record(root, 10013, "3000003", "2125-10-04 23:37:00")


def synthetic_cohort(root: Path) -> None:
    size = CohortSize(n_patients=2, hours_low=0.5, hours_high=1.0)
    made = write_cohort(CohortParameters.load(), size, root.with_name(f"{root.name}-cohort"), seed=3)
    (made.root / "waveforms").rename(root)


def wfdb_folder(root: Path) -> None:
    write_wfdb_record(root / "north" / "p000015", "later", when="11:00:00.5 01/02/2150", n=4_321)
    write_wfdb_record(root / "north" / "p000015", "earlier")
    write_wfdb_record(root / "A7", "s_0001")
    write_wfdb_record(root / "A7", "s_0002")
    lines = "s_0001 7500\n~ 3751\ns_0002 7500\n"
    (root / "A7" / "m.hea").write_text(f"m/3 1 125 18751 10:00:00 01/02/2150\n{lines}")


def npy_folder(root: Path) -> None:
    rng = np.random.default_rng(0)
    write_npy_record(root / "ward", rng.normal(size=6_001), patient_id="p0017", sampling_rate_hz=124.945)
    codes = rng.integers(-2000, 2000, 5_000).astype(np.int16)
    write_npy_record(root, codes, "bed1", start="2150-02-01T12:00:00", missing=-7)
    write_npy_record(root, codes[::-1].copy(), "bed2", low=-2000, high=1999.5)


def parquet_folder(root: Path) -> None:
    root.mkdir()
    rng = np.random.default_rng(0)
    samples = pa.array([rng.normal(size=n).tolist() for n in (3_000, 2_501, 4_000)], pa.list_(pa.float32()))
    table = waveform_table(patient_id=["A", "p000020", "A"], samples=samples)
    pq.write_table(table.append_column("low", [[-9.0, None, -9.0]]), root / "one.parquet", row_group_size=2)
    later = pa.array(pd.to_datetime(["2150-02-03", "2150-02-03", "2150-02-04"]), pa.timestamp("us"))
    pq.write_table(table.set_column(1, "start", later), root / "two.parquet")


def bidmc(root: Path) -> None:
    for number, patient in (("01", "s00014"), ("02", "s00006"), ("03", "s00014")):
        write_bidmc_recording(root / "bidmc_csv", number, patient, seconds=90)


def challenge_archive(root: Path) -> None:
    root.mkdir()
    samples = np.random.default_rng(0).normal(size=(3, 2_400)).astype(np.float16)
    np.savez(root / "pleth.npz", pleth=samples.ravel(), length=np.full(3, 2_400), record=["v9", "a1", "t5"])


def opened_archive(root: Path) -> Challenge2015:
    return Challenge2015(root / "pleth.npz")


def pulse_families(root: Path) -> PulseFamilies:
    return PulseFamilies(patients=3, seconds=90.0, seed=20_150_003)


LAYOUTS = {
    "matched subset": Layout(write=matched_subset, source=Mimic3Waveforms),
    "synthetic cohort": Layout(write=synthetic_cohort, source=Mimic3Waveforms),
    "wfdb": Layout(write=wfdb_folder, source=WfdbFolder),
    "npy": Layout(write=npy_folder, source=ArrayFolder),
    "parquet": Layout(write=parquet_folder, source=ArrayFolder),
    "bidmc": Layout(write=bidmc, source=Bidmc, open=Bidmc),
    "challenge": Layout(write=challenge_archive, source=Challenge2015, open=opened_archive, alone=False),
    "pulse families": Layout(write=Path.mkdir, source=PulseFamilies, open=pulse_families, alone=False),
}
APART = [name for name, layout in LAYOUTS.items() if layout.alone]
RECOGNISED = [name for name, layout in LAYOUTS.items() if layout.open is open_waveforms]
RENDERED = ("pulse families",)
"""Without a file: there is nothing to move or to damage."""
IN_FILE_ORDER = ("challenge",)
"""Records of one file, in its own order."""


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of one layout; tests that change it take a copy."""
    root = tmp_path_factory.mktemp("layouts") / "waves"
    LAYOUTS[request.param].write(root)
    return root


@pytest.fixture
def layout(written: Path, request: pytest.FixtureRequest) -> str:
    """Give the name of the layout."""
    return request.node.callspec.params["written"]


@pytest.fixture
def open_source(layout: str) -> Callable[[Path], WaveformSource]:
    """Give what opens a folder of the layout."""
    return LAYOUTS[layout].open


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "copy")


def read(source: WaveformSource, record: Record) -> tuple[list[Stretch], Counter[str]]:
    exclusions: Counter[str] = Counter()
    return list(source.stretches(record, exclusions)), exclusions


def bits(stretches: list[Stretch]) -> list[tuple]:
    return [(s.start_us, s.sampling_rate_hz, s.rails, s.samples.tobytes()) for s in stretches]


def test_no_source_is_forgotten() -> None:
    assert forgotten(WaveformSource, (it.source for it in LAYOUTS.values())) == []


def test_the_source_keeps_the_protocol(written: Path, layout: str) -> None:
    source = LAYOUTS[layout].open(written)
    assert type(source) is LAYOUTS[layout].source
    assert isinstance(source, WaveformSource)
    assert source.name.strip()
    assert source.licence.strip()
    assert source.root == (Path() if layout in RENDERED else written.resolve())


@pytest.mark.parametrize("written", RECOGNISED, indirect=True)
def test_the_folder_is_recognised(written: Path, layout: str) -> None:
    assert type(open_waveforms(written)) is LAYOUTS[layout].source


def test_the_catalogue_is_sorted_and_points_into_the_folder(
    written: Path, layout: str, open_source: Callable[[Path], WaveformSource]
) -> None:
    source = open_source(written)
    found = source.catalog()
    assert not found.exclusions
    assert len(found.records) >= 3
    order = [(record.patient_id, record.start_us) for record in found.records]
    assert order == sorted(order) or layout in IN_FILE_ORDER
    assert len({record.name for record in found.records}) == len(found.records)
    assert len({record.patient_id for record in found.records}) == (2 if LAYOUTS[layout].alone else 3)
    for record in found.records:
        assert isinstance(record.patient_id, str)
        assert record.patient_id == normalise_patient_id(record.patient_id)
        assert type(record.start_us) is type(record.end_us) is int
        assert record.start_us < record.end_us
        assert (record.path in record.files) == (layout not in RENDERED)
        for file in record.files:
            assert file.is_file()
            assert file.resolve().is_relative_to(source.root)


def test_stretches_are_samples_in_time_order_within_the_record(
    written: Path, open_source: Callable[[Path], WaveformSource]
) -> None:
    source = open_source(written)
    for record in source.catalog().records:
        stretches, exclusions = read(source, record)
        assert stretches
        assert not exclusions
        for stretch in stretches:
            assert type(stretch.start_us) is int
            assert stretch.samples.dtype == np.float32
            assert stretch.samples.ndim == 1
            assert len(stretch.samples)
            assert not np.isinf(stretch.samples).any()
            assert isinstance(stretch.sampling_rate_hz, float)
            assert 0 < stretch.sampling_rate_hz < np.inf
            low, high = stretch.rails
            assert low < high
        ends = [s.start_us + len(s.samples) * 1e6 / s.sampling_rate_hz for s in stretches]
        assert stretches[0].start_us >= record.start_us
        assert max(ends) <= record.end_us + 1, "half a microsecond of rounding at either end"
        assert all(
            end <= after.start_us + 1 for end, (_, after) in zip(ends, pairwise(stretches), strict=False)
        )


def test_two_reads_give_the_same_bits(written: Path, open_source: Callable[[Path], WaveformSource]) -> None:
    source, again = open_source(written), open_source(written)
    assert source.catalog() == source.catalog() == again.catalog()
    for record in source.catalog().records:
        assert bits(read(source, record)[0]) == bits(read(source, record)[0]) == bits(read(again, record)[0])


def test_a_folder_that_moved_holds_the_same_records(
    written: Path, copied: Path, open_source: Callable[[Path], WaveformSource]
) -> None:
    there, here = open_source(written), open_source(copied)
    for before, after in zip(there.catalog().records, here.catalog().records, strict=True):
        assert before.name == after.name
        assert not Path(before.name).is_absolute()
        assert (before.patient_id, before.start_us, before.end_us) == (
            after.patient_id, after.start_us, after.end_us
        )  # fmt: skip
        assert [file.relative_to(there.root) for file in before.files] == [
            file.relative_to(here.root) for file in after.files
        ]
        assert bits(read(there, before)[0]) == bits(read(here, after)[0])


@pytest.mark.parametrize("written", APART, indirect=True)
@pytest.mark.parametrize("catalogued", ["before the damage", "after the damage"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_counted_and_the_others_go_on(
    copied: Path,
    open_source: Callable[[Path], WaveformSource],
    damage: Callable[[Path], object],
    catalogued: str,
) -> None:
    """Whichever of a record's files is spoilt, before the catalogue is made or between it and the reading."""
    source = open_source(copied)
    sound = source.catalog()
    victim = sound.records[0]
    others = [record for record in sound.records if not set(record.files) & set(victim.files)]
    expected = {record.name: bits(read(source, record)[0]) for record in others}
    assert expected
    for file in victim.files:
        kept = file.read_bytes()
        bare = file.suffix in (".dat", ".npy") and (damage is spoilt_inside or file.suffix == ".dat")
        (emptied if bare and damage in CONTENT_ALONE else damage)(file)
        found = source.catalog() if catalogued == "after the damage" else sound
        results = {record.name: read(source, record) for record in found.records}
        assert {name: bits(results[name][0]) for name in expected} == expected, file
        counted = sum((exclusions for _, exclusions in results.values()), Counter(found.exclusions))
        vanished = damage is removed and file == victim.path and found is not sound
        assert counted.total() > 0 or vanished, file
        assert all(victim.patient_id not in reason and file.name not in reason for reason in counted)
        if file.is_dir():
            file.rmdir()
        file.write_bytes(kept)
    assert {record.name: bits(read(source, record)[0]) for record in others} == expected


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_one_clear_error(damage: Callable[[Path], object], tmp_path: Path) -> None:
    challenge_archive(tmp_path / "waves")
    damage(tmp_path / "waves" / "pleth.npz")
    with pytest.raises(RecordError, match="no archive of PLETH"):
        opened_archive(tmp_path / "waves")


@pytest.mark.parametrize("written", APART, indirect=True)
def test_files_that_links_take_out_of_the_folder_are_never_listed(
    copied: Path, tmp_path: Path, open_source: Callable[[Path], WaveformSource]
) -> None:
    for file in open_source(copied).catalog().records[0].files:
        outside = tmp_path / file.name
        file.rename(outside)
        file.symlink_to(outside)
        source = open_source(copied)
        found = source.catalog()
        for record in found.records:
            assert all(path.resolve().is_relative_to(source.root) for path in record.files), file
        results = [read(source, record)[1] for record in found.records]
        assert sum(results, Counter(found.exclusions)).total() > 0, file
        file.unlink()
        outside.rename(file)


@pytest.mark.parametrize("source", sorted({LAYOUTS[name].source for name in APART}, key=str))
def test_an_absent_an_empty_and_a_foreign_folder(tmp_path: Path, source: type) -> None:
    with pytest.raises(RecordError, match="is no folder"):
        source(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="is no folder"):
        source(tmp_path / "file")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    assert source(foreign).catalog().records == ()
    (foreign / "LABEVENTS.csv").write_text("subject_id\n")
    assert source(foreign).catalog().records == ()
    with pytest.raises(ConfigError, match="holds no waveform record"):
        open_waveforms(foreign)


@pytest.mark.parametrize(("low", "high"), [(5.0, 5.0), (5.0, 1.0), (float("nan"), 1.0)])
def test_rails_the_wrong_way_round_are_counted(tmp_path: Path, low: float, high: float) -> None:
    write_npy_record(tmp_path, np.ones(100), low=low, high=high)
    rows = waveform_table().append_column("low", [[low, 0.0, -1.0]]).append_column("high", [[high, 9.0, 9.0]])
    pq.write_table(rows, tmp_path / "more.parquet")
    source = ArrayFolder(tmp_path)
    found = source.catalog()
    reason = "rails not low before high"
    assert found.exclusions == Counter(
        {f"record: {reason}": 1} | ({f"row: {reason}": 1} if low == low else {})
    )
    stretches = [s for record in found.records for s in read(source, record)[0]]
    assert all(s.rails[0] < s.rails[1] for s in stretches)


def test_a_row_without_a_single_sample_is_no_record(tmp_path: Path) -> None:
    samples = pa.array([[], [3.0], None], pa.list_(pa.float32()))
    pq.write_table(waveform_table(samples=samples), tmp_path / "waves.parquet")
    pq.write_table(waveform_table(patient_id=["C"] * 3, samples=samples), tmp_path / "waves2.parquet")
    source = ArrayFolder(tmp_path)
    found = source.catalog()
    assert [record.patient_id for record in found.records] == ["B", "C"]
    assert found.exclusions == {"row: no samples": 4}
    assert [s.samples.tolist() for record in found.records for s in read(source, record)[0]] == [[3.0], [3.0]]


def test_a_wfdb_record_without_a_single_sample_is_no_record(tmp_path: Path) -> None:
    write_wfdb_record(tmp_path, "empty", n=0)
    write_matched_subset_record(
        tmp_path, 20, "3000001", "2183-04-28 17:47:00", master_lines="3000001_layout 0\n"
    )
    found = WfdbFolder(tmp_path).catalog()
    assert found.records == ()
    assert found.exclusions["record: no samples"] == 2
    assert Mimic3Waveforms(tmp_path).catalog().exclusions == {"record: no samples": 1}
