"""Generated records: true WFDB to the catalogue, without a block of data on the disk."""

from pathlib import Path

import wfdb

from pipeline.rehearsal.headers import HeaderPlan, write_headers
from pipeline.sources.mimic3 import Mimic3Waveforms


def test_every_record_is_catalogued_with_all_its_files(tmp_path: Path) -> None:
    write_headers(HeaderPlan(records=12, files=10, seed=0), tmp_path, workers=1)
    catalog = Mimic3Waveforms(tmp_path).catalog()
    assert len(catalog.records) == 12
    assert not catalog.exclusions
    assert len({record.patient_id for record in catalog.records}) == 3
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "RECORDS"]
    assert len(files) == 12 * 10
    assert {len(record.files) for record in catalog.records} == {10}
    assert all(one.end_us == one.start_us + 4 * 7200 * 1_000_000 for one in catalog.records)
    sizes = [path.stat() for path in tmp_path.rglob("*.dat")]
    assert sum(size.st_blocks * 512 for size in sizes) < 0.01 * sum(size.st_size for size in sizes)


def test_wfdb_reads_a_master(tmp_path: Path) -> None:
    write_headers(HeaderPlan(records=1, files=6, seed=0), tmp_path, workers=1)
    (master,) = [path for path in tmp_path.rglob("p*-*.hea")]
    header = wfdb.rdheader(str(master.with_suffix("")), rd_segments=True)
    assert header.fs == 125
    assert header.sig_len == 2 * 7200 * 125
    assert header.segments[1].sig_name == ["PLETH"]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    plan = HeaderPlan(records=6, files=6, seed=0)
    write_headers(plan, tmp_path, workers=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    write_headers(plan, tmp_path, workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
