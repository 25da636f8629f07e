from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.training.reader_fit import Draws, cross_fit, fit_reader, read, reading_of

WIDTH = 8


def planted(n_patients=150, each=4, noise=0.3, seed=0):
    """Draws that follow, through a threshold, what the latest windows show; the second lab is hardly measured."""
    rng = np.random.default_rng(seed)
    n = n_patients * each
    level = rng.normal(size=(n, 1, 1))
    windows = np.concatenate([level + 0.3 * rng.normal(size=(n, 10, 1)), rng.normal(size=(n, 10, 2))], axis=2)
    target = 0.5 + 0.1 * np.abs(level[:, 0]) + 0.1 * noise * rng.normal(size=(n, 1))
    second = np.full((n, 1), np.nan)
    second[:2] = 0.4
    return Draws(
        windows=windows.astype(np.float32), usable=rng.random((n, 10)) > 0.2,
        target=np.concatenate([target, second], axis=1), patient=np.repeat(np.arange(n_patients), each),
        draw=np.arange(n),
    )  # fmt: skip


def explained(said, draws):
    return 1 - np.square(said[:, 0] - draws.target[:, 0]).mean() / draws.target[:, 0].var()


def test_a_bend_that_no_line_follows_is_read_from_patients_never_seen():
    draws = planted(n_patients=300)
    reader, left_out = cross_fit(draws, 4 * WIDTH, seed=0)
    assert explained(left_out, draws) > 0.4
    assert explained(read(reader, planted(seed=1)), planted(seed=1)) > 0.4
    x = draws.windows.mean(axis=1)
    line = np.polyval(np.polyfit(x[:, 0], draws.target[:, 0], 1), x[:, 0])
    assert explained(line[:, None], draws) < 0.1


def test_readings_left_out_know_nothing_of_their_own_patients():
    draws = planted(n_patients=30)
    other = draws.target.copy()
    mine = draws.patient == 7
    other[mine, 0] += 1.0
    _, before = cross_fit(draws, WIDTH, seed=0)
    _, after = cross_fit(replace(draws, target=other), WIDTH, seed=0)
    assert np.array_equal(before[mine], after[mine])
    assert not np.array_equal(before[~mine], after[~mine])


def test_noise_is_not_trusted():
    draws = planted()
    noise = replace(draws, target=np.random.default_rng(5).normal(size=draws.target.shape))
    _, left_out = cross_fit(noise, WIDTH, seed=0)
    assert explained(left_out, noise) < 0.02


def test_a_draw_of_both_protocols_counts_once():
    draws = planted(n_patients=20)
    twice = draws.take(np.repeat(np.arange(len(draws.target)), 2))
    one, two = cross_fit(draws, WIDTH, seed=0), cross_fit(twice, WIDTH, seed=0)
    assert np.array_equal(two[1], np.repeat(one[1], 2, axis=0))
    other = replace(twice, draw=np.arange(len(twice.draw)))  # as many draws, which happen to be alike
    assert not np.array_equal(cross_fit(other, WIDTH, seed=0)[1], two[1])


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_generator():
    draws = planted(n_patients=20)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two = fit_reader(draws, WIDTH, seed=0), fit_reader(draws, WIDTH, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(read(one, draws), read(two, draws))
    assert not np.array_equal(read(one, draws), read(fit_reader(draws, WIDTH, seed=1), draws))


def test_a_single_patient_and_a_lab_without_draws_are_no_trouble():
    draws = planted(n_patients=1, each=3)
    bare = replace(draws, target=np.where([True, False], draws.target, np.nan))
    reader, left_out = cross_fit(bare, WIDTH, seed=0)
    assert np.isfinite(read(reader, bare)).all()
    assert np.array_equal(left_out, np.zeros_like(left_out))


def test_a_trusted_reading_is_the_readers_own_scaled():
    draws = planted(n_patients=20)
    reader = fit_reader(draws, WIDTH, seed=0)
    weights, bias = reading_of(reader, 0, 0.25)
    assert weights == pytest.approx(0.25 * reader.heads.weight[0].detach().numpy())
    assert bias == pytest.approx(0.25 * float(reader.heads.bias[0].detach()))
