"""Filters of all labs, fitted on training patients: draws, and readings by lines that have not seen them.

Per lab: centre and spread of the training draws (of their logarithms on a log scale); a ridge line from the last half
hour's features to the draws, cross-fitted over five folds of patients; ten-minute readings of every training patient by
the line that left them out, or the filter would trust readings more than those of new patients deserve; then the
filter's eleven numbers by likelihood (``models.assimilation.fitting``).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from models.assimilation.config import AssimilationConfig
from models.assimilation.events import Events, Row, pack_rows
from models.assimilation.fitting import FITTED, Fit, fit_lab
from models.assimilation.lab_assimilation import LabAssimilation, LabAssimilationConfig
from models.assimilation.parameters import FilterParameters
from models.assimilation.scan import filter_events, log_likelihood
from models.assimilation.transform import LabTransform, fit_transform
from models.errors import BadAssimilationInput
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.foundation.errors import ConfigError, LabError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import LABS
from pipeline.labs.history import LabSeries
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.filter_forecaster import NO_SERIES, oldest_draw
from pipeline.training.ten_minute_means import BlockMeans, BlockReader, LastingDirections
from pipeline.training.waveform_line import CrossFitted, cross_fitted_line, fold_of

FEATURES = 48
"""Lasting directions that a line reads."""
ASSAY_NOISE = tuple(2.0**power for power in (0, 1, -1, 2, -2, 3, -3, 4, -4))
"""Noise variances over the main assay's that another assay may have; of equal ones the first."""
ASSAY_ROUNDS = 3
"""Most rounds of choosing them and fitting the filter anew."""
LATEST_US = 30 * 60 * 1_000_000
"""A draw is read from the blocks that ended in the half hour before it."""


@dataclass(frozen=True, kw_only=True)
class FittedLab:
    """One lab: its scale, its lines, its filter, the draws of which the line was made, and its other assays' noise."""

    name: str
    transform: LabTransform
    line: CrossFitted
    fit: Fit
    n_read_draws: int
    assay_noise: Mapping[str, float] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Say how the filter came about, and that there are no readings where there are none."""
        if self.line.whole is not None:
            return self.fit.status
        return f"{self.fit.status}; no readings: {self.n_read_draws} draws beside a waveform are too few for a line"


@dataclass(frozen=True, kw_only=True)
class FittedAssimilation:
    """Filters and lines as they were fitted; ``model`` is what goes on to new patients.

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
    def model(self) -> LabAssimilation:
        """What assimilates a new patient, and is saved: it knows nobody, and reads by the lines of all patients."""
        made = LabAssimilation(
            LabAssimilationConfig(
                embed_width=self.directions.directions.shape[1],
                task_labs=tuple(lab.name for lab in self.labs),
                log_scale=tuple(lab.name for lab in self.labs if lab.transform.log),
                assays=tuple(code for lab in self.labs for code in lab.assay_noise),
                assay_noise=tuple(noise for lab in self.labs for noise in lab.assay_noise.values()),
            )
        )
        for lab in self.labs:
            whole = lab.line.whole
            line = None if whole is None else self.directions.through(whole.weights, whole.bias)
            made.set_lab(lab.name, lab.transform, lab.fit.parameters, line)
        return made


def fit_assimilation(
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    config: AssimilationConfig,
    *,
    features: int = FEATURES,
    twins: Mapping[str, str] | None = None,
    cache: EmbeddingCache | None = None,
) -> FittedAssimilation:
    """Fit every lab of `config` on training patients.

    Parameters
    ----------
    patients : training patients; those without a sequence are passed over
    features : lasting directions that a line reads
    twins : patient -> whose windows to read instead, on the own mask (``dataset.twin_mapping``)

    Raises
    ------
    ConfigError
        No training patient has a sequence, or a lab is unknown.
    LabError
        A draw has no logarithm, or is infinite.
    """
    reader = BlockReader(aligned.sequences, cache or EmbeddingCache(store), twins)
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
    directions = LastingDirections.fitted(reader, there, features)
    training = [
        _TrainingPatient(
            features=directions.of(reader.embedding_means(patient)),
            series={lab: s.final for lab, s in aligned.series.get(patient, {}).items()},
            oldest_us=oldest_draw(aligned.config, reader.first_us(patient)),
            fold=fold,
            number=number,
        )
        for number, (patient, fold) in enumerate(fold_of(there).items())
    ]
    try:
        labs = tuple(_fit_one(name, training, config) for name in tracked(config.labs, "fitting", "labs"))
    except BadAssimilationInput as error:
        raise LabError(f"The filters cannot be fitted. {error}") from error
    return FittedAssimilation(labs=labs, directions=directions, folds=fold_of(there), config=config)


@dataclass(frozen=True, kw_only=True)
class _TrainingPatient:
    features: BlockMeans
    series: Mapping[str, LabSeries]
    oldest_us: int
    fold: int
    number: int

    def draws(self, lab: str) -> tuple[Int[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
        """Return times and values of what counts."""
        own = self.series.get(lab, NO_SERIES)
        kept = own.sampled_us >= self.oldest_us
        return own.sampled_us[kept], own.value[kept]

    def codes(self, lab: str) -> list[str]:
        """Return the source code of each of those draws."""
        own = self.series.get(lab, NO_SERIES)
        return [code for code, kept in zip(own.codes, own.sampled_us >= self.oldest_us, strict=True) if kept]


def _fit_one(name: str, training: Sequence[_TrainingPatient], config: AssimilationConfig) -> FittedLab:
    lab = next(entry for entry in LABS if entry.name == name)
    values = np.concatenate([patient.draws(name)[1] for patient in training])
    transform = fit_transform(
        values, log=name in config.log_scale, low=lab.low, high=lab.high, least=config.fit.least_draws
    )
    line, n_read = _lines(name, training, transform)

    def events(noise: Mapping[str, float]) -> Events:
        rows = []
        for patient in training:
            time_us, value = patient.draws(name)
            reading = line.read(patient.features, patient.fold)
            own = np.array([noise.get(code, 1.0) for code in patient.codes(name)])
            draws, read = (time_us, transform.to_scale(value)), (patient.features.end_us, reading)
            rows.append(Row.of(draws, read, draw_noise=own))
        return pack_rows(rows)

    fit, noise = fit_lab(events({}), config.fit), {}
    counts = Counter(code for patient in training for code in patient.codes(name))
    others = [code for code, n in counts.most_common()[1:] if n >= config.fit.least_draws]
    for _ in range(ASSAY_ROUNDS if others and fit.status == FITTED else 0):
        # The main assay's noise was fitted to all of them at first, and falls as the others get their own.
        chosen = fit_assays(events, fit.parameters, others)
        if chosen == noise:
            break
        noise, fit = chosen, fit_lab(events(chosen), config.fit)
    return FittedLab(
        name=name, transform=transform, line=line, fit=fit, n_read_draws=n_read, assay_noise=noise
    )


def fit_assays(
    events: Callable[[Mapping[str, float]], Events], parameters: FilterParameters, codes: Sequence[str]
) -> dict[str, float]:
    """Return the noise variance of each assay over the main one's, of `ASSAY_NOISE` that of the greatest likelihood.

    Parameters
    ----------
    events : the training patients' draws and readings under some noises; assays that are not named have 1
    parameters : of the lab, as they are fitted so far
    codes : assays with enough draws, the most frequent first; each is chosen beside those before it
    """

    def fitness(noise: Mapping[str, float]) -> float:
        told = events(noise)
        own = parameters.take(torch.zeros(told.kind.shape[1], dtype=torch.int64))
        with torch.no_grad():
            return float(log_likelihood(filter_events(own, told), told, 0.0)[1].sum())

    chosen: dict[str, float] = {}
    for code in codes:
        chosen[code] = max(ASSAY_NOISE, key=lambda noise, code=code: fitness({**chosen, code: noise}))
    return chosen


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
