"""Shapes of the methods that are fitted: lines, and assimilation. Loads without torch."""

from dataclasses import dataclass, field

from pipeline.training.reading_network_config import ReadingNetworkShape


@dataclass(frozen=True, kw_only=True)
class LinesShape:
    """What the method ``lines`` reads (``models.regressor.lab_lines``)."""

    slow_features: int | None = 32
    """Lasting directions of the embedding that the lines see; null: all of it, standardised."""
    mean_steps: tuple[float, ...] = (20.0, 60.0, 240.0)
    """Time constants of the running means that a line goes through, steps of 30 s."""
    reader_width: int | None = 64
    """Width of an LSTM over the latest windows, fitted before the lines and weighed beside them; null: none."""

    def __post_init__(self) -> None:
        for name in ("slow_features", "reader_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} must be at least 1")
        if not self.mean_steps or any(steps < 1 for steps in self.mean_steps):
            raise ValueError(
                f"mean_steps = {list(self.mean_steps)}: at least one, and each must be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class AssimilationShape:
    """How the method ``mt_assim`` is fitted (docs/assimilation.md)."""

    features: int = 48
    """Lasting directions of the embedding that each lab's line reads."""
    log_scale: tuple[str, ...] = ("glucose", "lactate")
    """Labs whose logarithm is assimilated."""
    reading_weight: float = 0.03
    """Weight of a reading's likelihood in fitting, of which a draw's is 1."""
    prior_weight: float = 1.0
    """Weight of the prior on the filters' numbers; 0: the bounds alone."""
    network: ReadingNetworkShape = field(default_factory=ReadingNetworkShape)
    """Networks whose reading joins the line's."""

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features = {self.features} must be at least 1")
        if len(set(self.log_scale)) < len(self.log_scale):
            raise ValueError(f"log_scale = {list(self.log_scale)} must name no lab twice")
        if not 0 <= self.reading_weight <= 1:
            raise ValueError(f"reading_weight = {self.reading_weight} must lie in 0..1")
        if self.prior_weight < 0:
            raise ValueError(f"prior_weight = {self.prior_weight} must not be negative")
