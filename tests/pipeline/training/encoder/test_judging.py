"""Lines fitted anew judge features: levels and noise are told apart, and features learned by heart are found out."""

import numpy as np
import pytest

from pipeline.foundation.schema import LAB_NAMES
from pipeline.training.encoder.judging import LEAST_DRAWS, fit_levels, judge
from pipeline.training.ridge import folds

RNG = np.random.default_rng(3)


def test_variances_of_levels_and_noise_are_found() -> None:
    patient = np.repeat(np.arange(400), 5)
    residual = 2.0 * RNG.standard_normal(400)[patient] + 0.5 * RNG.standard_normal(2000)
    fit = fit_levels(residual, patient, levels=True)
    assert fit.noise == pytest.approx(0.25, rel=0.1)
    assert fit.level == pytest.approx(4.0, rel=0.25)
    without = fit_levels(residual, patient, levels=False)
    assert without.level == 0.0
    assert without.noise == pytest.approx(np.square(residual).mean())
    assert fit.loss < without.loss


def data(patients: int, draws: int = 4, width: int = 6):
    patient = np.repeat(np.arange(patients), draws)
    features = RNG.standard_normal((len(patient), width))
    target = np.full((len(patient), len(LAB_NAMES)), np.nan)
    target[:, 0] = (
        features[:, 0] + RNG.standard_normal(patients)[patient] + 0.2 * RNG.standard_normal(len(patient))
    )
    return features, target, patient


def judged(train, held_out):
    return judge(*train, *held_out, levels=True)


def test_better_features_are_judged_better_and_by_heart_is_found_out() -> None:
    train, held_out = data(60), data(40)
    good = judged(train, held_out)
    noisy = (
        tuple((x + RNG.standard_normal(x.shape) * 2 if i == 0 else x) for i, x in enumerate(train)),
        tuple((x + RNG.standard_normal(x.shape) * 2 if i == 0 else x) for i, x in enumerate(held_out)),
    )
    assert judged(*noisy).loss > good.loss
    heart = train[0].copy()
    heart[:, 1] = train[1][:, 0]  # the answer, for training patients alone
    assert judged((heart, *train[1:]), held_out).loss > good.loss
    assert good.within_r2["potassium"] > 0.8 > good.r2["potassium"]
    assert set(good.r2) == {"potassium"}


def test_folds_lines_have_not_seen_their_patients() -> None:
    features, target, patient = data(30)
    found = judged((features, target, patient), data(5))
    line, fold = found.lines[0], found.folds[0]
    assert line is not None
    own = np.array([fold[p] for p in patient])
    assert (own == folds(patient)).all()
    said = np.einsum("nf,nf->n", line.fold_weights[own], features) + line.fold_bias[own]
    np.testing.assert_allclose(said, line.left_out, atol=1e-12)


def test_a_lab_with_too_few_draws_is_left_out() -> None:
    features, target, patient = data(30)
    target[:, 1] = np.nan
    target[: LEAST_DRAWS - 1, 1] = 1.0
    found = judged((features, target, patient), data(5))
    assert [line is not None for line in found.lines] == [True, False, False, False, False]
    assert found.folds[1] == {}


def test_without_a_held_out_draw_there_is_no_loss() -> None:
    features, target, patient = data(3)
    found = judged(data(30), (features, np.full_like(target, np.nan), patient))
    assert found.loss is None
    assert found.r2 == {}
