from dataclasses import replace

import pytest
import torch

from models.regressor.config import FIVE_LABS, LabRegressorConfig
from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import uncertainty_weighted_l1
from models.testing.regressor import BOTH, LENGTHS, MEANS, SMALL, gradients, inputs_of, member, model_of
from pipeline.foundation.schema import HISTORY_FEATURES, LAB_NAMES


def test_defaults_are_the_projects():
    assert FIVE_LABS == LAB_NAMES
    config = LabRegressorConfig(embed_width=512)
    assert config.history_features == len(HISTORY_FEATURES)
    assert (config.d_model, config.n_blocks, config.mamba.d_inner, config.mamba.dt_rank) == (256, 4, 512, 16)


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
@pytest.mark.parametrize("mode", ["none", "learned", "pcs"])
def test_a_piece_depends_on_itself_alone(mode, config):
    model, inputs = model_of(replace(config, patient_state=mode)), inputs_of()
    parts = model(inputs).split(LENGTHS)
    for i, part in enumerate(parts):
        assert torch.allclose(part, model(member(inputs, i)), atol=1e-5)


def test_training_begins_without_patient_state():
    fresh = LabRegressor(SMALL)
    for task in fresh.tasks.values():
        torch.nn.init.normal_(task.head.weight)
    bare = LabRegressor(replace(SMALL, patient_state="none"))
    bare.load_state_dict({k: v for k, v in fresh.state_dict().items() if "patient_state" not in k})
    assert torch.equal(fresh(inputs_of()), bare(inputs_of()))


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
def test_history_and_pooled_vector_reach_every_lab_and_absent_values_none(config):
    model, inputs = model_of(config), inputs_of()
    before = model(inputs)
    absent = ~inputs.history_present[..., None]
    hidden = replace(
        inputs,
        embeddings=torch.where(inputs.step_mask[:, None], inputs.embeddings, torch.nan),
        history=torch.where(absent, torch.nan, inputs.history),
        pooled=torch.where(inputs.pooled_present[:, None], inputs.pooled, torch.nan),
    )
    assert torch.equal(model(hidden), before)
    assert all(g.isfinite().all() for g in gradients(model, hidden).values())
    first = int(inputs.pooled_present.nonzero()[0, 0])
    pooled = inputs.pooled.clone()
    pooled[first] += 1
    rows = slice(*inputs.cu_seqlens[first : first + 2].tolist())
    assert ((model(replace(inputs, pooled=pooled)) - before)[rows].abs().amax(0) > 0).all()


def test_a_task_layer_sees_its_own_labs_history_alone():
    model = model_of(replace(SMALL, n_blocks=1))
    with torch.no_grad():  # silence the shared trunk, which sees all labs
        for p in model.patient_state.parameters():
            p.zero_()
    inputs = inputs_of()
    inputs = replace(inputs, history_present=torch.ones_like(inputs.history_present))
    changed = inputs.history.clone()
    changed[:, 2] += 1
    difference = (model(replace(inputs, history=changed)) - model(inputs)).abs().amax(0)
    assert [bool(d > 0) for d in difference] == [False, False, True, False, False]


def test_single_task_sees_all_history():
    model = model_of(replace(SMALL, task_labs=("sodium",)))
    inputs = inputs_of()
    inputs = replace(inputs, history_present=torch.ones_like(inputs.history_present))
    changed = inputs.history.clone()
    changed[:, 0] += 1
    assert model(inputs).shape == (sum(LENGTHS), 1)
    assert not torch.allclose(model(replace(inputs, history=changed)), model(inputs))


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
def test_later_content_changes_no_earlier_bit(config):
    model, inputs = model_of(config), inputs_of()
    step = 40  # inside the third piece
    embeddings, mask = inputs.embeddings.clone(), inputs.step_mask.clone()
    embeddings[step:], mask[step:] = torch.randn(sum(LENGTHS) - step, 8), True
    history = inputs.history.clone()
    history[3:] += 1
    changed = replace(inputs, embeddings=embeddings, step_mask=mask, history=history)
    for run in (model, lambda x: model(x, chunk_steps=16)):
        before, after = run(inputs), run(changed)
        assert torch.equal(before[:step], after[:step])
        assert not torch.equal(before[step:], after[step:])


def test_an_empty_pack_gives_an_empty_result():
    assert model_of()(inputs_of([])).shape == (0, 5)
    assert model_of()(inputs_of([0]), chunk_steps=4).shape == (0, 5)


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
def test_survival_falls_within_each_piece_and_pauses_at_masked_steps(config):
    model, inputs = model_of(config), inputs_of()
    both = model.initial_state_survival(inputs, torch.arange(sum(LENGTHS)))
    assert both.shape == (sum(LENGTHS), 2 + 5, 2)
    share, slowest = both.unbind(-1)
    some = torch.tensor([0, 7, 3])
    torch.testing.assert_close(model.initial_state_survival(inputs, some), both[some])
    assert (slowest >= share).all()
    for part, mask in zip(share.split(LENGTHS), inputs.step_mask.split(LENGTHS), strict=True):
        change = part.diff(dim=0)
        assert (change[mask[1:]] < 0).all()
        assert (change[~mask[1:]] == 0).all()
        assert ((part > 0) & (part <= 1)).all()


def test_the_first_estimate_is_the_output_mean():
    model, means = LabRegressor(SMALL), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    model.set_output_means(means)
    assert torch.equal(model(inputs_of()), means.expand(sum(LENGTHS), 5))


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
def test_all_windows_missing_gives_a_defined_result(config):
    model, inputs = model_of(config), inputs_of()
    blind = replace(
        inputs,
        step_mask=torch.zeros_like(inputs.step_mask),
        embeddings=torch.full_like(inputs.embeddings, torch.nan),
    )
    assert model(blind).isfinite().all()


def test_bfloat16_autocast_trains():
    model, inputs = model_of(), inputs_of()
    with torch.autocast("cpu", torch.bfloat16):
        half = model(inputs, chunk_steps=30)
        uncertainty_weighted_l1(
            half, torch.zeros_like(half), torch.ones_like(half).float(), model.log_variance
        ).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    exact = model(inputs)
    assert (half.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("embed_width", 0, "embed_width is 0"),
        ("dropout", 1.0, "dropout is 1.0"),
        ("task_labs", (), "task_labs is"),
        ("task_labs", ("sodium", "sodium"), "none twice"),
        ("task_labs", ("creatinine",), "task_labs has creatinine"),
        ("d_conv", 1, "d_conv is 1"),
    ],
)
def test_config_names_the_field(field, value, message):
    with pytest.raises(ValueError, match=message):
        LabRegressorConfig(**{"embed_width": 8, field: value})
