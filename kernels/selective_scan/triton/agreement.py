"""Whether the two designs agree on this machine's card, as ``python -m kernels.selective_scan`` found.

The interpreter never runs the PTX that loads, stores and shuffles in the second design, and a card or a compiler that
nobody has tried may not do with it what it should. Tried once, on a small scan both ways, the answer is kept in the
user's cache; where the designs disagree, the first one computes. Nothing is tried in the middle of a training.
"""

import functools
import hashlib
import logging
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from ..operands import ScanInputs, state_dtype
from ..user_cache import keep_in, kept_in
from . import backend
from .lanes import kind, launch, plan

logger = logging.getLogger(__name__)

AGREEMENTS = "agreements.json"
TOLERANCE = 1e-3
"""Largest difference of a result over its largest value. Sums in another order are 1e-5 apart, a mistake is not."""
ROUNDED_TOLERANCE = 2e-2
"""The same for bfloat16, of which every output has 8 bits."""


def refused(device: torch.device) -> bool:
    """Return whether the designs were found to disagree on a card; False where nobody has tried."""
    return device.type == "cuda" and _kept(device) is False


def try_designs(device: torch.device) -> dict[torch.dtype, float]:
    """Compute a small scan and its gradients by both designs, and keep whether they agree.

    Returns
    -------
    dict
        By dtype that both take there, the largest difference over the largest value, of outputs and gradients; infinite
        where a design does not compile or run.
    """
    limits = {torch.float32: TOLERANCE, torch.bfloat16: ROUNDED_TOLERANCE}
    apart = {dtype: _tried(operands(dtype, device)) for dtype in limits if launch.takes(dtype, device)}
    keep_in(AGREEMENTS, _key(device), all(apart[dtype] <= limits[dtype] for dtype in apart))
    _kept.cache_clear()
    return apart


def operands(
    dtype: torch.dtype, device: torch.device, length: int | None = None, channels: int = 720
) -> ScanInputs:
    """Return a scan that asks for all that the second design does: groups, mask, pack, 13 states, ragged ends.

    Unless `length` is given, chunks have three saved states each. A group of 360 channels has three programs of 128.
    """
    groups, state = 2, 13
    length = length or _long(device, channels)
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=random).to(device, of)

    wide = state_dtype(dtype)
    return ScanInputs(
        u=normal(1, length, channels).mT, delta=normal(1, length, channels).mT - 1.0,
        A=-normal(channels, state, of=wide).exp(), B=normal(1, groups, length, state).mT,
        C=normal(1, groups, length, state).mT, D=normal(channels, of=wide), z=normal(1, length, channels).mT,
        delta_bias=normal(channels, of=wide), initial_state=normal(3, channels, state, of=wide),
        step_mask=(torch.rand(1, length, generator=random) > 0.1).to(device),
        cu_seqlens=torch.tensor([0, 1, length // 2, length]), delta_softplus=True,
    )  # fmt: skip


def _long(device: torch.device, channels: int) -> int:
    """Return a length that fills a card with chunks of more steps than lie between three saved states.

    A sequence is cut into as many chunks as fill the card, so that a fixed length is all short chunks on a large one,
    and of those each has one saved state.
    """
    threads = plan.processors(device) * plan.FORWARD_PROGRAMS * plan.THREADS
    return (2 * kind.segment_of(plan.AT_ONCE) + 1) * max(1, threads // channels)


def _tried(x: ScanInputs) -> float:
    try:
        return difference(x)
    except (RuntimeError, TritonError):  # of the launch and of the compiler
        logger.exception("a design of the selective scan does not run here")
        return float("inf")


def difference(x: ScanInputs) -> float:
    """Return how far the designs' outputs, states and gradients are apart, over the largest value of each."""
    found = []
    for design in (backend, launch):
        y = torch.empty_like(x.u)
        last, saved = design.forward(x, y, True)
        assert saved is not None
        gradients = design.backward(x, saved, torch.ones_like(y), torch.ones_like(last))
        found.append([y, last, *(g for g in gradients if g is not None)])
    first, second = found
    each = [_apart(a.double(), b.double()) for a, b in zip(first, second, strict=True)]
    return max(each)


def _apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference over the largest value; infinite where one of them is not finite."""
    if not bool((a.isfinite() & b.isfinite()).all()):
        return float("inf")
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))


@functools.cache
def _kept(device: torch.device) -> bool | None:
    kept = kept_in(AGREEMENTS)
    return kept.get(_key(device)) if kept else None


def _key(device: torch.device) -> str:
    """Name the card and all that decides what runs on it."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the interpreter"
    return f"{card}, triton {triton.__version__}, sources {_sources()}"


@functools.cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
