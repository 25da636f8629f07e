"""A planted cohort, embedded and aligned: what the recovery experiment and the scale study start from.

Rendered: its waveforms are written as WFDB and go through stage 1. Emulated: its embeddings are drawn from the pulse's
shape by a fitted emulator, no waveform is made, and long recordings cost minutes.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.alignment import align
from pipeline.cohort.sequences import cut_sequences
from pipeline.cohort.splits import Splits, split_subjects
from pipeline.embedding.progress import shown_progress
from pipeline.embedding.run import embed
from pipeline.emulation.cohort import EmulatedCohort, write_emulated_cohort
from pipeline.emulation.fit import emulator_key
from pipeline.emulation.model import EMULATED, Emulator, emulator_folder
from pipeline.evaluation.recovery_conditions import Condition
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.claims import only_writer
from pipeline.labs.cleaning import LabEvents, clean_labs
from pipeline.sources.mimic3 import Mimic3Tables, Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort, write_without_waveforms
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortPlan, CohortSize, subject_id_of
from pipeline.sources.synthetic.truth import CohortTruth
from pipeline.stages.embed import encoding_config, experiment_encoder
from pipeline.stages.encoder_patients import refuse_division
from pipeline.stages.rendered_once import RenderedOnce, embed_rendered_once
from pipeline.store.embeddings import EmbeddingStore


class Embedded(NamedTuple):
    """What stage 1 did now, of how much."""

    windows_now: int
    """Put through the encoder in this run; 0 of an emulated cohort."""
    seconds: float
    """That took, reading, cutting and writing included."""
    windows: int
    """In the store."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedCohort:
    """One planted cohort, embedded, read, aligned and with its truth.

    Attributes
    ----------
    embedding : what stage 1 did now
    """

    aligned: AlignedCohort
    store: EmbeddingStore
    events: LabEvents
    splits: Splits
    truth: CohortTruth
    embedding: Embedded


def embedded_cohort(
    experiment: ExperimentConfig,
    condition: Condition,
    where: Path,
    store_folder: Path,
    emulator: Emulator | None = None,
    *,
    keep_waveforms: bool = True,
    written: bool = False,
) -> EmbeddedCohort:
    """Write the cohort of `condition` into `where`, embed it into a store, and read it; what is there is kept.

    Where several processes ask for one cohort, one of them writes it while the others wait.

    Parameters
    ----------
    emulator : draws the embeddings instead of an encoder; `where` then holds no waveform and must be another folder
    keep_waveforms : False: they lie beside the store, a few patients at a time, until they are embedded; the store then
        holds no other patient
    written : all of it is there: nothing is written, so that processes may read it beside one another

    Raises
    ------
    LeakError : the encoder has learned from patients who would judge it; before anything is written
    """
    patients = _patients(experiment, condition)
    whole = split_subjects(patients, experiment.splits)
    refuse_division(experiment, whole)
    plan = CohortPlan(
        parameters=CohortParameters.load(), size=_size(experiment, condition), root=where, coupling=condition.coupling,
        null=condition.null, seed=experiment.cohort.seed, real_labs=None,
    )  # fmt: skip
    store = EmbeddingStore.open(store_folder, create=True)
    if written:
        done = Embedded(0, 0.0, _windows(store))
    elif emulator is not None:
        done = _emulated(plan, store, emulator)
    elif keep_waveforms:
        done = _rendered(experiment, plan, store)
    else:
        beside = store_folder.with_name(f"{store_folder.name}_waveforms")
        done = _rendered_once(experiment, plan, store, beside)
    tables = Mimic3Tables(where / "clinical").tables()
    events = clean_labs(tables, experiment.labs)
    sequences = cut_sequences(
        store, [p for p in patients if p in store], tables.admissions, experiment.sequences
    )
    return EmbeddedCohort(
        aligned=align(sequences, events, store, experiment.alignment), store=store, events=events,
        splits=_part(whole, condition), truth=CohortTruth.load(where), embedding=done,
    )  # fmt: skip


def checked_emulator(experiment: ExperimentConfig, base: Path) -> Emulator | None:
    """Return the emulator of an experiment whose encoder is called ``emulated:<encoder>``; None: it is a true encoder.

    Parameters
    ----------
    base : folder of all artefacts, where ``emulators/<encoder>`` lies

    Raises
    ------
    MissingArtifactError, CheckpointError : there is none, or one of another encoder
    """
    if not experiment.encoder.startswith(EMULATED):
        return None
    named = experiment.encoder.removeprefix(EMULATED)
    encoder = experiment_encoder(dataclasses.replace(experiment, encoder=named))
    key, place = emulator_key(encoder, experiment.window), emulator_folder(base, named)
    fit = f"python -m pipeline emulator --set encoder={named} --artifacts {base}"
    return Emulator.load(place, key, fit=fit)


def _rendered(experiment: ExperimentConfig, plan: CohortPlan, store: EmbeddingStore) -> Embedded:
    """Write the waveforms, and embed them."""
    with only_writer(plan.root):
        write_cohort(
            plan.parameters, plan.size, plan.root, coupling=plan.coupling, null=plan.null, seed=plan.seed,
            workers=min(2, os.cpu_count() or 1),
        )  # fmt: skip
    source = Mimic3Waveforms(plan.root / "waveforms")
    encoder = experiment_encoder(experiment)
    with shown_progress() as told:
        done = embed(source, store, encoder, encoding_config(experiment, encoder), progress=told)
    return Embedded(done.embedded_windows, done.seconds, done.windows)


def _rendered_once(
    experiment: ExperimentConfig, plan: CohortPlan, store: EmbeddingStore, folder: Path
) -> Embedded:
    """Embed waveforms that are deleted as soon as they are, and write labs and truth."""
    encoder = experiment_encoder(experiment)
    once = RenderedOnce(
        plan=plan, store=store, folder=folder, encoder=encoder, config=encoding_config(experiment, encoder)
    )
    with only_writer(folder):  # a store has one such folder, whatever the coupling
        windows_now, seconds = embed_rendered_once(once)
        write_without_waveforms(plan)
    return Embedded(windows_now, seconds, _windows(store))


def _emulated(plan: CohortPlan, store: EmbeddingStore, emulator: Emulator) -> Embedded:
    """Draw the embeddings, and write labs and truth."""
    cohort = EmulatedCohort(plan=plan, store=store, emulator=emulator)
    write_emulated_cohort(cohort, workers=min(2, os.cpu_count() or 1))
    return Embedded(0, 0.0, _windows(store))


def _windows(store: EmbeddingStore) -> int:
    return sum(entry.n_windows for entry in store.manifest().values())


def _size(experiment: ExperimentConfig, condition: Condition) -> CohortSize:
    size = experiment.cohort.size
    return dataclasses.replace(size, n_patients=max(1, round(condition.cohort_share * size.n_patients)))


def _patients(experiment: ExperimentConfig, condition: Condition) -> list[str]:
    """Return the ids of all patients, whether they are written or not."""
    numbers = range(_size(experiment, condition).n_patients)
    return sorted(str(subject_id_of(experiment.cohort.seed, number)) for number in numbers)


def divided(experiment: ExperimentConfig, condition: Condition) -> Splits:
    """Return how the patients of `condition` will be divided, before any of them is made."""
    return _part(split_subjects(_patients(experiment, condition), experiment.splits), condition)


def _part(whole: Splits, condition: Condition) -> Splits:
    return reduced(whole, condition.train_share, condition.most_judged)


def reduced(splits: Splits, train_share: float, most_judged: int | None = None) -> Splits:
    """Keep a share of the training patients, and at most so many of those who judge (a smaller part is of a larger).

    Of the validation patients as large a part is kept as of the test patients. The others count as calibration
    patients, whom nothing here reads.
    """
    n_test = len(splits.patients("test"))
    judged = 1.0 if most_judged is None or most_judged >= n_test else most_judged / n_test
    shares = {"train": train_share, "validation": judged, "test": judged}
    kept = {name: _first_part(splits.patients(name), share) for name, share in shares.items()}
    aside = set(splits.patients("calibration"))
    aside |= {patient for name, part in kept.items() for patient in set(splits.patients(name)) - set(part)}
    members = splits.members | kept | {"calibration": tuple(sorted(aside))}
    return Splits(members=members, seed=splits.seed)


def _first_part(patients: Sequence[str], share: float) -> tuple[str, ...]:
    """Return a share of patients, at least one where there are any, in an order that has nothing to do with them."""
    ordered = sorted(patients, key=lambda p: hashlib.sha256(f"part:{p}".encode()).digest())
    return tuple(sorted(ordered[: max(1, round(share * len(ordered)))]))
