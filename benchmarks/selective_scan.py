"""Cases of the selective scan: ours beside other people's, forward and forward + backward."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, peers
from benchmarks.driver import Case, Provider
from benchmarks.first_design import in_first_design
from kernels.selective_scan import causal_conv1d, selective_scan
from kernels.testing import relative_distance

DENSE_LIMIT = 200_000_000
"""State steps above which peers that hold all states at once are not run (20 and more bytes each)."""

STATE = 16
INITIAL = 6
"""The initial state's place in a list of operands: no peer has one."""

SAME_FUNCTION = 1e-3
"""Largest relative distance of a peer's outputs and gradients from our reference: does it compute the same thing?
(How precisely is not asked here: fast exponentials and 16-bit products pass, another formula does not.)"""


def make(
    batch: int, length: int, channels: int, device: str, *, dtype: torch.dtype = torch.float32, gated: bool = False
) -> list[Tensor]:  # fmt: skip
    """Return u, delta, A, B, C, D, h0 and, gated, z, time before channels, as a trained Mamba layer has them."""
    generator = torch.Generator(device).manual_seed(0)  # on the card: the host draws 64 weeks in a minute

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    delta = torch.nn.functional.softplus(normal(batch, length, channels) - 4.0)
    A = -torch.arange(1, STATE + 1).float().repeat(channels, 1).to(device)
    B, C = normal(batch, length, STATE), normal(batch, length, STATE)
    u, h0 = normal(batch, length, channels), normal(batch, channels, STATE)
    made = [u.to(dtype), delta.to(dtype), A, B.to(dtype), C.to(dtype), normal(channels), h0]
    return [*made, normal(batch, length, channels).to(dtype)] if gated else made


def ours(backend: str, *x: Tensor) -> object:
    """Scan with our `backend`, initial and last state included."""
    u, delta, A, B, C, D, h0, *z = x
    gate = z[0].mT if z else None
    return selective_scan(
        u.mT, delta.mT, A, B.mT, C.mT, D, gate, initial_state=h0, return_last_state=True, backend=backend
    )


def channels_first(scan: Callable[..., object], *x: Tensor) -> object:
    """Scan with mamba-ssm's interface, which has no initial state."""
    u, delta, A, B, C, D, _h0, *z = x
    return scan(u.mT, delta.mT, A, B.mT, C.mT, D, *[t.mT for t in z])


def in_their_layout(x: list[Tensor]) -> list[Tensor]:
    """Return the same tensors with time innermost in memory, as mamba-ssm's layer makes them."""
    return [t.mT.contiguous().mT if t.dim() == 3 and i != INITIAL else t for i, t in enumerate(x)]


def time_major(scan: Callable[..., object], *x: Tensor) -> object:
    """Scan with a peer that takes time-major tensors and no initial state."""
    return scan(*x[:6])


def forward(scan: Callable[..., object], x: list[Tensor], dy: Tensor) -> object:
    """Run without a graph."""
    with torch.no_grad():
        return scan(*x)


def forward_backward(scan: Callable[..., Any], x: list[Tensor], dy: Tensor) -> object:
    """Run with gradients to every input, from time-major `dy` (and from the last state, where there is one)."""
    leaves = [t.detach().requires_grad_() for t in x]
    result = scan(*leaves)
    outputs: Any = result if isinstance(result, tuple) else (result,)
    used = leaves if len(outputs) > 1 else [t for i, t in enumerate(leaves) if i != INITIAL]
    incoming = [dy if outputs[0].shape == dy.shape else dy.mT]
    incoming += [torch.ones_like(state) for state in outputs[1:]]
    return outputs, torch.autograd.grad(outputs, used, incoming)


def disagreement(scan: Callable[..., object], device: str) -> str:
    """Return "", or in what a peer differs from our float64 reference on a small case, forward or backward."""
    x = make(2, 100, 32, device)
    x[-1].zero_()  # no peer has an initial state
    dy = torch.linspace(-1, 1, x[0].numel(), device=device).view(x[0].shape)

    def results(scan: Callable[..., object], *dtype: torch.dtype) -> list[Tensor]:
        inputs = [t.to(*dtype) for t in x]
        outputs, gradients = forward_backward(lambda *t: _output(scan(*t)), inputs, dy.to(*dtype))  # pyright: ignore
        y = outputs[0].detach()
        return [y if y.shape == dy.shape else y.mT, *gradients]

    names = ("y", "du", "d_delta", "dA", "dB", "dC", "dD")
    truth = results(partial(ours, "reference"), torch.float64)
    distances = map(relative_distance, results(scan, torch.float32), truth)
    far = [f"{n} {d:.0e}" for n, d in zip(names, distances, strict=True) if not d <= SAME_FUNCTION]
    return f"not measured: differs from the reference in {', '.join(far)}" if far else ""


def _output(result: object) -> Tensor:
    return result[0] if isinstance(result, tuple) else result  # pyright: ignore


def providers(
    batch: int, length: int, channels: int, *, backward: bool, dtype: torch.dtype = torch.float32, gated: bool = False
) -> list[Provider]:  # fmt: skip
    """Return ours, on a GPU by its first design too, and its peers on one set of inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = make(batch, length, channels, device, dtype=dtype, gated=gated)
    dy = torch.randn_like(x[0])
    timed = partial(forward_backward if backward else forward, dy=dy)
    theirs = partial(forward_backward if backward else forward, dy=in_their_layout([dy])[0])
    dense = batch * length * channels * STATE > DENSE_LIMIT
    fast = "triton" if device == "cuda" else "cpu"
    made = [Provider(name=f"ours: {fast}", run=partial(timed, partial(ours, fast), x))]
    if device == "cuda":
        made.append(in_first_design(made[0], dtype, device))
    cuda: Any = peers.mamba_ssm_cuda()
    missing = "not measured: needs a GPU and its compiled scan"
    for name, run in (
        ("mamba-ssm CUDA kernel", partial(timed, partial(channels_first, cuda), x)),
        ("mamba-ssm CUDA kernel, its own layout", partial(theirs, partial(channels_first, cuda), in_their_layout(x))),
    ):  # fmt: skip
        if cuda is None:
            made.append(Provider(name=name, reason=missing))
        else:
            check = partial(disagreement, partial(channels_first, cuda), device)
            made.append(Provider(name=name, run=run, check=check))
    if gated or dtype != torch.float32:  # the others have neither gate nor such numbers
        return made
    plain, slow = partial(timed, partial(ours, "torch"), x), dense and device == "cuda"
    reason = "not run: seconds a call, and the card is lent by the minute" if slow else ""
    made.append(Provider(name="ours: torch", run=plain, rounds=2, reason=reason))
    return [*made, *_slow_peers(timed, x, device, dense=dense, long=backward and length > 1024)]


def _slow_peers(
    timed: Callable[..., object], x: list[Tensor], device: str, *, dense: bool, long: bool
) -> list[Provider]:
    made, reference = [], peers.mamba_ssm_reference()
    for name, scan, wrap, reason in (
        (
            "mamba-ssm selective_scan_ref",
            reference,
            channels_first,
            "not measured: mamba-ssm is not installed",
        ),
        ("mamba.py pscan", peers.pscan(), time_major, "not measured: mambapy is not installed"),
        ("torch associative_scan", peers.associative_scan(), time_major, "not measured: not in this PyTorch"),
    ):
        is_reference = scan is not None and scan is reference
        if scan is None:
            made.append(Provider(name=name, reason=reason))
        elif is_reference and long:
            made.append(Provider(name=name, reason="not run: quadratic in the length, hours"))
        elif dense:
            made.append(Provider(name=name, reason="not run: holds every state, does not fit"))
        else:
            peer = partial(wrap, scan)
            check = partial(disagreement, peer, device)
            made.append(Provider(name=name, run=partial(timed, peer, x), rounds=2, check=check))
    return made


def convolution_providers(*, backward: bool) -> list[Provider]:
    """Return ours and PyTorch's depthwise convolution, both with SiLU."""
    device, fast = ("cuda", "triton") if torch.cuda.is_available() else ("cpu", "cpu")
    x = torch.randn(1, 20160, 512, device=device)
    weight, bias = torch.randn(512, 4, device=device), torch.randn(512, device=device)
    timed = partial(forward_backward if backward else forward, dy=torch.randn_like(x))

    def fused(x: Tensor, weight: Tensor, bias: Tensor) -> object:
        return (causal_conv1d(x.mT, weight, bias),)

    def pytorch(x: Tensor, weight: Tensor, bias: Tensor) -> object:
        y = torch.nn.functional.conv1d(x.mT, weight[:, None], bias, padding=3, groups=512)[..., :20160]
        return (torch.nn.functional.silu(y),)

    tensors = [x, weight, bias]
    return [
        Provider(name=f"ours: {fast}", run=partial(timed, fused, tensors)),
        Provider(name="torch conv1d + silu", run=partial(timed, pytorch, tensors)),
    ]


def _floor(state_steps: int, backward: bool) -> float:
    limits = machine.measure()
    return float("nan") if limits is None else limits.scan_floor(state_steps, backward=backward)


def _scan_cases() -> list[Case]:
    cases = []
    for batch, length, channels in ((4, 20160, 512), (1, 20160, 256)):
        for backward in (False, True):
            what = "forward+backward" if backward else "forward"
            floor = partial(_floor, batch * length * channels * STATE, backward)
            run = partial(providers, batch, length, channels, backward=backward)
            name = f"{what} B{batch} L{length} D{channels}"
            cases.append(Case(name=name, providers=run, floor=floor))
    return cases


def gpu_cases() -> list[Case]:
    """Return every size, kind of number, gate and direction; wall time with peak memory, and time on the card."""
    cases = []
    for batch, length, channels, dtype, gated, backward, device in itertools.product(
        (1, 8, 64), (2048, 20160), (512, 1024), (torch.float32, torch.bfloat16), (False, True), (False, True),
        (False, True),
    ):  # fmt: skip
        what = "forward+backward" if backward else "forward"
        kind = f"{str(dtype).removeprefix('torch.')}, {'gated' if gated else 'plain'}"
        name = f"{what} B{batch} L{length} D{channels}, {kind}, {'device' if device else 'wall'}"
        run = partial(providers, batch, length, channels, backward=backward, dtype=dtype, gated=gated)
        cases.append(Case(name=name, providers=run, device=device))
    return cases


def _cases() -> list[Case]:
    return [
        *(gpu_cases() if torch.cuda.is_available() else _scan_cases()),
        Case(name="conv+silu forward B1 D512", providers=partial(convolution_providers, backward=False)),
        Case(name="conv+silu fwd+bwd B1 D512", providers=partial(convolution_providers, backward=True)),
    ]


CASES = _cases()
