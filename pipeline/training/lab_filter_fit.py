"""One lab's filter, fitted on training patients: its line, what networks count beside it, whether it reads at all.

A line goes from the last half hour's features to the draws, cross-fitted over folds of patients; networks have
read every training patient without having seen them. Of the shares of line and networks that one is kept under which
the filter expects the draws best, and so are the noises of the lab's other assays. Where readings do not clearly help
the filter sees results alone; and of the last result a share may count beside it (``carried_fit``).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float

from models.assimilation.carried import CarriedShares
from models.assimilation.config import AssimilationConfig
from models.assimilation.events import Events
from models.assimilation.fitting import FITTED, Fit, fit_lab
from models.assimilation.judged import judged_draws
from models.assimilation.lab_assimilation import joined_reading
from models.assimilation.parameters import FilterParameters
from models.assimilation.scan import filter_events, log_likelihood
from models.assimilation.transform import LabTransform
from pipeline.training.carried_fit import fit_carried
from pipeline.training.lab_events import LabEvents, Noise
from pipeline.training.patient import TrainingPatient
from pipeline.training.validation import clearly_positive
from pipeline.training.waveform_line import CrossFitted, ReadDraws, cross_fitted_line

ASSAY_NOISE = tuple(2.0**power for power in (0, 1, -1, 2, -2, 3, -3, 4, -4))
"""Noise variances over the main assay's that another assay may have; of equal ones the first."""
ASSAY_ROUNDS = 3
"""Most rounds of choosing them and fitting the filter anew."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What the networks may count in a reading, of which the line counts the rest; of equally likely ones the least."""
SHARE_PATIENTS = 150
"""Training patients, evenly over all, whose draws choose the share: what shares differ by shows in these."""


ALONE = "fitted; results alone: readings of the waveform did not clearly help"
"""Status of such a fit."""


@dataclass(frozen=True, kw_only=True)
class FittedLab:
    """One lab: its scale, its lines, its filter, the draws of which the line was made, and its other assays' noise.

    ``network_share`` is what the networks count in a reading, and ``share_log_likelihood`` the draws' mean under each
    of the `SHARES`; empty without networks. ``carried`` says what the last result counts in an estimate.
    """

    name: str
    transform: LabTransform
    line: CrossFitted
    fit: Fit
    n_read_draws: int
    assay_noise: Mapping[str, float] = field(default_factory=dict)
    network_share: float = 0.0
    share_log_likelihood: Mapping[float, float] = field(default_factory=dict)
    carried: CarriedShares = field(default_factory=CarriedShares)

    @property
    def status(self) -> str:
        """Say how the filter came about, and that there are no readings where there are none."""
        told = self.fit.status
        if self.line.whole is None:
            told += f"; no readings: {self.n_read_draws} draws beside a waveform are too few for a line"
        if self.carried.any:
            young, old = self.carried.young.share, self.carried.old.share
            told += f"; of an estimate {young:.0%} (old: {old:.0%}) is the last result, carried forward"
        return told


def fit_one_lab(
    name: str,
    training: Sequence[TrainingPatient],
    transform: LabTransform,
    draws: ReadDraws,
    config: AssimilationConfig,
    network: Sequence[Float[np.ndarray, " _"]] | None = None,
) -> FittedLab:
    """Fit one lab on training patients.

    Parameters
    ----------
    draws : the lab's, of `training`
    network : of each patient, what networks that have not seen them say of this lab after every block; None: none do
    """
    line = cross_fitted_line(draws)
    lines = [line.read(patient.features, patient.fold) for patient in training]

    def told(share: float) -> LabEvents:
        said = lines
        if network is not None and share:
            said = [joined_reading(own, other, share) for own, other in zip(lines, network, strict=True)]
        return LabEvents(name=name, training=training, transform=transform, readings=said)

    fit, noise = _fit_filter(told(0.0), config)
    best, likelihood = 0.0, {}
    if network is not None and line.whole is not None and fit.status == FITTED:
        every, start = -(-len(training) // SHARE_PATIENTS), fit.parameters
        # From where the lines' filter ended: the numbers differ little.
        tried = {share: fit_lab(told(share).every(every).of(noise), config.fit, start) for share in SHARES}
        likelihood = {share: each.draw_log_likelihood for share, each in tried.items()}
        best = max(SHARES, key=likelihood.__getitem__)
        if best:
            fit, noise = _fit_filter(told(best), config, tried[best].parameters)
    chosen = told(best)
    if line.whole is not None and fit.status == FITTED:
        chosen, fit, noise = _where_readings_help(chosen, fit, noise, config)
        best = best if chosen.readings is not None else 0.0
    carried = CarriedShares()
    if fit.status in (FITTED, ALONE):
        carried = fit_carried(chosen, fit.parameters, noise, config.fit.least_draws)
    return FittedLab(
        name=name, transform=transform, line=line, fit=fit, n_read_draws=len(draws.target), assay_noise=noise,
        network_share=best, share_log_likelihood=likelihood, carried=carried,
    )  # fmt: skip


def _where_readings_help(
    told: LabEvents, fit: Fit, noise: Noise, config: AssimilationConfig
) -> tuple[LabEvents, Fit, Noise]:
    """Return the fit, or that of results alone, whose gain is 0, where readings do not clearly help.

    They do where by them the mean log-likelihood of a training patient's draws is higher by more than its standard
    error: of labs that know nothing of the pulse about one in twenty passes by chance.
    """
    alone = replace(told, readings=None)
    other, its_noise = _fit_filter(alone, config)
    read, unread = (
        judged_draws(fit.parameters, told.of(noise)),
        judged_draws(other.parameters, alone.of(its_noise)),
    )
    n = len(told.training)
    if clearly_positive((read.by_row(n) - unread.by_row(n))[np.unique(read.row)]):
        return told, fit, noise
    silent = replace(other.parameters, gain=torch.zeros_like(other.parameters.gain))
    return alone, replace(other, parameters=silent, status=ALONE), its_noise


def _fit_filter(
    told: LabEvents, config: AssimilationConfig, start: FilterParameters | None = None
) -> tuple[Fit, dict[str, float]]:
    """Fit the eleven numbers, and the noise of other assays than the main one; from `start`, where it is given."""
    fit, noise = fit_lab(told.of({}), config.fit, start), {}
    counts = Counter(code for patient in told.training for code in patient.codes(told.name))
    others = [code for code, n in counts.most_common()[1:] if n >= config.fit.least_draws]
    for _ in range(ASSAY_ROUNDS if others and fit.status == FITTED else 0):
        # The main assay's noise was fitted to all of them at first, and falls as the others get their own.
        chosen = fit_assays(told.of, fit.parameters, others)
        if chosen == noise:
            break
        noise, fit = chosen, fit_lab(told.of(chosen), config.fit, start)
    return fit, noise


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
