"""How the networks that read the waveform for ``mt_assim`` are built and trained. Loads without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReadingNetworkShape:
    """Sizes and recipe (docs/assimilation.md says what is known of it)."""

    folds: int = 5
    """Networks, each trained without one fold of the training patients, whom it then reads; 0: none."""
    least_draws: int = 8_000
    """Draws of all labs beside a waveform, of the training patients; with fewer no network is trained. Seen to add from
    8,400 on, not at 5,800."""
    d_model: int = 32
    """Width."""
    n_blocks: int = 2
    """Mamba blocks."""
    d_state: int = 16
    """States per channel."""
    dropout: float = 0.1
    """Share dropped in training."""
    epochs: int = 15
    """Passes over the training patients' recordings, at most."""
    most_updates: int = 20_000
    """Fewer passes where the updates would exceed this."""
    batch_recordings: int = 4
    """Recordings in a batch."""
    learning_rate: float = 2e-3
    """Highest, of one cycle."""
    weight_decay: float = 0.1
    """AdamW's, except for A_log, D, norms and biases."""

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds = {self.folds} must be at least 2, or 0 (no network)")
        if self.least_draws < 0:
            raise ValueError(f"least_draws = {self.least_draws} must not be negative")
        for name in ("d_model", "n_blocks", "d_state", "epochs", "most_updates", "batch_recordings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout} must lie in [0, 1)")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate = {self.learning_rate} must be positive, and weight_decay = {self.weight_decay} not "
                "negative"
            )
