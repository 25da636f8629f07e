"""A seeded part of the cohort, small enough to train and to score on without a GPU, and what the whole costs."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.cohort.aligned import AlignedCohort
from pipeline.training.batches import PieceSource
from pipeline.training.config import TrainingConfig
from pipeline.training.schedule import plan_epoch


def sampled_patients(
    aligned: AlignedCohort, patients: Sequence[str], most_steps: int, seed: int, *, least: int = 1
) -> list[str]:
    """Draw patients until the steps of their sequences reach `most_steps`; at least `least` of them."""
    steps: Counter[str] = Counter()
    for patient, n_steps in zip(aligned.sequences["patient_id"], aligned.sequences["n_steps"], strict=True):
        steps[str(patient)] += int(n_steps)
    order = np.random.default_rng(seed).permutation(sorted(set(patients) & steps.keys()))
    total = np.cumsum([steps[str(patient)] for patient in order])
    count = max(least, int(np.searchsorted(total, most_steps, side="right")))
    return [str(patient) for patient in order[:count]]


def part_of(aligned: AlignedCohort, patients: Sequence[str]) -> AlignedCohort:
    """Return the cohort of some patients alone."""
    chosen = sorted(set(patients))
    frames = {
        name: getattr(aligned, name)
        .loc[getattr(aligned, name)["patient_id"].isin(chosen)]
        .reset_index(drop=True)
        for name in ("sequences", "pieces", "draws", "examples")
    }
    rows = aligned.pieces["patient_id"].isin(chosen).to_numpy()
    kept = aligned.sequences["patient_id"].isin(chosen).to_numpy()
    usable = np.repeat(kept, aligned.sequences["n_steps"].to_numpy())
    return AlignedCohort(
        **frames, history=aligned.history[rows], history_present=aligned.history_present[rows],
        usable=aligned.usable[usable], config=aligned.config,
    )  # fmt: skip


def epoch_steps(source: PieceSource, config: TrainingConfig, epoch: int = 0) -> int:
    """Return the steps that one epoch of training passes through a sequence model."""
    batches = plan_epoch(
        source.group_sizes, config.batch_pieces, epoch, config.seed, config.batches_per_epoch
    )
    return sum(sum(source.lengths(batch.group, batch.items)) for batch in batches)


def scored_steps(aligned: AlignedCohort, patients: Sequence[str], protocols: Sequence[str]) -> int:
    """Return the steps that a sequence model passes to estimate every example of some patients."""
    examples = aligned.examples
    mine = examples["patient_id"].isin(sorted(set(patients))) & examples["protocol"].isin(protocols)
    return int((examples.loc[mine].groupby("piece_id")["step"].max() + 1).sum())


def one_epoch(config: TrainingConfig, seed: int) -> TrainingConfig:
    """Return the recipe for a single epoch."""
    return dataclasses.replace(config, epochs=1, warmup_epochs=0.0, seed=seed, tensorboard=False)
