"""Any hospital's labs: one long table, one row a result, in CSV, gzipped CSV or Parquet."""

import datetime
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import ADMISSION_COLUMNS
from pipeline.sources.base import ClinicalTables
from pipeline.sources.csv_stream import stream_csv
from pipeline.sources.rows import column, no_admissions, normalise_patient_id, parse_times_us, usable_rows

LAB_COLUMNS = {
    "patient_id": "patient_id", "code": "code", "value": "value", "unit": "unit",
    "sampled_at": "sampled_at", "available_at": "available_at",
}  # fmt: skip
"""Our names of the table's columns, and the names looked for unless the column map says otherwise."""
_OPTIONAL_LAB_COLUMNS = ("unit", "available_at")
_ADMISSION_TIMES = {"admitted_us": "admitted_at", "discharged_us": "discharged_at"}
_DESCRIPTIONS = ("age_years", "sex", "ethnicity", "care_unit")


@dataclass(frozen=True, kw_only=True)
class LabTableConfig:
    """How to read one hospital's table.

    Attributes
    ----------
    column_map : our name (``patient_id``, ``code``, ``value``, ``unit``, ``sampled_at``, ``available_at``) ->
        the table's; unit and available_at may be absent
    code_map : the table's code -> a lab's name, LOINC code or MIMIC item; codes not named stay as they are
    units : the table's code or the lab's name -> unit, for rows without one
    time_offset : added to every time of the table, to bring it onto the waveforms' wall clock
    licence : licence and sharing limits of the data, carried into every artefact
    """

    column_map: Mapping[str, str] = field(default_factory=dict)
    code_map: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    time_offset: datetime.timedelta = datetime.timedelta(0)
    licence: str = "not stated; treat as confidential"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.column_map) - set(LAB_COLUMNS))
        if unknown:
            raise ValueError(f"column_map = {unknown}: expected only {sorted(LAB_COLUMNS)}")


class LabTable:
    """One long lab table, and perhaps a table of admissions.

    Parameters
    ----------
    path : .csv, .csv.gz or .parquet
    column_map, units, time_offset, code_map, licence : as in `LabTableConfig`, if no `config` is given
    admissions : table with patient_id, admission_id, admitted_at, discharged_at and perhaps age_years, sex,
        ethnicity, care_unit; None where the hospital's stays are not to matter
    """

    name = "lab_table"

    def __init__(self, path: Path, *, admissions: Path | None = None, **config) -> None:
        self.path = Path(path)
        self.admissions = None if admissions is None else Path(admissions)
        self.config = LabTableConfig(**config)
        self.licence = self.config.licence

    def tables(self) -> ClinicalTables:
        """Read the table; rows without patient or time are counted, values are left as they are written.

        Raises
        ------
        LabError
            The table is absent or unreadable, lacks a column, or its times carry time zones.
        """
        exclusions: Counter[str] = Counter()
        return ClinicalTables(
            labs=self._labs(exclusions),
            admissions=self._admissions(exclusions),
            licence=self.licence,
            exclusions=exclusions,
            labs_from=self.path,
        )

    def _labs(self, exclusions: Counter[str]) -> pd.DataFrame:
        columns = LAB_COLUMNS | dict(self.config.column_map)
        rows = read_table(self.path, columns, exclusions, optional=_OPTIONAL_LAB_COLUMNS)
        code = column(rows, "code").astype("str").str.strip().str.removesuffix(".0")
        lab = code.map(lambda text: self.config.code_map.get(text, text))
        units = self.config.units
        default_unit = pd.Series(
            [units.get(c, units.get(name, "")) for c, name in zip(code, lab, strict=True)],
            index=code.index,
            dtype="str",
        )
        unit = column(rows, "unit").astype("str").fillna("")
        labs = pd.DataFrame(
            {
                "patient_id": column(rows, "patient_id").map(_identifier).astype("str"),
                "code": lab,
                "value": column(rows, "value"),
                "unit": unit.where(unit.str.strip() != "", default_unit),
                "sampled_at_us": self._times(rows, "sampled_at", columns),
                "available_at_us": self._times(rows, "available_at", columns),
            }
        )
        return usable_rows(
            labs, {"patient_id": "lab: no patient", "sampled_at_us": "lab: no time"}, exclusions
        )

    def _times(self, rows: pd.DataFrame, name: str, columns: Mapping[str, str]) -> pd.Series:
        offset_us = self.config.time_offset // datetime.timedelta(microseconds=1)
        return parse_times_us(column(rows, name), columns[name]) + offset_us

    def _admissions(self, exclusions: Counter[str]) -> pd.DataFrame:
        if self.admissions is None:
            return no_admissions()
        names = {name: _ADMISSION_TIMES.get(name, name) for name in ADMISSION_COLUMNS}
        rows = read_table(self.admissions, names, exclusions, optional=_DESCRIPTIONS)
        for name in ("patient_id", "admission_id"):
            rows[name] = column(rows, name).map(_identifier).astype("str")
        for name in _ADMISSION_TIMES:
            rows[name] = self._times(rows, name, names)
        rows["age_years"] = column(rows, "age_years").map(_number).astype(float)
        for name in ("sex", "ethnicity", "care_unit"):
            text = column(rows, name).astype("str")
            rows[name] = text.where(text.notna() & (text != ""), "unknown")
        reasons: dict[str, str] = dict.fromkeys(("patient_id", "admission_id"), "admission: no identifier")
        reasons |= dict.fromkeys(_ADMISSION_TIMES, "admission: no time")
        return usable_rows(rows, reasons, exclusions).loc[:, list(ADMISSION_COLUMNS)]


def read_table(
    path: Path, columns: Mapping[str, str], exclusions: Counter[str], *, optional: tuple[str, ...]
) -> pd.DataFrame:
    """Read `columns` (ours -> theirs, any case) of a CSV or Parquet table; optional ones may be missing.

    Raises
    ------
    LabError
        The file is absent or unreadable, or a column is not there.
    """
    if not path.is_file():
        raise LabError(f"{path} is not there; give the path of a .csv, .csv.gz or .parquet table.")
    if path.suffix != ".parquet":
        return pd.concat(list(stream_csv(path, columns, exclusions, optional=optional)), ignore_index=True)
    try:
        names = {name.casefold(): name for name in pq.read_schema(path).names}
        found = {
            ours: names[theirs.casefold()] for ours, theirs in columns.items() if theirs.casefold() in names
        }
        absent = [theirs for ours, theirs in columns.items() if ours not in found and ours not in optional]
        if absent:
            raise LabError(f"{path} has no column {', '.join(absent)}; it has {', '.join(names.values())}.")
        frame = pq.read_table(path, columns=list(dict.fromkeys(found.values()))).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise LabError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0][:120]}).") from error
    missing = pd.Series(pd.NA, index=frame.index, dtype="str")
    return pd.DataFrame({ours: frame[found[ours]] if ours in found else missing for ours in columns})


def _number(value: object) -> float:
    """Read a number, NaN where there is none."""
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def _identifier(value: object) -> str | None:
    return normalise_patient_id(str(value))
