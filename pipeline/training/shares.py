"""What makes a method's estimates: the share of their variance that comes from network, lines, reading and history.

An estimate is a sum of parts (an assimilated one too: a Kalman filter is linear in what it is told, and what the last
result counts beside it is history's), so its variance over draws is the sum of the parts' covariances with it. A share
may be negative where a part works against the others.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import nn

from models.assimilation.carried import last_known
from models.assimilation.known import KnownRow, Query
from models.assimilation.lab_assimilation import LabAssimilation, joined_reading
from models.regressor.lab_lines import LabLines
from models.regressor.lab_regressor import LabRegressor
from models.regressor.patient_state import PatientState
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.filter_forecaster import FilterForecaster
from pipeline.training.forecaster import AnyForecaster, Forecaster
from pipeline.training.ten_minute_means import BlockMeans

SOURCES = ("network", "lines", "reading", "history")
"""``network``: whatever gradients trained, but for the reader; ``lines``: fitted lines through the waveform;
``reading``: the reader of the latest windows; ``history``: a line through earlier results, or (assimilation) the
results themselves."""
SHARE_COLUMNS = ("protocol", "lab", *SOURCES)
MOST_PATIENTS = 64
"""Patients on whose draws shares are taken: they need as many passes as a model has parts."""

Parts = dict[str, Float[np.ndarray, " examples"]]


def shares(
    forecaster: AnyForecaster,
    examples: pd.DataFrame,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    cache: EmbeddingCache | None = None,
    most_patients: int = MOST_PATIENTS,
) -> pd.DataFrame:
    """Return a row of `SHARE_COLUMNS` for each protocol and lab of some examples; NaN where all estimates are the same.

    Parameters
    ----------
    examples : rows of ``EXAMPLE_COLUMNS`` of `patients`
    patients : all patients of one split; a twin is one of them
    most_patients : of whose draws they are taken
    """
    chosen = sorted(set(examples["patient_id"]))[:most_patients]
    known = examples["patient_id"].isin(chosen) & examples["lab"].isin(forecaster.labs)
    rows = examples.loc[known].reset_index(drop=True)
    if isinstance(forecaster, FilterForecaster):
        parts = _filter_parts(forecaster, rows, aligned, store, patients, cache)
    else:
        parts = _model_parts(
            forecaster, lambda one: one.scaled(rows, aligned, store, patients, cache=cache, exact=False)
        )
    total = np.sum(list(parts.values()), axis=0)
    table = [
        {"protocol": key[0], "lab": key[1]}
        | _shares({n: part[here] for n, part in parts.items()}, total[here])
        for key, here in rows.groupby(["protocol", "lab"], sort=False).indices.items()
    ]
    return pd.DataFrame(table, columns=list(SHARE_COLUMNS))


def _shares(parts: Parts, total: Float[np.ndarray, " n"]) -> dict[str, float]:
    off = total - total.mean()
    variance = float(off @ off)
    if not variance > 1e-12 * max(1.0, float(total @ total)):
        return dict.fromkeys(SOURCES, float("nan"))
    return {
        name: float((parts[name] - parts[name].mean()) @ off) / variance if name in parts else 0.0
        for name in SOURCES
    }


def _model_parts(forecaster: Forecaster, estimate: Callable[[Forecaster], np.ndarray]) -> Parts:
    """Return what is missing from the estimates when a part is silent, and the rest of them."""
    whole = estimate(forecaster)
    parts = {
        name: whole - estimate(replace(forecaster, model=silent))
        for name, silent in _silenced(forecaster.model).items()
    }
    rest = "history" if isinstance(forecaster.model, LabLines) else "network"
    parts[rest] = whole - np.sum(list(parts.values()), axis=0) if parts else whole
    return parts


def _silenced(model: nn.Module) -> dict[str, LabRegressor | LabLines]:
    """Return copies of a model, each without one of the parts that say something."""
    if not isinstance(model, LabRegressor | LabLines):
        return {}
    return {name: _without(model, name) for name in SOURCES if _weights(model, name)}


def _without(model: LabRegressor | LabLines, part: str) -> LabRegressor | LabLines:
    silent = copy.deepcopy(model).eval()
    with torch.no_grad():
        for weight in _weights(silent, part):
            weight.zero_()
    return silent


def _weights(model: LabRegressor | LabLines, part: str) -> list[torch.Tensor]:
    """Return the weights by which a part is added to the estimates, as far as they are not all zero."""
    layers: list[nn.Linear | None] = []
    if part == "lines":
        layers = [model.waveform.line]
    elif part == "reading" and model.waveform.reader is not None:
        layers = [model.waveform.reader.heads]
    elif part == "history" and isinstance(model, LabRegressor):
        layers = [state.line for state in model.modules() if isinstance(state, PatientState)]
    return [layer.weight for layer in layers if layer is not None and bool(layer.weight.any())]


def _filter_parts(
    forecaster: FilterForecaster,
    examples: pd.DataFrame,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    cache: EmbeddingCache | None,
) -> Parts:
    """Return what lines and networks would say with the same gains, on the filter's scale, and what results add."""
    model = forecaster.model
    patient_of = forecaster.of_patients(aligned, store, patients, cache)
    column = np.array([forecaster.labs.index(lab) for lab in examples["lab"]], dtype=np.int64)
    asked = examples[["prediction_window_end_us", "t0_us"]].to_numpy(dtype=np.int64)
    heeded = model.network is not None and bool(model.network.share.any())
    filters = copy.deepcopy(model)
    filters.carried.zero_()
    parts = {name: np.full(len(examples), np.nan) for name in ("network", "lines", "history")}
    for patient, rows in examples.groupby("patient_id", sort=False).indices.items():
        own = patient_of(str(patient))
        query = Query(at_us=asked[rows, 0], known_us=asked[rows, 1])
        here = np.arange(len(rows)), column[rows]
        whole = _on_scale(model, own.rows, query)[here]
        told = _results_as_expected(model, own.rows)
        # The filter counts what the last result leaves it.
        left = 1 - _last_counts(model, own.rows, query)[here]
        expected = model.parameters_by_lab.draw_mean.numpy()[here[1]]
        read = left * (_on_scale(filters, told, query)[here] - expected)
        lines = read
        if heeded:
            lines = _on_scale(filters, _networks_as_expected(model, told, own.means), query)[here]
            lines = left * (lines - expected)
        parts["lines"][rows], parts["network"][rows], parts["history"][rows] = (
            lines,
            read - lines,
            whole - read,
        )
    return parts


def _last_counts(
    model: LabAssimilation, rows: Sequence[KnownRow], query: Query
) -> Float[np.ndarray, "queries labs"]:
    """Return what the last result counts in each lab's estimates."""
    counted = [
        shares.counted(last_known(row.results, query)[1]) if shares.any else np.zeros(len(query.at_us))
        for shares, row in zip(model.carried_by_lab, rows, strict=True)
    ]
    return np.stack(counted, axis=1)


def _results_as_expected(model: LabAssimilation, rows: Sequence[KnownRow]) -> list[KnownRow]:
    """Put every result at the mean of all patients: it says nothing, and weighs what it weighed."""
    means = model.parameters_by_lab.draw_mean.tolist()
    return [
        replace(
            row,
            results=[r if np.isnan(r.value) else replace(r, value=mean) for r in row.results],
        )
        for row, mean in zip(rows, means, strict=True)
    ]


def _networks_as_expected(
    model: LabAssimilation, rows: Sequence[KnownRow], blocks: BlockMeans
) -> list[KnownRow]:
    """Put what the networks say at the mean of all patients' readings, and leave the lines what they count."""
    assert model.network is not None
    line, expected = model.line_readings(blocks.mean), model.parameters_by_lab.reading_mean.numpy()
    reading = joined_reading(line, np.broadcast_to(expected, line.shape), model.network.share.cpu().numpy())
    return [replace(row, reading=reading[:, number]) for number, row in enumerate(rows)]


def _on_scale(
    model: LabAssimilation, rows: list[KnownRow], query: Query
) -> Float[np.ndarray, "queries labs"]:
    median = model.answers(rows, query).median
    return np.stack([t.to_scale(median[:, i]) for i, t in enumerate(model.transforms)], axis=1)
