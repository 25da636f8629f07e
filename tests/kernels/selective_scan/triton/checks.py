"""What the Triton kernels must do: one set of checks, small in the interpreter and large on a GPU.

`checks(device, large)` returns them by name; each raises an AssertionError that says what is wrong.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from kernels.selective_scan import (
    causal_conv1d,
    causal_conv1d_step,
    convolution_operator,
    selective_scan,
    selective_state_step,
)
from kernels.selective_scan import operators as scan_operators
from kernels.selective_scan.operands import ScanInputs
from kernels.selective_scan.triton import agreement as triton_agreement
from kernels.selective_scan.triton import backend as triton_backend
from kernels.selective_scan.triton import tiling as triton_tiling
from kernels.selective_scan.triton.lanes import plan as lanes_plan
from kernels.selective_scan.triton.tuning import tune
from kernels.selective_scan.user_cache import cache_directory
from kernels.testing import (
    ScanCase,
    assert_close,
    assert_softplus_is_right,
    make_inputs,
    outputs_and_gradients,
    widen,
)

scan = partial(selective_scan, return_last_state=True)

SMALL = {
    "ragged": ScanCase(batch=1, channels=5, length=19, state=3, mask=True),
    "whole_chunks": ScanCase(batch=1, channels=33, length=16, state=16),
    "two_warps": ScanCase(batch=1, channels=64, length=80, state=16),
    "wide_pack": ScanCase(batch=1, channels=80, groups=2, length=23, lengths=(1, 19, 3), state=13, mask=True),
    "pack_groups": ScanCase(batch=1, channels=6, state=2, groups=2, length=8, lengths=(5, 0, 3)),
    "long_pack": ScanCase(
        batch=1, channels=3, state=2, length=12, lengths=(0, 11, 1), mask=True, initial=False
    ),
    "state_17": ScanCase(batch=1, channels=5, length=37, state=17, mask=True),
    "state_17_pack": ScanCase(batch=1, channels=6, state=17, groups=2, length=8, lengths=(5, 0, 3)),
    "bare": ScanCase(length=4, state=2, channels=3, gate=False, skip=False, bias=False, initial=False),
    "one_step": ScanCase(length=1, channels=3, state=1),
    "no_steps": ScanCase(length=0, channels=3, state=1),
    "empty_pack": ScanCase(batch=1, lengths=(0, 0), length=0),
    "bf16": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.bfloat16),
    "fp16": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.float16, channels_last=False),
    "state_17_bf16": ScanCase(batch=1, channels=3, length=5, state=17, dtype=torch.bfloat16),
    "float64": ScanCase(batch=1, channels=3, length=5, state=2, dtype=torch.float64, channels_last=False),
}
LARGE = {
    **SMALL,
    "everything": ScanCase(channels=70, length=1000, state=16, groups=2, mask=True),
    "longer_pack": ScanCase(batch=1, channels=70, length=1064, lengths=(1000, 0, 63, 1), groups=2, state=16),
    "length_63": ScanCase(length=63, channels=16),
    "state_64": ScanCase(channels=9, state=64, length=70),
    "state_7": ScanCase(channels=50, state=7, length=70, mask=True),
    "channels_first": ScanCase(channels=70, length=100, state=16, channels_last=False),
    "wide_bf16": ScanCase(channels=70, length=500, state=16, mask=True, dtype=torch.bfloat16),
    "wide_fp16": ScanCase(channels=70, length=500, state=16, mask=True, dtype=torch.float16),
    "wide_float64": ScanCase(channels=70, length=500, state=16, mask=True, dtype=torch.float64),
    "two_days": ScanCase(batch=1, length=20160, channels=3, state=2),
    # Three saved states a chunk on cards of up to 188 multiprocessors, as they are.
    "wide_and_long": ScanCase(batch=1, length=3100, channels=2048, state=2, mask=True),
}
SEGMENTS = {
    "whole": ScanCase(batch=1, channels=3, length=67, state=3),
    "pack": ScanCase(batch=1, channels=4, groups=2, length=34, lengths=(0, 25, 9), state=2, mask=True),
}
LARGE_SEGMENTS = {
    "whole": replace(LARGE["everything"], batch=1),
    "pack": replace(LARGE["longer_pack"], mask=True),
}
"""Cases for `on_one_processor`, whose chunks have several saved states: those in the interpreter are otherwise so short
that each has one, and which of them a chunk reads back is never asked. Both ways three or more, and sequences that are
cut all the same; the pack has several blocks too, masks, and states given and returned (`test_segments` counts)."""
MASKED_PACK = ScanCase(
    batch=1, channels=2, length=4, state=1, lengths=(3, 0, 1), dtype=torch.float64, mask=True
)
CONVOLUTIONS = {
    # batch, channels, lengths of a pack or None, taps, dtype, length, activation, whether bias and state are given
    "ragged": (2, 5, None, 4, torch.float32, 37, "silu", True),
    "pack": (1, 3, (2, 0, 34, 1), 4, torch.float64, 37, "silu", True),
    "wide_bf16": (1, 3, (6, 9), 8, torch.bfloat16, 15, "silu", True),
    "fp16": (1, 3, None, 4, torch.float16, 15, "silu", True),
    "long": (1, 3, (2, 0, 45, 36), 40, torch.float32, 83, "silu", True),  # of more taps than a tile has steps
    "one_tap": (1, 3, None, 1, torch.float32, 5, "silu", True),
    "bare": (1, 40, None, 3, torch.float32, 9, None, False),
}


def agree(case, device):
    truth = outputs_and_gradients(partial(scan, backend="reference"), widen(make_inputs(case)))
    ours = outputs_and_gradients(partial(scan, backend="triton"), make_inputs(case, device=device))
    assert_close(ours, truth, case.dtype)


def on_one_processor(device, case):
    """Agree where the card is small: its chunks are long, and have several saved states each, as long sequences do."""
    usual = lanes_plan.processors
    lanes_plan.processors = lambda _device: 1
    scan_operators._kinds.passed.clear()  # a plan has its chunks
    try:
        agree(case, device)
    finally:
        lanes_plan.processors = usual
        scan_operators._kinds.passed.clear()


def masked_sequence(device, state):
    inputs = make_inputs(ScanCase(batch=1, length=3, channels=3, state=state), device=device)
    inputs["step_mask"] = torch.zeros(1, 3, dtype=torch.bool, device=device)
    result = outputs_and_gradients(partial(scan, backend="triton"), inputs)
    assert torch.equal(result["last_state"], inputs["initial_state"])
    assert not any(result[name].any() for name in ("d_delta", "d_A", "d_B"))


def gradcheck(device):
    inputs = make_inputs(MASKED_PACK, device=device)
    leaves = {
        n: x.clone().requires_grad_()
        for n, x in inputs.items()
        if torch.is_tensor(x) and x.is_floating_point()
    }

    def function(*tensors):
        return scan(**{**inputs, **dict(zip(leaves, tensors, strict=True))}, backend="triton")

    torch.autograd.gradcheck(function, tuple(leaves.values()), fast_mode=True)


def halves(device, batch, length, dtype):
    """Two halves with the state carried equal the whole, gradients too; detached, nothing flows back."""
    case = ScanCase(batch=batch, length=length, channels=3, dtype=dtype, mask=True)
    inputs = make_inputs(case, device=device)
    names = ("u", "delta", "B", "C", "A", "initial_state")
    inputs |= {n: inputs[n].clone().requires_grad_() for n in names}
    leaves, cut = [inputs[n] for n in names], length // 3

    def part(where, state):
        timed = {n: inputs[n][..., where] for n in ("u", "delta", "z", "B", "C", "step_mask")}
        return scan(**{**inputs, **timed, "initial_state": state}, backend="triton")

    y, last = scan(**inputs, backend="triton")
    first, middle = part(slice(0, cut), inputs["initial_state"])
    second, end = part(slice(cut, length), middle)
    torch.testing.assert_close((torch.cat([first, second], -1), end), (y, last))
    attached = torch.autograd.grad(first.square().sum() + second.square().sum() + end.sum(), leaves)
    torch.testing.assert_close(attached, torch.autograd.grad(y.square().sum() + last.sum(), leaves))
    second, end = part(slice(cut, length), middle.detach())
    d_u, d_state = torch.autograd.grad(
        second.square().sum() + end.sum(), [leaves[0], leaves[-1]], allow_unused=True, materialize_grads=True
    )
    assert not d_u[..., :cut].any()
    assert d_u[..., cut:].any()
    assert not d_state.any()


def repeats(device, case):
    ours = partial(outputs_and_gradients, partial(scan, backend="triton"))
    first, second = ours(make_inputs(case, device=device)), ours(make_inputs(case, device=device))
    assert all(torch.equal(first[name], second[name]) for name in first)


def streaming(device):
    """One step at a time, scan and convolution, equals the whole length at once."""
    inputs = make_inputs(ScanCase(channels=6, length=6, groups=2, mask=True), device=device)
    y, last = scan(**inputs, backend="triton")
    state = inputs["initial_state"]
    weight, x = torch.linspace(-1, 1, 24, device=device).view(6, 4), inputs["u"]
    convolved, final = causal_conv1d(x, weight, backend="triton", return_final_state=True)
    carried = torch.zeros(2, 6, 3, device=device)
    for t in range(6):
        step = {n: inputs[n][..., t] for n in ("u", "delta", "B", "C", "z", "step_mask")}
        rest = {n: inputs[n] for n in ("A", "D", "delta_bias", "delta_softplus")}
        out, state = selective_state_step(state, **step, **rest)
        torch.testing.assert_close(out, y[..., t], rtol=1e-5, atol=1e-6)
        out, carried = causal_conv1d_step(carried, x[..., t], weight)
        torch.testing.assert_close(out, convolved[..., t], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((state, carried), (last, final), rtol=1e-5, atol=1e-6)


def convolution(device, batch, channels, lengths, width, dtype, length, activation, full):
    generator = torch.Generator().manual_seed(0)
    sequences = batch if lengths is None else len(lengths)
    shapes = ((batch, length, channels), (channels, width), (channels,), (sequences, channels, width - 1))
    values = [torch.randn(*s, generator=generator).to(dtype) for s in shapes[: 4 if full else 2]]
    bounds = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)

    def results(backend, dtype, device):
        leaves = [v.detach().to(device, dtype) for v in values]
        leaves = [t.requires_grad_() for t in (leaves[0].mT, *leaves[1:])]
        x, weight, bias, state = (*leaves, None, None)[:4]
        y, final = causal_conv1d(
            x, weight, bias, activation=activation, initial_state=state, return_final_state=True,
            cu_seqlens=None if bounds is None else bounds.to(device), backend=backend,
        )  # fmt: skip
        weights = torch.linspace(-1, 2, y.numel(), device=device).view(y.shape)
        loss = (y.double() * weights).sum()
        if full:  # else nobody asks for the last inputs' gradient
            loss = loss + final.double().square().sum()
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        named = zip(("d_x", "d_weight", "d_bias", "d_state"), gradients, strict=False)
        return {"y": y.detach(), "last": final.detach(), **dict(named)}

    assert_close(results("triton", dtype, device), results("reference", torch.float64, "cpu"), dtype)


def operators_foretell(device):
    """What a compiler is told of the operators is true: shapes, strides, what they write, and who owns the memory."""
    torch.manual_seed(0)
    tests = ("test_schema", "test_faketensor")
    inputs = make_inputs(ScanCase(channels=2, groups=2, length=3, state=1, mask=True), device=device)
    tensors = [inputs.get(name) for name in ScanInputs._fields[:11]]
    y, last, entries = scan_operators.scan_forward(*tensors, True, True, "triton")
    outer = entries, torch.ones_like(y), torch.ones_like(last)
    torch.library.opcheck(scan_operators.scan_forward, (*tensors, True, True, "triton"), test_utils=tests)
    torch.library.opcheck(scan_operators.scan_backward, (*tensors, *outer, True, "triton"), test_utils=tests)
    x, weight, bias = torch.randn(2, 3, 9).to(device), torch.randn(3, 4).to(device), torch.randn(3).to(device)
    given, outer = (x, weight, bias, torch.randn(2, 3, 3).to(device), None), (torch.ones_like(x), None)
    torch.library.opcheck(convolution_operator.convolve_operator, (*given, True, "triton"), test_utils=tests)
    backward = convolution_operator.convolve_backward_operator
    torch.library.opcheck(backward, (*given, *outer, True, "triton"), test_utils=tests)


def in_tiling(chosen, check):
    usual = triton_backend.tiling
    triton_backend.tiling = lambda *_: chosen
    try:
        check()
    finally:
        triton_backend.tiling = usual


def candidate(device, case, number):
    """A tiling that tuning may choose gives what the default gives."""
    in_tiling(triton_tiling.candidates(case.state)[number], partial(agree, case, device))


def softplus(device, dtype, large):
    """In the interpreter, whose programs cost what their operations do, all channels are one program's."""
    usual, threads = triton_tiling.candidates(1)[0], lanes_plan.THREADS
    wide = usual if large else replace(usual, channels=2048, backward_channels=2048)
    lanes_plan.THREADS = threads if large else 2048
    try:
        in_tiling(wide, partial(assert_softplus_is_right, device, "triton", dtype))
    finally:
        lanes_plan.THREADS = threads


def tuning(device):
    """The fastest tiling is kept for the next process, whatever this one has read."""
    sizes = {"state": 2, "channels": 3, "length": 3}
    times = tune(torch.device(device), torch.float32, **sizes, rounds=1)
    assert list(times) == list(triton_tiling.candidates(2))
    triton_tiling.tiling.cache_clear()
    kept = triton_tiling.tiling(2, torch.float32, torch.device(device))
    assert kept == min(times, key=times.get)
    triton_tiling.keep(list(times)[-1], 2, torch.float32, torch.device(device))
    assert triton_tiling.tiling(2, torch.float32, torch.device(device)) == kept
    triton_tiling.tiling.cache_clear()
    try:
        assert triton_tiling.tiling(2, torch.float32, torch.device(device)) == list(times)[-1]
    finally:
        (cache_directory() / triton_tiling.TILINGS).unlink()
        triton_tiling.tiling.cache_clear()


def rewritten_bounds(device):
    """Bounds that numpy writes to, which PyTorch does not see, are those of the call."""
    inputs = make_inputs(ScanCase(batch=1, channels=3, length=8, lengths=(5, 3), state=2), device=device)
    buffer = np.array([0, 5, 8])
    for cut in (5, 2):
        buffer[1] = cut
        bounds = {"cu_seqlens": torch.from_numpy(buffer)}
        found = scan(**inputs | bounds, backend="triton")
        wanted = scan(**inputs | bounds, backend="reference")
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def designs_agree(device, large):
    sizes = {} if large else {"length": 7, "channels": 6}
    limits = {torch.float32: 1e-5, torch.bfloat16: triton_agreement.ROUNDED_TOLERANCE}
    for dtype, limit in limits.items() if large else [(torch.float32, 1e-5)]:
        apart = triton_agreement.difference(triton_agreement.operands(dtype, torch.device(device), **sizes))
        assert apart <= limit, f"{dtype}: the designs are {apart} apart"


def checks(device, large):
    everything = LARGE["everything"] if large else replace(SMALL["pack_groups"], mask=True)
    first = replace(everything, state=40) if large else replace(everything, dtype=torch.float64)
    few = replace(SMALL["bf16"], mask=True)
    candidates = range(1, len(triton_tiling.candidates(first.state)))
    batch, length = (2, 400) if large else (1, 6)
    segments = LARGE_SEGMENTS if large else SEGMENTS
    return {
        **{f"scan {name}": partial(agree, case, device) for name, case in (LARGE if large else SMALL).items()},
        **{f"segments {n}": partial(on_one_processor, device, case) for n, case in segments.items()},
        **{f"convolution {n}": partial(convolution, device, *c) for n, c in CONVOLUTIONS.items()},
        **{f"candidate {number}": partial(candidate, device, first, number) for number in candidates},
        "masked sequence": partial(masked_sequence, device, 2),
        "masked sequence of 17 states": partial(masked_sequence, device, 17),
        # Each of the forty calls of gradcheck takes half a second in the interpreter. There the reference's gradients
        # in float64, which pass gradcheck themselves, stand for it, to 1e-11.
        "gradcheck": partial(gradcheck, device) if large else partial(agree, MASKED_PACK, device),
        "halves": partial(halves, device, batch, length, torch.float32),
        "halves float64": partial(halves, device, batch, length, torch.float64),
        "repeats": partial(repeats, device, everything if large else few),
        "repeats float64": partial(repeats, device, replace(everything if large else few, dtype=torch.float64)),
        "streaming": partial(streaming, device),
        "operators": partial(operators_foretell, device),
        "softplus": partial(softplus, device, torch.float32, large),
        "softplus float64": partial(softplus, device, torch.float64, large),
        "tuning": partial(tuning, device),
        "rewritten bounds": partial(rewritten_bounds, device),
        "designs agree": partial(designs_agree, device, large),
    }  # fmt: skip
