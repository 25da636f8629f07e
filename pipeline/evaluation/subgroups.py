"""The same metrics for parts of the test draws: by time, change, patient and signal.

A cell with fewer than 10 patients is suppressed: its counts and metrics are not shown. Recorded ethnicity
is what the database holds; it is no measure of skin tone, which matters to PPG and is not recorded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from pipeline.cohort.scored_set import ScoredSet, scored_sets
from pipeline.cohort.summed_set import summed
from pipeline.evaluation.coverage import GAP_EDGES_HOURS, gap_labels, gap_names
from pipeline.evaluation.judge import EvaluationConfig, evaluate_sets
from pipeline.foundation.schema import LABS_BY_NAME

GROUPINGS = {
    "gap": "Hours since the last lab",
    "direction": "Change since the last lab",
    "age": "Age",
    "sex": "Sex",
    "care_unit": "Care unit",
    "ethnicity": "Ethnicity as recorded",
    "quality": "Signal quality (spectral concentration)",
}
_METRICS = ("mae", "me", "rmse", "r2", "skill_vs_locf")
SUBGROUP_COLUMNS = (
    "grouping", "group", "method", "lab", "protocol", "scoring", "seed", "n_labs", "n_patients", "suppressed",
    *(f"{metric}{suffix}" for metric in _METRICS for suffix in ("", "_lower", "_upper")),
)  # fmt: skip
AGE_EDGES_YEARS = (45.0, 65.0, 80.0)
QUALITY_EDGES = (0.25, 0.5, 0.75)
UNKNOWN_GROUP = "not recorded"
_UNKNOWN_WORDS = ("UNKNOWN", "UNABLE", "DECLINED", "NOT SPECIFIED", "NAN", "NONE")
_ETHNICITIES = ("WHITE", "BLACK", "HISPANIC", "ASIAN")


@dataclass(frozen=True, kw_only=True)
class SubgroupConfig:
    """How the parts are judged."""

    minimum_patients: int = 10
    """Cells with fewer patients are suppressed."""
    evaluation: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(bootstrap=200))
    """Bootstrap and split."""

    def __post_init__(self) -> None:
        if self.minimum_patients < 1:
            raise ValueError(f"minimum_patients must be at least 1, got {self.minimum_patients}")


def subgroup_table(
    predictions: pd.DataFrame,
    config: SubgroupConfig | None = None,
    *,
    patients: pd.DataFrame | None = None,
    quality: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Judge every method within each group (``SUBGROUP_COLUMNS``), pooled over the group's draws.

    Parameters
    ----------
    predictions
        Table with ``schema.PREDICTION_COLUMNS``.
    patients
        Optional: ``patient`` or ``patient_id`` (or ``sequence``, which goes first) and any of
        ``age_years``, ``sex``, ``ethnicity``, ``care_unit``. Of several rows of one patient, the first
        counts.
    quality
        Optional: ``sequence``, ``lab``, ``sampled_at`` and ``spectral_concentration`` of the window that
        served the draw.

    Returns
    -------
    One row per grouping, group, method, lab, protocol, scoring and seed. Groupings without their side
    table are left out. In suppressed cells counts and metrics are NaN. R2 by direction of change is not
    comparable with R2 overall, since the groups are cut by the truth itself.
    """
    config = config or SubgroupConfig()
    rows = [
        row
        for block in scored_sets(predictions, config.evaluation.split)
        for grouping, labels in _groupings(block, patients, quality)
        for row in _grouping_rows(block, grouping, labels, config)
    ]
    return pd.DataFrame(rows, columns=list(SUBGROUP_COLUMNS))


def _grouping_rows(
    block: ScoredSet, grouping: str, labels: np.ndarray, config: SubgroupConfig
) -> Iterator[dict[str, object]]:
    for group in _in_order(grouping, labels):
        chosen = labels == group
        part = replace(
            block,
            draws=block.draws.loc[chosen].reset_index(drop=True),
            estimates={method: estimate[chosen] for method, estimate in block.estimates.items()},
        )
        names = {"grouping": grouping, "group": group}
        if len(np.unique(part.patient)) < config.minimum_patients:
            yield from ({**names, "method": m, **block.keys, "suppressed": True} for m in part.estimates)
            continue
        judged = evaluate_sets([summed(part)], config.evaluation)
        for row in judged.loc[judged["aggregation"] == "pooled"].to_dict(orient="records"):
            yield {**names, "suppressed": False, **{str(name): value for name, value in row.items()}}


def _groupings(
    block: ScoredSet, patients: pd.DataFrame | None, quality: pd.DataFrame | None
) -> Iterator[tuple[str, np.ndarray]]:
    hours = block.draws["hours_since_last_lab"].to_numpy(dtype=np.float64)
    yield "gap", gap_labels(hours, GAP_EDGES_HOURS)
    yield "direction", _directions(block)
    if patients is not None:
        for name, (column, label) in _PATIENT_LABELS.items():
            if column in patients.columns:
                yield name, label(_of_patients(block, patients, column))
    if quality is not None:
        keys = ["sequence", "lab", "sampled_at"]
        known = quality.drop_duplicates(keys).set_index(keys)["spectral_concentration"]
        rows = pd.MultiIndex.from_arrays(
            [block.draws["sequence"], [block.lab] * len(block.draws), block.draws["sampled_at"]], names=keys
        )
        yield "quality", quality_bands(known.reindex(rows).to_numpy(dtype=np.float64))


def _of_patients(block: ScoredSet, patients: pd.DataFrame, column: str) -> np.ndarray:
    key = next(name for name in ("sequence", "patient", "patient_id") if name in patients.columns)
    known = patients.drop_duplicates(key).set_index(key)[column]
    own = block.draws["sequence" if key == "sequence" else "patient"]
    return known.reindex(pd.Index(own)).to_numpy()


def _directions(block: ScoredSet) -> Shaped[np.ndarray, " n"]:
    change = block.truth - block.draws["last_lab"].to_numpy(dtype=np.float64)
    limit = LABS_BY_NAME[block.lab].steady_within + 1e-9
    cases = [np.isnan(change), change < -limit, change > limit]
    return np.select(cases, [UNKNOWN_GROUP, "fell", "rose"], default="steady").astype(object)


def age_bands(years: np.ndarray) -> Shaped[np.ndarray, " n"]:
    """Age band of every age in years."""
    names = np.array(["under 45", "45-64", "65-79", "80 and over"], dtype=object)
    ages = years.astype(np.float64)
    bands = names[np.searchsorted(np.asarray(AGE_EDGES_YEARS), np.nan_to_num(ages), side="right")]
    return np.where(np.isnan(ages), UNKNOWN_GROUP, bands)


def ethnicity_groups(recorded: np.ndarray) -> Shaped[np.ndarray, " n"]:
    """Broad group of every recorded ethnicity, by its first word: white, black, hispanic, asian, other."""
    return np.array([_ethnicity(str(words).upper()) for words in recorded], dtype=object)


def _ethnicity(words: str) -> str:
    if not words.strip() or any(word in words for word in _UNKNOWN_WORDS):
        return UNKNOWN_GROUP
    return next((name.lower() for name in _ETHNICITIES if words.startswith(name)), "other")


def quality_bands(concentration: np.ndarray) -> Shaped[np.ndarray, " n"]:
    """Band of the share of the pulse band's power that lies at its peak."""
    names = np.array(["up to 0.25", "0.25-0.5", "0.5-0.75", "over 0.75"], dtype=object)
    bands = names[np.searchsorted(np.asarray(QUALITY_EDGES), np.nan_to_num(concentration))]
    return np.where(np.isnan(concentration), UNKNOWN_GROUP, bands)


def _plain(values: np.ndarray) -> Shaped[np.ndarray, " n"]:
    return np.array([UNKNOWN_GROUP if pd.isna(value) else str(value) for value in values], dtype=object)


_PATIENT_LABELS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "age": ("age_years", age_bands),
    "sex": ("sex", _plain),
    "care_unit": ("care_unit", _plain),
    "ethnicity": ("ethnicity", ethnicity_groups),
}
_ORDERS = {
    "gap": tuple(gap_names(GAP_EDGES_HOURS)),
    "direction": ("fell", "steady", "rose"),
    "age": ("under 45", "45-64", "65-79", "80 and over"),
    "quality": ("up to 0.25", "0.25-0.5", "0.5-0.75", "over 0.75"),
}


def _in_order(grouping: str, labels: np.ndarray) -> list[str]:
    present = {str(label) for label in labels}
    known = [name for name in _ORDERS.get(grouping, ()) if name in present]
    rest = sorted(present - set(known) - {UNKNOWN_GROUP})
    return [*known, *rest, *([UNKNOWN_GROUP] if UNKNOWN_GROUP in present else [])]
