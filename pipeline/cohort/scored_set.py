"""The scored set: the draws that every method of a comparison is judged on, the same for all of them.

A predictions table is long (one row per method and draw). Here it becomes one block per protocol, scoring,
seed and lab with a column of estimates per method, and is refused when the methods were not scored on the
same draws: numbers from different draws cannot be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import pandas as pd

from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.schema import (
    LAB_NAMES,
    METHODS,
    PREDICTION_COLUMNS,
    PROTOCOLS,
    SCORINGS,
    SPREAD_COLUMNS,
)

SEEDLESS_METHODS = METHODS[: METHODS.index("lstm")]
"""Methods without random weights; given for one seed only, they are repeated beside every seed."""

_DRAW = ["patient", "sequence", "sampled_at"]
_BLOCK = ["protocol", "scoring", "seed", "lab"]


class BlockKeys(TypedDict):
    """What names a block."""

    protocol: str
    scoring: str
    seed: int
    lab: str


@dataclass(frozen=True, kw_only=True)
class ScoredSet:
    """One lab's draws under one protocol, scoring and seed.

    ``draws`` has a row per draw (patient, sequence, sampled_at, truth, last_lab, hours_since_last_lab);
    ``estimates`` a float64 array per method in the same order, in clinical units.
    """

    protocol: str
    scoring: str
    seed: int
    lab: str
    draws: pd.DataFrame
    estimates: dict[str, np.ndarray]
    spreads: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Of methods that have one for every draw: standard deviation of a draw, and whether it is the logarithm's."""

    @property
    def patient(self) -> np.ndarray:
        """Patient of every draw."""
        return self.draws["patient"].to_numpy()

    @property
    def truth(self) -> np.ndarray:
        """Measured (or interpolated) value of every draw, float64."""
        return self.draws["truth"].to_numpy(dtype=np.float64)

    @property
    def keys(self) -> BlockKeys:
        """The four columns that name this block."""
        return {"protocol": self.protocol, "scoring": self.scoring, "seed": self.seed, "lab": self.lab}


def scored_sets(predictions: pd.DataFrame, split: str = "test") -> list[ScoredSet]:
    """Cut a predictions table into blocks, in the order protocol, scoring, seed, lab.

    A method that has no row at all for a lab is absent from that block (it has no such model).

    Parameters
    ----------
    predictions
        Table with ``schema.PREDICTION_COLUMNS``; further columns are ignored.
    split
        The split to score.

    Raises
    ------
    ConfigError
        When columns are missing, the split has no row, an estimate or truth is not finite, or the methods
        of a block were scored on different draws.
    LeakError
        When a patient appears in two splits.
    """
    check_predictions(predictions)
    rows = predictions.loc[predictions["split"] == split]
    if rows.empty:
        raise ConfigError(
            f"The predictions hold no row of split {split!r}. Every table is scored on that split: "
            "predict it first, or make the cohort larger."
        )
    _check_finite(rows)
    rows = repeat_seedless(rows)
    blocks = [_scored_set(block) for _, block in rows.groupby(_BLOCK, sort=False, observed=True)]
    return sorted(blocks, key=lambda block: in_schema_order(**block.keys))


def in_method_order(methods: Sequence[str]) -> list[str]:
    """Sort methods as ``schema.METHODS`` lists them; unknown ones follow, alphabetically."""
    return sorted(methods, key=lambda name: (METHODS.index(name) if name in METHODS else len(METHODS), name))


def check_predictions(predictions: pd.DataFrame) -> None:
    """Refuse a predictions table that lacks columns, or has a patient in two splits (``LeakError``)."""
    check_scored_table(predictions, PREDICTION_COLUMNS, "predictions")


def check_scored_table(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Refuse a table that lacks one of `columns`, or has a patient in two splits.

    Raises
    ------
    ConfigError
        Columns are missing.
    LeakError
        A patient appears in two splits.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ConfigError(
            f"The {name} lack the columns {missing}. They have {list(columns)}: write them anew with "
            "python -m pipeline score."
        )
    homes = table.drop_duplicates(["patient", "split"])["patient"]
    n_leaking = int((homes.value_counts() > 1).sum())
    if n_leaking:
        raise LeakError(
            f"{n_leaking} patients appear in more than one split of the {name}. A patient has one "
            "split: predict again with one splits file."
        )


def _check_finite(rows: pd.DataFrame) -> None:
    bad = ~np.isfinite(rows[["estimate", "truth"]].to_numpy(dtype=np.float64)).all(axis=1)
    if bad.any():
        counts = rows.loc[bad, "method"].value_counts().to_dict()
        raise ConfigError(
            f"Scored rows without a finite estimate or truth, by method: {counts}. Every scored draw needs "
            "both: drop the draw for all methods, or mend the method."
        )


def repeat_seedless(rows: pd.DataFrame) -> pd.DataFrame:
    """Copy each seedless method that was scored under one seed beside every other seed of its protocol."""
    extra = []
    for _, part in rows.groupby(["protocol", "scoring"], sort=False, observed=True):
        seeds = sorted(part["seed"].unique())
        for method in SEEDLESS_METHODS if len(seeds) > 1 else ():
            mine = part.loc[part["method"] == method]
            if mine["seed"].nunique() == 1:
                here = mine["seed"].iloc[0]
                extra += [mine.assign(seed=seed) for seed in seeds if seed != here]
    return pd.concat([rows, *extra], ignore_index=True) if extra else rows


def _scored_set(block: pd.DataFrame) -> ScoredSet:
    protocol, scoring, seed, lab = (block[name].iloc[0] for name in _BLOCK)
    methods = in_method_order(list(block["method"].unique()))
    parts = {name: part.sort_values(_DRAW) for name, part in block.groupby("method", observed=True)}
    reference = parts[methods[0]]
    for name in methods:
        if not _same_draws(parts[name], reference) or reference.duplicated(_DRAW).any():
            sizes = {method: len(parts[method]) for method in methods}
            raise ConfigError(
                f"The methods of {lab} ({protocol}, {scoring}, seed {seed}) have not the same draws: "
                f"{name!r} differs from {methods[0]!r}, or a draw is scored twice (rows by method: {sizes}). "
                "All methods share one scored set with one truth: predict them from the same aligned cohort."
            )
    columns = [*_DRAW, "truth", "last_lab", "hours_since_last_lab"]
    return ScoredSet(
        protocol=protocol,
        scoring=scoring,
        seed=int(seed),
        lab=lab,
        draws=pd.DataFrame(reference, columns=columns).reset_index(drop=True),
        estimates={name: parts[name]["estimate"].to_numpy(dtype=np.float64) for name in methods},
        spreads={name: spread for name in methods if (spread := _spread(parts[name])) is not None},
    )


def _spread(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    if not set(SPREAD_COLUMNS) <= set(rows.columns):
        return None
    spread, log_scale = (rows[name] for name in SPREAD_COLUMNS)
    values = spread.to_numpy(dtype=np.float64)
    return (values, log_scale.to_numpy(dtype=bool)) if np.isfinite(values).all() else None


def _same_draws(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    if len(one) != len(other):
        return False
    same_keys = all(np.array_equal(one[name].to_numpy(), other[name].to_numpy()) for name in _DRAW)
    return same_keys and np.array_equal(one["truth"].to_numpy(), other["truth"].to_numpy())


def in_schema_order(
    *, protocol: str, scoring: str, seed: int, lab: str
) -> tuple[tuple[int, str], tuple[int, str], int, tuple[int, str]]:
    """Sort key of a block: protocol, scoring, seed, lab, each as the schema lists them."""
    return _place(PROTOCOLS, protocol), _place(SCORINGS, scoring), seed, _place(LAB_NAMES, lab)


def _place(order: Sequence[str], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
