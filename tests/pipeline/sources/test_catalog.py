"""The catalogue survives the disk."""

from pathlib import Path

from pipeline.sources.base import Catalog, Record
from pipeline.sources.catalog import load_catalog, save_catalog


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
