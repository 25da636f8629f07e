"""Inputs as the kernels read them: the one place where tensors that lie otherwise are copied."""

import torch
from torch import Tensor

from ..operands import ConvolutionInputs, ScanInputs


def readable(x: ScanInputs) -> ScanInputs:
    """Return inputs as the second design's kernels read them.

    Channels (of B and C, states) must be neighbours: tensors that lie otherwise (mamba-ssm's own layout, channels
    before time) are copied here, once forward and once backward. Strides over steps, rows and groups may be any.
    """
    return ScanInputs(
        neighbours(x.u), neighbours(x.delta), x.A.contiguous(), neighbours(x.B), neighbours(x.C),
        None if x.D is None else x.D.contiguous(), None if x.z is None else neighbours(x.z),
        None if x.delta_bias is None else x.delta_bias.contiguous(),
        None if x.initial_state is None else x.initial_state.contiguous(),
        None if x.step_mask is None else mask_bytes(x.step_mask), x.cu_seqlens, x.delta_softplus, x.made,
    )  # fmt: skip


def mask_bytes(step_mask: Tensor) -> Tensor:
    """Return a mask as the kernels read it."""
    return step_mask.contiguous().view(torch.uint8)


def readable_convolution(x: ConvolutionInputs) -> ConvolutionInputs:
    """Return inputs as the convolution's kernels read them: channels must be neighbours here too."""
    bias, initial = x.bias, x.initial_state
    return ConvolutionInputs(
        neighbours(x.x), x.weight.contiguous(), None if bias is None else bias.contiguous(),
        None if initial is None else initial.contiguous(), x.cu_seqlens, x.silu, x.made,
    )  # fmt: skip


def neighbours(tensor: Tensor) -> Tensor:
    """Return a (..., channels, length) tensor whose channels lie side by side in memory: itself, where they do."""
    if tensor.stride(-2) == 1 and tensor.stride(-1) < 2**24:
        return tensor
    return tensor.mT.contiguous().mT
