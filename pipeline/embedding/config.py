"""How stage 1 runs: as an experiment says it, and worked out for one machine and device. Loads no torch."""

import os
from dataclasses import dataclass, field
from typing import Literal

from pipeline.foundation.devices import DEVICE
from pipeline.windows.cutting import WindowConfig

GPU_BATCH_WINDOWS = 4096
"""The encoder's fixed batch on a GPU; that on a CPU is 32: ``models/encoders/base.py``."""
MAX_DECODE_WORKERS = 32


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EncodingConfig:
    """How stage 1 runs on one machine; `window` alone decides what comes out.

    Attributes
    ----------
    window : which windows are usable; part of the store's key
    batch_windows : windows given to the encoder at once
    batch_patients : patients between two commits
    decode_workers : processes that read and resample; 0 = one thread, enough beside an encoder on a few cores
    queue_blocks : blocks of at most 512 windows that may wait for the encoder
    executor : "local", or "ray": actors that keep the encoder loaded, on one machine or many
    actors : Ray actors
    """

    window: WindowConfig = field(default_factory=WindowConfig)
    batch_windows: int = 256
    batch_patients: int = 32
    decode_workers: int = 0
    queue_blocks: int = 4
    executor: Literal["local", "ray"] = "local"
    actors: int = 2

    def __post_init__(self) -> None:
        _check_positive(self, "batch_windows", "batch_patients", "queue_blocks", "actors")
        if self.decode_workers < 0:
            raise ValueError(f"decode_workers is {self.decode_workers}; it must not be negative")
        if self.executor not in ("local", "ray"):
            raise ValueError(f"executor is {self.executor!r}; choose local or ray")


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How stage 1 uses the machine. None: worked out from its cores and the encoder's device, see `on`."""

    device: str = "auto"
    """Where the encoder runs, "cpu", "cuda" or "cuda:N"; auto: on the GPU where there is one. Its kind, not its number,
    is part of the store's key."""
    gpu_batch_windows: int = GPU_BATCH_WINDOWS
    """Windows of each forward pass on a GPU, always; fewer for a small card. Part of the store's key."""
    batch_windows: int | None = None
    """Windows given to the encoder at once; None: 64 a core, at least 256, and on a GPU one full batch."""
    batch_patients: int | None = None
    """Patients between two commits; None: 32, on a GPU 256, for each of Ray's actors: minutes of work."""
    decode_workers: int | None = None
    """Processes that read and resample, 0 = one thread; None: one for eight cores, on a GPU all cores but two."""
    queue_blocks: int | None = None
    """Blocks of at most 512 windows that may wait for the encoder; None: two a worker, at least 4, on a GPU 16."""
    actors: int | None = None
    """With ``embedding_executor=ray``, how many; None: one a core, on GPUs one a GPU of this machine."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "gpu_batch_windows", "batch_windows", "batch_patients", "queue_blocks", "actors"
        )
        if self.decode_workers is not None and self.decode_workers < 0:
            raise ValueError(f"decode_workers is {self.decode_workers}; it must not be negative")
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device is {self.device!r}; choose auto, cpu, cuda or cuda:N")

    def on(
        self,
        device: str,
        *,
        window: WindowConfig,
        executor: Literal["local", "ray"] = "local",
        cores: int | None = None,
        gpus: int = 1,
    ) -> EncodingConfig:
        """Return the configuration for a machine.

        Parameters
        ----------
        device : kind of device that the encoder runs on, "cpu" or "cuda"
        window, executor : carried over
        cores, gpus : of the machine; None: as many cores as this process may use
        """
        on_gpu, cores = device != "cpu", cores or available_cores()
        actors = self.actors or (max(1, gpus) if on_gpu else cores)
        own_cores = max(1, cores // actors) if executor == "ray" else cores
        workers = self.decode_workers
        if workers is None:
            workers = min(max(1, own_cores - 2), MAX_DECODE_WORKERS) if on_gpu else own_cores // 8
        return EncodingConfig(
            window=window,
            batch_windows=self.batch_windows
            or (self.gpu_batch_windows if on_gpu else max(256, 64 * own_cores)),
            # Actors start anew for each batch and load the encoder: it is as many times larger as they are.
            batch_patients=self.batch_patients
            or (256 if on_gpu else 32) * (actors if executor == "ray" else 1),
            decode_workers=workers,
            queue_blocks=self.queue_blocks or max(16 if on_gpu else 4, 2 * workers),
            executor=executor,
            actors=actors,
        )
