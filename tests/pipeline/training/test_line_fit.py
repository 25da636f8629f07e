import numpy as np
import pytest
import torch

from models.regressor.config import LabRegressorConfig
from models.regressor.lab_regressor import LabRegressor
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import LAB_NAMES
from pipeline.testing.cohort import tiny_cohort
from pipeline.training.batches import PieceSource
from pipeline.training.line_fit import fit_lines
from pipeline.training.reader_fit import cross_fit

WIDTH = 8
SHAPE = {"d_model": 16, "n_blocks": 1, "d_state": 4, "dropout": 0.0, "trunk_width": 8}


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(n_patients=40, hours=1.5, draws=4)


def fitted(cohort, mode="pcs", twin=False, reader_width=None):
    source = PieceSource(
        cohort.aligned, cohort.store, cohort.scaler, patients=cohort.splits.patients("train"),
        protocols=("start", "anchored"), labs=LAB_NAMES, twin=twin, seed=0,
    )  # fmt: skip
    inputs = source.sample(0)
    torch.manual_seed(0)
    shape = SHAPE | {
        "slow_features": 3,
        "mean_steps": (5.0, 20.0),
        "history_skip": True,
        "reader_width": reader_width,
    }
    width = inputs.embeddings.shape[1]
    model = LabRegressor(LabRegressorConfig(embed_width=width, patient_state=mode, **shape))
    model.set_output_means(torch.tensor(source.target_means(), dtype=torch.float32))
    model.fit_input_scales(inputs)
    fit_lines(model, source, seed=0)
    return model.eval(), source


def test_the_lines_fit_the_training_draws_better_than_their_mean(cohort):
    model, source = fitted(cohort)
    batch = source.load(1, range(source.group_sizes[1]), 0)
    drawn = batch.weights >= 1
    error = (model(batch.inputs) - batch.targets).detach()
    mean = torch.tensor(source.target_means(), dtype=torch.float32) - batch.targets
    for column in range(len(LAB_NAMES)):
        here = drawn[:, column]
        assert error[here, column].square().mean() < mean[here, column].square().mean()


def test_only_conditioned_models_get_a_line_through_history_and_all_are_held(cohort):
    for mode in ("pcs", "none"):
        model, _ = fitted(cohort, mode)
        assert model.waveform.line.weight.any()
        assert not model.waveform.line.weight.requires_grad
        lines = [task.patient_state.line for task in model.tasks.values()]
        assert all((line is not None and bool(line.weight.any())) == (mode == "pcs") for line in lines)


def test_a_twins_lines_come_from_other_waveforms(cohort):
    own, other = fitted(cohort)[0], fitted(cohort, twin=True)[0]
    assert not torch.allclose(own.waveform.line.weight, other.waveform.line.weight)
    assert torch.equal(own.waveform.line.weight, fitted(cohort)[0].waveform.line.weight)


def test_a_reader_is_held_and_trusted_for_the_labs_that_it_reads(cohort, monkeypatch):
    def knowing_potassium(draws, width, seed):
        reader, left_out = cross_fit(draws, width, seed)
        said = np.nan_to_num(draws.target)
        said[:, 1:] *= -1  # turned round: to be ignored
        return reader, said + 1e-3 * left_out

    monkeypatch.setattr("pipeline.training.line_fit.cross_fit", knowing_potassium)
    plain, model = fitted(cohort)[0], fitted(cohort, reader_width=6)[0]
    assert model.waveform.reader.heads.weight.any(dim=1).tolist() == [True, False, False, False, False]
    assert not torch.allclose(plain.waveform.line.weight[0], model.waveform.line.weight[0])
    assert torch.equal(plain.waveform.line.weight[1:], model.waveform.line.weight[1:])
    assert not any(p.requires_grad for p in model.waveform.parameters())
    again = fitted(cohort, reader_width=6)[0].state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    monkeypatch.setattr("pipeline.training.line_fit.LEAST_ROWS", 10_000)
    assert not fitted(cohort, reader_width=6)[0].waveform.reader.heads.weight.any()


def test_a_model_without_running_means_is_refused(cohort):
    _, source = fitted(cohort)
    with pytest.raises(ConfigError, match=r"model\.mean_steps"):
        fit_lines(LabRegressor(LabRegressorConfig(embed_width=WIDTH, **SHAPE)), source, seed=0)


def test_draws_are_told_from_each_other_by_their_step_and_known_again_in_the_other_protocol(cohort):
    _, source = fitted(cohort)
    starts, found = source.item_starts(), []
    for group, size in enumerate(source.group_sizes):
        batch = source.load(group, range(size), 0)
        bounds = batch.inputs.cu_seqlens.numpy()
        place = np.concatenate(
            [s + np.arange(n) for s, n in zip(starts[group], np.diff(bounds), strict=True)]
        )
        drawn = (batch.weights >= 1).any(dim=1).numpy()
        assert len(np.unique(place[drawn])) == drawn.sum()
        found.append({p: tuple(t) for p, t in zip(place[drawn], batch.targets.numpy()[drawn], strict=True)})
    shared = found[0].keys() & found[1].keys()
    assert len(shared) > 10
    assert all(found[0][p] == found[1][p] for p in shared)


def test_interpolated_targets_that_weigh_as_much_as_draws_are_refused(cohort):
    model, source = fitted(cohort)
    source._interpolated_weight = 1.0
    with pytest.raises(ConfigError, match=r"alignment\.interpolated_weight = 1"):
        fit_lines(model, source, seed=0)
