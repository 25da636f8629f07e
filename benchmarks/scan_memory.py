"""What a GPU scan and its gradients take of memory: ``python -m benchmarks.scan_memory``; no GPU is needed.

Each call is a real one, forward and backward, whose launches do nothing; its tensors lie on the CPU, where memory
that nobody writes to costs nothing. What it allocates is counted, and given up again, as it goes: outputs, saved
states, everything between the kernels, gradients; not the inputs, nor the gradients of the outputs, which are the
caller's. Not counted: what an operator of PyTorch needs within itself, and what CUDA's allocator rounds up.
"""

import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.first_design import first_design
from kernels.selective_scan import selective_scan

SIZES = [
    # batch, length, channels, states
    (1, 20160, 512, 16), (4, 20160, 512, 16), (8, 2048, 512, 16), (1, 2048, 512, 16), (64, 20160, 512, 16),
    (4, 20160, 512, 8), (4, 20160, 512, 1), (4, 20160, 130, 16),
]  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16)


class Counted(TorchDispatchMode):
    """Knows the memory that is in use of what was allocated since it began, and the most that was."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.blocks: dict[int, tuple[StorageWeakRef, int]] = {}
        self.given = {t.untyped_storage().data_ptr() for t in given}
        self.peak = 0

    def in_use(self) -> int:
        """Return the bytes of all blocks that somebody still has."""
        self.blocks = {at: block for at, block in self.blocks.items() if not block[0].expired()}
        return sum(size for _, size in self.blocks.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and count the blocks of what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            block = leaf.untyped_storage() if isinstance(leaf, Tensor) else None
            if block is not None and block.nbytes() and block.data_ptr() not in self.given:
                self.blocks[block.data_ptr()] = StorageWeakRef(block), block.nbytes()
        self.peak = max(self.peak, self.in_use())
        return result


def counted(batch: int, length: int, channels: int, states: int, *, dtype: torch.dtype) -> tuple[int, int]:
    """Return the bytes in use between forward and backward, and the most in use at any time."""
    u, delta = (torch.empty(batch, length, channels, dtype=dtype).mT for _ in range(2))
    B, C = (torch.empty(batch, length, states, dtype=dtype).mT for _ in range(2))
    A, D, h0 = torch.zeros(channels, states), torch.zeros(channels), torch.zeros(batch, channels, states)
    leaves = [t.requires_grad_() for t in (u, delta, A, B, C, D, h0)]
    dy, d_last = torch.empty_like(u), torch.zeros_like(h0)
    with Counted([*leaves, dy, d_last]) as counter:
        u, delta, A, B, C, D, h0 = leaves
        y, last = selective_scan(
            u, delta, A, B, C, D, initial_state=h0, return_last_state=True, backend="triton"
        )
        between = counter.in_use()
        gradients = torch.autograd.grad([y, last], leaves, [dy, d_last])
    del gradients
    return between, counter.peak


def of_both_designs(*size: int, dtype: torch.dtype) -> list[int]:
    """Return the bytes between forward and backward, of the first design and the second, and both peaks."""
    from triton.runtime import jit

    with (
        patch.object(jit.JITFunction, "run", lambda *_arguments, **_constants: None),
        patch("kernels.selective_scan.backends.triton_is_interpreted", lambda: True),
        patch("kernels.selective_scan.triton.lanes.plan.processors", lambda _device: 132),  # an H200's
    ):
        second = counted(*size, dtype=dtype)
        with first_design():
            first = counted(*size, dtype=dtype)
    return [first[0], second[0], first[1], second[1]]


def main() -> None:
    """Print a table, in MB, of float32 and bfloat16."""
    sys.stdout.write(
        "| batch, length, channels, states | stays: first | second | peak: first | second |\n"
        "|---|---|---|---|---|\n"
    )
    for size in SIZES:
        of_dtypes = zip(*[of_both_designs(*size, dtype=dtype) for dtype in DTYPES], strict=True)
        cells = [", ".join(f"{x / 1e6:.0f}" for x in figures) for figures in of_dtypes]
        sys.stdout.write(f"| {', '.join(map(str, size))} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
