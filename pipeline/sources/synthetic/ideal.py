"""The ideal reader: the best estimate of every draw from the pulse's shape and all results before, all labs jointly.

The oracle (``truth.oracle_estimates``) knows the latent physiology, which no pulse shows: every patient has offsets of
their own. The ideal reader sees the true shape (a perfect encoder) and knows the cohort's law (a perfect method), and
nothing more, so what a method misses can be blamed on encoder, method or history. With readings that an embedding
tells, and the law of their errors, the same filter is a perfect method on that embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pipeline.foundation.errors import ConfigError
from pipeline.sources.synthetic.ideal_filter import DRAW, NOTHING, READING, FilterRow, filter_rows
from pipeline.sources.synthetic.law import LinearLaw, ReadingErrors, cohort_law, with_errors
from pipeline.sources.synthetic.parameters import LabProcess
from pipeline.sources.synthetic.physiology import to_score, to_value
from pipeline.sources.synthetic.truth import CohortTruth

_AS_IT_COMES = -1


@dataclass(frozen=True, kw_only=True)
class ShapeReadings:
    """What is read of one patient's pulse, in order of time.

    Attributes
    ----------
    time_us : what moment a reading tells of
    end_us : when it is known, not before `time_us`
    value : the shape's drivers
    share : of a window's noise that it has: one n-th for the mean of n windows
    """

    time_us: Int[np.ndarray, " n"]
    end_us: Int[np.ndarray, " n"]
    value: Float[np.ndarray, "n shapes"]
    share: Float[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class IdealReader:
    """Who estimates.

    Attributes
    ----------
    readings : by patient; a patient who is not in it has no pulse
    errors : of the readings; None: they are the true shape
    results : whether results count
    result_delay_us : from a draw until its result is available
    """

    readings: Mapping[str, ShapeReadings]
    errors: ReadingErrors | None = None
    results: bool = True
    result_delay_us: int = 0

    def estimates(self, truth: CohortTruth, examples: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Estimate every example from readings known by its draw and results available by its t0.

        Parameters
        ----------
        examples : patient_id, lab, sampled_at_us and t0_us

        Returns
        -------
        Expected values in clinical units.

        Raises
        ------
        ConfigError : the cohort's labs are real ones, whose law nobody knows
        """
        if truth.real_labs:
            raise ConfigError(
                "real labs have no known law: there is no ideal reader of a cohort with real labs"
            )
        law = cohort_law(truth.parameters, truth.coupling, truth.null)
        if self.errors is not None:
            law = with_errors(law, self.errors)
        labs, rows, places = list(truth.parameters.labs), [], []
        examples = examples.reset_index(drop=True)
        for patient, own in examples.groupby("patient_id", sort=False):
            for number, asked in self._known(truth, str(patient), own):
                rows.append(self._row(truth, str(patient), asked["sampled_at_us"].to_numpy(), number, law))
                places.append(asked)
        score, variance = np.empty(len(examples)), np.empty(len(examples))
        column = examples["lab"].map(labs.index).to_numpy(dtype=np.int64)
        for asked, answer in zip(places, filter_rows(law, rows), strict=True):
            line, own = np.arange(len(asked)), column[asked.index]
            score[asked.index], variance[asked.index] = answer.mean[line, own], answer.variance[line, own]
        estimate = np.empty(len(examples))
        for lab, process in enumerate(truth.parameters.labs.values()):
            own = column == lab
            estimate[own] = _expected(process, score[own], variance[own] + law.lab_noise[lab])
        return estimate

    def _known(self, truth: CohortTruth, patient: str, own: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
        """Divide a patient's examples by how many draws are known; those that know every draw before them are one."""
        own = own.sort_values("sampled_at_us", kind="stable")
        sampled = truth.draws_of(patient)["sampled_at_us"].to_numpy()
        if not self.results:
            return [(0, own)]
        known = np.searchsorted(sampled + self.result_delay_us, own["t0_us"].to_numpy(), side="right")
        before = np.searchsorted(sampled, own["sampled_at_us"].to_numpy(), side="left")
        number = np.where(known == before, _AS_IT_COMES, known)
        return [(int(n), own.loc[number == n]) for n in np.unique(number)]

    def _row(
        self, truth: CohortTruth, patient: str, asked_us: np.ndarray, number: int, law: LinearLaw
    ) -> FilterRow:
        """Return what the filter is told of a patient: readings, and the first `number` draws or all as they come."""
        draws = truth.draws_of(patient)
        draws = draws if number == _AS_IT_COMES else draws.iloc[:number]
        parameters, shapes = truth.parameters, len(law.shape)
        readings = self.readings.get(patient)
        questions = len(asked_us)
        nothing, kind = np.zeros((questions, shapes)), np.full(questions, NOTHING)
        parts: list[tuple[np.ndarray, ...]] = [(asked_us, asked_us, kind, nothing, np.ones(questions))]
        if readings is not None:
            kind = np.full(len(readings.end_us), READING)
            parts.append((readings.end_us, readings.time_us, kind, readings.value, readings.share))
        for lab, (name, process) in enumerate(parameters.labs.items()):
            own = draws.loc[draws["lab"] == name]
            at, measured = own["sampled_at_us"].to_numpy(), own["measured"].to_numpy()
            value = np.zeros((len(at), shapes))
            value[:, 0] = to_score(process, measured)
            parts.append((at, at, np.full(len(at), DRAW + lab), value, _rounding(process, measured)))
        return _in_order(parts)


def _in_order(parts: list[tuple[np.ndarray, ...]]) -> FilterRow:
    """Join (known, time, kind, value, noise); at one time readings come first, then questions, then draws."""
    known, time, kind, value, noise = (np.concatenate(column) for column in zip(*parts, strict=True))
    rank = np.where(kind == READING, 0, np.where(kind == NOTHING, 1, 2))
    order = np.lexsort((rank, known))
    last = int(np.flatnonzero(kind[order] == NOTHING)[-1]) + 1  # nobody asks for more
    order = order[:last]
    return FilterRow(
        # What is known late tells of its own moment, or of the last one that was told of, if that is later.
        time_us=np.maximum.accumulate(time[order]), kind=kind[order], value=value[order], noise=noise[order],
        asked=np.flatnonzero(kind[order] == NOTHING),
    )  # fmt: skip


def _rounding(process: LabProcess, measured: np.ndarray) -> np.ndarray:
    """Return the variance of a laboratory's rounding, on the scale of scores: that of an even spread over a digit."""
    step = 10.0**-process.decimals
    return (
        (step / measured / process.log_sd()) ** 2 / 12
        if process.skewed
        else np.full(len(measured), (step / process.sd) ** 2 / 12)
    )


def _expected(process: LabProcess, score: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return expected values in clinical units of draws whose score is Gaussian."""
    if not process.skewed:
        return to_value(process, score)
    return to_value(process, score + process.log_sd() * variance / 2)
