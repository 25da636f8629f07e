"""The recipe of a pretraining run, and how far one has come."""

from dataclasses import dataclass, field
from typing import Any, Literal

from models.encoders.ppg_gpt import PPG_GPT_SCALES
from pipeline.foundation.devices import DEVICE
from pipeline.windows.cutting import WindowConfig


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """The recipe. Source: GPT-PPG for loss, warm-up and cosine; the rest is our decision."""

    scale: str = "1m"
    """One of ``PPG_GPT_SCALES``."""
    epochs: int = 40
    """Passes over the first corpus."""
    batch_windows: int = 64
    """Windows in a global batch, over all ranks."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"muon": for the layers' matrices, AdamW for the rest (``optimizers``)."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, epochs."""
    warmup_start: float = 1e-5
    """Learning rate of the first batch."""
    final_lr: float = 1e-5
    """Learning rate the cosine ends at."""
    weight_decay: float = 0.01
    """AdamW's, for matrices alone."""
    clip: float = 1.0
    """Largest norm of the gradient of a global batch."""
    dropout: float = 0.0
    """Share dropped after each sub-layer."""
    epoch_windows: int | None = None
    """Most windows in an epoch; None: all that the first corpus has."""
    validation_share: float = 0.1
    """Share of each corpus' patients (or records) that is held out."""
    fuse: bool = False
    """Compile the training step (``torch.compile``, needs a C++ compiler): a quarter more windows a second on a CPU.

    Batches of a new size are compiled anew, so `epoch_windows` should be a multiple of `batch_windows` that the first
    corpus can fill.
    """
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the training step; "auto": bfloat16 where the device multiplies it natively."""
    window: WindowConfig = field(default_factory=WindowConfig)
    """What makes a window unusable."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """"cpu", "cuda", ... or "auto"."""

    def __post_init__(self) -> None:
        if self.scale not in PPG_GPT_SCALES:
            raise ValueError(f"scale = {self.scale!r}: choose from {', '.join(PPG_GPT_SCALES)}")
        for name in ("epochs", "batch_windows", "learning_rate", "warmup_start", "final_lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive")
        for name in ("warmup_epochs", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must not be negative")
        if self.epoch_windows is not None and self.epoch_windows < 1:
            raise ValueError(f"epoch_windows = {self.epoch_windows} must be at least 1, or None")
        if not 0 < self.validation_share < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"validation_share = {self.validation_share} must lie in 0..1 and dropout = {self.dropout} in [0, 1)"
            )
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device = {self.device!r}: choose auto, cpu, cuda or cuda:N")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer = {self.optimizer!r}: choose adamw or muon")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision = {self.precision!r}: choose auto, float32 or bfloat16")


@dataclass(kw_only=True)
class PretrainingState:
    """How far a run has come; plain JSON.

    Attributes
    ----------
    identity : hash of everything that the weights depend on but the number of epochs
    epoch : epochs finished
    best_epoch, best_loss : the epoch (from 1) kept, and its loss on the first corpus' held-out windows
    rows : one row per finished epoch
    """

    identity: str
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
