"""Whether a call is computed, or recorded for later: what records sees operators, and nothing within a function."""

import torch
from torch import Tensor


def is_traced(tensor: object) -> bool:
    """Return whether somebody records what is done to a tensor, or stands in for it.

    torch.compile and torch.export, torch.jit.trace, make_fx, the transforms of torch.func, and subclasses of Tensor.
    """
    return (
        torch.compiler.is_compiling()
        or type(tensor) is not Tensor
        or torch.jit.is_tracing()  # pyright: ignore
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
    )
