"""Encoders by name or path, and how each wants its windows prepared."""

import functools
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.encoders.base import Encoder, device_kind, fixed_batch
from models.encoders.papagei import PaPaGeiS
from models.encoders.part_names import holds_parts
from models.encoders.ppg_gpt import PPG_GPT_SCALES, PPGGPT, fast_precision
from models.encoders.projection import Projection
from models.encoders.pulse.features import PulseFeatures
from models.encoders.pulse_ppg import PulsePPG
from models.errors import CheckpointMismatch
from pipeline.embedding.names import EncoderName
from pipeline.embedding.weights_files import WEIGHTS, file_of
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.windows.decoding import Prepare
from pipeline.windows.resample import prepare_ppg_gpt

log = logging.getLogger(__name__)

ADAPTERS: dict[str, Callable[[str], Encoder]] = {
    "papagei_s": PaPaGeiS.from_checkpoint,
    "pulse_ppg": PulsePPG.from_checkpoint,
}
"""Published encoders, named ``papagei_s:<path of the downloaded checkpoint>``."""


def chosen_device(wanted: str = "auto") -> str:
    """Return the device that "auto" stands for on this machine: the GPU where there is one; others as they are.

    Raises
    ------
    ConfigError : a GPU is wanted that PyTorch does not see
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    device, found = torch.device(wanted), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        seen = f"sees {found} (numbered from 0)" if found else "finds no GPU here"
        raise ConfigError(
            f"embedding.device is {wanted!r}, and PyTorch {seen}: use --set embedding.device=cpu"
        )
    return wanted


def chosen_precision(wanted: str, device: str) -> str:
    """Return the precision that "auto" stands for on `device`: bfloat16 where it multiplies it natively."""
    return fast_precision(device) if wanted == "auto" else wanted


def make_encoder(
    name_or_path: str,
    *,
    precision: str = "float32",
    device: str = "auto",
    gpu_batch_windows: int | None = None,
) -> Encoder:
    """Build a frozen encoder.

    Parameters
    ----------
    name_or_path : ``ppg_gpt_<scale>_random`` (seeded random weights), ``ppg_gpt_1m`` or another shipped one,
        the path of a PPG-GPT checkpoint or of a folder of its parts (``pipeline.pretraining.parts``), each with a
        read-out and a projection after it (``pipeline.embedding.names``);
        or ``papagei_s:<path>`` and ``pulse_ppg:<path>``; or ``pulse_features``, which has no weights
    precision : of PPG-GPT, "float32" or "bfloat16", or "auto": what the device is fastest in; part of the store's key
    device : a torch device, or "auto": the GPU where there is one
    gpu_batch_windows : windows of each forward pass on a GPU; part of the store's key

    Raises
    ------
    ConfigError : no such name, weights that are not shipped, a read-out that there is not or that the encoder has not,
        an unknown precision, or no GPU
    CheckpointError : the checkpoint does not fit
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision is {precision!r}; choose float32 or bfloat16, or auto")
    device = chosen_device(device)
    precision = chosen_precision(precision, device)
    name = EncoderName.parse(name_or_path)
    try:
        encoder = _build(name.weights, precision)
        if isinstance(encoder, PPGGPT):
            encoder.readout, encoder.name = name.readout, encoder.name + name.words
    except CheckpointMismatch as error:
        raise CheckpointError(str(error)) from error
    if isinstance(encoder, PPGGPT) and name.width is not None:
        _project(encoder, name)
    if not isinstance(encoder, torch.nn.Module):
        return encoder
    if gpu_batch_windows is not None:
        encoder.gpu_batch_windows = gpu_batch_windows  # type: ignore[assignment]
    if getattr(encoder, "precision", "float32") != "float32" and fast_precision(device) == "float32":
        log.warning(EMULATED)
    return encoder.to(device)  # type: ignore[return-value]


EMULATED = (
    "this processor has no bfloat16 of its own: the encoder computes it by emulation, several times slower. Embeddings "
    "differ from those of another processor by rounding alone, as those of two processors with bfloat16 do"
)
"""Measured on ppg_gpt_1m_long: docs/encoder.md."""
REDUCED_ROUNDING = {"cpu": 2, "cuda": 3}
"""By kind of device. Raise when a reduced precision comes to round otherwise, so that no store mixes the two (1:
autocast; 2: packed weights, about 2 % of an embedding apart, while a GPU kept to autocast; 3: compiled layers)."""


def kept_encoder(
    name_or_path: str,
    *,
    precision: str = "float32",
    device: str = "auto",
    gpu_batch_windows: int | None = None,
) -> Encoder:
    """Return what `make_encoder` builds, the same object while arguments and weights file stay the same.

    For batches that run one after another in a process: weights are read and packed once. Do not change it, and call
    `release_encoder` after the last batch.
    """
    state = _state_of_weights(name_or_path)
    return _kept(name_or_path, precision, device, gpu_batch_windows, state)


def release_encoder() -> None:
    """Give back the memory of the kept encoder."""
    _kept.cache_clear()


@functools.lru_cache(maxsize=1)
def _kept(
    name_or_path: str,
    precision: str,
    device: str,
    batch: int | None,
    _state: tuple[tuple[int, int, int], ...],
) -> Encoder:
    return make_encoder(name_or_path, precision=precision, device=device, gpu_batch_windows=batch)


def _state_of_weights(name_or_path: str) -> tuple[tuple[int, int, int], ...]:
    """Return inode, size and time of change of the files that a name stands for; empty where there are none."""
    name = EncoderName.parse(name_or_path)
    weights = weights_file(name)
    files = [] if weights is None else [weights, projection_file(weights, name)]
    states = [path.stat() for path in files if path.is_file()]
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in states)


def weights_file(name: EncoderName) -> Path | None:
    """Return the file of shipped weights or of a path; None where there is none, as for random weights."""
    return file_of(name.weights, WEIGHTS)


def projection_file(weights: Path, name: EncoderName) -> Path:
    """Return where the projection of `name` lies: beside its weights."""
    return weights.with_name(f"{weights.stem}{name.words}.safetensors")


def prepare_for(encoder: Encoder) -> Prepare:
    """Return the function that prepares raw windows for `encoder`: its own, or else that of PPG-GPT."""
    own = getattr(encoder, "prepare", None)
    return prepare_ppg_gpt if own is None else _WithoutRails(prepare=own)


def encoder_label(encoder: Encoder) -> str:
    """Return the encoder's name in the store's key; a reduced precision, rounded otherwise, is another encoder."""
    precision = getattr(encoder, "precision", "float32")
    if precision == "float32":
        return encoder.name
    return f"{encoder.name}_{precision}_r{REDUCED_ROUNDING[device_kind(encoder)]}"


def encoder_fields(encoder: Encoder) -> dict[str, Any]:
    """Return the fields of `Encoding` that the encoder decides, but for its label and weights."""
    return {
        "readout": getattr(encoder, "readout", "last"),
        "projection": getattr(encoder, "projection_hash", "none"),
        "precision": getattr(encoder, "precision", "float32"),
        "device": device_kind(encoder),
        "batch_windows": fixed_batch(encoder),
    }


@dataclass(frozen=True, kw_only=True)
class _WithoutRails:
    """Adapts a preparation that knows nothing of rails; can travel to a worker process."""

    prepare: Callable[[np.ndarray, float], np.ndarray]

    def __call__(
        self, samples: np.ndarray, sampling_rate_hz: float, rails: tuple[float, float]
    ) -> np.ndarray:
        return self.prepare(samples, sampling_rate_hz)


def _build(name_or_path: str, precision: str) -> Encoder:
    if name_or_path == PulseFeatures.name:
        return PulseFeatures()
    adapter, _, path = name_or_path.partition(":")
    if path and adapter in ADAPTERS:
        return ADAPTERS[adapter](path)
    if scale := re.fullmatch(r"ppg_gpt_(\w+?)_random", name_or_path):
        if scale[1] in PPG_GPT_SCALES:
            return PPGGPT.random(scale[1], precision=precision)  # type: ignore[arg-type]
    elif re.fullmatch(r"ppg_gpt_\w+", name_or_path):
        shipped = WEIGHTS / f"{name_or_path}.safetensors"
        if shipped.exists():
            return PPGGPT.from_checkpoint(shipped, name=name_or_path, precision=precision)  # type: ignore[arg-type]
    if Path(name_or_path).is_file() or holds_parts(Path(name_or_path)):
        return PPGGPT.from_checkpoint(name_or_path, precision=precision)  # type: ignore[arg-type]
    raise ConfigError(
        f"there is no encoder {name_or_path!r}: use ppg_gpt_<scale>_random with a scale of "
        f"{', '.join(PPG_GPT_SCALES)}, a shipped one ({', '.join(_shipped()) or 'none yet'}), the path of a "
        f"checkpoint (file or folder of parts), {PulseFeatures.name}, or "
        f"{', '.join(f'{name}:<path>' for name in ADAPTERS)}"
    )


def _project(encoder: PPGGPT, name: EncoderName) -> None:
    """Give `encoder` the projection that lies beside its weights."""
    weights, unprojected = weights_file(name), replace(name, width=None)
    if weights is None:
        raise ConfigError(
            f"encoder {name.weights!r} has no projection: there is no file of weights that one could lie by"
        )
    path = projection_file(weights, name)
    remedy = f"fit it: python -m pipeline projection --encoder {name.weights}{unprojected.words} --width {name.width}"
    if not path.is_file():
        beside = sorted(found.stem for found in weights.parent.glob(f"{weights.stem}+*.safetensors"))
        there = f"there is {', '.join(beside)}" if beside else "there is none"
        raise ConfigError(f"there is no projection {path.name} beside its weights ({there}); {remedy}")
    try:
        projection = Projection.from_file(path)
        if projection.width != name.width:
            raise CheckpointMismatch(f"{path.name} is a projection to {projection.width} numbers.")
        encoder.project(projection, path.name)
    except CheckpointMismatch as error:
        raise CheckpointError(f"{str(error).removesuffix('.')}; {remedy}") from error


def _shipped() -> list[str]:
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors") if "+" not in path.stem)
