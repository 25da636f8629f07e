"""Sums of errors instead of scored points: what ``dense`` scoring keeps of each patient, method, protocol and lab.

MAE, ME, RMSE, R2 and skill, pooled and by patient, with their bootstrap over patients and paired differences, need
nothing of a point but its part in six numbers a patient. So points come in blocks, of a sequence for example, are
added and forgotten: memory grows with patients and not with points. Mean and spread of the truths are merged as
Chan, Golub and LeVeque (1979) do, which loses no digits however far a patient's level lies from zero.

Whether all methods were scored on the same points is told by a digest of the points' times and truths: it depends
on the points and their order alone, not on how they were cut into blocks.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import DENSE_SUM_COLUMNS

DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class DenseBlock:
    """Some scored points of one patient, protocol and lab, with the estimates of any number of methods.

    Attributes
    ----------
    patient, split, protocol, lab : whose points, and of what
    sampled_at_us : time of each point, int64 microseconds
    truth : clinical units
    estimates : by method (LOCF and its kin are methods, too), clinical units
    """

    patient: str
    split: str
    protocol: str
    lab: str
    sampled_at_us: Int[np.ndarray, " n"]
    truth: Float[np.ndarray, " n"]
    estimates: Mapping[str, Float[np.ndarray, " _"]]


class _Key(NamedTuple):
    split: str
    protocol: str
    lab: str
    patient: str


@dataclass(kw_only=True)
class _Sums:
    """What is known of one key so far; ``errors`` holds [absolute, signed, squared] by method.

    The mean of the truths is ``origin + shift``, the origin being the first of them: its digits, too, are kept.
    """

    errors: dict[str, np.ndarray]
    count: int = 0
    origin: float = 0.0
    shift: float = 0.0
    truth_spread: float = 0.0
    points: "hashlib.blake2b" = field(default_factory=lambda: hashlib.blake2b(digest_size=DIGEST_BYTES))

    @classmethod
    def none_yet(cls, methods: Iterable[str]) -> "_Sums":
        return cls(errors={method: np.zeros(3) for method in methods})

    def add_truth(self, truth: np.ndarray) -> None:
        if self.count == 0:
            self.origin = float(truth[0])
        # From the block's own first value: equal truths give a spread of exactly 0.
        shifted = truth - truth[0]
        mean = shifted.mean()
        total = self.count + len(truth)
        apart = float(truth[0] - self.origin + mean) - self.shift
        self.truth_spread += float(np.square(shifted - mean).sum())
        self.truth_spread += apart**2 * self.count * len(truth) / total
        self.shift += apart * len(truth) / total
        self.count = total


class DenseSums:
    """Adds up blocks of scored points; ``accumulate_dense_sums`` for a whole stream.

    Parameters
    ----------
    seed : of the training run (a method without weights: of any)
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._sums: dict[_Key, _Sums] = {}

    def add(self, block: DenseBlock) -> None:
        """Add a block; nothing of it is kept but its sums.

        Raises
        ------
        ConfigError
            An estimate or truth is not finite, columns differ in length, or a method estimated only some of the
            blocks of a patient, protocol and lab.
        """
        _check_lengths(block)
        if len(block.truth) == 0:
            return
        key = _Key(block.split, block.protocol, block.lab, block.patient)
        if key not in self._sums:
            self._sums[key] = _Sums.none_yet(block.estimates)
        sums = self._sums[key]
        if sums.errors.keys() != block.estimates.keys():
            lacking = sorted(sums.errors.keys() ^ block.estimates.keys())
            raise ConfigError(
                f"The methods of {block.lab} ({block.protocol}, dense, seed {self._seed}) were not scored on the same "
                f"points: {lacking} estimated some blocks of a patient and not others. Give every block of a patient, "
                "protocol and lab the same methods."
            )
        for method, estimate in block.estimates.items():
            sums.errors[method] += self._error_sums(block, method, estimate)
        sums.add_truth(block.truth)
        times = np.ascontiguousarray(block.sampled_at_us, dtype=np.int64)
        truths = np.ascontiguousarray(block.truth, dtype=np.float64).view(np.int64)
        sums.points.update(np.column_stack((times, truths)).data)

    def _error_sums(self, block: DenseBlock, method: str, estimate: np.ndarray) -> np.ndarray:
        """Return the sums of |error|, error and error^2."""
        error = estimate - block.truth
        sums = np.array([np.abs(error).sum(), error.sum(), np.square(error).sum()])
        if not np.isfinite(sums).all():
            n_bad = int((~np.isfinite(error)).sum())
            raise ConfigError(
                f"{method!r} was scored on {n_bad} points of {block.lab} ({block.protocol}, dense, seed {self._seed}) "
                "without a finite estimate or truth. Every scored point needs both: drop the point for all methods, or "
                "mend the method."
            )
        return sums

    def table(self) -> pd.DataFrame:
        """Return one row a method, protocol, split, patient and lab: ``schema.DENSE_SUM_COLUMNS``."""
        rows = [
            (
                method, key.protocol, self._seed, key.split, key.patient, key.lab, sums.count,
                *sums.errors[method].tolist(), sums.origin + sums.shift, sums.truth_spread, sums.points.hexdigest(),
            )
            for key, sums in self._sums.items()
            for method in sums.errors
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(DENSE_SUM_COLUMNS))


def accumulate_dense_sums(blocks: Iterable[DenseBlock], *, seed: int) -> pd.DataFrame:
    """Add up a stream of blocks of scored points, holding one block at a time.

    Parameters
    ----------
    blocks
        In any cut (a sequence, a piece, a lab of it), with the estimates of one method or of several; all blocks of
        one patient, protocol and lab have the same methods. The points of a patient, protocol and lab come in the
        same order for every method, in this stream or in another one.
    seed
        Of the training run.

    Returns
    -------
    ``schema.DENSE_SUM_COLUMNS``, one row a method, protocol, split, patient and lab. Tables of further methods and
    seeds are put below it (``pd.concat``) and judged with ``pipeline.evaluation.judge``.

    Raises
    ------
    ConfigError
        See ``DenseSums.add``.
    """
    sums = DenseSums(seed=seed)
    for block in blocks:
        sums.add(block)
    return sums.table()


def _check_lengths(block: DenseBlock) -> None:
    lengths = {"sampled_at_us": len(block.sampled_at_us), "truth": len(block.truth)}
    lengths |= {method: len(estimate) for method, estimate in block.estimates.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(
            f"A block of {block.lab} ({block.protocol}, dense) has columns of different lengths: {lengths}. Each point "
            "has one time, one truth and one estimate of every method."
        )
