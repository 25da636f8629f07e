"""Scored sets as sums per patient: all that error metrics, their bootstrap and paired differences need.

Measured draws come from a predictions table (``scored_sets``), dense points from a table of sums
(``dense_sums``). From here on both are alike, one set per protocol, scoring, seed and lab. Methods whose
sums are not of the same points are refused, as methods with other draws are.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.cohort.scored_set import (
    BlockKeys,
    ScoredSet,
    check_scored_table,
    in_method_order,
    in_schema_order,
    repeat_seedless,
    scored_sets,
)
from pipeline.foundation import bootstrap
from pipeline.foundation.bootstrap import PatientSums
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import DENSE_SUM_COLUMNS

_POINTS = ("patient", "n_points", "points_digest")


@dataclass(frozen=True, kw_only=True)
class SummedSet:
    """One lab's sums under one protocol, scoring and seed.

    Attributes
    ----------
    n_labs : scored draws (dense: points)
    points : digest of the scored draws; equal where, and only where, they are the same
    sums : by method; the patients are the same, in the same order
    """

    protocol: str
    scoring: str
    seed: int
    lab: str
    n_labs: int
    points: str
    sums: dict[str, PatientSums]

    @property
    def keys(self) -> BlockKeys:
        """The four columns that name this set."""
        return {"protocol": self.protocol, "scoring": self.scoring, "seed": self.seed, "lab": self.lab}

    @property
    def n_patients(self) -> int:
        """How many patients have a scored draw."""
        return len(next(iter(self.sums.values())).count)


def summed_sets(
    predictions: pd.DataFrame, dense: pd.DataFrame | None = None, split: str = "test"
) -> list[SummedSet]:
    """Return every set of a predictions table and of a table of dense sums, in the order of the schema.

    Parameters
    ----------
    predictions
        ``schema.PREDICTION_COLUMNS``.
    dense
        ``schema.DENSE_SUM_COLUMNS``; None: dense points were not scored.
    split
        The split to score.

    Raises
    ------
    ConfigError
        See ``scored_sets`` and ``dense_sets``.
    LeakError
        When a patient appears in two splits.
    """
    sets = [summed(block) for block in scored_sets(predictions, split)]
    if dense is not None:
        sets += dense_sets(dense, split)
    return sorted(sets, key=lambda found: in_schema_order(**found.keys))


def summed(block: ScoredSet) -> SummedSet:
    """Sum a set of draws by patient."""
    index, n_patients = bootstrap.index_patients(block.patient)
    return SummedSet(
        **block.keys,
        n_labs=len(block.draws),
        points=_digest(block.draws, "patient", "sequence", "sampled_at", "truth"),
        sums={
            method: bootstrap.sum_by_patient(estimate, block.truth, index, n_patients)
            for method, estimate in block.estimates.items()
        },
    )


def dense_sets(dense: pd.DataFrame, split: str = "test") -> list[SummedSet]:
    """Cut a table of dense sums into sets.

    A method that has no row at all for a lab is absent from that set (it has no such model).

    Raises
    ------
    ConfigError
        When columns are missing, the split has no row, or the methods of a set were not scored on the same points.
    LeakError
        When a patient appears in two splits.
    """
    check_scored_table(dense, DENSE_SUM_COLUMNS, "dense sums")
    rows = dense.loc[dense["split"] == split]
    if rows.empty:
        raise ConfigError(
            f"The dense sums hold no row of split {split!r}, only of {sorted(set(dense['split']))}. Score that split: "
            "python -m pipeline score."
        )
    rows = repeat_seedless(rows.assign(scoring="dense"))
    return [
        _dense_set(part) for _, part in rows.groupby(["protocol", "seed", "lab"], sort=False, observed=True)
    ]


def _dense_set(rows: pd.DataFrame) -> SummedSet:
    parts = {str(name): part.sort_values("patient") for name, part in rows.groupby("method", observed=True)}
    methods = in_method_order(list(parts))
    reference = parts[methods[0]]
    keys: BlockKeys = {
        "protocol": str(rows["protocol"].iloc[0]), "scoring": "dense", "seed": int(rows["seed"].iloc[0]),
        "lab": str(rows["lab"].iloc[0]),
    }  # fmt: skip
    points = _digest(reference, *_POINTS)
    for name in methods:
        if _digest(parts[name], *_POINTS) != points or reference["patient"].duplicated().any():
            sizes = {method: _n_points(parts[method]) for method in methods}
            raise ConfigError(
                f"The methods of {keys['lab']} ({keys['protocol']}, dense, seed {keys['seed']}) have not the same "
                f"points: {name!r} differs from {methods[0]!r}, or a patient is there twice (points by method: "
                f"{sizes}). All methods share one scored set with one truth: score them from the same aligned cohort."
            )
    return SummedSet(
        **keys,
        n_labs=_n_points(reference),
        points=points,
        sums={name: _sums(parts[name], reference) for name in methods},
    )


def _n_points(rows: pd.DataFrame) -> int:
    return int(rows["n_points"].to_numpy(dtype=np.int64).sum())


def _sums(rows: pd.DataFrame, reference: pd.DataFrame) -> PatientSums:
    """Return a method's sums; the truths' part is the reference's, to the last bit, since the points are."""
    columns = {"absolute": "absolute_error", "signed": "signed_error", "squared": "squared_error"}
    shared = {"count": "n_points", "truth_mean": "truth_mean", "truth_spread": "truth_spread"}
    return PatientSums(
        **{name: rows[column].to_numpy(dtype=np.float64) for name, column in columns.items()},
        **{name: reference[column].to_numpy(dtype=np.float64) for name, column in shared.items()},
    )


def _digest(rows: pd.DataFrame, *columns: str) -> str:
    """Return what tells two tables of scored draws apart; rows must be in the same order."""
    found = hashlib.blake2b(digest_size=16)
    for name in columns:
        values = rows[name].to_numpy()
        if values.dtype.kind in "OTU":
            found.update("\n".join(map(str, values)).encode())
        else:
            found.update(np.ascontiguousarray(values).view(np.int64).tobytes())
        found.update(b"\0")
    return found.hexdigest()
