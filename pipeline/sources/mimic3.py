"""MIMIC-III: the Waveform Database Matched Subset, and the clinical tables.

Waveforms: ``p00/p000020/p000020-2183-04-28-17-47.hea`` is the master of one recording; names that end in
``n`` are numerics; everything else belongs to a master. Tables: LABEVENTS, ADMISSIONS, ICUSTAYS and PATIENTS,
plain or gzipped, with headers of either case (the demo has lower, the full release upper).
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.foundation.errors import LabError, RecordError
from pipeline.foundation.memory import collector_paused
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import ADMISSION_COLUMNS, LABS
from pipeline.sources.base import Catalog, ClinicalTables, Record, Stretch
from pipeline.sources.csv_stream import find_table, stream_csv
from pipeline.sources.rows import column, normalise_patient_id, parse_times_us, usable_rows
from pipeline.sources.wfdb.header import BadRecord
from pipeline.sources.wfdb.records import open_record, read_stretches, record_files

WAVEFORM_LICENCE = "MIMIC-III Waveform Database Matched Subset: ODbL 1.0 (PhysioNet)"
CLINICAL_LICENCE = (
    "MIMIC-III Clinical Database: PhysioNet Credentialed Health Data Licence 1.5.0; do not share tables, "
    "embeddings, predictions or weights derived from it. (Its 100-patient demo: ODbL 1.0.)"
)
_MASTER = re.compile(r"(p\d{6})-\d{4}-\d{2}-\d{2}-\d{2}-\d{2}\.hea")
_US_PER_YEAR = 365.2425 * 86_400e6
OLDEST_AGE = 89.0
"""Ages above it are hidden (birth dates moved back by about 300 years): all of them become 90."""
_CENSORED = re.compile(r"\s*(?:[<>≤≥]|less\b|greater\b|more\b)", re.IGNORECASE)


class Mimic3Waveforms:
    """A folder in the Matched Subset's layout.

    Parameters
    ----------
    root : folder that holds ``p00`` .. ``p09``, or one of the folders below it
    licence : licence and sharing limits; another one for other data in this layout, such as a synthetic cohort
    """

    name = "mimic3"

    def __init__(self, root: Path, *, licence: str = WAVEFORM_LICENCE) -> None:
        self.root = Path(root).resolve()
        self.licence = licence
        if not self.root.is_dir():
            raise RecordError(f"{root} is no folder; point at the folder of the Matched Subset.")

    def catalog(self) -> Catalog:
        """Find every master record; one that cannot be used is counted with its reason."""
        exclusions: Counter[str] = Counter()
        records = []
        with collector_paused():  # 880,000 paths at full size
            for path in tracked(sorted(self.root.rglob("p*.hea")), "reading headers", "files"):
                match = _MASTER.fullmatch(path.name)
                if match is None:
                    continue
                try:
                    records.append(self._record(path, match[1]))
                except BadRecord as problem:
                    exclusions[f"record: {problem.reason}"] += 1
        records.sort(key=lambda record: (record.patient_id, record.start_us, record.name))
        return Catalog(records=tuple(records), exclusions=exclusions)

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the record's PLETH in time order, at most an hour at a time; bad segments are counted."""
        try:
            yield from read_stretches(open_record(record.path, self.root), self.root, exclusions)
        except BadRecord as problem:  # changed since the catalogue was made
            exclusions[f"record: {problem.reason}"] += 1

    def _record(self, path: Path, subject: str) -> Record:
        header = open_record(path, self.root)
        if header.base_us is None:
            raise BadRecord("no base date", f"{path} has no base date.")
        patient_id = normalise_patient_id(subject)
        assert patient_id is not None  # the name's pattern holds six digits
        return Record(
            patient_id=patient_id,
            name=path.relative_to(self.root).with_suffix("").as_posix(),
            path=path,
            files=record_files(header, self.root),
            start_us=header.base_us,
            end_us=header.base_us + header.duration_us(header.n_frames or 0),
        )


class Mimic3Tables:
    """The clinical tables of MIMIC-III.

    Parameters
    ----------
    root : folder with LABEVENTS.csv[.gz], ADMISSIONS.csv[.gz], and best ICUSTAYS and PATIENTS too
    licence : licence and sharing limits; another one for other data in these tables
    """

    name = "mimic3"

    def __init__(self, root: Path, *, licence: str = CLINICAL_LICENCE) -> None:
        self.root = Path(root)
        self.licence = licence
        if not self.root.is_dir():
            raise LabError(f"{root} is no folder; point at the folder of the MIMIC-III tables.")

    def tables(self) -> ClinicalTables:
        """Read the five labs (blood-gas twins too) and the admissions; LABEVENTS is streamed.

        Raises
        ------
        LabError
            LABEVENTS or ADMISSIONS is absent, or lacks a column.
        """
        exclusions: Counter[str] = Counter()
        labs = self._labs(exclusions)
        return ClinicalTables(
            labs=labs,
            admissions=self._admissions(exclusions),
            licence=self.licence,
            exclusions=exclusions,
            labs_from=self._path("LABEVENTS"),
        )

    def _labs(self, exclusions: Counter[str]) -> pd.DataFrame:
        columns = {
            "patient": "subject_id", "code": "itemid", "time": "charttime",
            "value": "value", "number": "valuenum", "unit": "valueuom",
        }  # fmt: skip
        itemids = [str(i) for lab in LABS for i in (lab.itemid, lab.whole_blood_itemid) if i is not None]
        pieces = stream_csv(self._path("LABEVENTS"), columns, exclusions, keep=("code", itemids))
        rows = pd.concat(list(pieces), ignore_index=True)
        labs = pd.DataFrame(
            {
                "patient_id": rows["patient"].map(normalise_patient_id).astype("str"),
                "code": rows["code"].str.removesuffix(".0"),
                "value": _values(rows),
                "unit": rows["unit"],
                "sampled_at_us": parse_times_us(column(rows, "time"), "charttime"),
                "available_at_us": pd.array([pd.NA] * len(rows), dtype="Int64"),
            }
        )
        return usable_rows(
            labs, {"patient_id": "lab: no patient", "sampled_at_us": "lab: no time"}, exclusions
        )

    def _admissions(self, exclusions: Counter[str]) -> pd.DataFrame:
        columns = {
            "patient_id": "subject_id", "admission_id": "hadm_id", "admitted_us": "admittime",
            "discharged_us": "dischtime", "ethnicity": "ethnicity",
        }  # fmt: skip
        rows = self._table("ADMISSIONS", columns, exclusions)
        for name in ("admitted_us", "discharged_us"):
            rows[name] = parse_times_us(column(rows, name), columns[name])
        reasons: dict[str, str] = dict.fromkeys(("patient_id", "admission_id"), "admission: no identifier")
        reasons |= dict.fromkeys(("admitted_us", "discharged_us"), "admission: no time")
        rows = usable_rows(rows, reasons, exclusions)
        rows = rows.merge(self._patients(exclusions), on="patient_id", how="left")
        rows = rows.merge(self._first_units(exclusions), on="admission_id", how="left")
        rows["age_years"] = _age_years(column(rows, "admitted_us"), column(rows, "born_us"))
        for name in ("sex", "ethnicity", "care_unit"):
            rows[name] = rows[name].where(rows[name].notna() & (rows[name] != ""), "unknown")
        rows = rows.sort_values(["patient_id", "admitted_us"], ignore_index=True)
        return rows.loc[:, list(ADMISSION_COLUMNS)]

    def _patients(self, exclusions: Counter[str]) -> pd.DataFrame:
        columns = {"patient_id": "subject_id", "sex": "gender", "born_us": "dob"}
        rows = self._table("PATIENTS", columns, exclusions, required=False)
        rows["born_us"] = parse_times_us(column(rows, "born_us"), "dob")
        return rows.dropna(subset=["patient_id"]).drop_duplicates("patient_id")

    def _first_units(self, exclusions: Counter[str]) -> pd.DataFrame:
        columns = {"admission_id": "hadm_id", "care_unit": "first_careunit", "in_us": "intime"}
        rows = self._table("ICUSTAYS", columns, exclusions, required=False)
        rows["in_us"] = parse_times_us(column(rows, "in_us"), "intime")
        rows = rows.sort_values("in_us", kind="stable").drop(columns="in_us")
        return rows.dropna(subset=["admission_id"]).drop_duplicates("admission_id")

    def _table(
        self, stem: str, columns: dict[str, str], exclusions: Counter[str], *, required: bool = True
    ) -> pd.DataFrame:
        if not required and find_table(self.root, stem) is None:
            exclusions[f"table absent: {stem}"] += 1
            return pd.DataFrame(columns=list(columns), dtype="str")
        rows = pd.concat(list(stream_csv(self._path(stem), columns, exclusions)), ignore_index=True)
        for name in ("patient_id", "admission_id"):
            if name in columns:
                rows[name] = rows[name].map(normalise_patient_id).astype("str")
        return rows

    def _path(self, stem: str) -> Path:
        path = find_table(self.root, stem)
        if path is None:
            raise LabError(f"{self.root} has no {stem}.csv or {stem}.csv.gz; copy the table there.")
        return path


def _values(rows: pd.DataFrame) -> pd.Series:
    """VALUENUM; but VALUE where there is no number, or where it says that the number is a bound."""
    value, number = column(rows, "value"), column(rows, "number")
    return number.where(~(value.str.match(_CENSORED) | (number == "")), value)


def _age_years(admitted_us: pd.Series, born_us: pd.Series) -> np.ndarray:
    """Age at admission; 90 where it was hidden; NaN where the birth date is unknown."""
    years = (admitted_us - born_us).astype("Float64").to_numpy(float, na_value=np.nan) / _US_PER_YEAR
    return np.where(years > OLDEST_AGE, 90.0, np.where(years < 0, np.nan, years))
