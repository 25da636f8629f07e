"""What of ours stands beside the paper's network: skip, running means, lines, reader."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.regressor.lab_regressor import LabRegressor
from models.testing.regressor import BOTH, LENGTHS, MEANS, SKIP, SMALL, inputs_of, model_of


def test_scales_are_fitted_on_what_is_present_and_travel_with_the_weights():
    model, inputs = model_of(), inputs_of(seed=1)
    inputs = replace(inputs, history_present=inputs.history_present & (torch.arange(5) != 3))
    shifted = replace(
        inputs,
        embeddings=(inputs.embeddings * 7 + 90).masked_fill(~inputs.step_mask[:, None], torch.nan),
        history=(inputs.history * 0.1 + 0.4).masked_fill(~inputs.history_present[..., None], torch.nan),
        pooled=(inputs.pooled * 2 - 9).masked_fill(~inputs.pooled_present[:, None], torch.nan),
    )
    model.fit_input_scales(inputs)
    expected = model(inputs)
    model.fit_input_scales(shifted)
    assert torch.allclose(model(shifted), expected, atol=1e-3)
    kept = inputs.embeddings[inputs.step_mask] * 7 + 90
    assert torch.allclose(model.input_scale.mean, kept.mean(0), rtol=1e-4)
    assert torch.allclose(model.input_scale.scale, kept.std(0, correction=0), rtol=1e-3)
    assert (model.patient_state.trunk.history_scale.scale[3] == 1).all()  # never present
    copy = LabRegressor(SMALL)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(shifted), model(shifted))


def test_the_skip_starts_at_zero_and_does_not_fade_as_h0_does():
    fresh = LabRegressor(SKIP)
    skips = [p for name, p in fresh.named_parameters() if ".skip." in name or ".line." in name]
    assert len(skips) == 5 * 3
    assert not any(p.any() for p in skips)
    fast = replace(SKIP, dt_min=0.1)  # every state forgets within some ten steps
    inputs = replace(inputs_of([400]), history_present=torch.ones(1, 5, dtype=torch.bool))
    inputs = replace(inputs, step_mask=torch.ones_like(inputs.step_mask))
    other = replace(inputs, history=inputs.history + 1)
    late = {}
    for name, config in (("h0", replace(fast, history_skip=False)), ("skip", fast)):
        model = model_of(config)
        late[name] = (model(other) - model(inputs))[-50:].abs().amax()
    assert late["h0"] < 1e-3 < 1e-2 < late["skip"]


def test_a_far_off_last_value_is_held_only_with_the_skip():
    inputs = replace(inputs_of([50]), history_present=torch.ones(1, 5, dtype=torch.bool))
    reach = {}
    for name, config in (("h0", SMALL), ("skip", SKIP)):
        model = model_of(config)
        with torch.no_grad():
            far = [model(replace(inputs, history=inputs.history * k))[-1].abs().amax() for k in (1e4, 1e5)]
        reach[name] = float(far[1] / far[0])
    assert reach["h0"] < 1.5  # the norm before the read-out bounds what the state can say
    assert reach["skip"] > 9


def test_the_skip_of_a_lab_is_its_own():
    model = model_of(SKIP)
    with torch.no_grad():  # leave the skip as the only way in
        for name, p in model.named_parameters():
            if "projections" in name:
                p.zero_()
    inputs = inputs_of()
    inputs = replace(inputs, history_present=torch.ones_like(inputs.history_present))
    changed = inputs.history.clone()
    changed[:, 2] += 1
    difference = (model(replace(inputs, history=changed)) - model(inputs)).abs().amax(0)
    assert [bool(d > 0) for d in difference] == [False, False, True, False, False]


def test_without_patient_conditioning_there_is_no_skip():
    names = LabRegressor(replace(SKIP, patient_state="none")).state_dict().keys()
    assert not any("skip" in name or "line" in name for name in names)


def test_the_waveform_line_starts_at_zero_and_only_conditioned_models_begin_at_the_pooled_history():
    assert not LabRegressor(MEANS).waveform.line.weight.any()
    inputs = replace(
        inputs_of([4]), pooled_present=torch.tensor([True]), step_mask=torch.zeros(4, dtype=torch.bool)
    )
    other = replace(inputs, pooled=inputs.pooled + 1)
    for mode, reaches in (("pcs", True), ("none", False), ("learned", False)):
        model = model_of(replace(MEANS, patient_state=mode))
        assert bool((model(other) != model(inputs)).any()) == reaches


@pytest.mark.parametrize("config", [MEANS, BOTH], ids=["means", "reader"])
def test_a_set_line_is_what_the_model_says_before_training_and_stays_in_it(config):
    model, inputs = LabRegressor(config), inputs_of()
    model.fit_input_scales(inputs)
    read = model.line_inputs(inputs)
    means, own = read.means, read.history
    assert means.shape == (sum(LENGTHS), 2, 5)
    assert own.shape == (len(LENGTHS), 5, 4)
    waveform, history = np.arange(10.0), np.array([1.0, -2.0, 0.5, 3.0])
    reader, heads, reading = model.waveform.reader, np.linspace(-1, 1, 6), 0.0
    if reader is not None:
        hidden = reader.lstm(
            torch.where(read.usable[..., None], reader.input_norm(read.windows), reader.missing_embedding)
        )
        reading = hidden[0][:, -1].detach().double().numpy() @ heads
    model.set_line("sodium", waveform, heads, history, 0.25)
    model.hold_lines()
    pieces = own[:, 2].double().numpy() @ history
    expected = means.flatten(1).double().numpy() @ waveform + np.repeat(pieces, LENGTHS) + reading + 0.25
    output = model(inputs)
    assert np.allclose(output[:, 2].detach().numpy(), expected, atol=1e-4)
    others = [0, 1, 3, 4]
    assert torch.equal(output[:, others], output[:1, others].expand(sum(LENGTHS), 4))
    output.sum().backward()
    assert all(p.grad is None for p in model.waveform.parameters())
    assert model.tasks["sodium"].head.weight.grad.any()


@pytest.mark.parametrize(
    ("field", "value"),
    [("slow_features", 0), ("slow_features", 9), ("mean_steps", (0.5,)), ("reader_width", 0)],
)
def test_impossible_features_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        replace(SMALL, **{field: value})
