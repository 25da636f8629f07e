"""Cases of the encoder: PPG-GPT as the pipeline applies it, beside its plain forward and the GEMM rate.

A run embeds `WINDOWS` windows of random numbers with random weights: neither changes the time. The floor is the
time that the products alone would take (those that the last position's embedding needs and that are no constants,
in bfloat16 where the processor multiplies it natively), at the best rate that this machine's PyTorch reaches on the
model's own shapes, weights packed or not, one thread a batch as in `models.encoders.base`.

The cases "read-outs" compare every read-out with "mean", which like them needs all positions of the last layer, in one
precision each. All read one copy of the weights: where a copy happens to lie in memory moves its time by more than a
read-out costs.
"""

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from benchmarks.driver import Case, Provider
from benchmarks.plain_ppg_gpt import plain_embedding
from models.encoders.base import EMBED_BATCH
from models.encoders.ppg_gpt import (
    PPG_GPT_SCALES,
    PPGGPT,
    WINDOW_SAMPLES,
    PPGGPTConfig,
    Precision,
    fast_precision,
)
from models.encoders.ppg_gpt_frozen import Affine, Product, product
from models.encoders.projection import Projection
from models.encoders.readout_names import READOUTS

WINDOWS = 512
WIDTH = 256
TO_WIDTH = f"+to{WIDTH}"
PROJECTED = f"layers+spread{TO_WIDTH}"
"""What `default` and `demo` store."""
POSITIONS = 30
"""After the start token, whose states are constants."""


def providers(scale: str) -> list[Provider]:
    """Return ours in the fast and in full precision, and the plain forward of the same weights."""
    windows = torch.rand(WINDOWS, WINDOW_SAMPLES, generator=torch.Generator().manual_seed(0))
    made = []
    fast = fast_precision()
    for precision in dict.fromkeys((fast, "float32")):
        model = PPGGPT.random(scale, precision=precision)
        made.append(Provider(name=f"ours: {precision}", run=partial(model.embed, windows)))
    if fast == "float32":
        made.append(Provider(name="ours: bfloat16", reason="not measured: this processor has no bfloat16"))
    made.append(Provider(name="plain forward, float32", run=partial(_plain, PPGGPT.random(scale), windows)))
    return made


def readouts(scale: str, precision: Precision) -> list[Provider]:
    """Return "mean" and then the other read-outs of one model in one precision, the widest projected too."""
    windows = torch.rand(WINDOWS, WINDOW_SAMPLES, generator=torch.Generator().manual_seed(0))
    lacks = precision != "float32" and fast_precision() == "float32"
    reason = "not measured: this processor has no bfloat16" if lacks else ""
    model = PPGGPT.random(scale, precision=precision)
    return [
        Provider(name=readout, run=partial(_read, model, readout, windows), reason=reason)
        for readout in dict.fromkeys(("mean", *READOUTS, PROJECTED))
    ]


def _read(model: PPGGPT, readout: str, windows: torch.Tensor) -> torch.Tensor:
    """Embed by a read-out of `model`, which is left without a projection."""
    model.readout = readout.removesuffix(TO_WIDTH)
    model.projection = _projection(model.readout_width) if readout == PROJECTED else None
    try:
        return model.embed(windows)
    finally:
        model.projection = None


@functools.cache
def _projection(inputs: int) -> Projection:
    """Return directions of random numbers, which cost what fitted ones do, for no weights in particular."""
    rng = torch.Generator().manual_seed(0)
    return Projection(torch.zeros(inputs), torch.randn(inputs, WIDTH, generator=rng), {})


def _plain(model: PPGGPT, windows: torch.Tensor) -> torch.Tensor:
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    parts = [
        plain_embedding(weights, model.config.n_layers, model.config.n_heads, part)
        for part in windows.split(256)
    ]
    return torch.cat(parts)


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
    for inner, outer in ((d, d), (d, 3 * d), (d, 4 * d), (4 * d, d)):
        layer = torch.nn.Linear(inner, outer, dtype=dtype)
        packed = product([Affine(layer.weight.detach(), layer.bias.detach())], dtype, rows)
        rates += [2.0 * rows * inner * outer / _product_seconds(layer, rows, inner, dtype)
                  for layer in (layer, packed)]  # fmt: skip
    return max(rates)


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


def _floor(scale: str) -> float:
    config = PPG_GPT_SCALES[scale]
    return WINDOWS * needed_operations(config) / gemm_rate(config)


CASES = [
    Case(name=f"PPG-GPT {scale}, {WINDOWS} windows", providers=partial(providers, scale), floor=partial(_floor, scale))
    for scale in ("19m", "1m")
] + [
    Case(name=f"read-outs, {scale}, {precision}", providers=partial(readouts, scale, precision))
    for scale in ("1m", "19m") for precision in ("float32", "bfloat16")
]  # fmt: skip
