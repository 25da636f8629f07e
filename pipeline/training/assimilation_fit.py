"""Filters of all labs, fitted on training patients: draws, and readings by lines that have not seen them.

Per lab: centre and spread of the training draws (of their logarithms on a log scale); a ridge line from the last half
hour's features to the draws, cross-fitted over five folds of patients; ten-minute readings of every training patient by
the line that left them out, or the filter would trust readings more than those of new patients deserve; then the
filter's eleven numbers by likelihood (``models.assimilation.fitting``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.assimilation.config import AssimilationConfig
from models.assimilation.events import Row, pack_rows
from models.assimilation.fitting import Fit, fit_lab
from models.assimilation.known import KnownRow, Result
from models.assimilation.parameters import FilterParameters
from models.assimilation.transform import LabTransform, fit_transform
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import DAY_US, LABS
from pipeline.labs.history import LabSeries
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.ten_minute_means import BlockMeans, BlockReader, LastingDirections
from pipeline.training.waveform_line import CrossFitted, cross_fitted_line, fold_of

FEATURES = 48
"""Lasting directions that a line reads."""
LATEST_US = 30 * 60 * 1_000_000
"""A draw is read from the blocks that ended in the half hour before it."""
_NO_SERIES = LabSeries(
    value=np.empty(0), sampled_us=np.empty(0, np.int64), available_us=np.empty(0, np.int64)
)


@dataclass(frozen=True, kw_only=True)
class FittedLab:
    """One lab: its scale, its lines, its filter, and the draws of which the line was made."""

    name: str
    transform: LabTransform
    line: CrossFitted
    fit: Fit
    n_read_draws: int

    @property
    def status(self) -> str:
        """Say how the filter came about, and that there are no readings where there are none."""
        if self.line.whole is not None:
            return self.fit.status
        return f"{self.fit.status}; no readings: {self.n_read_draws} draws beside a waveform are too few for a line"


@dataclass(frozen=True, kw_only=True)
class FittedAssimilation:
    """What assimilates a new patient.

    Attributes
    ----------
    labs : in the order of the configuration's
    directions : of the embedding
    folds : fold of each training patient, whose readings come from the lines that left it out
    config : how it was fitted
    """

    labs: tuple[FittedLab, ...]
    directions: LastingDirections
    folds: Mapping[str, int]
    config: AssimilationConfig

    @property
    def parameters(self) -> FilterParameters:
        """One row a lab."""
        return FilterParameters.joined([lab.fit.parameters for lab in self.labs])

    def known_rows(
        self, patient_id: str, embedding_means: BlockMeans, series: Mapping[str, LabSeries], oldest_us: int
    ) -> list[KnownRow]:
        """Return what the filter of each lab is told of a patient, to be asked by ``models.assimilation.queried``.

        Parameters
        ----------
        embedding_means : see ``BlockReader``
        series : the patient's results by lab, all versions
        oldest_us : draws from before it do not count
        """
        features, fold = self.directions.of(embedding_means), self.folds.get(patient_id)
        rows = []
        for number, lab in enumerate(self.labs):
            own = series.get(lab.name, _NO_SERIES)
            reading = lab.line.read(features, fold)
            kept = np.flatnonzero(own.sampled_us >= oldest_us)
            scaled = lab.transform.to_scale(own.value[kept])
            columns = (own.sampled_us[kept].tolist(), own.available_us[kept].tolist(), scaled.tolist())
            results = [
                Result(sampled_us=drawn, available_us=known, value=value)
                for drawn, known, value in zip(*columns, strict=True)
            ]
            rows.append(
                KnownRow(results=results, reading_end_us=features.end_us, reading=reading, lab=number)
            )
        return rows


def fit_assimilation(
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    config: AssimilationConfig,
    *,
    twins: Mapping[str, str] | None = None,
    cache: EmbeddingCache | None = None,
) -> FittedAssimilation:
    """Fit every lab of `config` on training patients.

    Parameters
    ----------
    patients : training patients; those without a sequence are passed over
    twins : patient -> whose windows to read instead, on the own mask (``dataset.twin_mapping``)

    Raises
    ------
    ConfigError
        No training patient has a sequence, or a lab is unknown.
    """
    reader = BlockReader(aligned, cache or EmbeddingCache(store), twins)
    there = sorted(set(patients) & set(reader.patients))
    if not there:
        raise ConfigError(
            "No training patient has a sequence of windows, so that no filter can be fitted: embed more patients, or "
            "change the split."
        )
    known = {lab.name for lab in LABS}
    if unknown := sorted({*config.labs, *config.log_scale} - known):
        raise ConfigError(
            f"assimilation names {', '.join(unknown)}; the labs are {', '.join(sorted(known))}. Correct labs or "
            "log_scale."
        )
    directions = LastingDirections.fitted(reader, there, FEATURES)
    training = [
        _TrainingPatient(
            features=directions.of(reader.embedding_means(patient)),
            series={lab: s.final for lab, s in aligned.series.get(patient, {}).items()},
            oldest_us=oldest_draw(aligned, reader.first_us(patient)),
            fold=fold,
            number=number,
        )
        for number, (patient, fold) in enumerate(fold_of(there).items())
    ]
    labs = tuple(_fit_one(name, training, config) for name in config.labs)
    return FittedAssimilation(labs=labs, directions=directions, folds=fold_of(there), config=config)


def oldest_draw(aligned: AlignedCohort, first_us: int) -> int:
    """Return from when on draws count for a patient whose first sequence begins at `first_us`."""
    return first_us - round(aligned.config.history.max_age_days * DAY_US)


@dataclass(frozen=True, kw_only=True)
class _TrainingPatient:
    features: BlockMeans
    series: Mapping[str, LabSeries]
    oldest_us: int
    fold: int
    number: int

    def draws(self, lab: str) -> tuple[Int[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
        """Return times and values of what counts."""
        own = self.series.get(lab, _NO_SERIES)
        kept = own.sampled_us >= self.oldest_us
        return own.sampled_us[kept], own.value[kept]


def _fit_one(name: str, training: Sequence[_TrainingPatient], config: AssimilationConfig) -> FittedLab:
    lab = next(entry for entry in LABS if entry.name == name)
    values = np.concatenate([patient.draws(name)[1] for patient in training])
    transform = fit_transform(
        values, log=name in config.log_scale, low=lab.low, high=lab.high, least=config.fit.least_draws
    )
    line, n_read = _lines(name, training, transform)
    rows = []
    for patient in training:
        time_us, value = patient.draws(name)
        reading = line.read(patient.features, patient.fold)
        rows.append(Row.of((time_us, transform.to_scale(value)), (patient.features.end_us, reading)))
    fit = fit_lab(pack_rows(rows), config.fit)
    return FittedLab(name=name, transform=transform, line=line, fit=fit, n_read_draws=n_read)


def _lines(
    name: str, training: Sequence[_TrainingPatient], transform: LabTransform
) -> tuple[CrossFitted, int]:
    """Fit the lab's lines on the draws that have a block in the half hour before them, and count these."""
    features, target, fold, number = [], [], [], []
    for patient in training:
        time_us, value = patient.draws(name)
        for time, scaled in zip(time_us.tolist(), transform.to_scale(value).tolist(), strict=True):
            latest = patient.features.latest(time, LATEST_US)
            if latest is not None:
                features.append(latest)
                target.append(scaled)
                fold.append(patient.fold)
                number.append(patient.number)
    width = training[0].features.mean.shape[1]
    made = cross_fitted_line(
        np.array(features).reshape(-1, width),
        np.array(target, float),
        np.array(fold, np.int64),
        np.array(number, np.int64),
    )
    return made, len(target)
