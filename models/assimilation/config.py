"""Choices of assimilation: which labs, on which scale, how their numbers are fitted, how long states are kept."""

from dataclasses import dataclass, field

from models.regressor.config import FIVE_LABS


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the eleven numbers of a lab are fitted.

    Attributes
    ----------
    reading_weight : weight of a reading's likelihood, of which a draw's is 1. Readings outnumber draws by some
        thirty to one and would otherwise decide what the draws should; 0 to 0.03 served equally well.
    prior_weight : weight of the prior on the numbers, in draws' log-likelihood: 1 is a Gaussian prior as it
        stands in ``parameters.PRIOR``, 0 leaves the bounds alone
    least_draws, least_patients : a lab with fewer of either keeps the prior's numbers, and its status says so
    most_iterations : of L-BFGS-B, at each start
    rows_at_once : rows (patients) filtered together; bounds the memory
    """

    reading_weight: float = 0.03
    prior_weight: float = 1.0
    least_draws: int = 20
    least_patients: int = 5
    most_iterations: int = 100
    rows_at_once: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.reading_weight <= 1:
            raise ValueError(f"reading_weight is {self.reading_weight}; it must lie in [0, 1].")
        if not 0 <= self.prior_weight < float("inf"):
            raise ValueError(f"prior_weight is {self.prior_weight}; it must be finite and at least 0.")
        for name in ("least_draws", "least_patients", "most_iterations", "rows_at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class AssimilationConfig:
    """Which labs are assimilated, and how.

    Attributes
    ----------
    labs : names, in the order of every axis of labs
    log_scale : those whose logarithm is assimilated: their spread grows with their level, and they are positive
    keep_hours : how far back a bedside can still take in a late, corrected or withdrawn result; older ones are
        counted and change nothing (``tracker.LabTracker``)
    fit : how the numbers are fitted
    """

    labs: tuple[str, ...] = FIVE_LABS
    log_scale: tuple[str, ...] = ("glucose", "lactate")
    keep_hours: float = 72.0
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if not self.labs or len(set(self.labs)) < len(self.labs):
            raise ValueError(f"labs is {self.labs}; it must name at least one lab, and none twice.")
        if len(set(self.log_scale)) < len(self.log_scale):
            raise ValueError(f"log_scale is {self.log_scale}; it must name no lab twice.")
        if not 0 < self.keep_hours < float("inf"):
            raise ValueError(f"keep_hours is {self.keep_hours}; it must be positive and finite.")
