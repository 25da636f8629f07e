"""Measured results beside the estimates: each in the first row that could show it, so that no row knows the future."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from pipeline.foundation.schema import LAB_NAMES
from pipeline.labs.history import LabSeries

_NO_TIME = np.datetime64("NaT", "us")


@dataclass(frozen=True, kw_only=True)
class MeasuredDraws:
    """What was reported of each lab since the row before.

    Attributes
    ----------
    value : (rows, labs) clinical units; NaN where nothing was, or where the draw was withdrawn
    sampled_at : (rows, labs) datetime64[us], when it was drawn; NaT where nothing was reported
    reported : (rows, labs) how many results were, corrections and withdrawals among them; one of them stands in `value`
    """

    value: Float[np.ndarray, "rows labs"]
    sampled_at: Shaped[np.ndarray, "rows labs"]
    reported: Int[np.ndarray, "rows labs"]


def measured_draws(
    end_us: Int[np.ndarray, " rows"], start_us: int, series: Mapping[str, LabSeries]
) -> MeasuredDraws:
    """Return each result in the first row that ends when it is known, or later.

    A row up to time t thus depends on nothing that became known after t. A correction stands in a later row, under
    the draw's own time; so does a withdrawal, without a value. Of several results of one lab that become known
    within one row, the latest drawn stands there, and their number beside it. Results known before the sequence are
    not among them: the first rows carry the latest of these in ``last_lab``.

    Parameters
    ----------
    end_us : ends of the windows of the sequence's rows, ascending
    start_us : when the first window begins
    series : the patient's results by lab, all versions
    """
    shape = len(end_us), len(LAB_NAMES)
    value = np.full(shape, np.nan)
    sampled_at = np.full(shape, _NO_TIME)
    reported = np.zeros(shape, dtype=np.int64)
    for column, lab in enumerate(LAB_NAMES):
        own = series.get(lab)
        if own is None or not len(end_us):
            continue
        known = (own.available_us > start_us) & (own.available_us <= end_us[-1])
        order = np.flatnonzero(known)
        order = order[np.lexsort((own.available_us[order], own.sampled_us[order]))]  # the latest drawn last
        rows = np.searchsorted(end_us, own.available_us[order], side="left")
        value[rows, column] = own.value[order]
        sampled_at[rows, column] = own.sampled_us[order].astype("datetime64[us]")
        np.add.at(reported[:, column], rows, 1)
    return MeasuredDraws(value=value, sampled_at=sampled_at, reported=reported)
