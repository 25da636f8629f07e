"""The catalogue survives the disk."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.sources.base import Catalog, Record
from pipeline.sources.catalog import catalogued_patients, load_catalog, release_catalog, save_catalog


def test_round_trip(tmp_path: Path) -> None:
    root = tmp_path / "waves"
    record = Record(
        patient_id="20",
        name="p00/p000020/p000020-2183-04-28-17-47",
        path=root / "p00/p000020/p000020-2183-04-28-17-47.hea",
        files=(root / "p00/p000020/3544749_0001.dat", root / "p00/p000020/3544749_0001.hea"),
        start_us=6_731_833_620_000_000,
        end_us=6_731_833_720_000_000,
    )
    save_catalog(tmp_path / "catalog.parquet", Catalog(records=(record,)), root)
    assert load_catalog(tmp_path / "catalog.parquet", root).records == (record,)


def test_an_empty_catalogue(tmp_path: Path) -> None:
    save_catalog(tmp_path / "catalog.parquet", Catalog(records=()), tmp_path)
    assert load_catalog(tmp_path / "catalog.parquet", tmp_path).records == ()
    assert load_catalog(tmp_path / "catalog.parquet", tmp_path, ["20"]).records == ()
    assert catalogued_patients(tmp_path / "catalog.parquet") == []


def catalog_of(root: Path, *patients: str) -> Catalog:
    records = tuple(
        Record(
            patient_id=patient, name=f"{patient}/{number}", path=root / f"{patient}/{number}.hea",
            files=(root / f"{patient}/{number}.hea", root / f"{patient}/{number}.dat"), start_us=number, end_us=9,
        )
        for number, patient in enumerate(patients)
    )  # fmt: skip
    return Catalog(records=records)


def test_batches_read_the_file_once_and_again_when_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "catalog.parquet", catalog_of(tmp_path, "20", "7", "20", "31")
    save_catalog(path, whole, tmp_path)
    reads: list[Path] = []
    original = pq.read_table
    monkeypatch.setattr(pq, "read_table", lambda path: [reads.append(path), original(path)][1])
    release_catalog()
    assert catalogued_patients(path) == ["20", "7", "31"]
    assert load_catalog(path, tmp_path, {"20"}).records == (whole.records[0], whole.records[2])
    assert load_catalog(path, tmp_path, ["31", "7", "unknown"]).records == (
        whole.records[1],
        whole.records[3],
    )
    assert load_catalog(path, tmp_path).records == whole.records
    assert reads == [path]
    save_catalog(path, catalog_of(tmp_path, "8"), tmp_path)
    assert catalogued_patients(path) == ["8"]
    assert len(reads) == 2
    release_catalog()
    load_catalog(path, tmp_path)
    assert len(reads) == 3
