"""Which backend computes a call: named by the caller, or picked by device."""

import functools
import importlib.util
import logging
import warnings

import torch

from .validation import require

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "torch", "cpu", "triton")


def resolve_backend(name: str, device: torch.device) -> str:
    """Return the backend for `device`: `name` itself unless it is "auto".

    Raises
    ------
    ValueError
        For an unknown name, or a backend that cannot run on `device`.
    """
    if name == "auto":
        return _pick(device.type)
    require(name in BACKENDS, "backend", f"value {name!r}", f"one of {', '.join(BACKENDS)}")
    if name == "cpu":
        require(device.type == "cpu", "backend", f"value 'cpu' for tensors on {device}", "tensors on the CPU")
    if name == "triton":
        require(_has_triton(), "backend", "value 'triton' without Triton installed", "the package `triton`")
        usable = device.type == "cuda" or triton_is_interpreted()
        require(usable, "backend", f"value 'triton' for tensors on {device}", "tensors on a CUDA device")
    return name


def triton_is_interpreted() -> bool:
    """Return whether Triton kernels run in its interpreter (TRITON_INTERPRET=1), on any device."""
    import os

    return os.environ.get("TRITON_INTERPRET") == "1"


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _pick(device_type: str) -> str:
    """Choose a backend for a device and say so once."""
    choice = "torch"
    if device_type == "cuda" and _has_triton():
        choice = "triton"
    if device_type == "cpu" and _compiled_library_works():
        choice = "cpu"
    logger.info("selective scan on %s: backend %r", device_type, choice)
    return choice


def _compiled_library_works() -> bool:
    from .cpu.build import BuildError, load_library

    try:
        load_library()
    except BuildError as error:
        message = f"selective scan falls back to the slow `torch` backend on the CPU: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return False
    return True
