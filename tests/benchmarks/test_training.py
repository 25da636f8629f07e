import pytest
import torch

from benchmarks import peers
from benchmarks.training import PscanMamba, inputs_of, model_of, training_step


@pytest.mark.skipif(peers.pscan() is None, reason="mambapy is not installed")
def test_the_peer_is_the_same_model():
    ours, peer, inputs = model_of(16), model_of(16, peer=True), inputs_of(1, 100)
    assert sum(isinstance(module, PscanMamba) for module in peer.modules()) == 4 + 5
    torch.testing.assert_close(ours(inputs), peer(inputs), rtol=0, atol=1e-5)
    assert ours(inputs).std() > 0
    assert training_step(ours, inputs, None) == pytest.approx(training_step(peer, inputs, None), rel=1e-5)


def test_chunks_do_the_same_work():
    model, inputs = model_of(16), inputs_of(2, 100)
    assert training_step(model, inputs, 64) == pytest.approx(training_step(model, inputs, None), rel=1e-5)
