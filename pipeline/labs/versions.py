# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# because pandas' annotations make every column a "Series or DataFrame or scalar"
"""A result may be corrected, or withdrawn, after it was reported: each value counts from when it was known.

Merging a correction into the first report would change what a patient's history held before the correction
came. So a draw has one row for each *version*: the value as it stood from ``available_at`` on, and a row
without a value (NaN) from when it was withdrawn. Inputs take the version that stood at t0
(``history.LabSeries``), targets the last one (``final_results``).
"""

from collections import Counter

import numpy as np
import pandas as pd

from pipeline.foundation.schema import LAB_EVENT_COLUMNS

KEY = ["patient_id", "lab", "sampled_at_us"]
_TYPES = {"value": "float64", "sampled_at_us": "int64", "available_at_us": "int64", "source_code": str}


def draw_versions(rows: pd.DataFrame, rule: str, repairs: Counter[str]) -> pd.DataFrame:
    """Merge the results of one lab at one draw time, for each time at which another of them became known.

    Parameters
    ----------
    rows
        Clean results with ``schema.LAB_EVENT_COLUMNS``, several to a draw.
    rule
        ``median``, ``max``, ``first`` or ``last`` of the results known by then.
    repairs
        Counts merged rows, and versions after the first.

    Returns
    -------
    Lab events, one row a version, in order of patient, lab, draw and time known; a later result that leaves
    the value as it was makes no version.
    """
    rows = rows.assign(patient_id=rows["patient_id"].astype(str), lab=rows["lab"].astype(str))
    rows = rows.sort_values([*KEY, "available_at_us"], kind="stable")
    known = rows.groupby(KEY, sort=False)["available_at_us"]
    at_once = known.transform("min") == known.transform("max")
    how = {"value": rule, "available_at_us": "max", "source_code": "first"}
    parts = [rows.loc[at_once].groupby(KEY, as_index=False, sort=False).agg(how)]
    parts += [_versions(draw, rule) for _, draw in rows.loc[~at_once].groupby(KEY, sort=False)]
    frame = _ordered(pd.concat(parts, ignore_index=True))
    merged, later = len(rows) - len(frame), int(frame.duplicated(KEY).sum())
    if merged:
        repairs[f"merged into another result of the same draw ({rule})"] += merged
    if later:
        repairs["corrected after it was reported: each value counts from when it was known"] += later
    return frame


def _versions(draw: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Return the versions of one draw whose results became known at different times."""
    times = np.unique(draw["available_at_us"])
    known = [draw.loc[draw["available_at_us"] <= time, "value"] for time in times]
    values = np.array([_merged(part, rule) for part in known])
    changed = np.append(True, np.diff(values) != 0)
    first = draw.iloc[[0] * int(changed.sum())]
    return first.assign(value=values[changed], available_at_us=times[changed])


def _merged(values: pd.Series, rule: str) -> float:
    if rule in ("first", "last"):
        return float(values.iloc[0 if rule == "first" else -1])
    return float(values.agg(rule))


def withdrawn_draws(
    frame: pd.DataFrame, known_us: pd.Series, reason: str, repairs: Counter[str]
) -> pd.DataFrame:
    """Add a row without a value to every draw of `frame` that proved wrong after it had been reported.

    Parameters
    ----------
    frame
        Lab events as ``draw_versions`` returns them.
    known_us
        When the draw proved wrong, by (patient_id, sampled_at_us).
    """
    draws = frame.drop_duplicates(KEY)
    place = pd.MultiIndex.from_frame(draws[["patient_id", "sampled_at_us"]])
    hit = np.asarray(place.isin(known_us.index))
    if not hit.any():
        return frame
    repairs[f"withdrawn after it was reported: {reason}"] += int(hit.sum())
    known = known_us.reindex(place[hit]).to_numpy()
    gone = draws.loc[hit].assign(value=np.nan, available_at_us=known)
    return _ordered(pd.concat([frame, gone], ignore_index=True))


def final_results(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the last version of every draw, withdrawn ones left out."""
    ordered = frame.sort_values([*KEY, "available_at_us"], kind="stable")
    last = ordered.drop_duplicates(KEY, keep="last")
    return last.loc[last["value"].notna()].sort_index()


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.sort_values([*KEY, "available_at_us"], kind="stable", ignore_index=True)
    return frame[list(LAB_EVENT_COLUMNS)].astype(_TYPES)
