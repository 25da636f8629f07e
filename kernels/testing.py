"""Inputs, tolerances and comparison that the kernels' tests and benchmarks share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.selective_scan import selective_scan, state_dtype

TOLERANCES = {
    # (dtype, what): largest relative distance |ours - truth| / |truth| in the Euclidean norm, truth in float64; of
    # float32 some two to three times the worst of every backend without a GPU (on the CPU, in the interpreter)
    (torch.float64, "any"): 1e-12,  # float64 against float64: another order of summation over 20160 steps
    (torch.float32, "output"): 1e-6,  # float32 state, exp2 good to 2e-7, at most ~10 time constants add up
    (torch.float32, "gradient"): 4e-6,  # the same twice, and sums over batch and time in another order
    (
        torch.bfloat16,
        "output",
    ): 4e-3,  # one rounding of the output to 8 bits (at most 2^-8), the state stays float32
    (torch.bfloat16, "gradient"): 6e-3,  # gradients rounded to 8 bits; inputs equal bit for bit on both sides
    (torch.float16, "output"): 5e-4,  # one rounding of the output to 11 bits (at most 2^-11)
    (torch.float16, "gradient"): 8e-4,  # gradients rounded to 11 bits
}
"""The one tolerance table; a reason stands in every row."""


@dataclass(frozen=True, kw_only=True)
class ScanCase:
    """The sizes and options of one selective scan.

    Attributes
    ----------
    batch, channels, length, state, groups : sizes
    lengths : lengths of packed sequences (then batch is 1 and length their sum), or None
    dtype : of u, delta, z, B and C
    skip, gate, bias, mask, initial : whether D, z, delta_bias (with softplus), step_mask, initial_state are given
    channels_last : activations as transposed views of (batch, length, channels)
    """

    batch: int = 2
    channels: int = 5
    length: int = 7
    state: int = 4
    groups: int = 1
    lengths: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.float32
    skip: bool = True
    gate: bool = True
    bias: bool = True
    mask: bool = False
    initial: bool = True
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.lengths is not None and (self.batch != 1 or self.length != sum(self.lengths)):
            raise ValueError(f"lengths is {self.lengths}; it needs batch 1 and length {sum(self.lengths)}")

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return self.batch if self.lengths is None else len(self.lengths)


def make_inputs(case: ScanCase, *, seed: int = 0, device: str = "cpu") -> dict[str, Tensor | bool]:
    """Return keyword arguments for `selective_scan`, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    wide = state_dtype(case.dtype)

    def normal(*shape: int, dtype: torch.dtype = wide) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    def activation() -> Tensor:
        if case.channels_last:
            return normal(case.batch, case.length, case.channels, dtype=case.dtype).transpose(1, 2)
        return normal(case.batch, case.channels, case.length, dtype=case.dtype)

    def projection() -> Tensor:
        return normal(case.batch, case.groups, case.state, case.length, dtype=case.dtype)

    decay = torch.arange(1, case.state + 1, dtype=wide, device=device)
    inputs: dict[str, Tensor | bool] = {
        "u": activation(),
        "delta": activation() if case.bias else activation().abs() * 0.1,
        "A": -decay * (1 + 0.1 * normal(case.channels, case.state).abs()),
        "B": projection(),
        "C": projection(),
    }
    if case.skip:
        inputs["D"] = normal(case.channels)
    if case.gate:
        inputs["z"] = activation()
    if case.bias:
        inputs |= {"delta_bias": normal(case.channels) - 2.0, "delta_softplus": True}
    if case.initial:
        inputs["initial_state"] = normal(case.sequences, case.channels, case.state)
    if case.mask:
        inputs["step_mask"] = torch.rand(case.batch, case.length, generator=generator).to(device) < 0.7
    if case.lengths is not None:
        bounds = torch.tensor([0, *case.lengths]).cumsum(0)
        inputs["cu_seqlens"] = bounds.to(device)
    return inputs


def widen(inputs: dict[str, Tensor | bool]) -> dict[str, Tensor | bool]:
    """Return the same values in float64, for the reference."""
    return {
        name: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in inputs.items()
    }


def outputs_and_gradients(
    scan: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor | bool], *, seed: int = 1
) -> dict[str, Tensor]:
    """Run `scan` forward and backward, with fixed random weights on both of its outputs.

    Returns
    -------
    dict
        "y", "last_state", and "d_<name>" for every floating input.
    """
    leaves = {
        name: x.detach().clone().requires_grad_()
        for name, x in inputs.items()
        if isinstance(x, Tensor) and x.is_floating_point()
    }
    y, last_state = scan(**{**inputs, **leaves})
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros((), dtype=torch.float64, device=y.device)
    for output in (y, last_state):
        weight = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        # Weights that bfloat16 and float16 hold exactly: every dtype gets the same incoming gradient.
        weight = (weight * 8).round() / 8
        loss = loss + (output.double() * weight.to(output.device)).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    named = {f"d_{name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {"y": y.detach(), "last_state": last_state.detach(), **named}


def relative_distance(ours: Tensor, truth: Tensor) -> float:
    """Return |ours - truth| / |truth|, or the plain distance where the truth is zero."""
    truth = truth.double().cpu()
    distance = torch.linalg.vector_norm(ours.double().cpu() - truth)
    return (
        float(distance / torch.linalg.vector_norm(truth).clamp_min(1e-30)) if truth.any() else float(distance)
    )


def assert_close(ours: dict[str, Tensor], truth: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Compare results of `outputs_and_gradients` by the tolerance table.

    Raises
    ------
    AssertionError
        Naming every result that is too far off, and by how much.
    """
    assert ours.keys() == truth.keys()
    far = {}
    for name, value in ours.items():
        assert torch.isfinite(value).all(), f"{name} is not finite"
        what = "gradient" if name.startswith("d_") else "output"
        tolerance = TOLERANCES.get((dtype, "any")) or TOLERANCES[dtype, what]
        distance = relative_distance(value, truth[name])
        if not distance <= tolerance:
            far[name] = f"{distance:.1e} > {tolerance:.0e}"
    assert not far, far


def softplus_and_slope(delta: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Return what a scan takes for softplus(delta) and for its slope; `delta` is one row of numbers.

    With one step, A = 0, one state and everything else 1, the output is the step size itself.
    """
    raw = delta.detach()[None, :, None].clone().requires_grad_()
    one = torch.ones_like(raw)
    a, narrow = torch.zeros(len(delta), 1, dtype=delta.dtype, device=delta.device), one[:, :1]
    y, _last = selective_scan(
        one, raw, a, narrow, narrow, delta_softplus=True, return_last_state=True, backend=backend
    )
    return y.detach().flatten(), torch.autograd.grad(y.sum(), raw)[0].flatten()


def assert_softplus_is_right(device: str, backend: str, dtype: torch.dtype) -> None:
    """Compare softplus and its slope with float64 wherever the result is a normal number of `dtype`.

    Raises
    ------
    AssertionError
        With the largest relative distance and where it lies, if it exceeds 1e-6 (float64: 1e-8, since PyTorch's own
        softplus, which two backends take, is the identity above 20).
    """
    lowest = 87.0 if dtype == torch.float32 else 700.0
    around_zero = torch.logspace(-12, 0, 49, dtype=torch.float64)
    delta = torch.cat([torch.linspace(-lowest, 40.0, 1017, dtype=torch.float64), around_zero, -around_zero])
    delta = delta.to(dtype)
    ours = softplus_and_slope(delta.to(device), backend)
    raw = delta.double()
    small = torch.exp(-raw.abs())
    truth = raw.clamp_min(0) + torch.log1p(small), torch.where(raw < 0, small, 1.0) / (1 + small)
    for name, found, right in zip(("softplus", "slope"), ours, truth, strict=True):
        distance = ((found.double().cpu() - right) / right).abs()
        worst = int(distance.argmax())
        limit = 1e-6 if dtype == torch.float32 else 1e-8
        assert distance[worst] <= limit, f"{name}({float(raw[worst])}) is off by {float(distance[worst]):.1e}"
