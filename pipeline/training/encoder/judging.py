"""What an encoder's features tell of held-out draws: lines fitted anew in closed form, judged by likelihood.

Every epoch, the start included, is judged in the same way and as it will be used: its features are frozen, lines are
fitted on the training patients' draws, and the validation patients' draws say how likely their values are. What counts
is thus the features, not how far the heads that were trained with them have come, and an encoder that has learned its
training patients by heart is found out: lines fitted on them are then too steep for others.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.foundation.schema import LAB_NAMES
from pipeline.training.ridge import FOLDS, Ridge, folds, ridge

LEAST_DRAWS = 4 * FOLDS
"""A lab with fewer training draws is not learned from: no line could be fitted."""
RATIOS = np.concatenate([[0.0], np.logspace(-2, 2, 41)])
"""Variance of patients' levels over that of the noise."""


@dataclass(frozen=True, kw_only=True)
class LevelFit:
    """Residuals seen as patients' levels plus noise: the two variances, and the log likelihood of a value, mean."""

    noise: float
    level: float
    loss: float


def fit_levels(
    residual: Float[np.ndarray, " draws"], patient: Int[np.ndarray, " draws"], *, levels: bool
) -> LevelFit:
    """Return the most likely variances of `residual`, and its negative log likelihood without the constant.

    For each ratio of the two variances the noise is found in closed form; the best of `RATIOS` is taken.
    """
    group = np.unique(patient, return_inverse=True)[1]
    count = np.bincount(group)
    total, squares = np.bincount(group, residual), np.bincount(group, np.square(residual))
    fits = []
    for ratio in RATIOS if levels else RATIOS[:1]:
        inside = 1 + count * ratio
        noise = max(float((squares - ratio / inside * np.square(total)).sum()) / len(residual), 1e-6)
        loss = 0.5 * (np.log(noise) + 1 + float(np.log(inside).sum()) / len(residual))
        fits.append(LevelFit(noise=noise, level=ratio * noise, loss=loss))
    return min(fits, key=lambda fit: fit.loss)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One encoder's features on training and validation draws.

    Attributes
    ----------
    lines : by column of the labs, fitted on the training draws; None for a lab with too few of them
    folds : likewise, fold of each patient with a draw of that lab, by the patient's number
    levels : likewise, of training draws left out of their line's fit
    loss : mean over labs of the validation draws' negative log likelihood; None without a validation draw
    r2, within_r2 : by lab, of the validation draws: of the values, and of their deviations from the patient's mean
    """

    lines: tuple[Ridge | None, ...]
    folds: tuple[dict[int, int], ...]
    levels: tuple[LevelFit | None, ...]
    loss: float | None
    r2: dict[str, float]
    within_r2: dict[str, float]


def judge(
    training: Float[np.ndarray, "draws width"],
    target: Float[np.ndarray, "draws labs"],
    patient: Int[np.ndarray, " draws"],
    held_out: Float[np.ndarray, "others width"],
    held_out_target: Float[np.ndarray, "others labs"],
    held_out_patient: Int[np.ndarray, " others"],
    *,
    levels: bool,
) -> Judgement:
    """Fit lines on the training draws' features and judge them on the held-out draws; targets are scaled."""
    lines: list[Ridge | None] = []
    spreads: list[LevelFit | None] = []
    parts: list[dict[int, int]] = []
    losses, r2, within = [], {}, {}
    for column, lab in enumerate(LAB_NAMES):
        known, there = np.isfinite(target[:, column]), np.isfinite(held_out_target[:, column])
        if known.sum() < LEAST_DRAWS:
            lines.append(None)
            spreads.append(None)
            parts.append({})
            continue
        y, group = target[known, column], patient[known]
        parts.append(dict(zip(group.tolist(), folds(group).tolist(), strict=True)))
        line = ridge(training[known], y, group)
        lines.append(line)
        spreads.append(fit_levels(y - line.left_out, group, levels=levels))
        if there.sum() < 2:
            continue
        truth, group = held_out_target[there, column], held_out_patient[there]
        residual = truth - held_out[there] @ line.weights - line.bias
        losses.append(fit_levels(residual, group, levels=levels).loss)
        r2[lab] = _r2(residual, truth, np.zeros(len(group), int))
        within[lab] = _r2(residual, truth, group)
    return Judgement(
        lines=tuple(lines), folds=tuple(parts), levels=tuple(spreads), loss=float(np.mean(losses)) if losses else None,
        r2=r2, within_r2=within,
    )  # fmt: skip


def _r2(residual: np.ndarray, truth: np.ndarray, group: np.ndarray) -> float:
    """Return the share of `truth` about its groups' means that is explained; deviations from groups' means count."""
    several = np.bincount(group)[group] > 1
    if not several.any():
        return float("nan")
    means = [np.bincount(group, x) / np.maximum(np.bincount(group), 1) for x in (residual, truth)]
    pooled = group.max() == 0
    errors = residual if pooled else residual - means[0][group]
    spread = truth - means[1][group]
    total = float(np.square(spread[several]).sum())
    return 1 - float(np.square(errors[several]).sum()) / total if total > 0 else float("nan")
