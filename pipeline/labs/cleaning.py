# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false
# because pandas' annotations make every column a "Series or DataFrame or scalar"
"""Raw lab rows become one clean, long table in fixed units; every row left out is counted by its reason.

Nothing is repaired silently: what cannot be read as one number in a known unit is dropped, and what looks
like a whole column in the wrong unit is refused.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.foundation.errors import LabError
from pipeline.foundation.schema import LAB_NAMES, LABS, LABS_BY_NAME, MINUTE_US
from pipeline.foundation.units import in_own_unit
from pipeline.labs.versions import draw_versions, final_results, withdrawn_draws
from pipeline.sources.base import ClinicalTables

OTHER_ANALYTES = {
    "50808": "ionised calcium is another analyte",
    "1994-3": "ionised calcium is another analyte",
    "ionised calcium": "ionised calcium is another analyte",
    "ionized calcium": "ionised calcium is another analyte",
}
_CENSORED = re.compile(
    r"^\s*(<|>|≤|≥|less than|greater than|more than|under|over|below|above)", re.IGNORECASE
)
_DILUTED = "draw diluted by an infusion (sodium and glucose together)"
_DECIMAL_COMMA = re.compile(r"^\s*[+-]?\d+,\d+\s*$")


@dataclass(frozen=True, kw_only=True)
class LabConfig:
    """How raw results become lab events."""

    result_delay_minutes: float = 0.0
    """Minutes from draw to result where the source does not say when a result was known."""
    duplicates: Literal["median", "max", "first", "last"] = "median"
    """Which value stands for several results of one draw, of those known by then (``max``: the paper's authors)."""
    specimens: Literal["serum", "whole_blood", "any"] = "serum"
    """Serum and plasma, the blood-gas twin where the lab has one, or both."""
    decimal_comma: bool = False
    """Read ``4,1`` as 4.1; off by default, because ``1,200`` may be a thousand."""
    dilution_sodium: float = 115.0
    """mmol/L. A draw with less sodium and more glucose than the next limit was diluted by an infusion."""
    dilution_glucose: float = 600.0
    """mg/dL. The pair is our decision: each value alone is within its range, both together hardly occur."""
    sanity_values: int = 20
    """Values of one lab and unit from which on their median is checked."""
    sanity_patients: int = 3
    """Patients from which on that median is checked: one very ill patient is no proof of a wrong unit."""

    def __post_init__(self):
        if not 0 <= self.result_delay_minutes <= 7 * 24 * 60:
            raise ValueError(f"result_delay_minutes must lie in 0..10080, not {self.result_delay_minutes}")
        if self.duplicates not in ("median", "max", "first", "last"):
            raise ValueError(f"duplicates must be median, max, first or last, not {self.duplicates!r}")
        if self.specimens not in ("serum", "whole_blood", "any"):
            raise ValueError(f"specimens must be serum, whole_blood or any, not {self.specimens!r}")
        if self.sanity_values < 1 or self.sanity_patients < 1:
            raise ValueError("sanity_values and sanity_patients must be at least 1")


@dataclass(frozen=True, kw_only=True)
class LabEvents:
    """Clean results.

    Attributes
    ----------
    frame : ``schema.LAB_EVENT_COLUMNS`` in the schema's units, sorted by patient, lab and draw time: one row a
        draw, and one more for each correction that came later (``pipeline.labs.versions``)
    exclusions : rows left out, by reason
    repairs : rows kept after a change that the configuration asks for, by kind
    """

    frame: pd.DataFrame
    exclusions: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)


def clean_labs(tables: ClinicalTables, config: LabConfig = LabConfig()) -> LabEvents:
    """Turn raw rows into lab events in the schema's units.

    Raises
    ------
    LabError
        A column is missing, or the median of a lab shows that its unit is not what the table says; the message
        names the file.
    """
    where = str(tables.labs_from or "The lab table")
    rows, exclusions, repairs = _checked(tables.labs, where), Counter(tables.exclusions), Counter()
    rows = _known_labs(rows, config, exclusions)
    rows = _numbers(rows, config, exclusions)
    rows = _converted(rows, exclusions, repairs)
    _refuse_wrong_units(rows, config, where)
    rows = _in_range(rows, exclusions)
    rows = _timed(rows, config, exclusions, repairs)
    rows, shown_us = _undiluted(rows, config, exclusions)
    frame = draw_versions(rows, config.duplicates, repairs)
    frame = withdrawn_draws(frame, shown_us, _DILUTED, repairs)
    return LabEvents(frame=frame, exclusions=exclusions, repairs=repairs)


def _checked(labs: pd.DataFrame, where: str) -> pd.DataFrame:
    needed = ["patient_id", "code", "value", "unit", "sampled_at_us", "available_at_us"]
    missing = [name for name in needed if name not in labs.columns]
    if missing:
        raise LabError(
            f"{where} lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(map(str, labs.columns))}. Map yours to these names in the source's column map."
        )
    return labs[needed].reset_index(drop=True)


def _drop(rows: pd.DataFrame, bad: pd.Series, reason: str, exclusions: Counter[str]) -> pd.DataFrame:
    """Leave out the `bad` rows and count them."""
    count = int(bad.sum())
    if not count:
        return rows
    exclusions[reason] += count
    return rows[~bad]


def _code_table() -> dict[str, tuple[str, str]]:
    """Map each code to (lab, specimen); a lab without a whole-blood twin suits every choice of specimen."""
    table = {}
    for lab in LABS:
        main = "serum" if lab.whole_blood_itemid else "only"
        table |= {code: (lab.name, main) for code in (lab.name, str(lab.itemid), lab.loinc)}
        if lab.whole_blood_itemid:
            table |= {
                code: (lab.name, "whole_blood")
                for code in (str(lab.whole_blood_itemid), lab.whole_blood_loinc or "")
            }
    return table


def _known_labs(rows: pd.DataFrame, config: LabConfig, exclusions: Counter[str]) -> pd.DataFrame:
    table = _code_table()
    code = rows["code"].astype("object").map(_normal_code)
    rows = rows.assign(
        source_code=code,
        lab=code.map(lambda c: table.get(c, (None, None))[0]),
        specimen=code.map(lambda c: table.get(c, (None, None))[1]),
    )
    for other, reason in OTHER_ANALYTES.items():
        rows = _drop(rows, rows["source_code"] == other, reason, exclusions)
    rows = _drop(rows, rows["lab"].isna(), "no lab of interest", exclusions)
    if config.specimens != "any":
        unwanted = ~rows["specimen"].isin([config.specimens, "only"])
        rows = _drop(rows, unwanted, f"specimen is not {config.specimens.replace('_', ' ')}", exclusions)
    return _drop(rows, rows["patient_id"].isna(), "no patient", exclusions)


def _normal_code(code: object) -> str:
    """`50971.0`, ` 50971` and `50971` are one code."""
    return str(code).strip().lower().removesuffix(".0")


def _numbers(rows: pd.DataFrame, config: LabConfig, exclusions: Counter[str]) -> pd.DataFrame:
    raw = rows["value"].astype("object")
    text = (
        raw.where(raw.map(lambda value: isinstance(value, str)), "")
        .astype(str)
        .str.strip("\x00\ufeff \t\r\n")
    )
    if config.decimal_comma:
        text = text.where(~text.str.match(_DECIMAL_COMMA), text.str.replace(",", "."))
    value = pd.to_numeric(raw.where(text == "", text), errors="coerce").astype(float)
    rows = rows.assign(value=value, text=text)
    unreadable = rows["value"].isna()
    reasons = {
        "de-identified (___)": rows["text"].str.fullmatch("_+"),
        "censored (for example <0.5)": rows["text"].str.match(_CENSORED),
        "decimal comma or thousands": rows["text"].str.match(_DECIMAL_COMMA),
        "no value": rows["text"].str.lower().isin(["", "nan", "na", "null", "none"]),
        "text": rows["text"] != "",
    }
    for reason, matches in reasons.items():
        rows = _drop(rows, (unreadable & matches).loc[rows.index], reason, exclusions)
    rows = _drop(rows, ~np.isfinite(rows["value"]), "not finite", exclusions)
    return _drop(rows, rows["value"] <= 0, "zero or negative", exclusions)


def _converted(rows: pd.DataFrame, exclusions: Counter[str], repairs: Counter[str]) -> pd.DataFrame:
    """Multiply by the unit's factor; a missing unit is taken as the lab's own and counted as such."""
    own = {lab.name: lab.unit for lab in LABS}
    unit = rows["unit"].astype("object").map(lambda u: str(u).strip() if isinstance(u, str) else "")
    repairs["unit missing, taken as the lab's own"] += int((unit == "").sum())
    unit = unit.where(unit != "", rows["lab"].map(own))
    value, multiplier = in_own_unit(rows["value"], rows["lab"], unit)
    rows = rows.assign(unit=unit, value=value)
    repairs["converted to the lab's own unit"] += int((multiplier.notna() & (multiplier != 1)).sum())
    repairs += Counter()  # drops the zeros
    return _drop(rows, multiplier.isna(), "unknown unit", exclusions)


def _refuse_wrong_units(rows: pd.DataFrame, config: LabConfig, where: str) -> None:
    for (name, unit), group in rows.groupby(["lab", "unit"]):
        patients = group["patient_id"].nunique()
        if len(group) < config.sanity_values or patients < config.sanity_patients:
            continue
        median = float(group["value"].median())
        lab = LABS_BY_NAME[str(name)]
        low, high = lab.plausible_median
        if not low <= median <= high:
            raise LabError(
                f"{where}: the {len(group)} {name} values labelled {unit} have a median of {median:.4g} {lab.unit}; "
                f"a cohort's median lies between {low:g} and {high:g} {lab.unit}. The unit or the code is wrong: "
                "correct the unit in the table or in the source's units, or map the column to its analyte."
            )


def _in_range(rows: pd.DataFrame, exclusions: Counter[str]) -> pd.DataFrame:
    for lab in LABS:
        outside = (rows["lab"] == lab.name) & ~rows["value"].between(lab.low, lab.high)
        rows = _drop(rows, outside, f"{lab.name} outside {lab.low:g}-{lab.high:g} {lab.unit}", exclusions)
    return rows


def _timed(
    rows: pd.DataFrame, config: LabConfig, exclusions: Counter[str], repairs: Counter[str]
) -> pd.DataFrame:
    rows = _drop(rows, rows["sampled_at_us"].isna(), "no draw time", exclusions)
    sampled = rows["sampled_at_us"].astype("int64")
    delay = round(config.result_delay_minutes * MINUTE_US)
    unknown = rows["available_at_us"].isna()
    available = rows["available_at_us"].astype("Int64").fillna(sampled + delay).astype("int64")
    if unknown.any():
        repairs["result time assumed"] += int(unknown.sum())
    rows = rows.assign(sampled_at_us=sampled, available_at_us=available)
    return _drop(rows, available < sampled, "result earlier than its draw", exclusions)


def _undiluted(
    rows: pd.DataFrame, config: LabConfig, exclusions: Counter[str]
) -> tuple[pd.DataFrame, pd.Series]:
    """Leave out every result of a draw from when its sodium and glucose together show an infusion in it.

    Returns
    -------
    rows : without what became known then or later
    shown_us : when it was shown, by (patient_id, sampled_at_us); what was reported before is withdrawn then
    """
    draw = ["patient_id", "sampled_at_us"]
    dilute = (rows["lab"] == "sodium") & (rows["value"] < config.dilution_sodium)
    sweet = (rows["lab"] == "glucose") & (rows["value"] > config.dilution_glucose)
    known = [rows.loc[part].groupby(draw)["available_at_us"].min() for part in (dilute, sweet)]
    shown_us = pd.concat(known, axis=1, join="inner").max(axis=1).astype("int64")
    shown = shown_us.astype("Int64").reindex(pd.MultiIndex.from_frame(rows[draw])).set_axis(rows.index)
    bad = (rows["available_at_us"] >= shown).fillna(False).astype(bool)  # absent: not diluted
    return _drop(rows, bad, _DILUTED, exclusions), shown_us


def lab_counts(events: LabEvents) -> dict[str, int]:
    """Count the draws with a clean result of each lab, in the schema's order."""
    counts = final_results(events.frame)["lab"].value_counts()
    return {name: int(counts.get(name, 0)) for name in LAB_NAMES}
