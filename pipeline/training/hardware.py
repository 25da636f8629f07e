"""What a training run takes from the machine that it runs on: arithmetic, generators, how many steps fit into memory.

None of it stands in a run's identity: a finished run is recognised on every machine. On a CPU the arithmetic is
float32 and the micro-batch `CPU_MICRO_STEPS`, always, so that its bits do not depend on the machine's memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from models.encoders.ppg_gpt import fast_precision
from models.regressor.inputs import PackedInputs
from pipeline.training.base import WindowInputs
from pipeline.training.batches import forward
from pipeline.training.config import CPU_MICRO_STEPS, TrainingConfig

MOST_MICRO_STEPS = 262_144
"""Where a card is full anyway."""
DEVICE_SHARE = 0.6
"""Of the GPU's free memory; the rest is for what grows with the pack's shape, and for fragments."""


def uses_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    """Tell whether the training steps run in bfloat16 autocast with TF32 products; never on a CPU."""
    if device.type != "cuda":
        return False
    return config.amp is True or (config.amp == "auto" and fast_precision(device) == "bfloat16")


@contextmanager
def matrix_precision(*, tf32: bool) -> Iterator[None]:
    """Let float32 matrix products inside round their factors to TF32, and leave the process as it was."""
    if not tf32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the autocast of an encoder's training step; "auto": bfloat16 where `device` multiplies it natively."""
    chosen = fast_precision(device) if precision == "auto" else precision
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=chosen == "bfloat16")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed of its own, on the CPU and on `device`, and leave the callers' generators as they were."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def micro_batch_steps(
    config: TrainingConfig, device: torch.device, held: int | None, bytes_of_a_step: Callable[[], float]
) -> int:
    """Return the most packed steps in memory at once.

    Parameters
    ----------
    held : what the run had so far: a resumed one keeps it, for equal bits, where it fits
    bytes_of_a_step : measures the model; asked on a GPU alone
    """
    if config.steps_per_micro_batch is not None:
        return config.steps_per_micro_batch
    if device.type != "cuda":
        return CPU_MICRO_STEPS
    fitting = fitting_steps(_free_bytes(device), bytes_of_a_step())
    return held if held is not None and held <= fitting / DEVICE_SHARE * 0.9 else fitting


def fitting_steps(free_bytes: int, bytes_of_a_step: float) -> int:
    """Return how many steps take `DEVICE_SHARE` of the free memory, in thousands, within the two limits."""
    steps = int(DEVICE_SHARE * free_bytes / bytes_of_a_step) // 1024 * 1024
    return min(max(steps, CPU_MICRO_STEPS), MOST_MICRO_STEPS)


def bytes_of_a_step(
    model: nn.Module, inputs: PackedInputs | WindowInputs, device: torch.device, *, bfloat16: bool
) -> float:
    """Measure, on a GPU, the memory that one step of training takes at its peak; gradients are dropped again."""
    steps = len(inputs.step_mask) if isinstance(inputs, PackedInputs) else inputs.mask.numel()
    with torch.random.fork_rng(devices=[device]), matrix_precision(tf32=bfloat16):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bfloat16):
            prediction = forward(model.train(), inputs.to(device))
        prediction.float().square().mean().backward()
        peak = torch.cuda.max_memory_allocated(device) - before
    model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return peak / max(1, steps)


def _free_bytes(device: torch.device) -> int:
    """Return what the driver has left, and what PyTorch holds without using it."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
