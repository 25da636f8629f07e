"""A run that is killed goes on as if it had not been; a finished one is left alone; another's is refused."""

from dataclasses import replace

import pytest

from pipeline.foundation.errors import ConfigError
from pipeline.testing.training_runs import CONFIG, LINES, losses, run, weights


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the run may catch it."""


def kill_at(epoch, batch):
    def listener(progress):
        if progress.validation is None and (progress.epoch, progress.batch) == (epoch, batch):
            raise Killed

    return listener


@pytest.mark.parametrize("method", ["mt_pcs", "lstm"])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(cohort, tmp_path, method):
    config = replace(CONFIG, epochs=4)
    whole = run(cohort, tmp_path / "whole", method, config, dropout=0.3)
    for at in ((2, 1), (3, 2), (4, 1)):
        with pytest.raises(Killed):
            run(cohort, tmp_path / "cut", method, config, kill_at(*at), dropout=0.3)
    resumed = run(cohort, tmp_path / "cut", method, config, dropout=0.3)
    assert losses(resumed) == losses(whole)
    assert [row["validation"] for row in resumed.epochs] == [row["validation"] for row in whole.epochs]
    for name in ("best", "last"):
        assert weights(tmp_path / "cut" / name) == weights(tmp_path / "whole" / name)


def test_a_resumed_run_keeps_the_lines_and_the_reader_that_it_was_given(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 4)
    config = replace(CONFIG, epochs=3, fit_lines=True)
    whole = run(cohort, tmp_path / "whole", config=config, **LINES)
    with pytest.raises(Killed):
        run(cohort, tmp_path / "cut", "mt_pcs", config, kill_at(2, 1), **LINES)
    monkeypatch.setattr("pipeline.training.method.fit_lines", None)  # not fitted again
    assert losses(run(cohort, tmp_path / "cut", config=config, **LINES)) == losses(whole)
    assert weights(tmp_path / "cut" / "last") == weights(tmp_path / "whole" / "last")


def test_a_finished_run_is_not_trained_again(cohort, tmp_path):
    first = run(cohort, tmp_path)
    told = []
    again = run(cohort, tmp_path, progress=told.append)
    assert told == []
    assert again == first


@pytest.mark.parametrize("change", ["config", "model", "labs"])
def test_a_folder_of_another_run_is_refused(cohort, tmp_path, change):
    run(cohort, tmp_path)
    other, config, model = cohort, CONFIG, {}
    if change == "config":
        config = replace(CONFIG, seed=1)
    elif change == "model":
        model = {"dropout": 0.2}
    else:
        other = cohort.with_labs(cohort.labs.iloc[:-1])
    with pytest.raises(ConfigError, match="another configuration"):
        run(other, tmp_path, config=config, **model)
