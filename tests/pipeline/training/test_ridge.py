import numpy as np
import pytest

from pipeline.training.ridge import ridge, weigh


def test_ridge_finds_a_line_in_its_own_units_and_leaves_whole_groups_out():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 10)
    x = rng.normal(size=(600, 4)) * [1.0, 10.0, 0.1, 1.0] + [5.0, -3.0, 0.0, 1.0]
    y = 0.3 + x @ [0.5, -0.02, 4.0, 0.0] + rng.normal(size=600) * 0.05
    line = ridge(x, y, group)
    assert np.allclose(line.weights, [0.5, -0.02, 4.0, 0.0], atol=0.03)
    assert line.bias == pytest.approx(0.3, abs=0.05)
    # A group's own targets do not enter what is said of it.
    others = ridge(x, np.where(group == 7, y + 0.05, y), group)
    assert np.allclose(others.left_out[group == 7], line.left_out[group == 7], atol=1e-9)
    assert not np.allclose(others.left_out[group == 8], line.left_out[group == 8], atol=1e-9)


def test_ridge_shrinks_what_is_only_noise():
    rng = np.random.default_rng(1)
    group = np.arange(60)
    x, y = rng.normal(size=(60, 40)), rng.normal(size=60)
    line = ridge(x, y, group)
    assert np.square(line.left_out - y).mean() < 1.2 * y.var()
    assert np.square(x @ line.weights).mean() < 0.3


def test_ridge_does_with_a_constant_input_and_with_one_group():
    x = np.column_stack([np.ones(6), np.arange(6.0)])
    line = ridge(x, np.arange(6.0), np.zeros(6, int))
    assert line.weights[0] == 0
    assert np.isfinite(line.left_out).all()


def test_ridge_does_without_inputs():
    line = ridge(np.zeros((6, 0)), np.arange(6.0), np.arange(6))
    assert line.weights.shape == (0,)
    assert line.bias == 2.5


def offered(n_groups=100, each=4, seed=0):
    """A truth, an estimate of it, noise, and a second estimate that says the same as the first."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), each)
    y, noise = rng.normal(size=len(group)), rng.normal(size=len(group))
    return y, y + 0.5 * rng.normal(size=len(y)), noise, group


def test_an_estimate_enters_and_noise_or_a_copy_of_it_does_not():
    y, estimate, noise, group = offered()
    always = np.random.default_rng(1).normal(size=(len(y), 2))
    columns = [estimate[:, None], noise[:, None], estimate[:, None]]
    found = weigh(columns, always, y, group)
    assert found.offered[0][0] == pytest.approx(0.8, abs=0.1)
    assert found.offered[1] == found.offered[2] == 0
    assert found.always.shape == (2,)
    alone = ridge(np.column_stack([estimate, always]), y, group)
    assert np.allclose(found.always, alone.weights[1:])
    assert found.bias == pytest.approx(alone.bias)


def test_an_estimate_that_is_right_only_when_turned_round_does_not_enter():
    y, estimate, _, group = offered()
    found = weigh([-estimate[:, None]], np.zeros((len(y), 0)), y, group)
    assert found.offered[0] == 0
    assert found.bias == pytest.approx(y.mean())


def test_several_columns_of_one_estimate_enter_together():
    y, estimate, noise, group = offered()
    found = weigh([np.column_stack([estimate, noise])], np.zeros((len(y), 0)), y, group)
    assert found.offered[0][0] > 0.6
    assert found.offered[0].shape == (2,)


def test_what_the_others_mean_says_is_noise():
    """Left-out means of the other groups are low where the own values are high: they must not enter."""
    rng = np.random.default_rng(3)
    entered = 0
    for _ in range(50):
        group = np.repeat(np.arange(40), 3)
        y = rng.normal(size=40)[group] + 0.1 * rng.normal(size=120)
        said = np.array([y[group % 5 != g % 5].mean() for g in group])
        entered += bool(weigh([said[:, None]], np.zeros((120, 0)), y, group).offered[0])
    assert entered == 0
