"""What every window encoder offers, and how a frozen one is applied so that its bits can be cached."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

EMBED_BATCH = 32
"""Windows per forward pass on a CPU, always: the rounding of a matrix product depends on its shape. Few, so that a
layer's numbers stay in a core's cache and a single window comes soon; more are no faster (19M: 1 to 2 %)."""
GPU_EMBED_BATCH = 4096
"""The same on a GPU, which so few would not fill; a model's ``gpu_batch_windows`` replaces it. Fixed, not chosen by
free memory: it is part of the store's key, so two cards would not share a store. The widest tensor of the 19M model,
inside its FFN, takes 1 GiB in float32 at this size (4096 windows x 31 positions x 2048 numbers); a card needs a few."""


@runtime_checkable
class Encoder(Protocol):
    """Turns prepared 30 s windows into vectors; part of the key of everything that is computed from them."""

    @property
    def name(self) -> str:
        """What the store's key, tables and reports call it."""
        ...

    @property
    def width(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def sampling_rate_hz(self) -> float:
        """Rate of the windows that `embed` takes."""
        ...

    @property
    def samples_per_window(self) -> int:
        """Samples of a 30 s window at that rate."""
        ...

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the weights."""
        ...

    def embed(self, windows: Float[Tensor, "n samples"]) -> Float[Tensor, "n width"]:
        """Return the frozen embedding of prepared windows; each row depends on its own window alone."""
        ...


def fixed_batch(model: object) -> int:
    """Return how many windows each forward pass of `model` takes where it lies; part of what its bits depend on."""
    if device_kind(model) == "cpu":
        return EMBED_BATCH
    return getattr(model, "gpu_batch_windows", GPU_EMBED_BATCH)


def device_kind(model: object) -> str:
    """Return the kind of device that `model` computes on, "cpu" or "cuda"; without weights it is a CPU."""
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return "cpu" if weight is None else weight.device.type


def embed_in_batches(
    model: nn.Module,
    features: Callable[[Tensor], Tensor],
    windows: Float[Tensor, "n samples"],
    width: int,
) -> Float[Tensor, "n width"]:
    """Apply `features` of a frozen `model` to batches of one size, zeros added to the last.

    The bits of a window's row depend neither on its neighbours, nor on its place, nor on the number of threads, nor on
    whether the caller is in ``torch.inference_mode()``: the result is an ordinary tensor without gradient.

    Parameters
    ----------
    features : (n, samples) to (n, width), each row from its own window
    """
    device = next(model.parameters()).device
    size = fixed_batch(model)
    with torch.inference_mode(
        False
    ):  # a thread has a mode of its own, and may not write into an inference tensor
        out = torch.empty(len(windows), width, device=device)

    def fill(start: int) -> None:
        part = windows[start : start + size]
        with torch.inference_mode(False), torch.no_grad():
            batch = torch.zeros(size, windows.shape[1], device=device)
            batch[: len(part)] = part
            out[start : start + len(part)] = features(batch)[: len(part)]

    was_training = model.training
    model.eval()
    try:
        _run(fill, range(0, len(windows), size), on_cpu=device.type == "cpu")
    finally:
        model.train(was_training)
    return out


def _run(act: Callable[[int], None], starts: range, *, on_cpu: bool) -> None:
    """Call `act` for every start; on a CPU each of PyTorch's threads takes whole batches.

    A batch is too little work to be shared between threads: they would wait for each other after every product, very
    long where the machine is busy with other things. One thread a batch also makes bits independent of their number.
    """
    threads = torch.get_num_threads()
    if not on_cpu:
        for start in starts:
            act(start)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(act, start) for start in starts]:
                done.result()
    finally:
        torch.set_num_threads(threads)
