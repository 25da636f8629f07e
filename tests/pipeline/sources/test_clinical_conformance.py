"""What every clinical source must hold, whatever its tables; a source that nobody lists here fails too."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.foundation.errors import ConfigError, LabError
from pipeline.foundation.schema import ADMISSION_COLUMNS
from pipeline.sources.base import ClinicalSource
from pipeline.sources.detect import DESCRIPTION, open_clinical
from pipeline.sources.lab_table import LabTable
from pipeline.sources.meds import MedsTables
from pipeline.sources.mimic3 import Mimic3Tables
from pipeline.sources.rows import normalise_patient_id
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.testing.clinical_folders import (
    LONG_TABLE,
    LONG_TABLE_COLUMNS,
    MIMIC_TABLES,
    STAYS,
    write_meds_shard,
    write_mimic_tables,
    write_table,
)
from pipeline.testing.conformance import forgotten
from pipeline.testing.damage import DAMAGES, halved, spoilt_inside

LAB_TYPES = {
    "patient_id": "str", "code": "str", "value": "", "unit": "str", "sampled_at_us": "int64",
    "available_at_us": "Int64",
}  # fmt: skip
"""As `ClinicalTables` says; a value may be text or a number, row by row."""
ADMISSION_TYPES = dict.fromkeys(ADMISSION_COLUMNS, "str") | {
    "admitted_us": "int64", "discharged_us": "int64", "age_years": "float64",
}  # fmt: skip
EARLIEST_US, LATEST_US = (
    int(np.datetime64(day, "us").astype(np.int64)) for day in ("2100-01-01", "2262-12-31")
)


@dataclass(frozen=True, kw_only=True)
class Tables:
    """One kind of tables: how to write them, or the same without a row, and what is to be counted in them."""

    write: Callable[[Path, bool], object]
    source: type
    exclusions: dict[str, int]
    n_labs: int
    n_admissions: int


def mimic(root: Path, rows: bool) -> None:
    heads = {name: text.splitlines()[0] + "\n" for name, text in MIMIC_TABLES.items()}
    write_mimic_tables(root, **({} if rows else heads))


def synthetic_cohort(root: Path, rows: bool) -> None:
    size = CohortSize(n_patients=2, hours_low=0.5, hours_high=1.0)
    made = write_cohort(CohortParameters.load(), size, root.with_name(f"{root.name}-cohort"), seed=3)
    for path in (made.root / "clinical").iterdir():
        frame = pd.read_csv(path, dtype=str)
        (frame if rows else frame.head(0)).to_csv(root / path.name, index=False)


def long_table(kind: str, *, stays: bool) -> Callable[[Path, bool], None]:
    def write(root: Path, rows: bool) -> None:
        write_table(root, LONG_TABLE if rows else LONG_TABLE.head(0), kind)
        about: dict[str, object] = {
            "path": f"labs.{kind}", "column_map": LONG_TABLE_COLUMNS, "time_offset_hours": -1,
            "code_map": {"KALIUM": "potassium", "GLU": "glucose"}, "units": {"glucose": "mmol/L"},
        }  # fmt: skip
        if stays:
            write_table(root, STAYS if rows else STAYS.head(0), kind, "stays")
            about["admissions"] = f"stays.{kind}"
        (root / DESCRIPTION).write_text(json.dumps(about))

    return write


def meds(root: Path, rows: bool) -> None:
    events = [
        (1, 0, "LAB//SPECIMEN_COLLECTED//50971", None, None),
        (1, 1, "LAB//RESULT//50971//mEq/L", 4.5, None),
        (20, 2, "LAB//50813//mmol/L", None, "<0.5"),
        (20, None, "LAB//50813//mmol/L", 2.0, None),
        (20, 3, "LAB//RESULT//50983//mEq/L", 140.0, None),
    ]
    write_meds_shard(root, events if rows else [(1, 0, "HR", 80.0, None)])
    (root / "metadata").mkdir()


BOTH = {"lab: no patient": 1, "lab: no time": 1, "admission: no time": 1}
NO_STAYS = {"lab: no patient": 1, "lab: no time": 1}
KINDS = {
    "mimic": Tables(write=mimic, source=Mimic3Tables, exclusions=BOTH, n_labs=5, n_admissions=2),
    "synthetic": Tables(write=synthetic_cohort, source=Mimic3Tables, exclusions={}, n_labs=10, n_admissions=2),
    "csv": Tables(
        write=long_table("csv", stays=True), source=LabTable, exclusions=BOTH, n_labs=3, n_admissions=1
    ),
    "csv.gz": Tables(
        write=long_table("csv.gz", stays=False), source=LabTable, exclusions=NO_STAYS, n_labs=3, n_admissions=0
    ),
    "parquet": Tables(
        write=long_table("parquet", stays=True), source=LabTable, exclusions=BOTH, n_labs=3, n_admissions=1
    ),
    "meds": Tables(
        write=meds, source=MedsTables, n_labs=2, n_admissions=0,
        exclusions={"lab: no time": 1, "lab: result without a draw": 1},
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Tables:
    return KINDS[request.param]


@pytest.fixture
def written(kind: Tables, tmp_path: Path) -> Path:
    root = tmp_path / "tables"
    root.mkdir()
    kind.write(root, True)
    return root


def check_types(frame: pd.DataFrame, types: dict[str, str]) -> None:
    assert list(frame.columns) == list(types)
    assert {name: str(frame[name].dtype) for name, type_ in types.items() if type_} == {
        name: type_ for name, type_ in types.items() if type_
    }


def test_no_source_is_forgotten() -> None:
    assert forgotten(ClinicalSource, (it.source for it in KINDS.values())) == []


def test_the_tables_are_recognised_and_the_source_keeps_the_protocol(kind: Tables, written: Path) -> None:
    source = open_clinical(written)
    assert type(source) is kind.source
    assert isinstance(source, ClinicalSource)
    assert source.name.strip()
    assert source.tables().licence.strip()


def test_the_tables_say_which_file_the_labs_are_from(written: Path) -> None:
    """So that what cleaning refuses in them names it."""
    labs_from = open_clinical(written).tables().labs_from
    assert labs_from is not None
    assert labs_from.exists()
    assert labs_from.relative_to(written).parts


def test_labs_have_the_columns_and_types_of_the_docstring(kind: Tables, written: Path) -> None:
    labs = open_clinical(written).tables().labs
    check_types(labs, LAB_TYPES)
    assert len(labs) >= kind.n_labs
    assert all(isinstance(value, str | float) for value in labs["value"])
    assert labs["patient_id"].map(normalise_patient_id).tolist() == labs["patient_id"].tolist()
    assert (labs["code"] != "").all()
    assert labs["sampled_at_us"].between(EARLIEST_US, LATEST_US).all(), "microseconds, not another unit"
    later = labs["available_at_us"] - labs["sampled_at_us"]
    assert later.dropna().between(0, 72 * 3_600_000_000).all()
    assert labs.index.tolist() == list(range(len(labs)))


def test_admissions_have_the_columns_of_the_schema(kind: Tables, written: Path) -> None:
    admissions = open_clinical(written).tables().admissions
    check_types(admissions, ADMISSION_TYPES)
    assert len(admissions) >= kind.n_admissions
    assert (len(admissions) == 0) == (kind.n_admissions == 0)
    assert admissions["patient_id"].map(normalise_patient_id).tolist() == admissions["patient_id"].tolist()
    for name in ("patient_id", "admission_id", "sex", "ethnicity", "care_unit"):
        assert admissions[name].notna().all()
        assert (admissions[name] != "").all()
    assert admissions[["admitted_us", "discharged_us"]].stack().between(EARLIEST_US, LATEST_US).all()


def test_what_cannot_be_used_is_counted(kind: Tables, written: Path) -> None:
    found = open_clinical(written).tables()
    assert found.exclusions == kind.exclusions
    assert all(
        not any(patient in reason for reason in found.exclusions) for patient in found.labs["patient_id"]
    )


def test_two_reads_and_a_moved_folder_give_the_same_tables(written: Path, tmp_path: Path) -> None:
    source = open_clinical(written)
    first, again = source.tables(), source.tables()
    moved = open_clinical(shutil.move(written, tmp_path / "elsewhere")).tables()
    for other in (again, moved):
        pd.testing.assert_frame_equal(first.labs, other.labs)
        pd.testing.assert_frame_equal(first.admissions, other.admissions)
        assert (first.licence, first.exclusions) == (other.licence, other.exclusions)


def test_tables_without_rows_keep_their_types(kind: Tables, tmp_path: Path) -> None:
    root = tmp_path / "tables"
    root.mkdir()
    kind.write(root, False)
    found = open_clinical(root).tables()
    assert len(found.labs) == len(found.admissions) == 0
    check_types(found.labs, LAB_TYPES)
    check_types(found.admissions, ADMISSION_TYPES)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_one_clear_error_or_counted(
    written: Path, damage: Callable[[Path], object]
) -> None:
    """Whichever file is spoilt, never a library's error; what of a table is still there may be read."""
    whole = open_clinical(written).tables()
    for file in sorted(path for path in written.rglob("*") if path.is_file()):
        kept = file.read_bytes()
        damage(file)
        try:
            found = open_clinical(written).tables()
        except (LabError, ConfigError):
            pass
        else:
            assert damage in (halved, spoilt_inside) or found.exclusions != whole.exclusions, file
            check_types(found.labs, LAB_TYPES)
            check_types(found.admissions, ADMISSION_TYPES)
        if file.is_dir():
            file.rmdir()
        file.write_bytes(kept)


@pytest.mark.parametrize("source", sorted({it.source for it in KINDS.values()}, key=str))
def test_an_absent_an_empty_and_a_foreign_folder_are_one_clear_error(tmp_path: Path, source: type) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for folder in (tmp_path / "absent", foreign):
        with pytest.raises(LabError):
            source(folder).tables()
    (foreign / "bed7.npy").write_bytes(b"waves")
    with pytest.raises(LabError):
        source(foreign).tables()
    with pytest.raises(ConfigError, match="holds no lab table"):
        open_clinical(foreign)
