"""What the layer's kernels cost the host: ``python -m benchmarks.scan_host [nothing] [cpu] [triton] [--profile]``.

CPU time of this process a call, so that other work on the machine does not count: of functions that do nothing, of the
CPU backend with its kernels replaced by nothing, of the Triton backend through a driver that does nothing
(`fake_cuda`). Tensors are so small that the system's allocator maps no memory for them.
Not in the figures: the driver's own launch (2 to 4 us each), CUDA's allocator, and the change to autograd's thread that
a GPU brings.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import fake_cuda
from benchmarks.selective_scan import make
from kernels.selective_scan import causal_conv1d, selective_scan

LENGTH, CHANNELS, WIDTH = 64, 256, 4
BOUNDS = (0, 19, 19, 40, 64)
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
    """Allocates what a kernel returns: what PyTorch itself takes for a function of as many tensors."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return an output and a state."""
        ctx.save_for_backward(*tensors)
        return torch.empty_like(tensors[0]), torch.empty_like(tensors[-1])

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> tuple[Tensor, ...]:
        """Return a gradient of each tensor."""
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors)


class Kernel(NamedTuple):
    """One of the layer's kernels as it is called: a function of tensors with gradients, its input first.

    Attributes
    ----------
    run : takes `tensors`, returns an output like the input, and a state
    tensors : all that have gradients; the last is the state at the start
    """

    run: Callable[..., Any]
    tensors: list[Tensor]


def plain_scan(backend: str) -> Kernel:
    """Return the scan of one sequence, with both states."""
    u, delta, A, B, C, D, h0 = make(1, LENGTH, CHANNELS, "cpu")

    def run(*x: Tensor) -> Any:
        return selective_scan(*x[:6], initial_state=x[6], return_last_state=True, backend=backend)

    return Kernel(run, [u.mT, delta.mT, A, B.mT, C.mT, D, h0])


def layer_scan(backend: str) -> Kernel:
    """Return the scan of a pack as a Mamba layer calls it: gate, bias, softplus, mask and bounds."""
    u, delta, A, B, C, D, h0, z = make(1, LENGTH, CHANNELS, "cpu", gated=True)
    mask, bounds = torch.ones(1, LENGTH, dtype=torch.bool), torch.tensor(BOUNDS)
    states = h0.repeat(len(BOUNDS) - 1, 1, 1)

    def run(*x: Tensor) -> Any:
        return selective_scan(
            *x[:8], True, True, initial_state=x[8], step_mask=mask, cu_seqlens=bounds, backend=backend
        )

    return Kernel(run, [u.mT, delta.mT, A, B.mT, C.mT, D, z.mT, torch.zeros(CHANNELS), states])


def layer_convolution(backend: str) -> Kernel:
    """Return the convolution of a pack as a Mamba layer calls it, with states."""
    bounds = torch.tensor(BOUNDS)
    x, weight = torch.randn(1, LENGTH, CHANNELS).mT, torch.randn(CHANNELS, WIDTH)
    states = torch.zeros(len(BOUNDS) - 1, CHANNELS, WIDTH - 1)

    def run(x: Tensor, weight: Tensor, bias: Tensor, initial: Tensor) -> Any:
        options: dict[str, Any] = {"initial_state": initial, "return_final_state": True}
        return causal_conv1d(x, weight, bias, cu_seqlens=bounds, backend=backend, **options)

    return Kernel(run, [x, weight, torch.zeros(CHANNELS), states])


KERNELS = {"scan": plain_scan, "a layer's scan": layer_scan, "a layer's convolution": layer_convolution}
CHAIN = 4
"""Calls more in the longer of two graphs: one's cost is told from that of `torch.autograd.grad` itself."""


def calls(kernel: Kernel) -> dict[str, Callable[[], object]]:
    """Return the calls to time: one without a graph; graphs of one and of `CHAIN` more, made, and with gradients."""
    leaves = [t.detach().requires_grad_() for t in kernel.tensors]
    layers = [[t.detach().clone().requires_grad_() for t in leaves[1:]] for _ in range(CHAIN)]
    dy, d_last = torch.randn_like(leaves[0]), torch.ones_like(leaves[-1])

    def without_graph() -> object:
        with torch.no_grad():
            return kernel.run(*leaves)

    def graph(layers: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        y, last = kernel.run(*leaves)
        states = [last]
        for rest in layers:
            y, last = kernel.run(y, *rest)
            states.append(last)
        return [y, *states]

    def gradients(layers: Sequence[Sequence[Tensor]]) -> object:
        inputs = [*leaves, *(t for rest in layers for t in rest)]
        return torch.autograd.grad(graph(layers), inputs, [dy, *[d_last] * (1 + len(layers))])

    return {
        "without a graph": without_graph, "a graph": partial(graph, ()), "a longer graph": partial(graph, layers),
        "gradients": partial(gradients, ()), "gradients of a longer graph": partial(gradients, layers),
    }  # fmt: skip


def of_one(times: dict[str, float]) -> dict[str, float]:
    """Return what one call costs: without a graph, and within one of several, forward and backward."""
    forward = (times["a longer graph"] - times["a graph"]) / CHAIN
    both = (times["gradients of a longer graph"] - times["gradients"]) / CHAIN
    return {
        "forward without a graph": times["without a graph"], "forward": forward, "backward": both - forward,
        "both, alone": times["gradients"],
    }  # fmt: skip


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


def kernels(backend: str) -> dict[str, Kernel]:
    """Return the kernels of a backend, or functions of the same tensors that do nothing."""
    made = {name: make("cpu" if backend == "nothing" else backend) for name, make in KERNELS.items()}
    if backend == "nothing":
        return {name: kernel._replace(run=Nothing.apply) for name, kernel in made.items()}
    return made


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
        for name, kernel in kernels(backend).items():
            times = of_one(microseconds(calls(kernel)))
            print(
                f"{backend}, {name}: " + ", ".join(f"{call} {value:.0f} us" for call, value in times.items())
            )
            if options.profile:
                profile_of(calls(kernel))


def profile_of(runs: dict[str, Callable[[], object]]) -> None:
    """Print where the time of each call goes."""
    for name, run in runs.items():
        print(name)
        with cProfile.Profile() as profile:
            for _ in range(2000):
                run()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
