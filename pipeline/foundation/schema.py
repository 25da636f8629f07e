"""The project's fixed facts: labs, units, time grid, and the columns of every table on disk.

Times are int64 microseconds of a naive wall clock since 1970-01-01 (columns ending in ``_us``): the dates of
de-identified databases lie beyond the range of nanoseconds, and no machine's time zone may touch them.
"""

from dataclasses import dataclass

WINDOW_SECONDS = 30
WINDOW_US = WINDOW_SECONDS * 1_000_000
STEPS_PER_DAY = 86_400 // WINDOW_SECONDS
MAX_SEQUENCE_STEPS = 7 * STEPS_PER_DAY
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One analyte: what databases call it, and what its values can be, in its unit.

    Attributes
    ----------
    itemid, loinc : MIMIC item and LOINC code; of whole blood beside those of serum or plasma, where it has its own
    unit : of every value in this project
    low, high : a value outside is an error
    plausible_median : where the median of a cohort can lie: wide enough for any ward, narrow enough that glucose or
        calcium in mmol/L and lactate in mg/dL fall outside. Our decision.
    steady_within : a change since the last result up to this size counts as steady. Our decision.
    """

    name: str
    itemid: int
    loinc: str
    unit: str
    low: float
    high: float
    plausible_median: tuple[float, float]
    steady_within: float
    whole_blood_itemid: int | None = None
    whole_blood_loinc: str | None = None


LABS: tuple[Lab, ...] = (
    Lab(name="potassium", itemid=50971, loinc="2823-3", unit="mmol/L", low=1.0, high=12.0,
        plausible_median=(2.5, 8.0), steady_within=0.3,
        whole_blood_itemid=50822, whole_blood_loinc="6298-4"),
    Lab(name="calcium", itemid=50893, loinc="2000-8", unit="mg/dL", low=3.0, high=20.0,
        plausible_median=(5.0, 14.0), steady_within=0.4),
    Lab(name="sodium", itemid=50983, loinc="2951-2", unit="mmol/L", low=80.0, high=200.0,
        plausible_median=(110.0, 170.0), steady_within=3.0,
        whole_blood_itemid=50824, whole_blood_loinc="2947-0"),
    Lab(name="glucose", itemid=50931, loinc="2345-7", unit="mg/dL", low=10.0, high=2000.0,
        plausible_median=(45.0, 500.0), steady_within=15.0,
        whole_blood_itemid=50809, whole_blood_loinc="2339-0"),
    Lab(name="lactate", itemid=50813, loinc="32693-4", unit="mmol/L", low=0.1, high=40.0,
        plausible_median=(0.3, 8.5), steady_within=0.4),
)  # fmt: skip
LABS_BY_NAME: dict[str, Lab] = {lab.name: lab for lab in LABS}
LAB_NAMES: tuple[str, ...] = tuple(LABS_BY_NAME)

PROTOCOLS = ("start", "anchored")
SCORINGS = ("measured", "dense")
"""Measured draws; and points between two of them, interpolated, of which sums alone are kept."""
SPLITS = ("train", "validation", "calibration", "test")

HISTORY_FEATURES = ("decayed_mean", "last_value", "log1p_age_hours", "log1p_count")
"""Per lab and piece, from results with ``available_at`` <= t0 and at most 30 days old; plus a presence flag."""

QUALITY_COLUMNS = (
    "missing_share",
    "flat_share",
    "rail_share",
    "perfusion",
    "spectral_peak_hz",
    "spectral_concentration",
)
"""Quality of one window, float32: shares in 0..1, perfusion = pulsatile range over full scale, peak in Hz,
share of the 0.5-3.7 Hz power within 0.2 Hz of the peak."""

LAB_EVENT_COLUMNS = ("patient_id", "lab", "value", "sampled_at_us", "available_at_us", "source_code")
ADMISSION_COLUMNS = (
    "patient_id", "admission_id", "admitted_us", "discharged_us", "age_years", "sex", "ethnicity", "care_unit",
)  # fmt: skip
SEQUENCE_COLUMNS = ("sequence_id", "patient_id", "admission_id", "origin_us", "n_steps", "n_windows")
PIECE_COLUMNS = ("piece_id", "sequence_id", "patient_id", "protocol", "t0_us", "first_step", "n_steps")
TARGET_COLUMNS = ("piece_id", "step", "lab", "value", "weight", "measured")
EXAMPLE_COLUMNS = (
    "piece_id", "sequence_id", "patient_id", "protocol", "lab", "sampled_at_us", "t0_us", "step",
    "prediction_window_end_us", "truth", "last_lab", "hours_since_last_lab", "history_mean",
    "live_last_lab", "spectral_concentration",
)  # fmt: skip
PREDICTION_COLUMNS = (
    "method", "protocol", "scoring", "seed", "split", "patient", "sequence", "lab", "sampled_at", "t0",
    "prediction_window_end", "estimate", "lower", "upper", "truth", "last_lab", "hours_since_last_lab",
)  # fmt: skip
SPREAD_COLUMNS = ("spread", "log_scale")
"""Beside predictions of a method that knows how far off it may be: the standard deviation of a draw about the estimate,
in clinical units or (``log_scale``) of the natural logarithm."""
DENSE_SUM_COLUMNS = (
    "method", "protocol", "seed", "split", "patient", "lab", "n_points", "absolute_error", "signed_error",
    "squared_error", "truth_mean", "truth_spread", "points_digest",
)  # fmt: skip
"""Sums over the scored points of one patient in clinical units (their square for the squared ones): |e|, e and e^2 of
e = estimate - truth; mean of the truths and sum of squares about it; digest of the points' times and truths."""
METRICS = ("mae", "me", "rmse", "r2", "skill_vs_locf", "skill_vs_shrunk_locf")
EVALUATION_COLUMNS = (
    "method", "lab", "protocol", "scoring", "aggregation", "seed", "n_labs", "n_patients",
    *(f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_lower", "_upper")),
)  # fmt: skip
FITTED_METHODS = ("lines", "mt_assim", "mt_assim_twin", "mt_assim_lines")
"""Ours, fitted in one go: lines, and assimilation (docs/assimilation.md), with a twin of its own, and without the
networks that read beside its lines."""
TRAINED_METHODS = ("lstm", "mt", "mt_learned", "st_pcs", "mt_pcs", "mt_pcs_twin", *FITTED_METHODS)
TWINS = {"mt_pcs_twin": "mt_pcs", "mt_assim_twin": "mt_assim"}
"""Twin -> the method that it is trained and scored like, with another patient's waveform."""
METHODS = (
    "locf", "shrunk_locf", "decayed_locf", "patient_mean", "training_mean", "live_locf", *TRAINED_METHODS,
)  # fmt: skip
BASELINES = ("locf", "shrunk_locf")
"""Methods that skill is reckoned against."""
METHOD_LABELS = {
    "locf": "LOCF", "shrunk_locf": "Shrunk LOCF", "decayed_locf": "Decayed LOCF", "patient_mean": "Patient mean",
    "training_mean": "Training mean", "live_locf": "Live LOCF (sees labs that the model does not)",
    "lstm": "LSTM", "mt": "MT", "mt_learned": "MT (learned h0)", "st_pcs": "ST+PCS", "mt_pcs": "MT+PCS",
    "mt_pcs_twin": "MT+PCS twin", "lines": "Lines", "mt_assim": "Assimilation",
    "mt_assim_twin": "Assim. twin", "mt_assim_lines": "Assim., lines",
}  # fmt: skip
