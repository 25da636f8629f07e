"""The GPU's forward of a frozen PPG-GPT: its functions as they are against the plain ones, and that they compile."""

from functools import partial

import pytest
import torch

from models.encoders import ppg_gpt, ppg_gpt_compiled, readouts
from models.encoders.base import fixed_batch
from models.encoders.lora import add_lora
from models.encoders.ppg_gpt import PPGGPT, PPGGPTConfig
from models.encoders.ppg_gpt_compiled import CompiledPPGGPT
from models.encoders.readout_names import READOUTS

CONFIGS = [
    PPGGPTConfig(d_model=32, n_layers=3, n_heads=2),
    PPGGPTConfig(d_model=32, n_layers=1, n_heads=4),
    PPGGPTConfig(d_model=24, n_layers=2, n_heads=3, patch=60, head=60),
]


def model_of(config=CONFIGS[0], seed=0):
    """Return a model in which no parameter is at a special value."""
    torch.manual_seed(seed)
    model = PPGGPT(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("scale", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def forward_of(model, dtype=torch.float32, *, compiled=False):
    patches = 1200 // model.config.patch
    return CompiledPPGGPT(
        model.patch_embedding, model.gpt_layers, n_patches=patches, dtype=dtype, compiled=compiled
    )


def windows(n):
    return torch.rand(n, 1200, generator=torch.Generator().manual_seed(0))


def relative_error(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("readout", READOUTS)
def test_equals_the_plain_forward(config, readout):
    model, x = model_of(config), windows(5)
    model.readout = readout
    actual = forward_of(model)(model._patches(x), readout)
    assert actual.dtype == torch.float32
    assert not actual.requires_grad
    assert relative_error(actual, model.features(x)) < 1e-5


def test_bfloat16_stays_within_a_hundredth():
    model, x = model_of(), windows(40)
    full = forward_of(model)(model._patches(x), "layers+spread")
    half = forward_of(model, torch.bfloat16)(model._patches(x), "layers+spread")
    assert half.dtype == torch.float32
    assert 0 < relative_error(half, full) < 1e-2


def test_is_a_copy_with_low_rank_weights_in_it():
    model, x = model_of(), windows(3)
    with torch.no_grad():
        for weight in add_lora(model):
            weight.add_(0.1)
    forward, expected = forward_of(model), model.features(x).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert relative_error(forward(model._patches(x), "last"), expected) < 1e-5


def test_embed_takes_it_off_the_cpu(monkeypatch):
    """Meta tensors stand for a GPU's: shapes and the choice alone."""
    model = model_of().to("meta")
    monkeypatch.setattr(ppg_gpt, "can_compile", lambda device: False)
    assert isinstance(model._frozen_copy(), CompiledPPGGPT)
    model.gpu_batch_windows = 7
    assert fixed_batch(model) == 7
    assert model.embed(torch.rand(9, 1200, device="meta")).shape == (9, 32)


@pytest.mark.parametrize(("found", "capability", "able"), [
    (object(), (9, 0), True), (object(), (6, 1), False), (None, (9, 0), False)
])  # fmt: skip
def test_compiles_where_triton_makes_code(monkeypatch, found, capability, able):
    monkeypatch.setattr(ppg_gpt_compiled.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert ppg_gpt_compiled.can_compile(torch.device("cuda")) is able


def test_is_one_graph_and_one_compilation_for_all_layers(monkeypatch):
    """What `torch.compile` traces, without the minutes of making code; ``fullgraph`` raises at what it cannot trace."""
    graphs = []

    def compile_nothing(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compile_nothing))
    monkeypatch.setattr(readouts.position_spread, "available", lambda x: False)
    model, x = model_of(), windows(4)
    forward = forward_of(model, compiled=True)
    for readout in ("layers+spread", "last"):
        model.readout = readout
        assert relative_error(forward(model._patches(x), readout), model.features(x)) < 1e-5
    assert len(graphs) == 3, "a layer, its moments, the last layer's last position"


@pytest.mark.slow
def test_compiled_code_agrees_with_its_functions():
    """By PyTorch's code for the CPU, since there is no GPU: the same graph, another back end."""
    model, x = model_of(), windows(4)
    for dtype in (torch.float32, torch.bfloat16):
        plain, compiled = (forward_of(model, dtype, compiled=way) for way in (False, True))
        for readout in ("layers+spread", "last"):
            expected = plain(model._patches(x), readout)
            allowed = 1e-2 if dtype == torch.bfloat16 else 1e-5
            assert relative_error(compiled(model._patches(x), readout), expected) < allowed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_embeds_as_the_plain_forward_and_rows_are_their_own(precision):
    model, x = PPGGPT.random("1m", precision=precision).cuda(), windows(100).cuda()
    model.readout, model.gpu_batch_windows = "layers+spread", 64
    embedded = model.embed(x)
    with torch.no_grad():
        assert relative_error(embedded, model.features(x)) < (1e-2 if precision == "bfloat16" else 1e-4)
    assert torch.equal(model.embed(x[70:]), embedded[70:])
    assert torch.equal(model.embed(x.flip(0)).flip(0), embedded)


def test_a_process_may_compile_many_kinds_where_pytorch_counts_them_together(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph, dynamic: function)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    ppg_gpt_compiled._compiled(lambda: None)
    assert torch._dynamo.config.recompile_limit == ppg_gpt_compiled.MOST_KINDS
