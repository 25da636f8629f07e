"""Launch on the GPU that holds the tensors: Triton launches on the current device, whatever its tensors lie on."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..operands import ConvolutionInputs, ScanInputs


def on_its_device(launcher: Callable[..., Any]) -> Callable[..., Any]:
    """Make the device of the inputs, the first argument, current while `launcher` runs.

    Without it, kernels for tensors on ``cuda:1`` run in the context of ``cuda:0``: an illegal access, or a launch on
    the wrong stream. On the CPU (the interpreter) nothing is changed, nor on a machine with one card.
    """

    @functools.wraps(launcher)
    def guarded(inputs: ScanInputs | ConvolutionInputs, *rest: Any, **named: Any) -> Any:
        if not several_cards():
            return launcher(inputs, *rest, **named)
        with torch.cuda.device_of(inputs[0]):
            return launcher(inputs, *rest, **named)

    return guarded


@functools.cache
def several_cards() -> bool:
    """Return whether this process sees more than one GPU, which stays as it is once CUDA is in use."""
    return torch.cuda.device_count() > 1


@functools.cache
def rounds_to_bfloat16(device: torch.device) -> bool:
    """Return whether a device has the instruction that the second design rounds with: from sm_80 on."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
