"""The recipe of fine-tuning an encoder on labs. Loads no torch."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.foundation.provenance import to_plain

ENCODER_FIELDS_OF_THE_MACHINE = ("device",)
"""Fields that change no more than rounding: a run goes on whatever they are."""


@dataclass(frozen=True, kw_only=True)
class EncoderTrainingConfig:
    """What is trained of the encoder, on which windows, and how; ours, but for LoRA's rank, alpha and places."""

    adapt: Literal["lora", "last_layers"] = "lora"
    """Low-rank updates of every layer, folded into the weights at the end, or the last layers as they are."""
    rank: int = 8
    """Rank of the updates (``lora``)."""
    alpha: float = 16.0
    """The updates' factor is alpha / rank (``lora``)."""
    places: tuple[str, ...] = ("w_q", "w_v")
    """Linear layers that get an update (``lora``): of w_q, w_k, w_v, w_concat, linear1, linear2."""
    layers: int = 1
    """How many last layers are trained (``last_layers``)."""
    windows_a_draw: int = 10
    """The latest usable windows that end at or before a draw, at most so many."""
    minutes_before: float = 60.0
    """How long before the draw such a window may end."""
    step_windows: int = 2
    """How many of a draw's windows each step sees, drawn anew each time."""
    draws_together: int = 8
    """Most draws of one patient that are compared with each other in a step."""
    batch_draws: int = 32
    """Draws in a step."""
    patient_levels: bool = True
    """Give each patient and lab a level that no window tells (``models.encoders.lab_heads``)."""
    epochs: int = 12
    """Most passes over the training draws."""
    patience: int | None = 4
    """Stop after so many epochs that the validation patients do not find better; None: never."""
    selection: Literal["validation", "last"] = "validation"
    """Which epoch is kept: the one that the validation patients' draws find best, or the last."""
    learning_rate: float = 1e-3
    """Highest learning rate, after the warm-up."""
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, epochs."""
    warmup_start: float = 1e-5
    """Learning rate of the first step."""
    final_lr: float = 1e-5
    """Learning rate the cosine ends at."""
    weight_decay: float = 0.01
    """AdamW's, for matrices alone."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    dropout: float = 0.0
    """Share dropped after each sub-layer of the encoder in training; the lines were fitted without any."""
    most_windows: int = 2_000_000
    """Most windows in the cache on disk, 2400 bytes each; beyond it each patient keeps fewer draws, evenly in time."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast of the training step; "auto": bfloat16 where the device multiplies it natively."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ... or "auto"."""

    def __post_init__(self) -> None:
        whole = (
            "rank", "layers", "windows_a_draw", "step_windows", "draws_together", "batch_draws", "epochs",
            "most_windows",
        )  # fmt: skip
        for name in whole:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("alpha", "minutes_before", "learning_rate", "warmup_start", "final_lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive")
        for name in ("warmup_epochs", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must not be negative")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience = {self.patience} must be at least 1, or null")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout} must lie in [0, 1)")
        if max(self.warmup_start, self.final_lr) > self.learning_rate:
            raise ValueError(
                f"learning_rate = {self.learning_rate} must not lie below warmup_start or final_lr"
            )
        known = ("w_q", "w_k", "w_v", "w_concat", "linear1", "linear2")
        if not self.places or not set(self.places) <= set(known):
            raise ValueError(f"places = {list(self.places)}: choose one or more of {', '.join(known)}")

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights, as plain JSON."""
        return {
            name: value for name, value in to_plain(self).items() if name not in ENCODER_FIELDS_OF_THE_MACHINE
        }
