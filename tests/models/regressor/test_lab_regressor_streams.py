"""A pack cut into chunks, or stepped through: the same bits, the same gradients."""

from dataclasses import replace

import pytest
import torch

from models.testing.regressor import BOTH, MEANS, READER, SKIP, SMALL, gradients, inputs_of, model_of


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
