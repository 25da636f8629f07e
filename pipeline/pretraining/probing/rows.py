"""What a frozen embedding of one 30 s window knows: a line to the pulse's shape, and to real patients' rates.

Planted pulses: lines to the parameters that the planted labs act through, fitted on some patients and judged on
others. Real ones, BIDMC (PhysioNet, ODC-BY 1.0), 53 recordings of 46 ICU patients with a monitor's numerics once a
second: ten folds by patient. Neither is used in pretraining. Every number has its interval by bootstrap over the
judged patients, and its paired difference to the baseline, the hand-made features of ``pulse_features``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from models.encoders.base import Encoder
from models.encoders.pulse.features import PulseFeatures
from pipeline.emulation.rendered import BurstPlan
from pipeline.foundation import bootstrap
from pipeline.foundation.errors import ConfigError
from pipeline.pretraining.data import SYNTHETIC_PROBE_SEED, SYNTHETIC_SEED
from pipeline.pretraining.probing.linear_readout import (
    estimates_of_others,
    held_out_estimates,
    mean_estimates,
)
from pipeline.pretraining.probing.windows import FEWEST_PATIENTS, ProbeWindows

BASELINE = PulseFeatures.name
TRAINING_MEAN, SPECTRAL_PEAK = "training mean", "spectral peak"
REPLICATES, LEVEL = 2000, 0.95


@dataclass(frozen=True, kw_only=True)
class PlantedSize:
    """How many planted patients are rendered, and which."""

    fitted: int = 400
    """Patients whom the lines are fitted on."""
    judged: int = 160
    """Others, whom they are judged on."""
    bursts: int = 10
    """Stretches of two windows each a patient, spread over 24 h."""
    seed: int = SYNTHETIC_PROBE_SEED
    """Of the patients: the probe's own, on which nothing is trained or chosen; 7 or 8 to choose by."""

    def __post_init__(self) -> None:
        for name in ("fitted", "judged"):
            if getattr(self, name) < FEWEST_PATIENTS:
                raise ValueError(
                    f"{name} = {getattr(self, name)} must be at least {FEWEST_PATIENTS} patients"
                )
        if not 2 <= self.bursts <= 700:
            raise ValueError(f"bursts = {self.bursts} must lie in 2..700")
        check_seed(self.seed)

    @property
    def plan(self) -> BurstPlan:
        """The patients as the renderer wants them; the first `fitted` are those that lines are fitted on."""
        return BurstPlan(
            patients=self.fitted + self.judged, bursts=self.bursts, burst_windows=2, seed=self.seed
        )


def check_seed(seed: int) -> None:
    """Refuse seeds whose patients an encoder may know.

    Raises
    ------
    ValueError : one of pretraining's, or a negative one
    """
    if seed < 0 or (seed >= SYNTHETIC_SEED and seed != SYNTHETIC_PROBE_SEED):
        raise ValueError(
            f"seed = {seed}: an encoder may have been pretrained on patients of seeds from {SYNTHETIC_SEED} "
            f"on; use 7 or 8 to choose, {SYNTHETIC_PROBE_SEED} to judge"
        )


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval by bootstrap over patients."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one target is read from one encoder.

    Attributes
    ----------
    r2, mae : of estimates for patients whom the line was not fitted on; the mean absolute error in the target's unit
    gain : R2 of planted targets minus the baseline's, MAE of real ones the other way round: above 0 is better
    above_mean : MAE of the training mean minus this one; above 0 something is read
    """

    r2: Interval
    mae: Interval
    gain: Interval | None = None
    above_mean: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One encoder, or one way without: its scores by target, and its cost.

    Attributes
    ----------
    width : numbers a window; 0 for a way without an embedding
    windows_per_second : of `Encoder.embed` alone, here and now
    """

    name: str
    width: int = 0
    windows_per_second: float | None = None
    planted: Mapping[str, Score]
    real: Mapping[str, Score]


class _Embedded:
    """Encoders' embeddings of one set of windows, each made once, and the time that took."""

    def __init__(self, data: ProbeWindows, encoders: Mapping[str, Encoder]):
        self.rows: dict[str, Float[np.ndarray, "n width"]] = {}
        self.seconds: dict[str, float] = {}
        for name, encoder in encoders.items():
            self.rows[name], self.seconds[name] = data.timed_embedding(encoder)
        self.windows = len(data.samples)


def probe(
    encoders: Sequence[Encoder],
    *,
    planted: ProbeWindows | None,
    fitted: int = PlantedSize.fitted,
    real: ProbeWindows | None = None,
    folds: int = 10,
    seed: int = 0,
) -> list[ProbeRow]:
    """Return a row for each encoder, the baseline first, then the ways without an encoder.

    Parameters
    ----------
    planted : windows of planted patients; lines are fitted on the first `fitted` of them
    real : windows of real patients; lines are fitted in `folds` parts of them
    """
    by_name = named(with_baseline(encoders))
    sets = {kind: _Embedded(data, by_name) for kind, data in (("planted", planted), ("real", real)) if data}
    tables: dict[str, dict[str, dict[str, Score]]] = {"planted": {}, "real": {}}
    if planted is not None:
        tables["planted"] = _planted_scores(planted, sets["planted"].rows, fitted, seed)
    if real is not None:
        tables["real"] = _real_scores(real, sets["real"].rows, folds, seed)
    rows = []
    for name in dict.fromkeys((*by_name, *tables["real"])):
        seconds = sum(each.seconds.get(name, 0.0) for each in sets.values())
        windows = sum(each.windows for each in sets.values())
        rows.append(
            ProbeRow(
                name=name,
                width=by_name[name].width if name in by_name else 0,
                windows_per_second=windows / seconds if seconds else None,
                planted=tables["planted"].get(name, {}),
                real=tables["real"].get(name, {}),
            )
        )
    return rows


def plain_rows(rows: Sequence[ProbeRow]) -> list[dict[str, Any]]:
    """Return the rows as JSON has them: what is not defined is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [plain(asdict(row)) for row in rows]


def with_baseline(encoders: Sequence[Encoder]) -> list[Encoder]:
    """Return the encoders with the baseline before them, once."""
    return [PulseFeatures(), *(encoder for encoder in encoders if not isinstance(encoder, PulseFeatures))]


def named(encoders: Sequence[Encoder]) -> dict[str, Encoder]:
    """Return the encoders by the names that the table shows; those of one name are told apart by their weights."""
    names = [encoder.name for encoder in encoders]
    return {
        e.name if names.count(e.name) == 1 else f"{e.name}_{e.weights_hash[:6]}": e for e in encoders
    }  # fmt: skip


def _planted_scores(
    data: ProbeWindows, embedded: Mapping[str, np.ndarray], fitted: int, seed: int
) -> dict[str, dict[str, Score]]:
    truth = np.stack(list(data.targets.values()), axis=1)
    ours = data.patients < fitted
    if len(np.unique(data.patients[ours])) < FEWEST_PATIENTS or len(np.unique(data.patients[~ours])) < 2:
        raise ConfigError(
            "planted patients: too few have a usable window to fit lines and to judge them; use more patients"
        )
    estimates = {
        name: estimates_of_others(
            x[ours].astype(np.float64), truth[ours], data.patients[ours], x[~ours], seed=seed
        )
        for name, x in embedded.items()
    }
    found: dict[str, dict[str, Score]] = {name: {} for name in estimates}
    for k, target in enumerate(data.targets):
        columns = {name: values[:, k] for name, values in estimates.items()}
        scores = _scores(columns, truth[~ours, k], data.patients[~ours], metric="r2", seed=seed)
        for name, score in scores.items():
            found[name][target] = score
    return found


def _real_scores(
    data: ProbeWindows, embedded: Mapping[str, np.ndarray], folds: int, seed: int
) -> dict[str, dict[str, Score]]:
    peaks, found = data.spectral_peaks(), {name: {} for name in (*embedded, SPECTRAL_PEAK, TRAINING_MEAN)}
    for target, values in data.targets.items():  # one by one: each is known of other windows
        known = np.isfinite(values)
        truth, patients = values[known], data.patients[known]
        columns = {
            name: held_out_estimates(
                x[known].astype(np.float64), truth[:, None], patients, folds=folds, seed=seed
            )[:, 0]
            for name, x in embedded.items()
        }
        columns[SPECTRAL_PEAK] = peaks[target][known]
        columns[TRAINING_MEAN] = mean_estimates(truth[:, None], patients, folds=folds, seed=seed)[:, 0]
        for name, score in _scores(columns, truth, patients, metric="mae", seed=seed).items():
            found[name][target] = score
    return found


def _scores(
    estimates: Mapping[str, Float[np.ndarray, " n"]],
    truth: Float[np.ndarray, " n"],
    patients: Int[np.ndarray, " n"],
    *,
    metric: str,
    seed: int,
) -> dict[str, Score]:
    """Return each way's score with intervals over the same draws of patients, so that differences are paired."""
    index, count = bootstrap.index_patients(patients)
    weights = bootstrap.replicate_weights(count, REPLICATES, seed)
    metrics = {
        name: bootstrap.pooled_metrics(bootstrap.sum_by_patient(values, truth, index, count), weights)
        for name, values in estimates.items()
    }
    sign = 1 if metric == "r2" else -1

    def gain(name: str, over: str, of: str, sign: int) -> Interval | None:
        return (
            None
            if name == over or over not in metrics
            else _interval(sign * (metrics[name][of] - metrics[over][of]))
        )

    return {
        name: Score(
            r2=_interval(values["r2"]),
            mae=_interval(values["mae"]),
            gain=gain(name, BASELINE, metric, sign),
            above_mean=gain(name, TRAINING_MEAN, "mae", -1),
        )
        for name, values in metrics.items()
    }


def _interval(values: Float[np.ndarray, " replicates"]) -> Interval:
    return Interval(float(values[0]), *bootstrap.percentile_interval(values, LEVEL))
