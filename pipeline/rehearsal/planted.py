"""Planted predictions: the truth with noise that stands for each method, so that judging runs at full size."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.dense_points import PointSource
from pipeline.cohort.dense_sums import DenseBlock
from pipeline.cohort.splits import Splits
from pipeline.foundation.schema import LAB_NAMES
from pipeline.prediction.scoring import patients_of, score_estimator

NOISE = {
    "lstm": 0.9,
    "mt": 0.7,
    "mt_learned": 0.68,
    "st_pcs": 0.6,
    "mt_pcs": 0.5,
    "mt_pcs_twin": 0.65,
    "lines": 0.55,
    "mt_assim": 0.45,
    "mt_assim_twin": 0.6,
    "mt_assim_lines": 0.48,
}
"""SD of each method's planted error, in units of the lab's spread among the scored draws."""
_OTHER = 0.6


def planted_predictions(
    methods: Sequence[str], seeds: Sequence[int], aligned: AlignedCohort, splits: Splits
) -> Iterator[pd.DataFrame]:
    """Yield the measured draws of one method and seed after another: ``schema.PREDICTION_COLUMNS``."""
    spreads = lab_spreads(aligned.examples)
    for number, method in enumerate(methods):
        for seed in seeds:
            rng = np.random.default_rng([number, seed])

            def planted(examples: pd.DataFrame, rng=rng, method=method) -> np.ndarray:
                spread = np.array([spreads[str(lab)] for lab in examples["lab"]])
                noise = NOISE.get(method, _OTHER) * spread * rng.standard_normal(len(examples))
                return examples["truth"].to_numpy(dtype=np.float64) + noise

            yield score_estimator(method, planted, aligned, splits, seed=seed)


def planted_blocks(
    methods: Sequence[str], seed: int, aligned: AlignedCohort, splits: Splits, split: str
) -> Iterator[DenseBlock]:
    """Yield every scored point of a split, piece by piece, with the planted estimates of all methods."""
    spreads = lab_spreads(aligned.examples)
    source = PointSource(aligned, patients_of(aligned, splits, split))
    names = aligned.pieces[["patient_id", "protocol"]].to_numpy()
    rng = np.random.default_rng([seed, 1])
    for row in map(int, source.rows):
        points = source.of_piece(row)
        for lab, here in points.by_lab():
            truth = points.truth[here]
            yield DenseBlock(
                patient=str(names[row, 0]), split=split, protocol=str(names[row, 1]), lab=lab,
                sampled_at_us=points.sampled_at_us[here], truth=truth,
                estimates=_estimates(methods, truth, spreads[lab], rng),
            )  # fmt: skip


def lab_spreads(examples: pd.DataFrame) -> dict[str, float]:
    """Return the standard deviation of each lab's scored draws; 1 where there are too few."""
    found = examples.groupby("lab")["truth"].std().to_dict()
    return {lab: float(found[lab]) if found.get(lab, 0) > 0 else 1.0 for lab in LAB_NAMES}


def _estimates(
    methods: Sequence[str], truth: np.ndarray, spread: float, rng: np.random.Generator
) -> Mapping[str, Float[np.ndarray, " n"]]:
    """Return the truth with one noise for the piece, at each method's size: a method's errors last, too."""
    noise = rng.standard_normal() * spread
    return {method: truth + NOISE.get(method, _OTHER) * noise for method in methods}
