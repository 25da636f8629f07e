"""Which method of a table is best: bold in every table, by one rule."""

import pandas as pd

from pipeline.foundation.number_format import error_digits

_SMALLEST = ("mae", "rmse")
_NEAREST_TO_ZERO = ("me",)


def best_of(metric: str, rows: pd.DataFrame) -> set[str]:
    """Return the methods that lead one lab by a metric, as printed: those that look alike lead together.

    Parameters
    ----------
    rows : ``method, lab`` and the metric, of one lab; live LOCF, which sees labs that the others do not, never leads
    """
    known = rows.loc[rows[metric].notna() & (rows["method"] != "live_locf")]
    if len(known) < 2:
        return set()
    places = error_digits(str(known["lab"].iloc[0])) if metric in (*_SMALLEST, *_NEAREST_TO_ZERO) else 2
    values = known.set_index("method")[metric].astype(float).round(places)
    if metric in _NEAREST_TO_ZERO:
        values = values.abs()
    leader = values.min() if metric in (*_SMALLEST, *_NEAREST_TO_ZERO) else values.max()
    return set(values.index[values == leader])
