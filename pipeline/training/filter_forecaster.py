"""Assimilation as a forecaster: what it takes to ask every lab's filter about a patient, in scoring and at the bedside.

An estimate is asked for at the end of its window, from what was known at its piece's t0 or restart: the same results
that every other method sees, readings up to the estimate itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from models.assimilation.known import KnownRow, Query, Result
from models.assimilation.lab_assimilation import Answers, LabAssimilation
from models.errors import BadAssimilationInput
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.errors import LabError
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import DAY_US
from pipeline.labs.history import LabSeries
from pipeline.training.dataset import twin_mapping
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.estimated import Estimated, columns_of
from pipeline.training.ten_minute_means import BlockMeans, BlockReader

NO_SERIES = LabSeries(value=np.empty(0), sampled_us=np.empty(0, np.int64), available_us=np.empty(0, np.int64))


def oldest_draw(alignment: AlignmentConfig, first_us: int) -> int:
    """Return from when on draws count for a patient whose first sequence begins at `first_us`."""
    return first_us - round(alignment.history.max_age_days * DAY_US)


def known_rows(
    model: LabAssimilation, means: BlockMeans, series: Mapping[str, LabSeries], oldest_us: int
) -> list[KnownRow]:
    """Return what the filter of each lab is told of a patient.

    Parameters
    ----------
    means : of the embeddings, see ``BlockReader``
    series : the patient's results by lab, all versions, clinical units
    oldest_us : draws from before it do not count
    """
    reading, rows = model.readings(means.mean, means.end_us), []
    for number, (lab, transform) in enumerate(zip(model.config.task_labs, model.transforms, strict=True)):
        own = series.get(lab, NO_SERIES)
        kept = np.flatnonzero(own.sampled_us >= oldest_us)
        columns = own.sampled_us[kept], own.available_us[kept], transform.to_scale(own.value[kept])
        noise = [model.noise_of(code) for code in own.codes]
        results = [
            Result(sampled_us=drawn, available_us=known, value=value, noise=noise[row])
            for row, drawn, known, value in zip(kept, *(column.tolist() for column in columns), strict=True)
        ]
        rows.append(
            KnownRow(results=results, reading_end_us=means.end_us, reading=reading[:, number], lab=number)
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class PatientFilter:
    """The filters of one patient, ready to be asked.

    Attributes
    ----------
    means, series, oldest_us : see ``known_rows``
    """

    model: LabAssimilation
    means: BlockMeans
    series: Mapping[str, LabSeries]
    oldest_us: int

    @cached_property
    def rows(self) -> list[KnownRow]:
        """What each lab's filter is told."""
        with told_as_lab_error():
            return known_rows(self.model, self.means, self.series, self.oldest_us)

    def at(self, at_us: Int[np.ndarray, " n"], known_us: Int[np.ndarray, " n"]) -> Answers:
        """Estimate every lab at some times, from readings that end by then and results available by `known_us`."""
        with told_as_lab_error():
            return self.model.answers(self.rows, Query(at_us=at_us, known_us=known_us))


@contextmanager
def told_as_lab_error() -> Iterator[None]:
    """Raise what the filter refuses as an error of the patient's results; no patient is named."""
    try:
        yield
    except BadAssimilationInput as error:
        raise LabError(f"Results of a patient cannot be assimilated. {error}") from error


@dataclass(frozen=True, kw_only=True)
class FilterForecaster:
    """A fitted assimilation and how to feed it; see ``forecaster.Forecaster``.

    Attributes
    ----------
    scaler : of the labs, which carries the division of the patients; the estimates do not use it
    twin : feed it another patient's waveform of the same split, on the own mask
    seed : of the run; decides who is whose twin
    """

    model: LabAssimilation
    scaler: LabScaler
    twin: bool = False
    seed: int = 0

    @property
    def labs(self) -> tuple[str, ...]:
        """Those it estimates."""
        return self.model.config.task_labs

    def estimated(
        self,
        examples: pd.DataFrame,
        aligned: AlignedCohort,
        store: WindowStore,
        patients: Sequence[str],
        *,
        cache: EmbeddingCache | None = None,
        exact: bool = True,
    ) -> Estimated:
        """Estimate every example of some patients; parameters as of ``Forecaster.scaled``; it is always exact."""
        value, spread = np.full(len(examples), np.nan), np.full(len(examples), np.nan)
        if examples.empty:  # of a twin's only patient, say, who has no twin
            return Estimated.without_spread(value)
        column = columns_of(examples["lab"], self.labs)
        asked = examples[["prediction_window_end_us", "t0_us"]].to_numpy(dtype=np.int64)
        patient_of = self.of_patients(aligned, store, patients, cache)
        of_patients = examples.groupby("patient_id", sort=False).indices
        for patient, rows in tracked(of_patients.items(), "estimating", "patients"):
            questions, which = np.unique(asked[rows], axis=0, return_inverse=True)
            answers = patient_of(str(patient)).at(questions[:, 0], questions[:, 1])
            value[rows] = answers.median[which, column[rows]]
            spread[rows] = answers.draw_spread[which, column[rows]]
        unknown = column < 0
        return Estimated(
            value=np.where(unknown, np.nan, value),
            spread=np.where(unknown, np.nan, spread),
            log_scale=self.model.log_scale[column] & ~unknown,
        )

    def of_patients(
        self,
        aligned: AlignedCohort,
        store: WindowStore,
        patients: Sequence[str],
        cache: EmbeddingCache | None = None,
    ) -> Callable[[str], PatientFilter]:
        """Return what gives the filters of each patient of one split; a twin is one of `patients`."""
        twins = (
            twin_mapping(set(patients) & set(aligned.sequences["patient_id"]), self.seed)
            if self.twin
            else None
        )
        reader = BlockReader(aligned.sequences, cache or EmbeddingCache(store), twins)

        def of(patient: str) -> PatientFilter:
            return PatientFilter(
                model=self.model,
                means=reader.embedding_means(patient),
                series=aligned.series.get(patient, {}),
                oldest_us=oldest_draw(aligned.config, reader.first_us(patient)),
            )

        return of

    def of_pieces(
        self,
        pieces: pd.DataFrame,
        wanted: Mapping[int, int],
        aligned: AlignedCohort,
        patient_filter: PatientFilter,
    ) -> Iterator[tuple[int, Float[np.ndarray, "steps labs"]]]:
        """Yield each piece's row and clinical estimates at every step up to the last that is wanted.

        Parameters
        ----------
        pieces : of one patient, rows of the cohort's ``pieces``
        wanted : number of steps by row; all are asked at once, so that the filter runs once
        """
        at_us, known_us = [], []
        for row, n_steps in wanted.items():
            piece = pieces.loc[row]
            first = int(piece["first_step"])
            at_us.append(aligned.grid(str(piece["sequence_id"])).end_us[first : first + n_steps])
            known_us.append(np.full(n_steps, int(piece["t0_us"])))
        median = patient_filter.at(np.concatenate(at_us), np.concatenate(known_us)).median
        yield from zip(wanted, np.split(median, np.cumsum(list(wanted.values()))[:-1]), strict=True)
