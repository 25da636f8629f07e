"""The same estimates by brute force: one Gaussian process a row, its joint covariance built and conditioned on.

Cubic in events, no recursion, no state: what the filter is tested against.
"""

import numpy as np
from jaxtyping import Bool, Float

from models.assimilation.events import DRAW, Row
from models.assimilation.parameters import NAMES, FilterParameters


def dense_posterior(
    parameters: FilterParameters,
    row: Row,
    known: Bool[np.ndarray, " events"],
    at_hours: float,
    time_hours: Float[np.ndarray, " events"],
) -> tuple[float, float]:
    """Return mean and variance of the lab at `at_hours` given the `known` events, by solving their joint covariance.

    Parameters
    ----------
    parameters : one row
    row : events, in any order
    known : which of them count; NaN values never do
    time_hours : of the events, from any origin
    """
    p = {name: float(getattr(parameters, name)[0]) for name in NAMES}
    chosen = known & np.isfinite(row.value)
    hours, draw = time_hours[chosen], row.kind[chosen] == DRAW
    gain = np.where(draw, 1.0, p["gain"])
    own = (~draw).astype(float)
    lag = np.abs(hours[:, None] - hours[None])
    lab = p["drift_variance"] * np.exp(-lag / p["drift_hours"]) + p["level_variance"]
    offset = p["offset_variance"] + p["offset_drift_variance"] * np.exp(-lag / p["offset_drift_hours"])
    noise = np.where(draw, p["draw_noise"], p["reading_noise"]) * row.noise[chosen]
    joint = gain[:, None] * lab * gain + own[:, None] * offset * own + np.diag(noise)
    towards = gain * (
        p["drift_variance"] * np.exp(-np.abs(hours - at_hours) / p["drift_hours"]) + p["level_variance"]
    )
    residual = row.value[chosen] - np.where(draw, p["draw_mean"], p["reading_mean"])
    solved = np.linalg.solve(joint, np.stack([towards, residual], axis=1)) if len(hours) else np.zeros((0, 2))
    variance = p["drift_variance"] + p["level_variance"] - towards @ solved[:, 0]
    return p["draw_mean"] + float(towards @ solved[:, 1]), float(variance)
