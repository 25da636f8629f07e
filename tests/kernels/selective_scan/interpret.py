"""Run the Triton kernels in the interpreter on small ragged cases; print each case's error, or null, as JSON."""

import json
from functools import partial

import torch

from kernels.selective_scan import causal_conv1d, selective_scan
from kernels.testing import ScanCase, assert_close, make_inputs, outputs_and_gradients, widen

CASES = {
    "ragged": ScanCase(batch=1, channels=5, length=19, state=3, mask=True),
    "pack_groups": ScanCase(batch=1, channels=6, state=2, groups=2, length=8, lengths=(5, 0, 3)),
    "bare": ScanCase(
        batch=2, channels=3, length=4, state=2, gate=False, skip=False, bias=False, initial=False
    ),
    "bf16": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.bfloat16),
    "float64": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.float64, channels_last=False),
}


CONVOLUTIONS = {
    "conv_ragged": (2, 5, None, 4, torch.float32, 37),
    "conv_pack": (1, 3, (2, 0, 34, 1), 4, torch.float64, 37),
    "conv_wide_bf16": (1, 3, (6, 9), 8, torch.bfloat16, 15),
    "conv_one_tap": (1, 3, None, 1, torch.float32, 5),
}


def convolution_results(batch, channels, lengths, width, dtype, length):
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (batch, length, channels),
        (channels, width),
        (channels,),
        (len(lengths or [0] * batch), channels, width - 1),
    )
    x, weight, bias, state = (torch.randn(*s, generator=generator).to(dtype) for s in shapes)
    bounds = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    results = {}
    for backend in ("reference", "triton"):
        leaves = [t.double() if backend == "reference" else t for t in (x.mT, weight, bias, state)]
        leaves = [t.detach().requires_grad_() for t in leaves]
        y, final = causal_conv1d(*leaves[:3], initial_state=leaves[3], return_final_state=True, cu_seqlens=bounds,
                                 backend=backend)  # fmt: skip
        loss = (
            y.double() * torch.linspace(-1, 2, y.numel()).view(y.shape)
        ).sum() + final.double().square().sum()
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        names = ("d_x", "d_weight", "d_bias", "d_state")
        results[backend] = {
            "y": y.detach(),
            "last": final.detach(),
            **dict(zip(names, gradients, strict=True)),
        }
    return results["triton"], results["reference"], dtype


def main():
    scan, report = partial(selective_scan, return_last_state=True), {}
    for name, case in CASES.items():
        truth = outputs_and_gradients(partial(scan, backend="reference"), widen(make_inputs(case)))
        ours = outputs_and_gradients(partial(scan, backend="triton"), make_inputs(case))
        try:
            assert_close(ours, truth, case.dtype)
        except AssertionError as error:
            report[name] = str(error)
        else:
            report[name] = None
    for name, (batch, channels, lengths, width, dtype, length) in CONVOLUTIONS.items():
        try:
            assert_close(*convolution_results(batch, channels, lengths, width, dtype, length))
        except AssertionError as error:
            report[name] = str(error)
        else:
            report[name] = None
    print(json.dumps(report))


if __name__ == "__main__":
    main()
