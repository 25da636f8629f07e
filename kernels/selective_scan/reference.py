"""The definition of truth: plain loops in plain PyTorch, differentiated by autograd."""

import torch
from torch import Tensor

from .operands import ScanOperands, by_sequence, skip_and_gate, step_sizes


def scan(x: ScanOperands) -> tuple[Tensor, Tensor]:
    """Return (y, last_state) of h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t."""
    return by_sequence(x, _scan_sequences)


def _scan_sequences(x: ScanOperands) -> tuple[Tensor, Tensor]:
    """Scan batch rows that are whole sequences.

    ``unbind`` matters: indexing ``u[:, t]`` would make autograd allocate one full-size zero gradient for
    every step, and the backward pass quadratic in the length.
    """
    delta = step_sizes(x)
    repeats = x.u.shape[2] // x.B.shape[2]
    steps = zip(
        delta.unbind(1),
        (delta * x.u.to(delta.dtype)).unbind(1),
        x.B.to(delta.dtype).unbind(1),
        x.C.to(delta.dtype).unbind(1),
        strict=True,
    )
    state, outputs = x.entry_state().clone(), []
    for step, drive, b, c in steps:
        b, c = b.repeat_interleave(repeats, 1), c.repeat_interleave(repeats, 1)
        state = torch.exp(step[..., None] * x.A) * state + drive[..., None] * b
        outputs.append((state * c).sum(-1))
    y = torch.stack(outputs, 1) if outputs else torch.zeros_like(delta)
    return skip_and_gate(y, x), state
