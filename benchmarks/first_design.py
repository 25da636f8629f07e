"""Before and after: the GPU scan's first design in the second one's place, for what is measured or counted of both.

Only kernels are exchanged. What the host does around them (validation, autograd) is today's, and so are the layer and
the convolution: what these were before, a row of this kind does not show.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from benchmarks.driver import Provider


@contextmanager
def first_design() -> Iterator[None]:
    """Let the first design compute every scan meanwhile, forward and backward.

    In every thread, since on a GPU autograd computes gradients in one of its own. What runs forward meanwhile must run
    backward meanwhile too: each design saves states of its own kind. The switch is set by hand, because calls that are
    timed contain it.
    """
    from kernels.selective_scan.triton import designs  # Triton is not everywhere

    usual = designs.refused
    designs.refused = _refuse
    try:
        yield
    finally:
        designs.refused = usual


def _refuse(_device: torch.device) -> bool:
    return True


def in_first_design(provider: Provider, dtype: torch.dtype, device: str) -> Provider:
    """Return the same work by the first design, named so; not measured where that is what computes it anyway."""

    def run() -> object:
        with first_design():
            return provider.run()

    return replace(
        provider, name=f"{provider.name}, first design", run=run, check=lambda: no_second(dtype, device)
    )


def no_second(dtype: torch.dtype, device: str) -> str:
    """Return "", or that the second design does not compute a scan of a dtype on a device."""
    from kernels.selective_scan.triton import designs

    card = torch.device(device)
    if designs.refused(card) or not designs.launch.takes(dtype, card):
        return "not measured: ours is the first design here"
    return ""
