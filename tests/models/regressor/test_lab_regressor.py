import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.regressor.inputs import PackedInputs
from models.regressor.lab_regressor import FIVE_LABS, LabRegressor, LabRegressorConfig
from models.regressor.losses import uncertainty_weighted_l1
from models.regressor.packing import chunks
from pipeline.foundation.schema import HISTORY_FEATURES, LAB_NAMES

LENGTHS = [23, 1, 40, 0, 16]
SMALL = LabRegressorConfig(embed_width=8, d_model=16, n_blocks=2, d_state=4, dropout=0.0, trunk_width=8)
SKIP = replace(SMALL, history_skip=True)
MEANS = replace(SKIP, slow_features=5, mean_steps=(3.0, 20.0))
READER = replace(SMALL, reader_width=6)
BOTH = replace(MEANS, reader_width=6)


def model_of(config=SMALL, seed=0):
    """A model whose patient state and read-outs are not at their neutral start."""
    torch.manual_seed(seed)
    model = LabRegressor(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if any(part in name for part in ("projections", "film", "initial_state", "head", "skip", "line")):
                p.normal_(std=0.5)
    return model


def inputs_of(lengths=LENGTHS, seed=0, width=8):
    g, n, total = torch.Generator().manual_seed(seed), len(lengths), sum(lengths)
    return PackedInputs(
        embeddings=torch.randn(total, width, generator=g),
        step_mask=torch.rand(total, generator=g) > 0.25,
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0),
        history=torch.randn(n, 5, 4, generator=g),
        history_present=torch.rand(n, 5, generator=g) > 0.4,
        pooled=torch.randn(n, width, generator=g),
        pooled_present=torch.rand(n, generator=g) > 0.4,
    )


def member(inputs, i):
    steps, row = slice(*inputs.cu_seqlens[i : i + 2].tolist()), slice(i, i + 1)
    return PackedInputs(
        embeddings=inputs.embeddings[steps], step_mask=inputs.step_mask[steps],
        cu_seqlens=inputs.cu_seqlens[i : i + 2] - inputs.cu_seqlens[i],
        history=inputs.history[row], history_present=inputs.history_present[row],
        pooled=inputs.pooled[row], pooled_present=inputs.pooled_present[row],
    )  # fmt: skip


def gradients(model, inputs, **options):
    model.zero_grad()
    model(inputs, **options).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


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


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
def test_chunks_keep_their_bits_however_long_the_pack_is(config):
    model, inputs = model_of(config), inputs_of()
    whole = model(inputs, chunk_steps=16)
    for steps in (16, 32, 64):
        cut = replace(
            inputs,
            embeddings=inputs.embeddings[:steps],
            step_mask=inputs.step_mask[:steps],
            cu_seqlens=inputs.cu_seqlens.clamp(max=steps),
        )
        assert torch.equal(model(cut, chunk_steps=16), whole[:steps])


def test_an_empty_pack_gives_an_empty_result():
    assert model_of()(inputs_of([])).shape == (0, 5)
    assert model_of()(inputs_of([0]), chunk_steps=4).shape == (0, 5)


@pytest.mark.parametrize(
    ("mode", "chunk_steps"),
    [
        ("none", 7), ("learned", 7), ("pcs", 5), ("pcs", 7), ("pcs", 23), ("pcs", 79), ("pcs", 80), ("skip", 7),
        ("means", 7), ("means", 23), ("reader", 5), ("reader", 23), ("both", 7),
    ],
)  # fmt: skip
def test_chunked_equals_whole_with_gradients(mode, chunk_steps):
    known = {"skip": SKIP, "means": MEANS, "reader": READER, "both": BOTH}
    config = known[mode] if mode in known else replace(SMALL, patient_state=mode)
    config = replace(config, task_labs=("potassium", "sodium"))
    model, inputs = model_of(config).double(), inputs_of()
    doubled = {n: getattr(inputs, n).double() for n in ("embeddings", "history", "pooled")}
    inputs = replace(inputs, **doubled)
    assert torch.allclose(model(inputs, chunk_steps=chunk_steps), model(inputs), atol=1e-12)
    whole, parts = gradients(model, inputs), gradients(model, inputs, chunk_steps=chunk_steps)
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.allclose(parts[name], whole[name], atol=1e-10), name


def test_detached_chunks_cut_the_gradient_and_nothing_else():
    model, inputs = model_of(), inputs_of([60])
    assert torch.allclose(model(inputs, chunk_steps=20, detach=True), model(inputs), atol=1e-5)
    model(inputs, chunk_steps=20, detach=True)[20:].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.patient_state.parameters())
    model.zero_grad()
    model(inputs, chunk_steps=20)[20:].sum().backward()
    assert any(p.grad.any() for p in model.patient_state.parameters())


def test_dropout_is_the_same_in_the_recomputed_chunk():
    model, inputs = model_of(replace(SMALL, dropout=0.3)).train(), inputs_of([64])
    scale = torch.nn.Parameter(torch.ones(()))
    torch.manual_seed(3)
    output = model(replace(inputs, embeddings=inputs.embeddings * scale), chunk_steps=16)
    output.sum().backward()
    epsilon = 1e-2
    sums = []
    for value in (1 + epsilon, 1 - epsilon):
        torch.manual_seed(3)
        with torch.no_grad():
            # Saved for the gradient check: the same seed gives the same dropout.
            sums.append(
                float(model(replace(inputs, embeddings=inputs.embeddings * value), chunk_steps=16).sum())
            )
    assert (sums[0] - sums[1]) / (2 * epsilon) == pytest.approx(float(scale.grad), rel=0.05, abs=1e-3)


@pytest.mark.parametrize(
    "config", [SMALL, SKIP, MEANS, READER, BOTH], ids=["pcs", "skip", "means", "reader", "both"]
)
def test_streaming_equals_the_batch(config):
    model, inputs = model_of(config), inputs_of([30, 30])
    expected = model(inputs).unflatten(0, (2, 30))
    embeddings, mask = inputs.embeddings.unflatten(0, (2, 30)), inputs.step_mask.unflatten(0, (2, 30))
    states = model.init_stream(inputs.history, inputs.history_present, inputs.pooled, inputs.pooled_present)
    outputs = []
    for t in range(30):
        y, states = model.step(states, embeddings[:, t], mask[:, t])
        outputs.append(y)
    assert torch.allclose(torch.stack(outputs, 1), expected, atol=1e-5)


@pytest.mark.parametrize(
    "config", [SMALL, SKIP, MEANS, READER, BOTH], ids=["pcs", "skip", "means", "reader", "both"]
)
def test_state_passing_goes_on_where_other_pieces_ended(config):
    model, inputs = model_of(config), inputs_of([30])
    halves = [
        replace(
            inputs,
            embeddings=inputs.embeddings[s],
            step_mask=inputs.step_mask[s],
            cu_seqlens=torch.tensor([0, 15]),
        )
        for s in (slice(0, 15), slice(15, 30))
    ]
    passed = model(halves[1], initial=model.final_states(halves[0]))
    assert torch.allclose(passed, model(inputs)[15:], atol=1e-5)


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


@pytest.mark.parametrize("config", [SMALL, MEANS, BOTH], ids=["embedding", "means", "reader"])
def test_survival_falls_within_each_piece_and_pauses_at_masked_steps(config):
    model, inputs = model_of(config), inputs_of()
    share = model.initial_state_survival(inputs)
    slowest = model.initial_state_survival(inputs, "slowest")
    assert share.shape == (sum(LENGTHS), 2 + 5)
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


@pytest.mark.parametrize("chunk_steps", [1, 7, 23, 24, 80, 1000])
def test_chunks_cover_the_pack(chunk_steps):
    bounds = inputs_of().cu_seqlens
    found = list(chunks(bounds, chunk_steps))
    assert [c.start for c in found] == list(range(0, 80, chunk_steps))
    assert found[-1].stop == 80
    for a, b in itertools.pairwise(found):
        assert a.stop == b.start
        assert a.is_left == b.is_entered
    for c in found:
        expected = [
            min(max(int(x), c.start), c.stop) - c.start for x in bounds[c.first_piece : c.end_piece + 1]
        ]
        assert c.cu_seqlens.tolist() == expected
        assert (expected[0], expected[-1]) == (0, c.stop - c.start)
    with pytest.raises(ValueError, match="chunk_steps is 0"):
        next(chunks(bounds, 0))


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
