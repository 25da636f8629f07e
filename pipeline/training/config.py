"""The recipe of a training run, what it tells while it runs, and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.foundation.devices import DEVICE
from pipeline.foundation.provenance import to_plain
from pipeline.foundation.schema import PROTOCOLS

CPU_MICRO_STEPS = 16_384
"""Steps of a micro-batch on a CPU, and the fewest on a GPU (d_model 256: about 4 GB)."""

LEAST_LSTM_DRAWS = 8
"""Of a batch of the LSTM: what it learns from is single draws, where the others' pieces are hours or days of them."""

FIELDS_OF_THE_MACHINE = ("device", "tensorboard", "prefetch_micro_batches", "embedding_cache_bytes")
"""Fields of `TrainingConfig` that change no result: a run goes on, and counts as the same, whatever they are."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The recipe. Source: the paper for rates, epochs and batch; the rest is our decision."""

    epochs: int = 40
    """Passes over the training sequences."""
    learning_rate: float = 1e-4
    """Highest learning rate, reached at the end of the warm-up."""
    warmup_epochs: float = 5.0
    """Length of the linear warm-up, epochs; runs shorter than twice this warm up for half their length."""
    warmup_start: float = 1e-6
    """Learning rate of the first batch."""
    final_lr: float = 1e-7
    """Learning rate the cosine ends at."""
    weight_decay: float = 0.01
    """AdamW's, except for A_log, D, norms, biases, h0 and sigma."""
    clip: float = 1.0
    """Largest norm of the gradient of a global batch."""
    batch_pieces: int = 64
    """Pieces in a global batch, over all micro-batches and ranks; of the LSTM draws, `LEAST_LSTM_DRAWS` at least."""
    batches_per_epoch: int | None = None
    """Batches of each protocol in an epoch; None: one pass over the protocol that needs the fewest. The LSTM's epoch is
    a pass over all draws."""
    steps_per_micro_batch: int | None = None
    """Most packed steps in memory at once; a longer piece runs in chunks of that. None: 16,384 on a CPU, on a GPU what
    its free memory holds. Changes the rounding, and the draws of dropout."""
    protocols: tuple[str, ...] = PROTOCOLS
    """Kinds of pieces to learn from, each giving an equal number of batches."""
    fit_lines: bool = False
    """Fit the model's lines in closed form, and its reader of the latest windows, before the first epoch, and hold them
    (``pipeline.training.line_fit``); ours."""
    lstm_epochs: int | None = None
    """Epochs of the LSTM, which has no lines to start from; None: as the others."""
    lstm_learning_rate: float | None = None
    """Highest learning rate of the LSTM; None: as the others."""
    lstm_centred: bool = False
    """LSTM windows around the draw (the paper's; looks 2.5 min ahead) instead of before it."""
    amp: bool | Literal["auto"] = False
    """bfloat16 autocast with TF32 products in the training steps, on CUDA only; auto: where the GPU has both. No
    default: on the planted cohort its losses are more than 1 % from float32's (docs/operations.md)."""
    prefetch_micro_batches: int = 2
    """Micro-batches that a thread reads ahead, 0: none; changes no number."""
    embedding_cache_bytes: int | None = None
    """Most bytes of embeddings kept in memory; None: a quarter of what is free at the start, shared by the processes
    of this machine. Changes no number."""
    selection: str = "validation"
    """Which epoch is kept as best: lowest "validation" error, or the "last" one."""
    patience: int | None = None
    """Stop after this many epochs without a better validation error; None: never."""
    allow_leaks: bool = False
    """Accept a lab scaling that was not fitted on the training patients (the `authors` preset only)."""
    tensorboard: bool = True
    """Write TensorBoard curves where the package is installed."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ... or "auto"."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_pieces"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "warmup_start", "final_lr", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive")
        for name in ("learning_rate", "lstm_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and max(self.warmup_start, self.final_lr) > rate:
                raise ValueError(f"{name} = {rate} must not lie below warmup_start or final_lr")
        for name in (
            "warmup_epochs",
            "weight_decay",
            "seed",
            "prefetch_micro_batches",
            "embedding_cache_bytes",
        ):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} must not be negative")
        for name in ("batches_per_epoch", "patience", "lstm_epochs", "steps_per_micro_batch"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1, or None")
        if not self.protocols or not set(self.protocols) <= set(PROTOCOLS):
            raise ValueError(f"protocols = {self.protocols}: choose from {PROTOCOLS}")
        if self.selection not in ("validation", "last"):
            raise ValueError(f"selection = {self.selection!r}: choose 'validation' or 'last'")
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device = {self.device!r}: choose auto, cpu, cuda or cuda:N")
        if self.amp not in (True, False, "auto"):
            raise ValueError(f"amp = {self.amp!r}: choose true, false or auto")

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers, as plain JSON: a run may be finished, or go on, on another machine.

        Left out is what changes no number, or only how the machine rounds. Of ``steps_per_micro_batch`` and ``amp``
        that are left to the machine the values on a CPU stand here, so that runs from before they could be are
        recognised.
        """
        plain = {name: value for name, value in to_plain(self).items() if name not in FIELDS_OF_THE_MACHINE}
        plain["steps_per_micro_batch"] = plain["steps_per_micro_batch"] or CPU_MICRO_STEPS
        return plain | {"amp": self.amp is True}

    def for_method(self, method: str) -> "TrainingConfig":
        """Return the recipe of one method: the LSTM's own epochs, rate and batches of draws, in the others' place."""
        if method != "lstm":
            return self
        own = {"epochs": self.lstm_epochs, "learning_rate": self.lstm_learning_rate}
        own = {name: value for name, value in own.items() if value is not None}
        return replace(
            self, batch_pieces=max(self.batch_pieces, LEAST_LSTM_DRAWS), batches_per_epoch=None, **own
        )


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """What a listener is told after every batch, and with `validation` filled after every epoch.

    ``part`` is "all", or the lab of an st_pcs model; losses are mean absolute errors on the 0..1 scale of
    each lab. After an epoch ``busy_share`` says in what share of its training time the device computed, instead of
    waiting for data, files or other processes, and ``steps_per_second`` how many steps of 30 s all of them learnt from.
    """

    method: str
    part: str
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    lab_losses: Mapping[str, float]
    validation: Mapping[str, float] | None = None
    busy_share: float | None = None
    steps_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Where the checkpoints are and how it went.

    Attributes
    ----------
    checkpoint_dir : hand this to ``scoring.score`` and ``prediction.predict``
    epochs : one row per part and epoch: losses per lab, validation errors, learning rate
    best_epochs : epoch (from 1) kept as best, by part ("all", or the lab for st_pcs)
    counts : pieces, targets, pieces without history, by part
    """

    method: str
    checkpoint_dir: Path
    epochs: list[dict[str, Any]]
    best_epochs: dict[str, int]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
