"""Judge every method on the test patients: metrics in clinical units with intervals, and paired differences.

All intervals come from one bootstrap over patients (``pipeline.foundation.bootstrap``); replicate k draws the same
patients for every method of a set, so differences between methods are paired. With several seeds there is
one more row a cell, the mean over them, whose replicates draw training runs too; an interval from one seed
covers the choice of patients alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.cohort.summed_set import SummedSet, summed_sets
from pipeline.foundation import bootstrap
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import BASELINES, EVALUATION_COLUMNS, LAB_NAMES, METRICS

AGGREGATIONS = ("pooled", "patient_macro")
ALL_SEEDS = -1
"""Column ``seed`` of the rows that average several training runs."""
COMPARISON_METRICS = ("mae", "r2", "skill_vs_locf", "skill_vs_shrunk_locf")
COMPARISON_COLUMNS = (
    "method_a", "method_b", "lab", "protocol", "scoring", "aggregation", "seed", "metric", "n_seeds",
    "n_labs", "n_patients", "value_a", "value_b", "difference", "lower", "upper", "p", "p_holm",
)  # fmt: skip

_AGGREGATE = {"pooled": bootstrap.pooled_metrics, "patient_macro": bootstrap.patient_macro_metrics}
Metrics = dict[str, np.ndarray]
_Replicates = dict[str, dict[str, Metrics]]
"""Aggregation -> method -> metric -> one value a replicate."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the scored draws are judged."""

    bootstrap: int = 1000
    """Replicates of the bootstrap over patients (our decision: 1000)."""
    seed: int = 0
    """Seed of the bootstrap."""
    level: float = 0.95
    """Level of the intervals of metrics and differences, 0..1."""
    split: str = "test"
    """The split that is judged."""

    def __post_init__(self) -> None:
        if self.bootstrap < 1:
            raise ValueError(f"bootstrap must be at least 1, got {self.bootstrap}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}")


def evaluate(
    predictions: pd.DataFrame, config: EvaluationConfig | None = None, dense: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Score every method per lab, protocol, scoring and seed, pooled over draws and as patient macro average.

    Parameters
    ----------
    predictions
        Table with ``schema.PREDICTION_COLUMNS``, estimates and truths in clinical units.
    config
        Bootstrap and split; the defaults when None.
    dense
        Sums over interpolated points, ``schema.DENSE_SUM_COLUMNS``; None: measured draws alone.

    Returns
    -------
    One row per method x lab x protocol x scoring x aggregation x seed with ``schema.EVALUATION_COLUMNS``, and
    with several seeds one of their mean (seed ``ALL_SEEDS``).
    MAE, ME and RMSE in the lab's unit; R2 and skills without unit. ``_lower`` and ``_upper`` bound the
    percentile interval at ``config.level``; both are NaN with a single patient, where no interval can be
    known.

    Raises
    ------
    ConfigError
        When the methods were not scored on the same draws, or the split is empty.

    Source: definitions of the metrics in ``pipeline.testing.metrics``; intervals, skill and aggregation: our
    decision.
    """
    config = config or EvaluationConfig()
    return evaluate_sets(summed_sets(predictions, dense, config.split), config)


def evaluate_sets(sets: Sequence[SummedSet], config: EvaluationConfig) -> pd.DataFrame:
    """Judge sets that are already cut and summed; ``evaluate`` for whole tables."""
    return evaluation_of(judge_sets(sets, config), config)


def evaluation_of(judged: Sequence["Judged"], config: EvaluationConfig) -> pd.DataFrame:
    """Return what ``evaluate`` returns, of sets that are already judged."""
    rows = [
        {"method": method, **found.keys, "n_labs": found.n_labs, "n_patients": found.n_patients,
         **_with_intervals(metrics, found.n_patients, config.level)}
        for found in judged
        for method, metrics in found.by_method.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS))


def compare(
    predictions: pd.DataFrame,
    method_a: str,
    method_b: str,
    config: EvaluationConfig | None = None,
    dense: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Differences method_a - method_b, paired by patient, with Holm's correction over the labs.

    "What PPG added" is ``compare(predictions, "mt_pcs", "mt_pcs_twin")``. For R2 and skill a positive
    difference favours ``method_a``; for MAE a negative one does. Parameters as in ``evaluate``.

    Returns
    -------
    One row per lab x protocol x scoring x aggregation x seed x metric with ``COMPARISON_COLUMNS``, and with
    several seeds one of the mean difference (seed ``ALL_SEEDS``). ``p`` is the two-sided bootstrap p-value,
    ``p_holm`` the same after Holm over the labs of that metric, protocol, scoring, aggregation and seed. Where both
    methods' estimates are identical, difference, bounds and p are NaN: not estimable.

    Raises
    ------
    ConfigError
        When a method is absent, or the methods were not scored on the same draws.

    Without a lab that both methods scored on that split (the twin of a lone patient cannot be), the table
    is empty.
    """
    config = config or EvaluationConfig()
    absent = {method_a, method_b} - set(predictions["method"])
    if absent:
        raise ConfigError(
            f"The predictions hold no row of {sorted(absent)}, only of {sorted(set(predictions['method']))}. A "
            "comparison needs both methods: train and predict them first."
        )
    sets = summed_sets(predictions, dense, config.split)
    both = [found for found in sets if {method_a, method_b} <= found.sums.keys()]
    return comparison_of(judge_sets(both, config), method_a, method_b, config)


def comparison_of(
    judged: Sequence["Judged"], method_a: str, method_b: str, config: EvaluationConfig
) -> pd.DataFrame:
    """Return what ``compare`` returns, of sets that are already judged; those without both methods are left out."""
    rows = [
        row
        for found in judged
        if {method_a, method_b} <= found.by_method.keys()
        for row in _difference_rows(found, method_a, method_b, config)
    ]
    table = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    family = ["protocol", "scoring", "aggregation", "seed", "metric"]
    table["p_holm"] = table.groupby(family, sort=False)["p"].transform(lambda p: bootstrap.holm(list(p)))
    return table


def _difference_rows(
    judged: "Judged", method_a: str, method_b: str, config: EvaluationConfig
) -> Iterator[dict[str, object]]:
    names = {"method_a": method_a, "method_b": method_b, **judged.keys, "n_seeds": judged.n_seeds}
    identical = _identical(judged.by_method[method_a], judged.by_method[method_b])
    for metric in COMPARISON_METRICS:
        a, b = judged.by_method[method_a][metric], judged.by_method[method_b][metric]
        if (
            identical
        ):  # one estimate under two names: nothing was compared, so there is no difference of 0 either
            a = np.full_like(b, np.nan)
        lower, upper = _interval(a - b, judged.n_patients, config.level)
        p = bootstrap.two_sided_p(a - b) if judged.n_patients > 1 else float("nan")
        yield {
            **names, "metric": metric, "n_labs": judged.n_labs, "n_patients": judged.n_patients,
            "value_a": b[0] if identical else a[0], "value_b": b[0], "difference": a[0] - b[0],
            "lower": lower, "upper": upper, "p": p,
        }  # fmt: skip


def _identical(a: Metrics, b: Metrics) -> bool:
    """Tell whether two methods' estimates are the same: then every metric of every replicate is, to the bit."""
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Every method's metrics on one block, or their mean over seeds; one value a replicate (0: the estimate)."""

    keys: dict[str, object]
    """Protocol, scoring, seed, lab and aggregation."""
    n_seeds: int
    n_labs: int
    n_patients: int
    by_method: dict[str, Metrics]


def judge_sets(sets: Sequence[SummedSet], config: EvaluationConfig) -> list[Judged]:
    """Judge every set, and the mean over the seeds of those that differ in nothing else, for both aggregations.

    The replicates of a set are drawn once; evaluation and comparisons are read from them.

    Raises
    ------
    ConfigError
        When seeds were scored on different draws.
    """
    of_seeds: dict[tuple[str, str, str], list[tuple[SummedSet, _Replicates]]] = {}
    judged = []
    for found in tracked(sets, "evaluating", "sets of draws"):
        run = (found, dict(_replicates(found, config)))
        of_seeds.setdefault((found.protocol, found.scoring, found.lab), []).append(run)
        judged += _judged([run], config)
    for runs in of_seeds.values():
        if len(runs) > 1:
            judged += _judged(runs, config)
    return judged


def _judged(runs: Sequence[tuple[SummedSet, _Replicates]], config: EvaluationConfig) -> Iterator[Judged]:
    """Judge one set, or the mean over the seeds of several, for both aggregations."""
    first = runs[0][0]
    if any(found.points != first.points for found, _ in runs):
        raise ConfigError(
            f"The seeds of {first.lab} ({first.protocol}, {first.scoring}) were scored on different draws. A "
            "mean over seeds needs the same ones: predict them from the same aligned cohort."
        )
    shared = [name for name in first.sums if all(name in found.sums for found, _ in runs)]
    for aggregation in AGGREGATIONS:
        by_method = {
            method: {
                name: bootstrap.mean_over_seeds(
                    np.stack([run[aggregation][method][name] for _, run in runs]), config.seed
                )
                for name in runs[0][1][aggregation][method]
            }
            for method in shared
        }
        seed = first.seed if len(runs) == 1 else ALL_SEEDS
        yield Judged(
            keys={**first.keys, "seed": seed, "aggregation": aggregation},
            n_seeds=len(runs),
            n_labs=first.n_labs,
            n_patients=first.n_patients,
            by_method=by_method,
        )


def _replicates(found: SummedSet, config: EvaluationConfig) -> Iterator[tuple[str, dict[str, Metrics]]]:
    """Per aggregation: every method's metrics, one value a replicate (index 0 is the estimate)."""
    weights = bootstrap.replicate_weights(found.n_patients, config.bootstrap, config.seed)
    for aggregation in AGGREGATIONS:
        by_method = {method: _AGGREGATE[aggregation](sums, weights) for method, sums in found.sums.items()}
        for baseline in BASELINES:
            reference = by_method[baseline]["mae"] if baseline in by_method else np.zeros(len(weights))
            for metrics in by_method.values():
                metrics[f"skill_vs_{baseline}"] = _skill(metrics["mae"], reference)
        yield aggregation, by_method


def _skill(mae: np.ndarray, reference: np.ndarray) -> np.ndarray:
    defined = reference > 0
    return np.where(defined, 1.0 - mae / np.where(defined, reference, 1.0), np.nan)


def _with_intervals(metrics: Metrics, n_patients: int, level: float) -> dict[str, float]:
    cells = {}
    for name in METRICS:
        lower, upper = _interval(metrics[name], n_patients, level)
        cells |= {name: float(metrics[name][0]), f"{name}_lower": lower, f"{name}_upper": upper}
    return cells


def _interval(values: np.ndarray, n_patients: int, level: float) -> tuple[float, float]:
    if n_patients < 2:
        return float("nan"), float("nan")
    return bootstrap.percentile_interval(values, level)


def select(
    table: pd.DataFrame,
    *,
    protocol: str,
    scoring: str = "measured",
    aggregation: str = "pooled",
    seed: int | None = None,
) -> pd.DataFrame:
    """Rows of an evaluation or comparison table of one protocol, scoring, aggregation and seed.

    Without `seed`, those of the mean over seeds where there are several. Labs come in the order of
    ``schema.LAB_NAMES``.
    """
    rows = table.loc[
        (table["protocol"] == protocol)
        & (table["scoring"] == scoring)
        & (table["aggregation"] == aggregation)
    ]
    if rows.empty:
        return rows
    rows = rows.loc[rows["seed"] == (rows["seed"].min() if seed is None else seed)]
    return rows.sort_values("lab", key=lambda lab: lab.map(LAB_NAMES.index), kind="stable")
