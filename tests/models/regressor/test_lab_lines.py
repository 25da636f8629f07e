from dataclasses import replace

import numpy as np
import pytest
import torch

from models.regressor.inputs import PackedInputs
from models.regressor.lab_lines import LabLines, LabLinesConfig

LABS = ("potassium", "sodium")


def made(**shape) -> LabLines:
    config = LabLinesConfig(
        embed_width=5, task_labs=LABS, history_labs=LABS, history_features=3, slow_features=2,
        mean_steps=(3.0, 9.0), **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LabLines(config)
    model.set_output_means(torch.tensor([0.3, 0.6]))
    return model


def inputs(n_steps=(7, 12)) -> PackedInputs:
    generator = torch.Generator().manual_seed(1)
    steps, pieces = sum(n_steps), len(n_steps)
    return PackedInputs(
        embeddings=torch.randn(steps, 5, generator=generator),
        step_mask=torch.rand(steps, generator=generator) > 0.2,
        cu_seqlens=torch.tensor([0, *n_steps]).cumsum(0),
        history=torch.randn(pieces, 2, 3, generator=generator),
        history_present=torch.tensor([[True, False], [True, True]])[:pieces],
        pooled=torch.randn(pieces, 5, generator=generator),
        pooled_present=torch.tensor([True, False])[:pieces],
    )


def with_lines(**shape) -> LabLines:
    model = made(**shape)
    reading = None if model.config.reader_width is None else np.full(model.config.reader_width, 0.5)
    model.set_line("potassium", np.linspace(-1, 1, 4), reading, np.array([1.0, -2.0, 0.5]), 0.2)
    return model


@pytest.mark.parametrize("reader_width", [None, 4])
def test_runs_of_a_few_steps_give_what_one_pass_gives(reader_width) -> None:
    model, pack = with_lines(reader_width=reader_width).eval(), inputs()
    whole = model(pack)
    for chunk_steps in (1, 4, 100):
        torch.testing.assert_close(model(pack, chunk_steps=chunk_steps), whole, rtol=1e-5, atol=1e-6)


def test_an_estimate_is_the_sum_of_its_lines() -> None:
    model, pack = with_lines(), inputs()
    seen = model.line_inputs(pack)
    piece = torch.tensor([0] * 7 + [1] * 12)
    by_hand = seen.means.flatten(1) @ torch.linspace(-1, 1, 4)
    by_hand = by_hand + (seen.history[piece, 0] @ torch.tensor([1.0, -2.0, 0.5])) + 0.2
    torch.testing.assert_close(model(pack)[:, 0], by_hand, rtol=1e-5, atol=1e-6)
    assert (model(pack)[:, 1] == 0.6).all()  # a lab without a line keeps its mean


def test_masked_windows_and_absent_history_may_hold_anything() -> None:
    model, pack = with_lines(reader_width=4), inputs()
    spoilt = pack.embeddings.clone()
    spoilt[~pack.step_mask] = torch.nan
    history = pack.history.clone()
    history[0, 1] = torch.nan
    other = replace(
        pack, embeddings=spoilt, history=history, pooled=pack.pooled * torch.tensor([[1.0], [torch.nan]])
    )
    assert torch.equal(model(other), model(pack))


def test_nothing_learns_and_an_empty_pack_is_empty() -> None:
    model = with_lines()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(inputs(n_steps=(0, 0))).shape == (0, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"mean_steps": ()}, "at least one"),
        ({"slow_features": 6}, "slow_features is 6"),
        ({"reader_width": 0}, "reader_width is 0"),
        ({"task_labs": ("chloride",)}, "history_labs must hold it too"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        LabLinesConfig(**{"embed_width": 5} | shape)


@pytest.mark.parametrize("reader_width", [None, 4])
def test_a_lab_reads_the_waveform_if_another_one_changes_its_estimate(reader_width) -> None:
    model, pack = with_lines(reader_width=reader_width), inputs()
    other = replace(pack, embeddings=pack.embeddings.flip(0), pooled=-pack.pooled)
    changed = (model(pack) != model(other)).any(dim=0)
    assert model.reads_waveform.tolist() == changed.tolist() == [True, False]
    line = model.waveform.line
    assert line is not None
    line.weight.zero_()
    assert model.reads_waveform.tolist() == [reader_width is not None, False]
