"""Recorded calls are operators: what records them sees no tensor that a kernel filled behind its back."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from kernels.selective_scan import causal_conv1d, selective_scan
from kernels.selective_scan.tracing import is_traced


def convolve(x, weight):
    return causal_conv1d(x, weight, backend="cpu")


def scan(x, weight):
    rates = -torch.ones(x.shape[1], weight.shape[1])
    steps = torch.full_like(x, 0.1)
    return selective_scan(
        x, steps, rates, weight[None, :, :1].mT @ x[:, :1], x[:, : weight.shape[1]], backend="cpu"
    )


def recorded_by_make_fx(function, *inputs):
    return make_fx(function)(*(t + 1 for t in inputs))


def recorded_by_jit(function, *inputs):
    return torch.jit.trace(function, tuple(t + 1 for t in inputs), check_trace=False)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("record", [recorded_by_make_fx, recorded_by_jit])
def test_a_recorded_convolution_gives_other_inputs_their_outputs(record):
    inputs = torch.randn(2, 5, 12), torch.randn(5, 4)
    torch.testing.assert_close(record(convolve, *inputs)(*inputs), convolve(*inputs))


def test_a_recorded_scan_gives_other_inputs_their_outputs():
    inputs = torch.randn(1, 4, 12), torch.randn(1, 1)
    torch.testing.assert_close(recorded_by_make_fx(scan, *inputs)(*inputs), scan(*inputs))


def test_a_plain_call_is_not_traced():
    assert not is_traced(torch.zeros(1))
    assert is_traced(torch.nn.Parameter(torch.zeros(1)))
    seen = []
    torch.func.vmap(lambda x: (seen.append(is_traced(x)), x)[1])(torch.zeros(3, 2))
    assert seen == [True]
