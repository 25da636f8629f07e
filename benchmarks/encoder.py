"""Cases of the encoder: PPG-GPT as the pipeline applies it, beside its plain forward and the GEMM rate.

A run embeds windows of random numbers with random weights: neither changes the time. The floor is the
time that the products alone would take (those that the last position's embedding needs and that are no constants,
in bfloat16 where the processor multiplies it natively), at the best rate that this machine's PyTorch reaches on the
model's own shapes, weights packed or not, one thread a batch as in `models.encoders.base`.

The cases "read-outs" compare every read-out with "mean", which like them needs all positions of the last layer, in one
precision each. All read one copy of the weights: where a copy happens to lie in memory moves its time by more than a
read-out costs.

On a GPU the same, with more windows; its rate is bfloat16's there. "features under autocast" is the plain model, eager.
"""

import functools
from functools import partial

import torch

from benchmarks.driver import Case, Provider
from benchmarks.encoder_floor import floor_seconds
from benchmarks.plain_ppg_gpt import plain_embedding
from models.encoders.base import GPU_EMBED_BATCH
from models.encoders.ppg_gpt import (
    PPG_GPT_SCALES,
    PPGGPT,
    WINDOW_SAMPLES,
    Precision,
    fast_precision,
)
from models.encoders.projection import Projection
from models.encoders.readout_names import READOUTS

WIDTH = 256
TO_WIDTH = f"+to{WIDTH}"
PROJECTED = f"layers+spread{TO_WIDTH}"
"""What `default` and `demo` store."""


def device_and_windows() -> tuple[str, int]:
    """Return where a run embeds, and how many windows."""
    return ("cuda", 4 * GPU_EMBED_BATCH) if torch.cuda.is_available() else ("cpu", 512)


def providers(scale: str, device: str, count: int) -> list[Provider]:
    """Return ours in the fast and in full precision, and the plain forward of the same weights."""
    windows = _windows(device, count)
    made = []
    fast = fast_precision(device)
    for precision in dict.fromkeys((fast, "float32")):
        model = PPGGPT.random(scale, precision=precision).to(device)
        made.append(Provider(name=f"ours: {precision}", run=partial(model.embed, windows)))
    if fast == "float32":
        made.append(Provider(name="ours: bfloat16", reason="not measured: this processor has no bfloat16"))
    plain = PPGGPT.random(scale).to(device)
    if device != "cpu":
        made.append(Provider(name="features under autocast", run=partial(_autocast, plain, windows)))
    return [*made, Provider(name="plain forward, float32", run=partial(_plain, plain, windows))]


def readouts(scale: str, precision: Precision, device: str, count: int) -> list[Provider]:
    """Return "mean" and then the other read-outs of one model in one precision, the widest projected too."""
    windows = _windows(device, count)
    lacks = precision != "float32" and fast_precision(device) == "float32"
    reason = "not measured: this processor has no bfloat16" if lacks else ""
    model = PPGGPT.random(scale, precision=precision).to(device)
    return [
        Provider(name=readout, run=partial(_read, model, readout, windows), reason=reason)
        for readout in dict.fromkeys(("mean", *READOUTS, PROJECTED))
    ]


def _windows(device: str, count: int) -> torch.Tensor:
    return torch.rand(count, WINDOW_SAMPLES, generator=torch.Generator(device).manual_seed(0), device=device)


def _read(model: PPGGPT, readout: str, windows: torch.Tensor) -> torch.Tensor:
    """Embed by a read-out of `model`, which is left without a projection."""
    model.readout = readout.removesuffix(TO_WIDTH)
    model.projection = _projection(model.readout_width, windows.device) if readout == PROJECTED else None
    try:
        return model.embed(windows)
    finally:
        model.projection = None


@functools.cache
def _projection(inputs: int, device: torch.device) -> Projection:
    """Return directions of random numbers, which cost what fitted ones do, for no weights in particular."""
    rng = torch.Generator().manual_seed(0)
    return Projection(torch.zeros(inputs), torch.randn(inputs, WIDTH, generator=rng), {}).to(device)


def _autocast(model: PPGGPT, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast(windows.device.type, torch.bfloat16):
        return torch.cat([model.features(part) for part in windows.split(GPU_EMBED_BATCH)])


def _plain(model: PPGGPT, windows: torch.Tensor) -> torch.Tensor:
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    parts = [
        plain_embedding(weights, model.config.n_layers, model.config.n_heads, part)
        for part in windows.split(256 if windows.device.type == "cpu" else GPU_EMBED_BATCH)
    ]
    return torch.cat(parts)


def cases() -> list[Case]:
    """Return each scale in both precisions beside the plain forward, and its read-outs."""
    device, count = device_and_windows()
    scales: list[Case] = [
        Case(
            name=f"PPG-GPT {scale}, {count} windows", providers=partial(providers, scale, device, count),
            floor=partial(floor_seconds, PPG_GPT_SCALES[scale], count),
        )
        for scale in ("19m", "1m")
    ]  # fmt: skip
    return scales + [
        Case(name=f"read-outs, {scale}, {precision}", providers=partial(readouts, scale, precision, device, count))
        for scale in ("1m", "19m") for precision in ("float32", "bfloat16")
    ]  # fmt: skip


CASES = cases()
