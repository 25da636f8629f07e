"""How fast an encoder could be: its matrix products alone, at the best rate that PyTorch reaches on this machine."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.driver import device_seconds
from models.encoders.base import EMBED_BATCH, GPU_EMBED_BATCH
from models.encoders.ppg_gpt import PPGGPTConfig, fast_precision
from models.encoders.ppg_gpt_frozen import Affine, Product, product

POSITIONS = 30
"""After the start token, whose states are constants."""


def floor_seconds(config: PPGGPTConfig, windows: int) -> float:
    """Return the seconds that the products of some windows take at least."""
    rate = gpu_gemm_rate(config) if torch.cuda.is_available() else gemm_rate(config)
    return windows * needed_operations(config) / rate


def needed_operations(config: PPGGPTConfig) -> float:
    """Return the operations of one window's matrix products, of the last layer the last position alone."""
    d, full = config.d_model, config.n_layers - 1
    keys = POSITIONS + 1
    whole_layer = POSITIONS * (4 * d * d + 8 * d * d) + 2 * POSITIONS * keys * d
    last_layer = POSITIONS * 2 * d * d + (2 * d * d + 8 * d * d) + 2 * keys * d
    return 2.0 * (POSITIONS * config.patch * d + full * whole_layer + last_layer)


def gemm_rate(config: PPGGPTConfig) -> float:
    """Return operations per second of the best of the model's own products, all threads together."""
    dtype = torch.bfloat16 if fast_precision() == "bfloat16" else torch.float32
    rows, d = EMBED_BATCH * POSITIONS, config.d_model
    rates = []
    for inner, outer in _shapes(d):
        layer = torch.nn.Linear(inner, outer, dtype=dtype)
        packed = product([Affine(layer.weight.detach(), layer.bias.detach())], dtype, rows)
        rates += [2.0 * rows * inner * outer / _product_seconds(layer, rows, inner, dtype)
                  for layer in (layer, packed)]  # fmt: skip
    return max(rates)


def gpu_gemm_rate(config: PPGGPTConfig, device: str = "cuda", rounds: int = 20) -> float:
    """Return the same of a GPU in bfloat16, the best of the model's own products over a whole batch."""
    rows, rates = GPU_EMBED_BATCH * (POSITIONS + 1), []
    for inner, outer in _shapes(config.d_model):
        x, weight = (torch.randn(n, inner, device=device, dtype=torch.bfloat16) for n in (rows, outer))
        best = min(device_seconds(lambda x=x, weight=weight: x @ weight.T) for _ in range(rounds))
        rates.append(2.0 * rows * inner * outer / best)
    return max(rates)


def _shapes(width: int) -> tuple[tuple[int, int], ...]:
    """Return inputs and outputs of each product of a layer."""
    return (width, width), (width, 3 * width), (width, 4 * width), (4 * width, width)


def _product_seconds(layer: Product, rows: int, inner: int, dtype: torch.dtype, repeats: int = 40) -> float:
    """Return seconds a product when every thread does its own."""
    threads = torch.get_num_threads()
    inputs = [torch.randn(rows, inner).to(dtype) for _ in range(threads)]

    def work(x: torch.Tensor) -> None:
        with torch.no_grad():
            for _ in range(repeats):
                layer(x)

    best = float("inf")
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(7):
                start = time.perf_counter()
                list(pool.map(work, inputs))
                best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return best / (repeats * threads)
