"""Selective scan (Mamba-1) with a differentiable initial and last state, fast on GPU and CPU."""

from .interface import (
    causal_conv1d,
    causal_conv1d_step,
    selective_scan,
    selective_state_step,
)

__all__ = ["causal_conv1d", "causal_conv1d_step", "selective_scan", "selective_state_step"]
