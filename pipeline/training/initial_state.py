"""How long the initial state h0 lasts: the share of it that is alive so many hours after t0, layer by layer.

A Mamba layer's state decays as exp(A sum delta), and delta depends on the input: how long the history that enters
through h0 (PCS) is remembered is learned, and read off here. Steps without a pulse do not count.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from models.regressor.lab_regressor import LabRegressor
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.training.dataset import PieceItem, pack
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.forecaster import AnyForecaster, Forecaster

HOURS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 24.0, 72.0)
"""When it is looked at."""
MOST_PIECES = 16
"""Pieces that are looked at, the longest: each takes a pass of the model."""
MODES = ("mean", "slowest")
SURVIVAL_COLUMNS = ("layer", "hours", "pieces", *MODES)


def survival(
    forecaster: AnyForecaster,
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    cache: EmbeddingCache | None = None,
) -> pd.DataFrame:
    """Return rows of `SURVIVAL_COLUMNS` for a model that starts at an h0, none for another.

    ``layer`` is "shared" (the mean over the backbone's blocks) or a lab; ``mean`` is the share of h0 over all channels
    and states, ``slowest`` that of the slowest of them; both are means over `pieces` that are as long.

    Parameters
    ----------
    patients : all patients of one split; pieces of protocol ``start`` are looked at
    """
    nothing = pd.DataFrame(columns=list(SURVIVAL_COLUMNS))
    if not isinstance(forecaster, Forecaster) or not isinstance(forecaster.model, LabRegressor):
        return nothing
    model = forecaster.model
    if model.config.patient_state == "none":
        return nothing
    dataset = forecaster.dataset_of(aligned, store, patients, cache)
    pieces = aligned.pieces.set_index("piece_id").loc[list(dataset.piece_ids)]
    started = np.flatnonzero((pieces["protocol"] == "start").to_numpy())
    length = pieces["n_steps"].to_numpy()
    longest = started[np.argsort(-length[started], kind="stable")[:MOST_PIECES]]
    rows = [row for index in longest.tolist() for row in _of_piece(model, forecaster, dataset[index])]
    if not rows:
        return nothing
    found = pd.DataFrame(rows)
    table = []
    for layer, hours in found[["layer", "hours"]].drop_duplicates().itertuples(index=False):
        own = found.loc[(found["layer"] == layer) & (found["hours"] == hours), list(MODES)]
        table.append({"layer": layer, "hours": hours, "pieces": len(own), **own.mean().to_dict()})
    return pd.DataFrame(table, columns=list(SURVIVAL_COLUMNS))


def _of_piece(model: LabRegressor, forecaster: Forecaster, item: PieceItem) -> list[dict[str, float | str]]:
    step = [round(hours * HOUR_US / WINDOW_US) - 1 for hours in HOURS]
    there = [k for k, at in enumerate(step) if at < len(item.step_mask)]
    if not there:
        return []
    at = torch.tensor([step[k] for k in there], device=forecaster.device)
    inputs = pack([_until(item, step[there[-1]])]).inputs.to(forecaster.device)
    with torch.inference_mode():
        layers = model.initial_state_survival(inputs, at).double().cpu().numpy()
    shared, own = layers[:, : -len(forecaster.labs)], layers[:, -len(forecaster.labs) :]
    shares = np.concatenate([shared.mean(axis=1, keepdims=True), own], axis=1)
    names = ("shared", *forecaster.labs)
    return [
        {"layer": name, "hours": HOURS[k], **dict(zip(MODES, shares[row, column].tolist(), strict=True))}
        for column, name in enumerate(names)
        for row, k in enumerate(there)
    ]


def _until(item: PieceItem, step: int) -> PieceItem:
    """Return a piece without what comes after the last step that is looked at."""
    kept = {
        name: getattr(item, name)[: step + 1] for name in ("embeddings", "step_mask", "targets", "weights")
    }
    return replace(item, **kept)
