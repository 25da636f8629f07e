"""Public functions: the selective scan, the convolution before it, and one step of each for streaming."""

import torch
from torch import Tensor

from . import convolution_operator, operators
from .convolution import check_filter, convolve
from .operands import scan_inputs, skip_and_gate, step_sizes, time_major
from .validation import check_scan, check_state, require, require_tensors


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
    z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
    return_last_state: bool = False, *,
    initial_state: Tensor | None = None, step_mask: Tensor | None = None, cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Run Mamba's selective scan, differentiable in every tensor, initial and last state included.

    ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t`` and ``y_t = (sum_n C_t h_t + D u_t) silu(z_t)``.

    Parameters
    ----------
    u, delta, z : (batch, channels, length)
        float32, bfloat16, float16 or float64; transposed views of (batch, length, channels) are read
        in place.
    A : (channels, state)
        Real and finite; float32 (float64 for float64 inputs), like D, delta_bias and the states.
    B, C : (batch, state, length) or (batch, groups, state, length)
        In the dtype of `u`.
    D, delta_bias : (channels,)
    delta_softplus : bool
        ``delta = softplus(delta + delta_bias)``.
    return_last_state : bool
        Return ``(y, last_state)``.
    initial_state : (sequences, channels, state)
        The state before the first step, zeros by default; one for each batch row or member of the pack.
    step_mask : (batch, length) bool
        True = real step. A masked step leaves the state as it is (and its delta without gradient); its output
        is still read out.
    cu_seqlens : (sequences + 1,) integer
        Bounds of sequences laid end to end in a batch of one.
    backend : {"auto", "reference", "torch", "cpu", "triton"}

    Returns
    -------
    y : (batch, channels, length) in the dtype of `u`
    last_state : (sequences, channels, state), float32 (float64 for float64 inputs)

    Raises
    ------
    ValueError
        Naming the argument, what it has and what it needs.

    Notes
    -----
    Shapes, dtypes and devices are checked once for each kind of call. That A is finite is checked in every call on
    the CPU; on a GPU, where reading it would wait for the card, only in autograd's anomaly mode
    (``torch.autograd.set_detect_anomaly(True)``). `cu_seqlens` is read by the host; from a GPU once for each tensor,
    as long as PyTorch sees nobody write to it.

    Source: Gu & Dao, Mamba, section 3.2 and algorithm 2; initial state, mask and packing are our additions.
    """
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, step_mask, cu_seqlens)
    y, last_state = operators.scan(tensors, delta_softplus, backend)
    return (y, last_state) if return_last_state else y


def selective_state_step(
    state: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
    z: Tensor | None = None, delta_bias: Tensor | None = None, delta_softplus: bool = False,
    step_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Advance the scan by one step: equal to `selective_scan` over a length of one.

    Parameters
    ----------
    state : (batch, channels, state), not modified
    u, delta, z : (batch, channels)
    B, C : (batch, state) or (batch, groups, state)
    step_mask : (batch,) bool

    Returns
    -------
    y : (batch, channels)
    state : (batch, channels, state)

    Raises
    ------
    ValueError
        Naming the argument, what it has and what it needs.
    """
    require_tensors(state=state, u=u, delta=delta, A=A, B=B, C=C, z=z, step_mask=step_mask)
    require(u.dim() == 2, "u", f"shape {tuple(u.shape)}", "2 dimensions: (batch, channels)")
    mask = None if step_mask is None else step_mask[:, None]
    require(state is not None, "state", "no value", "a (batch, channels, state) tensor")

    def lift(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[..., None]

    tensors = (
        u[..., None], lift(delta), A, lift(B), lift(C), D, lift(z), delta_bias, state, mask, None
    )  # fmt: skip
    check_scan(*tensors)
    x = time_major(scan_inputs(tensors, delta_softplus))
    step = step_sizes(x)[:, 0]
    repeats = u.shape[1] // x.B.shape[2]
    b, c = (p[:, 0].to(step.dtype).repeat_interleave(repeats, 1) for p in (x.B, x.C))
    state = torch.exp(step[..., None] * x.A) * state + (step * u.to(step.dtype))[..., None] * b
    return skip_and_gate((state * c).sum(-1)[:, None], x)[:, 0], state


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = "silu",
    initial_state: Tensor | None = None, return_final_state: bool = False, cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Convolve every channel with its own causal filter, then apply the activation.

    ``y_t = act(sum_j weight_j x_{t - width + 1 + j} + bias)``; inputs before the first step come from
    `initial_state`.

    Parameters
    ----------
    x : (batch, channels, length)
    weight : (channels, width)
    bias : (channels,)
    activation : {"silu", None}
    initial_state : (sequences, channels, width - 1)
        The inputs just before each sequence, oldest first, in the dtype of `x`; zeros by default.
    return_final_state : bool
        Return ``(y, final_state)``, the last ``width - 1`` inputs.
    cu_seqlens : (sequences + 1,) integer
        Bounds of sequences laid end to end in a batch of one.

    Returns
    -------
    y : (batch, channels, length)
    final_state : (sequences, channels, width - 1)

    Raises
    ------
    ValueError
        Naming the argument, what it has and what it needs.
    """
    tensors = (x, weight, bias, initial_state, cu_seqlens)
    y, final_state = convolution_operator.convolution(tensors, activation, backend)
    return (y, final_state) if return_final_state else y


def causal_conv1d_step(
    conv_state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = "silu"
) -> tuple[Tensor, Tensor]:
    """Advance the convolution by one step: equal to `causal_conv1d` over a length of one.

    Parameters
    ----------
    conv_state : (batch, channels, width - 1), not modified
    x : (batch, channels)
    weight : (channels, width)

    Returns
    -------
    y : (batch, channels)
    conv_state : (batch, channels, width - 1)

    Raises
    ------
    ValueError
        Naming the argument, what it has and what it needs.
    """
    require(x.dim() == 2, "x", f"shape {tuple(x.shape)}", "2 dimensions: (batch, channels)")
    check_filter(x, weight, bias, activation)
    check_state("conv_state", conv_state, x, (*x.shape, weight.shape[1] - 1), x.dtype)
    y, conv_state = convolve(x[:, None], weight, bias, activation, conv_state, None)
    return y[:, 0], conv_state
