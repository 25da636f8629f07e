"""Labs from a dataset in the Medical Event Data Standard (MEDS 0.4).

``data/**/*.parquet`` holds subject_id, time, code, numeric_value and perhaps text_value;
``metadata/codes.parquet`` may name a code's LOINC parent. The time of a MIMIC lab means two things, by
version of the conversion: older extracts have ``LAB//50971//mEq/L`` at the draw; newer ones have
``LAB//SPECIMEN_COLLECTED//50971`` at the draw and ``LAB//RESULT//50971//mEq/L`` when the result was stored.
Both are read for what they are.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import HOUR_US, LABS
from pipeline.sources.base import ClinicalTables
from pipeline.sources.rows import column, no_admissions, parse_times_us, usable_rows

MAX_RESULT_DELAY_US = 72 * HOUR_US
"""A result is paired with the latest draw of the same lab at most this long before it (our decision)."""
_RESULT, _DRAW, _DIRECT = "result", "draw", "direct"
_LOINC = re.compile(r"LOINC/+([0-9]+-[0-9])", re.IGNORECASE)
_COLUMNS = ("subject_id", "time", "code", "numeric_value", "text_value", "unit")


@dataclass(frozen=True, kw_only=True)
class Code:
    """What one MEDS code means to us: item or LOINC code, unit ("" unknown), and which time it carries."""

    item: str
    unit: str
    kind: str


class MedsTables:
    """A MEDS dataset's lab events.

    Parameters
    ----------
    root : folder with ``data`` and best ``metadata``
    licence : licence and sharing limits of the data, carried into every artefact
    """

    name = "meds"

    def __init__(self, root: Path, *, licence: str = "not stated; treat as confidential") -> None:
        self.root = Path(root)
        self.licence = licence
        if not (self.root / "data").is_dir():
            raise LabError(f"{root} has no folder data; point at the root of a MEDS dataset.")

    def tables(self) -> ClinicalTables:
        """Read the five labs; MEDS has no table of admissions, so that one is empty.

        Raises
        ------
        LabError
            A shard breaks MEDS: a column or type is wrong, or times carry zones.
        """
        exclusions: Counter[str] = Counter()
        parents = self._loinc_parents()
        pieces = [piece for path in self._shards() for piece in _lab_events(path, parents)]
        events = pd.concat(pieces, ignore_index=True) if pieces else _no_events()
        events = usable_rows(events, {"time_us": "lab: no time"}, exclusions)
        return ClinicalTables(
            labs=_with_both_times(events, exclusions),
            admissions=no_admissions(),
            licence=self.licence,
            exclusions=exclusions,
            labs_from=self.root / "data",
        )

    def _shards(self) -> list[Path]:
        shards = sorted((self.root / "data").rglob("*.parquet"))
        if not shards:
            raise LabError(f"{self.root / 'data'} holds no .parquet shard.")
        return shards

    def _loinc_parents(self) -> dict[str, str]:
        """LOINC code of each code whose metadata names one."""
        path = self.root / "metadata" / "codes.parquet"
        if not path.is_file() or "parent_codes" not in pq.read_schema(path).names:
            return {}
        frame = pq.read_table(path, columns=["code", "parent_codes"]).to_pandas()
        texts = zip(frame["code"], frame["parent_codes"].map(_joined), strict=True)
        return {code: match[1] for code, text in texts if (match := _LOINC.search(text))}


def understand(code: str, parents: dict[str, str]) -> Code | None:
    """Say what a MEDS code means; None for everything that is none of the five labs.

    Examples
    --------
    >>> understand("LAB//RESULT//50971//mEq/L", {})
    Code(item='50971', unit='mEq/L', kind='result')
    >>> understand("LAB//SPECIMEN_COLLECTED//50971", {}).kind
    'draw'
    >>> understand("HR", {}) is None
    True
    """
    parts = code.split("//")
    kinds = {"RESULT": _RESULT, "SPECIMEN_COLLECTED": _DRAW}
    kind = next((kinds[part.upper()] for part in parts if part.upper() in kinds), _DIRECT)
    known = _known_items()
    at = next((i for i, part in enumerate(parts) if part in known), None)
    is_lab = parts[0].upper() in ("LAB", "LOINC") or len(parts) == 1
    if at is not None and is_lab:
        return Code(item=parts[at], unit=parts[at + 1] if at + 1 < len(parts) else "", kind=kind)
    loinc = _LOINC.search(code)
    item = loinc[1] if loinc else parents.get(code, "")
    unit = parts[-1] if len(parts) > 2 and not parts[-1].isdecimal() and kind != _DRAW else ""
    return Code(item=item, unit=unit, kind=kind) if item in known else None


def _known_items() -> set[str]:
    codes = ((lab.itemid, lab.loinc, lab.whole_blood_itemid, lab.whole_blood_loinc) for lab in LABS)
    return {str(code) for row in codes for code in row if code is not None}


def _joined(parents: object) -> str:
    return " ".join(map(str, parents)) if isinstance(parents, Iterable) else ""


def _lab_events(path: Path, parents: dict[str, str]) -> Iterator[pd.DataFrame]:
    """Yield the shard's events of the five labs, a row group at a time."""
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow)
            names = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                yield _understood(file.read_row_group(group, columns=names), parents)
    except (pa.ArrowInvalid, OSError) as error:
        raise LabError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0][:120]}).") from error


def _check_schema(path: Path, schema: pa.Schema) -> None:
    kinds = {
        "subject_id": (pa.types.is_integer, "int64"),
        "time": (pa.types.is_timestamp, "timestamp[us] without zone"),
        "code": (_is_text, "string"),
    }
    for name, (right, expected) in kinds.items():
        found = schema.field(name).type if name in schema.names else None
        if found is None or not right(found):
            raise LabError(f"{path}: column {name} is {found or 'absent'}; MEDS 0.4 wants {expected}.")


def _is_text(kind: pa.DataType) -> bool:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(values) or pa.types.is_large_string(values)


def _understood(table: pa.Table, parents: dict[str, str]) -> pd.DataFrame:
    codes = table.column("code").cast(pa.string())
    meanings = {text: understand(text, parents) for text in codes.unique().to_pylist() if text is not None}
    wanted = [text for text, meaning in meanings.items() if meaning is not None]
    keep = pc.call_function("is_in", [codes], pc.SetLookupOptions(pa.array(wanted, pa.string())))
    frame = table.filter(keep).to_pandas()
    rows = [meanings[str(code)] for code in frame["code"]]
    empty = pd.Series(pd.NA, index=frame.index, dtype="str")
    text = column(frame, "text_value").astype("str") if "text_value" in frame else empty
    number = (
        column(frame, "numeric_value")
        if "numeric_value" in frame
        else pd.Series(index=frame.index, dtype=float)
    )
    unit = pd.Series([row.unit if row else "" for row in rows], index=frame.index, dtype="str")
    given = column(frame, "unit").astype("str").fillna("") if "unit" in frame else ""
    return pd.DataFrame(
        {
            "patient_id": frame["subject_id"].astype("str"),
            "code": pd.Series([row.item if row else "" for row in rows], index=frame.index, dtype="str"),
            "kind": pd.Series([row.kind if row else "" for row in rows], index=frame.index, dtype="str"),
            "value": number.astype(object).where(number.notna(), text.astype(object)),
            "unit": unit.where(unit != "", given),
            "time_us": parse_times_us(column(frame, "time"), "time"),
        }
    )


def _no_events() -> pd.DataFrame:
    names = ("patient_id", "code", "kind", "value", "unit")
    return pd.DataFrame(
        {name: pd.Series(dtype="str") for name in names} | {"time_us": pd.Series(dtype="Int64")}
    )


def _with_both_times(events: pd.DataFrame, exclusions: Counter[str]) -> pd.DataFrame:
    """Draw and result times: directly, or by pairing each result with the latest draw before it."""
    direct = events.loc[events["kind"] == _DIRECT].rename(columns={"time_us": "sampled_at_us"})
    direct = direct.assign(available_at_us=pd.array([pd.NA] * len(direct), dtype="Int64"))
    draws = events.loc[events["kind"] == _DRAW, ["patient_id", "code", "time_us"]].drop_duplicates()
    results = events.loc[events["kind"] == _RESULT]
    paired = pd.merge_asof(
        results.sort_values("time_us", kind="stable"),
        draws.sort_values("time_us", kind="stable").assign(sampled_at_us=lambda rows: rows["time_us"]),
        on="time_us",
        by=["patient_id", "code"],
        direction="backward",
        tolerance=MAX_RESULT_DELAY_US,
    ).rename(columns={"time_us": "available_at_us"})
    paired = usable_rows(paired, {"sampled_at_us": "lab: result without a draw"}, exclusions)
    paired = paired.astype({"available_at_us": "Int64"})
    columns = ["patient_id", "code", "value", "unit", "sampled_at_us", "available_at_us"]
    return pd.concat([direct.loc[:, columns], paired.loc[:, columns]], ignore_index=True)
