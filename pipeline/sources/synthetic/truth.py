"""The synthetic cohort's truth, kept beside it, and the oracle that reads it.

Files in ``truth/`` (Parquet; times int64 microseconds): ``draws`` (patient_id, lab, sampled_at_us, score,
value without noise, measured, latent), ``labs`` (patient_id, lab, sampled_at_us, value without noise, on the
latent grid), ``latents`` (patient_id, time_us, one column a latent), ``morphology`` (patient_id, parameter,
offset), and ``cohort.json``.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.foundation.atomic import write_json, write_parquet
from pipeline.foundation.errors import MissingArtifactError
from pipeline.sources.synthetic.parameters import CohortParameters, LabProcess
from pipeline.sources.synthetic.physiology import HISTORY_US, Course, to_score, to_value

TRUTH_TABLES = ("draws", "labs", "latents", "morphology")
_READ = ("draws", "latents", "morphology")
"""``labs``, the largest by far (44 million rows at 4,146 patients, seven days), is for people: no estimate wants it."""
_RECORD = "cohort.json"
_JITTER = 1e-6


def truth_rows(
    parameters: CohortParameters, patient_id: str, course: Course, *, real_labs: bool
) -> dict[str, pd.DataFrame]:
    """Give one patient's rows of each truth table."""
    grids = []
    for (lab, process), scores in zip(parameters.labs.items(), course.lab_scores, strict=True):
        noise = 0.0 if real_labs else process.noise_share
        value = to_value(process, np.sqrt(1 - noise) * scores)
        grids.append(pd.DataFrame({"lab": lab, "sampled_at_us": course.grid_us, "value": value}))
    latents = pd.DataFrame(course.latents.astype(np.float32).T, columns=list(parameters.latent_names))
    latents.insert(0, "time_us", course.grid_us)
    morphology = pd.DataFrame({"parameter": list(parameters.morphology), "offset": course.offsets})
    tables = {"draws": course.draws, "labs": pd.concat(grids), "latents": latents, "morphology": morphology}
    return {name: _with_patient(frame, patient_id) for name, frame in tables.items()}


def _with_patient(frame: pd.DataFrame, patient_id: str) -> pd.DataFrame:
    return pd.concat(
        [pd.Series(patient_id, index=frame.index, name="patient_id", dtype="str"), frame], axis=1
    )


def has_truth(root: Path) -> bool:
    """Whether the whole truth of a cohort lies in `root`; what tells it is written last."""
    return (Path(root) / "truth" / _RECORD).is_file()


def write_truth(folder: Path, tables: dict[str, pd.DataFrame], meta: dict[str, Any]) -> None:
    """Write the cohort's truth; `meta` holds coupling, null, seed, real_labs and the parameters."""
    for name in TRUTH_TABLES:
        write_parquet(folder / f"{name}.parquet", tables[name])
    write_json(folder / _RECORD, meta)


@dataclass(frozen=True, kw_only=True)
class CohortTruth:
    """What is true in a synthetic cohort.

    Attributes
    ----------
    draws, latents, morphology : tables of this module's docstring
    parameters : those the cohort was written with
    coupling : 0..1, already 0 in the nulls
    null : None, "a" or "b"
    real_labs : whether the labs are real ones, without noise of ours
    """

    draws: pd.DataFrame
    latents: pd.DataFrame
    morphology: pd.DataFrame
    parameters: CohortParameters
    coupling: float
    null: str | None
    real_labs: bool

    @classmethod
    def load(cls, root: Path) -> "CohortTruth":
        """Read the truth of the cohort in `root`.

        Raises
        ------
        MissingArtifactError
            When there is none, or its parameters are not the committed ones.
        """
        folder = Path(root) / "truth"
        if not has_truth(root):
            raise MissingArtifactError(
                f"{root} holds no truth: only a synthetic cohort, written whole, has one"
            )
        meta = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in _READ}
        parameters = CohortParameters.from_dict(meta["parameters"])
        coupling = 0.0 if meta["null"] else meta["coupling"]
        return cls(
            **tables, parameters=parameters, coupling=coupling, null=meta["null"], real_labs=meta["real_labs"]
        )

    @cached_property
    def _draws_of(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Times, measured values and latents of each patient's lab, keyed "patient lab", in order of time."""
        ordered = self.draws.sort_values("sampled_at_us")
        keys = ordered["patient_id"].astype(str) + " " + ordered["lab"].astype(str)
        columns = ("sampled_at_us", "measured", "latent")
        return {str(key): _arrays(rows, columns) for key, rows in ordered.groupby(keys)}

    @cached_property
    def _latents_of(self) -> dict[str, dict[str, np.ndarray]]:
        names = ("time_us", *self.parameters.latent_names)
        groups = self.latents.groupby("patient_id")
        return {str(patient): dict(zip(names, _arrays(rows, names), strict=True)) for patient, rows in groups}

    @cached_property
    def _offsets_of(self) -> dict[str, np.ndarray]:
        wide = self.morphology.pivot(index="patient_id", columns="parameter", values="offset")
        ordered = wide[list(self.parameters.morphology)]
        return {str(patient): row for patient, row in zip(ordered.index, ordered.to_numpy(), strict=True)}

    def shape_drivers(self, patient_id: str, at_us: np.ndarray) -> np.ndarray:
        """Return what drives the pulse's shape at some times, (n, shapes): each parameter before its squashing."""
        course = self._latents_of[patient_id]
        latents = {
            name: np.interp(at_us, course["time_us"], course[name]) for name in self.parameters.latent_names
        }
        columns = [
            offset + sum(weight * latents[latent] for latent, weight in spec.loadings.items())
            for spec, offset in zip(
                self.parameters.morphology.values(), self._offsets_of[patient_id], strict=True
            )
        ]
        return np.stack(columns, axis=1)

    def draws_of(self, patient_id: str) -> pd.DataFrame:
        """Return a patient's draws in order of time: sampled_at_us, lab, measured; empty where there is none."""
        return (
            self._draws_by_patient[patient_id] if patient_id in self._draws_by_patient else self.draws.head(0)
        )

    @cached_property
    def _draws_by_patient(self) -> dict[str, pd.DataFrame]:
        ordered = self.draws.sort_values("sampled_at_us", kind="stable")
        return {str(patient): rows for patient, rows in ordered.groupby("patient_id")}


def _arrays(frame: pd.DataFrame, columns: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    return tuple(frame[column].to_numpy() for column in columns)


def oracle_estimates(truth: CohortTruth, examples: pd.DataFrame) -> np.ndarray:
    """Predict each example from the true latents and the history it may see: the best anyone could do.

    What the latent leaves open is a Gaussian process whose law is known; its mean given the lab's earlier
    draws (up to the example's last available one, at most 30 days before) completes the estimate. Nothing
    after the last available draw is used, so that a result delay is honoured.

    Parameters
    ----------
    examples : patient_id, lab, sampled_at_us and hours_since_last_lab

    Returns
    -------
    (n,) float64 in clinical units, expected values
    """
    estimates = np.empty(len(examples))
    columns = ("patient_id", "lab", "sampled_at_us", "hours_since_last_lab")
    rows = zip(*(examples[column] for column in columns), strict=True)
    for i, (patient, lab, at_us, hours) in enumerate(rows):
        estimates[i] = _estimate(truth, str(patient), str(lab), int(at_us), float(hours))
    return estimates


def _estimate(truth: CohortTruth, patient: str, lab: str, at_us: int, hours: float) -> float:
    process = truth.parameters.labs[lab]
    noise = 0.0 if truth.real_labs else process.noise_share
    tie = np.sqrt(1 - noise) * truth.coupling
    course = truth._latents_of[patient]
    shown = tie * float(np.interp(at_us, course["time_us"], course[lab]))
    past = truth._draws_of.get(f"{patient} {lab}")
    mean, variance = 0.0, (1 - noise) * (1 - truth.coupling**2)
    if past is not None and truth.null != "b":
        times, measured, latent = past
        seen = (times <= at_us - hours * 3.6e9 + 1_000_000) & (times >= at_us - HISTORY_US)
        scores = to_score(process, measured[seen]) - tie * latent[seen]
        mean, variance = _condition(process, variance, noise, times[seen], scores, at_us)
    if not process.skewed:
        return process.mean + process.sd * (shown + mean)
    spread = process.log_sd()
    centre = np.log(process.mean) - spread**2 / 2
    return float(np.exp(centre + spread * (shown + mean) + spread**2 * (variance + noise) / 2))


def _condition(
    process: LabProcess, variance: float, noise: float, times: np.ndarray, scores: np.ndarray, at_us: int
) -> tuple[float, float]:
    """Give mean and variance of the lab's own process at `at_us`, given noisy `scores` at `times`."""
    if times.size == 0 or variance < _JITTER:
        return 0.0, max(variance, 0.0)

    def covariance(gap_us: np.ndarray) -> np.ndarray:
        decay = np.exp(-np.abs(gap_us) / (process.time_constant_hours * 3.6e9))
        return variance * (process.patient_share + (1 - process.patient_share) * decay)

    among = covariance(times[:, None] - times[None, :]) + (noise + _JITTER) * np.eye(times.size)
    across = covariance(times - at_us)
    weights = np.linalg.solve(among, across)
    return float(weights @ scores), float(max(variance - weights @ across, 0.0))
