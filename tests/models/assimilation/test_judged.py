import numpy as np
import torch

from models.assimilation.events import DRAW, HOUR_US, Row, pack_rows
from models.assimilation.judged import judged_draws
from models.assimilation.lab_filter import LabFilters
from models.assimilation.scan import log_likelihood
from models.testing.planted_labs import TYPICAL, planted_row


def test_every_draw_is_judged_by_what_came_before_it_row_after_row() -> None:
    rng = np.random.default_rng(0)
    rows = [planted_row(rng, TYPICAL, hours, draws) for hours, draws in ((6.0, 4), (9.0, 0), (3.0, 6))]
    events = pack_rows(rows)
    judged = judged_draws(TYPICAL, events)
    filtered = LabFilters.of(TYPICAL)(events)
    assert judged.row.tolist() == [0] * 4 + [2] * 6
    mine = [filtered.mean[events.kind[:, row] == DRAW, row] for row in range(3)]
    np.testing.assert_allclose(judged.mean, torch.cat(mine).numpy(), rtol=1e-12)
    likelihood = log_likelihood(filtered, events, 0.0)[1]
    np.testing.assert_allclose(judged.by_row(3), likelihood.numpy(), rtol=1e-12)


def test_a_missing_draw_is_expected_and_weighs_nothing() -> None:
    when = np.array([HOUR_US, 2 * HOUR_US])
    none = np.empty(0, np.int64), np.empty(0)
    judged = judged_draws(TYPICAL, pack_rows([Row.of((when, np.array([1.0, np.nan])), none)]))
    assert judged.log_likelihood[1] == 0.0
    assert judged.log_likelihood[0] != 0.0
    assert judged.mean[1] > judged.mean[0] == float(TYPICAL.draw_mean)


def test_no_row_gives_no_draw() -> None:
    assert len(judged_draws(TYPICAL, pack_rows([])).mean) == 0
