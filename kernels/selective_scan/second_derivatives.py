"""Derivatives that kernels do not give, refused on every road by which autograd would ask for them.

Gradients cannot be differentiated again. PyTorch's ``once_differentiable`` ties such gradients to nothing:
``loss.backward()`` through them raises, but ``torch.autograd.grad(..., allow_unused=True, materialize_grads=True)``
gives zeros without a word. And tangents are not carried through.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def refuse_second_derivatives(
    gradients: Sequence[Tensor | None], made_of: Sequence[Tensor | None], remedy: str
) -> tuple[Tensor | None, ...]:
    """Return gradients that raise when they are differentiated with respect to what they were made of.

    Parameters
    ----------
    gradients : as computed, without a graph
    made_of : the inputs, and the gradients of the outputs
    remedy : ends the error's sentence
    """
    origins = [tensor for tensor in made_of if tensor is not None and tensor.requires_grad]
    given = [gradient for gradient in gradients if gradient is not None]
    if not origins or not given:
        return tuple(gradients)
    again = iter(_Refused.apply(remedy, len(given), *given, *origins))  # pyright: ignore
    return tuple(None if gradient is None else next(again) for gradient in gradients)


def refuse_tangents(tensors: Sequence[Tensor | None], remedy: str) -> None:
    """Raise where forward-mode differentiation asks for a tangent, which kernels would drop without a word.

    Within several transforms of torch.func, whose levels hide tangents from each other, always in forward mode. Nothing
    is seen of what torch.compile has traced.

    Raises
    ------
    RuntimeError
        One of the tensors has a tangent, or may have.
    """
    if forward_ad._current_level < 0:
        return
    functorch: Any = torch._C._functorch  # pyright: ignore
    transforms = functorch.get_interpreter_stack() or ()
    hidden = len(transforms) > 1 or any(t.key() != functorch.TransformType.Jvp for t in transforms)
    if hidden or any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise RuntimeError(f"No tangents are computed here (forward mode): {remedy}.")


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, remedy: str, n_gradients: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.remedy = remedy
        return tuple(gradient.view_as(gradient) for gradient in tensors[:n_gradients])

    @staticmethod
    def backward(ctx: Any, *_outer: Any) -> tuple[Any, ...]:  # pyright: ignore
        raise RuntimeError(f"These gradients cannot be differentiated again: {ctx.remedy}.")
