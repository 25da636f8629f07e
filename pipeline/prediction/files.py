"""Predictions on disk: one Parquet file a method and seed with its measured draws, and one with its dense sums.

``predictions/<method>-seed<k>.parquet`` and ``predictions/dense_sums-<method>-seed<k>.parquet``. The list of them,
``index.json``, is written last: a run that was killed leaves none, files that it does not name belong to an earlier
run and are not read.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from pipeline.foundation.artefact_notes import apart, inherit
from pipeline.foundation.atomic import make_private_dir, write_json, write_parquet
from pipeline.foundation.errors import ConfigError, MissingArtifactError
from pipeline.foundation.schema import DENSE_SUM_COLUMNS, PREDICTION_COLUMNS, SPREAD_COLUMNS
from pipeline.foundation.workspace import Workspace, require
from pipeline.prediction.intervals import INTERVAL_STATE

INDEX = "index.json"
FORMER_FILE = "predictions.parquet"
"""Beside the folder: where an earlier version kept every method in one file."""
_PREFIX = {"measured": "", "dense": "dense_sums-"}


Behind = Mapping[tuple[str, int], Iterable[str]]


class PredictionWriter:
    """Writes an experiment's predictions anew; nothing can be read until ``finish``."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._written: dict[str, list[tuple[str, int]]] = {kind: [] for kind in _PREFIX}
        make_private_dir(workspace.predictions)
        (workspace.predictions / INDEX).unlink(missing_ok=True)

    def write_measured(self, table: pd.DataFrame, behind: Behind | None = None) -> None:
        """Write rows of ``schema.PREDICTION_COLUMNS``, a file for each method and seed among them.

        ``interval_state``, which says why a bound is missing, and ``schema.SPREAD_COLUMNS`` are written too where
        the table has them.

        Parameters
        ----------
        behind : the weights (SHA-256) that each method and seed was scored with; none for those without weights
        """
        columns = [*PREDICTION_COLUMNS, *table.columns.intersection([INTERVAL_STATE, *SPREAD_COLUMNS])]
        self._write("measured", table.loc[:, columns], behind or {})

    def write_dense(self, table: pd.DataFrame, behind: Behind | None = None) -> None:
        """Write rows of ``schema.DENSE_SUM_COLUMNS``, a file for each method and seed among them; see above."""
        self._write("dense", table.loc[:, list(DENSE_SUM_COLUMNS)], behind or {})

    def finish(self) -> None:
        """Write the index, and remove what earlier runs left."""
        folder = self._workspace.predictions
        index = {kind: [[m, seed] for m, seed in pairs] for kind, pairs in self._written.items()}
        write_json(folder / INDEX, index)
        kept = {_name(kind, *pair) for kind, pairs in self._written.items() for pair in pairs}
        for path in folder.glob("*.parquet"):
            if path.name not in kept:
                path.unlink()
        (self._workspace.root / FORMER_FILE).unlink(missing_ok=True)

    def _write(self, kind: str, table: pd.DataFrame, behind: Behind) -> None:
        for method in dict.fromkeys(table["method"]):
            of_method = table.loc[table["method"] == method]
            for seed in dict.fromkeys(of_method["seed"]):
                pair = (str(method), int(seed))
                rows = of_method.loc[of_method["seed"] == seed]
                if SPREAD_COLUMNS[0] in rows and rows[SPREAD_COLUMNS[0]].isna().all():
                    rows = rows.drop(columns=list(SPREAD_COLUMNS))  # of another method's account of itself
                with apart(behind.get(pair, ())):
                    write_parquet(self._workspace.predictions / _name(kind, *pair), rows)
                self._written[kind].append(pair)


def read_predictions(
    workspace: Workspace, *, asset: str, methods: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the measured draws of every method and seed, or of some methods.

    Columns: ``schema.PREDICTION_COLUMNS``, and ``interval_state`` and ``schema.SPREAD_COLUMNS`` where scoring wrote
    them.

    Parameters
    ----------
    asset : what wants them, for the error's remedy

    Raises
    ------
    MissingArtifactError
        Nothing was scored yet, by this version, or a method's file is not there any more.
    """
    return _read(workspace, "measured", PREDICTION_COLUMNS, asset, methods)


def read_dense_sums(workspace: Workspace, *, asset: str) -> pd.DataFrame | None:
    """Return the dense sums of every method and seed, ``schema.DENSE_SUM_COLUMNS``; None: not scored, by choice.

    Raises
    ------
    MissingArtifactError
        As ``read_predictions``.
    """
    table = _read(workspace, "dense", DENSE_SUM_COLUMNS, asset, None)
    return None if table.empty else table


def _read(
    workspace: Workspace, kind: str, columns: tuple[str, ...], asset: str, methods: Collection[str] | None
) -> pd.DataFrame:
    folder = workspace.predictions
    remedy = f"python -m pipeline score --experiment {workspace.root.name}"
    if not (folder / INDEX).exists() and (workspace.root / FORMER_FILE).exists():
        raise MissingArtifactError(
            f"{workspace.root / FORMER_FILE} is of an earlier version, which kept every method in one file; score "
            f"again, nothing is trained anew: {remedy}"
        )
    pairs = _index(require(folder / INDEX, made_by="predictions", asset=asset), remedy)[kind]
    wanted = [(method, seed) for method, seed in pairs if methods is None or method in methods]
    tables = []
    for method, seed in wanted:
        path = folder / _name(kind, method, seed)
        if not path.exists():
            raise MissingArtifactError(
                f"{path} is missing, though {INDEX} beside it lists {method}, seed {seed}: methods can be compared "
                f"only when all of them are there. Score again: {remedy}"
            )
        tables.append(pd.read_parquet(path))
        inherit(path)
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def _index(path: Path, remedy: str) -> dict[str, list[tuple[str, int]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {kind: [(str(method), int(seed)) for method, seed in content[kind]] for kind in _PREFIX}
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(
            f"{path} is not the list of predictions that scoring writes ({type(problem).__name__}). Score again: "
            f"{remedy}"
        ) from None


def _name(kind: str, method: str, seed: int) -> str:
    return f"{_PREFIX[kind]}{method}-seed{seed}.parquet"
