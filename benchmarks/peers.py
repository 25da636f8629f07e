"""Other people's selective scans, each optional: None where it is not installed."""

import functools
import importlib.util
import sys
import types
from collections.abc import Callable

import torch
from torch import Tensor


@functools.cache
def mamba_ssm_reference() -> Callable[..., object] | None:
    """Return mamba-ssm's `selective_scan_ref`, loaded once without its package's heavy __init__."""
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("einops") is None:
        return None
    package = types.ModuleType("mamba_ssm")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("mamba_ssm", package)
    if not _has_compiled_scan():
        sys.modules.setdefault("selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    return selective_scan_ref


@functools.cache
def _has_compiled_scan() -> bool:
    """Look once, before an empty module may stand in for the extension."""
    return importlib.util.find_spec("selective_scan_cuda") is not None


@functools.cache
def mamba_ssm_cuda() -> Callable[..., object] | None:
    """Return mamba-ssm's CUDA `selective_scan_fn`, or None without a GPU or its compiled extension."""
    if not torch.cuda.is_available() or not _has_compiled_scan() or mamba_ssm_reference() is None:
        return None
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore

    return selective_scan_fn


def pscan() -> Callable[..., Tensor] | None:
    """Return a scan by mamba.py's pscan (package mambapy), or None."""
    if importlib.util.find_spec("mambapy") is None:
        return None
    from mambapy.pscan import pscan as parallel_scan

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        """Scan (batch, length, channels) inputs from a zero state."""
        decay = torch.exp(delta[..., None] * A)
        states = parallel_scan(decay, (delta * u)[..., None] * B[:, :, None])
        return (states @ C[..., None]).squeeze(-1) + D * u

    return scan


def associative_scan() -> Callable[..., Tensor] | None:
    """Return a scan by PyTorch's own associative_scan (a prototype there), or None."""
    try:
        from torch._higher_order_ops import associative_scan as parallel_scan
    except ImportError:
        return None

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        """Scan (batch, length, channels) inputs from a zero state."""
        decay = torch.exp(delta[..., None] * A)
        inputs = (delta * u)[..., None] * B[:, :, None]
        _, states = parallel_scan(combine, (decay, inputs), dim=1, combine_mode="generic")
        return (states @ C[..., None]).squeeze(-1) + D * u

    return scan
