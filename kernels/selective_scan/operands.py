"""The one form in which every backend gets a selective scan, and time-major views for those that want them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .remembered import on_the_host

IO_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of states and accumulators for inputs of `dtype`: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class ScanInputs(NamedTuple):
    """The checked arguments of one selective scan, as `selective_scan` documents them.

    A tuple: each call makes one or two, and a frozen dataclass takes the host four times as long.

    Attributes
    ----------
    A, D, delta_bias : in the dtype of states
    cu_seqlens : (sequences + 1,) int64 on the CPU
    made : what the backend has made for this kind of call (`validation.Kinds`); None where nobody remembers it
    others : as given
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    step_mask: Tensor | None
    cu_seqlens: Tensor | None
    delta_softplus: bool
    made: dict[Any, Any] | None = None

    @property
    def sequences(self) -> int:
        """Number of sequences: batch rows, or members of the pack."""
        return self.u.shape[0] if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1

    @property
    def groups(self) -> int:
        """Number of groups of channels that B and C tell apart."""
        return 1 if self.B.dim() == 3 else self.B.shape[1]


class ScanOperands(NamedTuple):
    """Tensors of one selective scan, time before channels, and its one switch.

    Attributes
    ----------
    u, delta, z : (batch, length, channels), any strides
    A : (channels, state), state dtype
    B, C : (batch, length, groups, state); channel ``d`` uses group ``d // (channels / groups)``
    D, delta_bias : (channels,), state dtype
    initial_state : (sequences, channels, state), state dtype; zeros where None
    step_mask : (batch, length) bool, True = real step
    cu_seqlens : (sequences + 1,) int64 where batch 1 is a pack; otherwise every batch row is a sequence
    delta_softplus : softplus after the bias
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    step_mask: Tensor | None
    cu_seqlens: Tensor | None
    delta_softplus: bool

    @property
    def sequences(self) -> int:
        """Number of sequences: batch rows, or members of the pack."""
        return self.u.shape[0] if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1

    @property
    def state_dtype(self) -> torch.dtype:
        """Dtype of states, accumulators and of the gradients of A, D and delta_bias."""
        return state_dtype(self.u.dtype)

    def entry_state(self) -> Tensor:
        """Return `initial_state`, or zeros in its place."""
        if self.initial_state is not None:
            return self.initial_state
        return self.A.new_zeros(self.sequences, *self.A.shape)


class ConvolutionInputs(NamedTuple):
    """The checked arguments of one `causal_conv1d`, as it documents them.

    Attributes
    ----------
    weight, bias : in the dtype of states
    cu_seqlens : (sequences + 1,) int64 on the CPU
    silu : the activation, or none
    made : as of `ScanInputs`
    others : as given
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None
    cu_seqlens: Tensor | None
    silu: bool
    made: dict[Any, Any] | None = None

    @property
    def sequences(self) -> int:
        """Number of sequences: batch rows, or members of the pack."""
        return self.x.shape[0] if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1


def convolution_inputs(
    tensors: Sequence[Any], activation: str | None, made: dict[Any, Any] | None = None
) -> ConvolutionInputs:
    """Return the checked tensors of `causal_conv1d`, in the order of its arguments, as compiled backends take them."""
    x, weight, bias, initial_state, cu_seqlens = tensors
    wide = state_dtype(x.dtype)
    return ConvolutionInputs(
        x, weight if weight.dtype is wide else weight.to(wide),
        bias if bias is None or bias.dtype is wide else bias.to(wide), initial_state,
        None if cu_seqlens is None else on_the_host(cu_seqlens), activation == "silu", made,
    )  # fmt: skip


def scan_inputs(
    tensors: Sequence[Any], delta_softplus: bool, made: dict[Any, Any] | None = None
) -> ScanInputs:
    """Return the checked tensors of `selective_scan`, in the order of its arguments, as backends take them.

    Bounds of a pack come to the CPU, once for each tensor: everybody who needs them reads them there.
    """
    u, delta, A, B, C, D, z, bias, state, mask, cu_seqlens = tensors
    wide = state_dtype(u.dtype)
    return ScanInputs(
        u, delta, A if A.dtype is wide else A.to(wide), B, C, D if D is None or D.dtype is wide else D.to(wide), z,
        bias if bias is None or bias.dtype is wide else bias.to(wide), state, mask,
        None if cu_seqlens is None else on_the_host(cu_seqlens), delta_softplus, made,
    )  # fmt: skip


def time_major(x: ScanInputs) -> ScanOperands:
    """Return views of the inputs with time before channels, and B and C with groups, be it one."""
    return ScanOperands(
        x.u.mT, x.delta.mT, x.A, _steps_first(x.B), _steps_first(x.C), x.D, None if x.z is None else x.z.mT,
        x.delta_bias, x.initial_state, x.step_mask, x.cu_seqlens, x.delta_softplus,
    )  # fmt: skip


def _steps_first(projection: Tensor) -> Tensor:
    """(batch, [groups,] state, length) -> (batch, length, groups, state), a view."""
    return projection.mT.unsqueeze(2) if projection.dim() == 3 else projection.permute(0, 3, 1, 2)


def as_inputs(gradients: Sequence[Any], x: ScanInputs) -> tuple[Tensor | None, ...]:
    """Return gradients of the first nine time-major operands, u to initial_state, as those of the inputs."""
    du, ddelta, dA, dB, dC, dD, dz, dbias, dstate = gradients
    if x.B.dim() == 3:
        dB, dC = dB.squeeze(2).mT, dC.squeeze(2).mT
    else:
        dB, dC = dB.permute(0, 2, 3, 1), dC.permute(0, 2, 3, 1)
    return du.mT, ddelta.mT, dA, dB, dC, dD, None if dz is None else dz.mT, dbias, dstate


def empty_time_major(like: Tensor) -> Tensor:
    """Return an empty tensor of an argument's shape, with time before channels in memory: no view of another."""
    return like.new_empty_strided(like.shape, time_major_strides(like.shape))


def time_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of (batch, [groups,] channels, length) laid out as (batch, length, [groups,] channels)."""
    *_, channels, length = shape
    each = channels if len(shape) == 3 else shape[1] * channels
    return (length * each, 1, each) if len(shape) == 3 else (length * each, channels, 1, each)


def step_sizes(x: ScanOperands) -> Tensor:
    """Return delta as the recurrence uses it: bias, softplus, then zero at masked steps."""
    delta = x.delta.to(x.state_dtype)
    if x.delta_bias is not None:
        delta = delta + x.delta_bias
    if x.delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    if x.step_mask is not None:
        delta = delta.masked_fill(~x.step_mask[..., None], 0.0)
    return delta


def skip_and_gate(y: Tensor, x: ScanOperands) -> Tensor:
    """Add D u to the state's read-out `y`, gate it with SiLU(z), and return it in the inputs' dtype."""
    if x.D is not None:
        y = y + x.D * x.u.to(y.dtype)
    if x.z is not None:
        y = y * torch.nn.functional.silu(x.z.to(y.dtype))
    return y.to(x.u.dtype)


def by_sequence(
    x: ScanOperands, scan: Callable[[ScanOperands], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Apply `scan` to each member of a pack and lay the outputs end to end."""
    if x.cu_seqlens is None:
        return scan(x)
    bounds = x.cu_seqlens.tolist()
    outputs, states = [x.u.new_empty(1, 0, x.u.shape[2])], [x.A.new_empty(0, *x.A.shape)]
    for row, (start, stop) in enumerate(pairwise(bounds)):
        y, state = scan(_member(x, row, start, stop))
        outputs.append(y)
        states.append(state)
    return torch.cat(outputs, dim=1), torch.cat(states)


def _member(x: ScanOperands, row: int, start: int, stop: int) -> ScanOperands:
    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:, start:stop]

    return ScanOperands(
        u=x.u[:, start:stop], delta=x.delta[:, start:stop], A=x.A,
        B=x.B[:, start:stop], C=x.C[:, start:stop], D=x.D, z=cut(x.z), delta_bias=x.delta_bias,
        initial_state=None if x.initial_state is None else x.initial_state[row : row + 1],
        step_mask=cut(x.step_mask), cu_seqlens=None, delta_softplus=x.delta_softplus,
    )  # fmt: skip
