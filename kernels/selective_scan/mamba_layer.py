"""Mamba's layer around the scan, started from a given state: for any layer with mamba-ssm's parameter names."""

from types import MethodType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .interface import causal_conv1d, selective_scan
from .operands import state_dtype
from .validation import require

Layer = TypeVar("Layer", bound=nn.Module)

PARTS = ("in_proj", "conv1d", "x_proj", "dt_proj", "A_log", "D", "out_proj")
"""What ``mamba_ssm.Mamba`` calls its parts; version 2 of the layer has others."""


def run_mamba_layer(
    layer: Any, hidden: Tensor, *,
    initial_state: Tensor | None = None, initial_conv: Tensor | None = None,
    step_mask: Tensor | None = None, cu_seqlens: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run a Mamba layer with its own parameters, differentiable in them, in its input and in both states.

    Parameters
    ----------
    layer : a module with `PARTS`
    hidden : (batch, length, d_model)
    initial_state : (sequences, channels, state), float32 (float64 for float64 inputs); zeros by default
    initial_conv : (sequences, channels, width - 1), the convolution's inputs just before; zeros by default
    step_mask : (batch, length) bool; a masked step leaves the scan's state as it is, while the convolution takes its
        input as it comes
    cu_seqlens : (sequences + 1,) integer; bounds of sequences laid end to end in a batch of one

    Returns
    -------
    output : (batch, length, d_model)
    last_state, last_conv : as `initial_state` and `initial_conv`; hand them to the next stretch

    Raises
    ------
    ValueError
        Naming the argument, what it has and what it needs.

    Notes
    -----
    Source: Gu & Dao, Mamba, section 3.4, as mamba-ssm computes it; states, mask and packing are our additions.
    """
    rank, n_states = layer.dt_proj.weight.shape[1], layer.A_log.shape[1]
    x, z = layer.in_proj(hidden).chunk(2, dim=-1)
    conv = None if initial_conv is None else initial_conv.to(x.dtype)
    u, last_conv = causal_conv1d(
        x.mT, layer.conv1d.weight[:, 0], layer.conv1d.bias, activation="silu",
        initial_state=conv, return_final_state=True, cu_seqlens=cu_seqlens, backend=backend,
    )  # fmt: skip
    dt, b, c = layer.x_proj(u.mT).split([rank, n_states, n_states], dim=-1)
    delta = F.linear(dt, layer.dt_proj.weight)  # its bias is added inside the scan
    rates = -torch.exp(layer.A_log.to(state_dtype(u.dtype)))
    y, last_state = selective_scan(
        u, delta.mT, rates, b.mT, c.mT, layer.D, z.mT, layer.dt_proj.bias, True, True,
        initial_state=initial_state, step_mask=step_mask, cu_seqlens=cu_seqlens, backend=backend,
    )  # fmt: skip
    return layer.out_proj(y.mT), last_state, last_conv


def take_initial_state(layer: Layer) -> Layer:
    """Let a ``mamba_ssm.Mamba`` layer take an initial state, in place: ``layer(x, initial_state=h0)``.

    Its parameters, their names and its decoding with ``inference_params`` stay as they are. Called with
    ``return_states=True`` it returns (output, last_state, last_conv); all arguments are those of `run_mamba_layer`.

    Parameters
    ----------
    layer : with `PARTS`; in a model, each layer that is to start from a state

    Returns
    -------
    The same layer.

    Raises
    ------
    ValueError
        The layer lacks one of `PARTS`: it is no Mamba of version 1.

    Examples
    --------
    >>> mixer = take_initial_state(mamba_ssm.Mamba(d_model=256))  # doctest: +SKIP
    >>> y = mixer(x, initial_state=h0)  # doctest: +SKIP
    """
    lacking = [name for name in PARTS if not hasattr(layer, name)]
    needs = "the parts of mamba_ssm's Mamba (version 1)"
    require(not lacking, "layer", f"{type(layer).__name__} without {', '.join(lacking)}", needs)
    layer.forward = MethodType(_forward, layer)
    return layer


def _forward(
    layer: Any,
    hidden_states: Tensor,
    inference_params: Any = None,
    *,
    return_states: bool = False,
    **ours: Any,
) -> Any:
    if inference_params is not None:
        given = [*sorted(ours), *(["return_states"] if return_states else [])]
        has = f"{', '.join(given)} together with inference_params, which keep states of their own"
        require(not given, "layer", has, "one of both")
        return type(layer).forward(layer, hidden_states, inference_params)
    output, last_state, last_conv = run_mamba_layer(layer, hidden_states, **ours)
    return (output, last_state, last_conv) if return_states else output
