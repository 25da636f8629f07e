"""What a selective scan costs the host: ``python -m benchmarks.scan_host [nothing] [cpu] [triton] [--profile]``.

CPU time of this process a call, so that other work on the machine does not count: of a function that does nothing, the
CPU backend with its kernels replaced by nothing, the Triton backend through a driver that does nothing (`fake_cuda`).
Tensors are so small that the system's allocator maps no memory for them.
Not in the figures: the driver's own launch (2 to 4 us each), CUDA's allocator, and the change to autograd's thread that
a GPU brings.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import fake_cuda
from benchmarks.selective_scan import make
from kernels.selective_scan import selective_scan

LENGTH, CHANNELS = 64, 256
CALLS, ROUNDS = 10, 200


def microseconds(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the CPU time of each call: the least of many short rounds, since disturbance only adds.

    The calls take turns, so that a machine which slows down for a while slows down for all: one figure is a difference.
    """
    for run in runs.values():
        for _ in range(10):
            run()
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.process_time()
            for _ in range(CALLS):
                run()
            times[name] = min(times[name], (time.process_time() - start) / CALLS * 1e6)
    return times


class Nothing(torch.autograd.Function):
    """Allocates what a scan returns: what PyTorch itself takes for a function of seven tensors."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return an output and a state."""
        ctx.save_for_backward(*tensors)
        return torch.empty_like(tensors[0]), torch.empty_like(tensors[6])

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> tuple[Tensor, ...]:
        """Return a gradient of each tensor."""
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors)


CHAIN = 4
"""Scans more in the longer of two graphs: one's cost is told from that of `torch.autograd.grad` itself."""


def calls(backend: str) -> dict[str, Callable[[], object]]:
    """Return the calls to time: without a graph, with one, and graphs of one and of `CHAIN` more with all gradients."""
    u, delta, A, B, C, D, h0 = make(1, LENGTH, CHANNELS, "cpu")
    leaves = [t.detach().requires_grad_() for t in (u.mT, delta.mT, A, B.mT, C.mT, D, h0)]
    dy, d_last = torch.randn_like(u).mT, torch.ones_like(h0)
    layers = [[t.detach().clone().requires_grad_() for t in leaves[1:]] for _ in range(CHAIN)]

    def scan(u: Tensor = leaves[0], rest: Sequence[Tensor] = leaves[1:]) -> tuple[Tensor, Tensor]:
        if backend == "nothing":
            return Nothing.apply(u, *rest)  # pyright: ignore
        *tensors, state = rest
        options: dict[str, Any] = {"initial_state": state, "return_last_state": True, "backend": backend}
        return selective_scan(u, *tensors, **options)  # pyright: ignore

    def forward() -> object:
        with torch.no_grad():
            return scan()

    def both() -> object:
        return torch.autograd.grad(scan(), leaves, [dy, d_last])

    def chain() -> object:
        y, last = scan()
        states = [last]
        for rest in layers:
            y, last = scan(y, rest)
            states.append(last)
        inputs = [*leaves, *(t for rest in layers for t in rest)]
        return torch.autograd.grad([y, *states], inputs, [dy, *[d_last] * len(states)])

    return {"forward": forward, "forward with graph": scan, "forward and backward": both, "chain": chain}


def of_one(times: dict[str, float]) -> dict[str, float]:
    """Return the times without the chain's, and what one scan's backward pass costs in a graph of several."""
    chain = times.pop("chain")
    each = (chain - times["forward and backward"]) / CHAIN
    return times | {"backward, within a graph": each - times["forward with graph"]}


def idle(backend: str) -> None:
    """Let the kernels of `backend` do nothing, so that only the host's part is left."""
    if backend == "nothing":
        return
    if backend == "cpu":
        from kernels.selective_scan.cpu import backend as cpu

        cpu.call = lambda _function, _arguments, _keep: None
        return
    fake_cuda.install()
    # Tensors on the CPU will do; they are cut as on an H200, three kernels forward and four backward.
    patch("kernels.selective_scan.backends.triton_is_interpreted", lambda: True).start()
    patch("kernels.selective_scan.triton.lanes.plan.processors", lambda _device: 132).start()


def main() -> None:
    """Print microseconds a call, or profiles of 2000 calls."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan_host", description=__doc__)
    parser.add_argument(
        "backends", nargs="*", default=["nothing", "cpu", "triton"], help="nothing, cpu, triton"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for backend in options.backends:
        idle(backend)
        times = of_one(microseconds(calls(backend)))
        print(f"{backend}: " + ", ".join(f"{name} {value:.0f} us" for name, value in times.items()))
        if options.profile:
            for name, run in calls(backend).items():
                print(name)
                with cProfile.Profile() as profile:
                    for _ in range(2000):
                        run()
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
