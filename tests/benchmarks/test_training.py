from functools import partial

import pytest
import torch

from benchmarks import peers
from benchmarks.training import (
    MambaSsmMamba,
    PscanMamba,
    cases,
    inputs_of,
    model_of,
    providers,
    training_step,
)
from kernels.selective_scan import selective_scan


@pytest.mark.parametrize("layer", [
    pytest.param(PscanMamba, marks=pytest.mark.skipif(peers.pscan() is None, reason="mambapy is not installed")),
    MambaSsmMamba,
])  # fmt: skip
def test_a_peer_is_the_same_model(layer, monkeypatch):
    """Our scan stands in for mamba-ssm's, whose interface it has: what is tested is the layer around it."""
    monkeypatch.setattr(peers, "mamba_ssm_cuda", lambda: partial(selective_scan, backend="torch"))
    ours, peer, inputs = model_of(16), model_of(16, layer), inputs_of(1, 100)
    assert sum(isinstance(module, layer) for module in peer.modules()) == 4 + 5
    torch.testing.assert_close(ours(inputs), peer(inputs), rtol=0, atol=1e-5)
    assert ours(inputs).std() > 0
    assert training_step(ours, inputs, None) == pytest.approx(training_step(peer, inputs, None), rel=1e-5)


def test_chunks_do_the_same_work():
    model, inputs = model_of(16), inputs_of(2, 100)
    assert training_step(model, inputs, 64) == pytest.approx(training_step(model, inputs, None), rel=1e-5)


def test_a_gpu_has_a_week_beside_mamba_ssm():
    made = cases("cuda")
    names = [case.name for case in made if not case.device]
    assert [case.name for case in made if case.device] == [f"{name}, device" for name in names]
    assert names == [f"training step {size} d256" for size in ("B1 L8192", "B1 L20160", "B4 L20160")]
    assert [case.name for case in cases("cpu")] == [name for name in names if "B1 L20160" not in name]


def test_peers_that_are_not_there_or_do_not_fit_are_named(monkeypatch):
    monkeypatch.setattr("benchmarks.training.PEER_STEPS", 10)
    monkeypatch.setattr(peers, "pscan", lambda: len)
    monkeypatch.setattr(peers, "mamba_ssm_cuda", lambda: None)
    ours, chunks, pscan, mamba_ssm = providers(20, "cpu", 8)
    assert (ours.reason, chunks.reason) == ("", "")
    assert chunks.name == "ours, chunks of 8"
    assert pscan.reason == "not measured: holds every state, does not fit"
    assert mamba_ssm.reason == "not measured: needs a GPU and its scan"
