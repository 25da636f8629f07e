"""Filters of all labs, fitted on training patients: draws, and readings by what has not seen them.

Each lab's scale is that of the training draws (of their logarithms on a log scale). Networks read the waveform for all
labs at once, a line for each; both are cross-fitted over folds of patients, or the filter would trust readings more
than those of new patients deserve. Then each lab's filter is fitted by likelihood (``lab_filter_fit``).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from models.assimilation.config import AssimilationConfig
from models.assimilation.lab_assimilation import LabAssimilation, LabAssimilationConfig
from models.assimilation.reading_network import ReadingNetwork
from models.assimilation.transform import LabTransform, fit_transform
from models.errors import BadAssimilationInput
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.foundation.errors import ConfigError, LabError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import HOUR_US, LABS
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.filter_forecaster import oldest_draw
from pipeline.training.kept_networks import KeptNetworks
from pipeline.training.lab_filter_fit import FittedLab, fit_one_lab
from pipeline.training.patient import TrainingPatient
from pipeline.training.patient_errors import ErrorCovariance
from pipeline.training.reading_network_config import ReadingNetworkShape
from pipeline.training.reading_network_fit import Recording, cross_fit_networks
from pipeline.training.ten_minute_means import BlockReader, LastingDirections
from pipeline.training.waveform_line import LATEST_US, ReadDraws, fold_of

logger = logging.getLogger(__name__)

FEATURES = 48
"""Lasting directions that a line reads."""


@dataclass(frozen=True, kw_only=True)
class FittedAssimilation:
    """Filters and lines as they were fitted; ``model`` is what goes on to new patients.

    Attributes
    ----------
    labs : in the order of the configuration's
    directions : of the embedding
    folds : fold of each training patient, whose readings come from the lines that left it out
    config : how it was fitted
    networks : that read the waveform, each without a fold of patients; none: lines alone read
    """

    labs: tuple[FittedLab, ...]
    directions: LastingDirections
    folds: Mapping[str, int]
    config: AssimilationConfig
    networks: tuple[ReadingNetwork, ...] = ()

    @property
    def model(self) -> LabAssimilation:
        """What assimilates a new patient, and is saved: it knows nobody.

        It reads by the lines of all patients and by the mean of the networks.
        """
        config = LabAssimilationConfig(
            embed_width=self.directions.directions.shape[1],
            task_labs=tuple(lab.name for lab in self.labs),
            log_scale=tuple(lab.name for lab in self.labs if lab.transform.log),
            assays=tuple(code for lab in self.labs for code in lab.assay_noise),
            assay_noise=tuple(noise for lab in self.labs for noise in lab.assay_noise.values()),
            network=self.networks[0].config if self.networks else None,
        )
        with torch.random.fork_rng(devices=[]):  # the generator is the callers' own
            made = LabAssimilation(config)
        for lab in self.labs:
            whole = lab.line.whole
            line = None if whole is None else self.directions.through(whole.weights, whole.bias)
            made.set_lab(lab.name, lab.transform, lab.fit.parameters, line, lab.carried)
        if made.network is not None:
            share = torch.tensor([lab.network_share for lab in self.labs], dtype=torch.float64)
            made.network.set(self.directions.mean, self.directions.directions, share, self.networks)
        return made


@dataclass(frozen=True, kw_only=True)
class NetworkFit:
    """How the networks that read the waveform are trained.

    Attributes
    ----------
    shape : sizes and recipe; without folds there are none
    seed : of their first weights, dropout and order of recordings
    device : None: the CPU
    kept : where those that are trained are kept until the fit is finished; None: nowhere
    """

    shape: ReadingNetworkShape
    seed: int = 0
    device: torch.device | None = None
    kept: KeptNetworks | None = None


def fit_assimilation(
    aligned: AlignedCohort,
    store: WindowStore,
    patients: Sequence[str],
    config: AssimilationConfig,
    *,
    features: int = FEATURES,
    network: NetworkFit | None = None,
    twins: Mapping[str, str] | None = None,
    cache: EmbeddingCache | None = None,
) -> FittedAssimilation:
    """Fit every lab of `config` on training patients.

    Parameters
    ----------
    patients : training patients; those without a sequence are passed over
    features : lasting directions that lines and networks read
    network : how networks are trained to read beside the lines; None: lines alone
    twins : patient -> whose windows to read instead, on the own mask (``dataset.twin_mapping``)

    Raises
    ------
    ConfigError
        No training patient has a sequence, or a lab is unknown.
    LabError
        A draw has no logarithm, or is infinite.
    """
    _check_labs(config)
    reader = BlockReader(aligned.sequences, cache or EmbeddingCache(store), twins)
    there = sorted(set(patients) & set(reader.patients))
    if not there:
        raise ConfigError(
            "No training patient has a sequence of windows, so that no filter can be fitted: embed more patients, or "
            "change the split."
        )
    directions = LastingDirections.fitted(reader, there, features)
    training = [
        TrainingPatient(
            features=directions.of(reader.embedding_means(patient)),
            series={lab: s.final for lab, s in aligned.series.get(patient, {}).items()},
            oldest_us=oldest_draw(aligned.config, reader.first_us(patient)),
            fold=fold,
            number=number,
        )
        for number, (patient, fold) in enumerate(fold_of(there).items())
    ]
    try:
        transforms = [_transform(name, training, config) for name in config.labs]
        pairs = zip(config.labs, transforms, strict=True)
        draws = [ReadDraws.of(name, training, transform) for name, transform in pairs]
        networks, read = _networks(training, config.labs, transforms, draws, network)
        labs = tuple(
            fit_one_lab(name, training, transforms[i], draws[i], config, read and [own[:, i] for own in read])
            for i, name in enumerate(tracked(config.labs, "fitting", "labs"))
        )
    except BadAssimilationInput as error:
        raise LabError(f"The filters cannot be fitted. {error}") from error
    return FittedAssimilation(
        labs=labs, directions=directions, folds=fold_of(there), config=config, networks=tuple(networks)
    )


def _check_labs(config: AssimilationConfig) -> None:
    known = {lab.name for lab in LABS}
    if unknown := sorted({*config.labs, *config.log_scale} - known):
        raise ConfigError(
            f"assimilation names {', '.join(unknown)}; the labs are {', '.join(sorted(known))}. Correct labs or "
            "log_scale."
        )


def _networks(
    training: Sequence[TrainingPatient],
    labs: Sequence[str],
    transforms: Sequence[LabTransform],
    draws: Sequence[ReadDraws],
    how: NetworkFit | None,
) -> tuple[list[ReadingNetwork], list[Float[np.ndarray, "_ labs"]] | None]:
    """Return the networks, and what those that have not seen a patient say of each; none, and None without them."""
    if how is None or not how.shape.folds:
        return [], None
    if (n_draws := sum(len(of_lab.target) for of_lab in draws)) < how.shape.least_draws:
        logger.info("no reading networks: %d draws beside a waveform, of %d", n_draws, how.shape.least_draws)
        return [], None
    folds, device = how.shape.folds, how.device or torch.device("cpu")
    recordings = [_recording(patient, labs, transforms, folds) for patient in training]

    def errors(fold: int) -> list[ErrorCovariance | None]:
        return [of_lab.without(fold, folds).error_covariance() for of_lab in draws]

    return cross_fit_networks(recordings, how.shape, len(labs), how.seed, device, how.kept, errors)


def _transform(name: str, training: Sequence[TrainingPatient], config: AssimilationConfig) -> LabTransform:
    lab = next(entry for entry in LABS if entry.name == name)
    values = np.concatenate([patient.draws(name)[1] for patient in training])
    return fit_transform(
        values, log=name in config.log_scale, low=lab.low, high=lab.high, least=config.fit.least_draws
    )


def _recording(
    patient: TrainingPatient,
    labs: Sequence[str],
    transforms: Sequence[LabTransform],
    n_folds: int,
) -> Recording:
    """Return what a network learns from one patient: of every draw the last block in the half hour before it."""
    ends, step, lab, hours, target = patient.features.end_us, [], [], [], []
    for number, (name, transform) in enumerate(zip(labs, transforms, strict=True)):
        time_us, value = patient.draws(name)
        before = np.searchsorted(ends, time_us, side="right") - 1
        near = (
            (before >= 0) & (time_us - ends[np.maximum(before, 0)] < LATEST_US) if len(ends) else before > 0
        )
        step.append(before[near])
        lab.append(np.full(int(near.sum()), number, dtype=np.int64))
        hours.append(time_us[near] / HOUR_US)
        target.append(transform.to_scale(value[near]))
    return Recording(
        blocks=patient.features, step=np.concatenate(step), lab=np.concatenate(lab),
        hours=np.concatenate(hours), target=np.concatenate(target), fold=patient.number % n_folds,
    )  # fmt: skip
