"""The readers that know a planted cohort's law, as rows of the recovery experiment: how far anybody could come.

Ideal reader: the true pulse shape at every usable window, and all results before. Ideal on embedding: the same filter
on what the embedding tells of the shape at best. Ideal on results: no pulse.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from pipeline.evaluation.recovery import IDEAL, ON_EMBEDDING, RESULTS_ALONE
from pipeline.evaluation.shape_readout import (
    LabelledBlocks,
    ShapeBlocks,
    ShapeReadout,
    block_means,
    fit_readout,
    shape_blocks,
)
from pipeline.foundation.schema import MINUTE_US
from pipeline.labs.cleaning import LabConfig
from pipeline.sources.synthetic.ideal import IdealReader, ShapeReadings
from pipeline.stages.planted_cohort import EmbeddedCohort

Estimate = Callable[[pd.DataFrame], np.ndarray]


def ideal_readers(cohort: EmbeddedCohort, labs: LabConfig) -> tuple[dict[str, Estimate], ShapeReadout]:
    """Return what estimates examples of test patients by each ideal reader, and the read-out that one of them rests on.

    Parameters
    ----------
    labs : how long a result takes

    Raises
    ------
    ConfigError : real labs, or too few training patients
    """
    readout = fit_readout(_training(cohort))
    delay_us = round(labs.result_delay_minutes * MINUTE_US)
    patients = [patient for patient in cohort.splits.patients("test") if patient in cohort.store]
    true, told = {}, {}
    for patient in patients:
        blocks = _blocks(cohort, patient)
        true[patient] = ShapeReadings(
            time_us=blocks.latest_us, end_us=blocks.end_us, share=np.ones(len(blocks.first)),
            value=cohort.truth.shape_drivers(patient, blocks.latest_us),
        )  # fmt: skip
        mean = block_means(np.asarray(cohort.store.read(patient).embeddings[:]), blocks)
        told[patient] = ShapeReadings(
            time_us=blocks.time_us, end_us=blocks.end_us, value=readout.of(mean), share=1 / blocks.count
        )
    readers = {
        IDEAL: IdealReader(readings=true, result_delay_us=delay_us),
        ON_EMBEDDING: IdealReader(readings=told, errors=readout.errors, result_delay_us=delay_us),
        RESULTS_ALONE: IdealReader(readings={}, result_delay_us=delay_us),
    }

    def estimate_of(reader: IdealReader) -> Estimate:
        return lambda examples: reader.estimates(cohort.truth, examples)

    return {name: estimate_of(reader) for name, reader in readers.items()}, readout


def _training(cohort: EmbeddedCohort) -> Mapping[str, LabelledBlocks]:
    found = {}
    for patient in cohort.splits.patients("train"):
        if patient in cohort.store:
            blocks = _blocks(cohort, patient)
            found[patient] = LabelledBlocks(
                mean=block_means(np.asarray(cohort.store.read(patient).embeddings[:]), blocks),
                shape=cohort.truth.shape_drivers(patient, blocks.time_us), time_us=blocks.time_us, count=blocks.count,
            )  # fmt: skip
    return found


def _blocks(cohort: EmbeddedCohort, patient: str) -> ShapeBlocks:
    draws_us = np.unique(cohort.truth.draws_of(patient)["sampled_at_us"].to_numpy(dtype=np.int64))
    return shape_blocks(cohort.store.read(patient).start_us, draws_us)
