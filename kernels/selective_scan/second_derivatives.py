"""Gradients that cannot be differentiated again, and say so on every road by which autograd would try.

PyTorch's ``once_differentiable`` ties such gradients to nothing: ``loss.backward()`` through them raises, but
``torch.autograd.grad(..., allow_unused=True, materialize_grads=True)`` gives zeros without a word.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, remedy: str, n_gradients: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.remedy = remedy
        return tuple(gradient.view_as(gradient) for gradient in tensors[:n_gradients])

    @staticmethod
    def backward(ctx: Any, *_outer: Any) -> tuple[Any, ...]:  # pyright: ignore
        raise RuntimeError(f"These gradients cannot be differentiated again: {ctx.remedy}.")
