"""Training with the loader thread beside training without, on the same pieces, in steps a second.

``python benchmarks/training_loader.py`` trains one epoch by turns (pairs, the order changing) from an embedding store
on disk and prints, for a cold and a warm cache: the share of the time in which nothing is computed (reading, mostly)
without the thread, the busy share with and without it, and the median ratio of steps a second, with its range. The
losses of both must have the same bits. A model's width sets how much there is to hide behind: ``--d-model``.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, installed or not

from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey
from pipeline.testing.cohort import TinyCohort, tiny_cohort
from pipeline.training.config import TrainingConfig
from pipeline.training.method import train


def stored(cohort: TinyCohort, folder: Path) -> EmbeddingStore:
    """Write the cohort's windows into a store on disk, as the embed stage does."""
    store = EmbeddingStore.open(folder, create=True)
    entries = []
    for patient, windows in cohort.store.windows.items():
        key = EmbeddingKey(
            source_hash=patient, encoder_name="none", weights_hash="0", preprocessing_version="none"
        )
        with store.stage(patient, key, width=windows.width) as writer:
            writer.append(windows.start_us, windows.embeddings, windows.quality)
            entries.append(writer.finish())
    store.commit(entries)
    return store


def epoch(cohort: TinyCohort, config: TrainingConfig, d_model: int) -> dict:
    """Train one epoch anew and return its row."""
    shape = {"d_model": d_model, "n_blocks": 2, "d_state": 16, "trunk_width": 64}
    with tempfile.TemporaryDirectory() as out:
        result = train(
            "mt_pcs", cohort.aligned, cohort.store, cohort.scaler, cohort.splits, shape, config, Path(out)
        )
    return result.epochs[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--hours", type=float, default=48.0, help="of each patient")
    parser.add_argument("--width", type=int, default=512, help="of an embedding")
    parser.add_argument("--d-model", type=int, default=16)
    parser.add_argument("--batches", type=int, default=6, help="of each protocol")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, device {arguments.device}")
    with tempfile.TemporaryDirectory() as folder:
        cohort = tiny_cohort(n_patients=arguments.patients, hours=arguments.hours, width=arguments.width)
        cohort = replace(cohort, store=stored(cohort, Path(folder, "store")))
        base = TrainingConfig(
            epochs=1,
            batch_pieces=4,
            batches_per_epoch=arguments.batches,
            tensorboard=False,
            device=arguments.device,
        )
        for name, cache in (("cold: every patient from disk", 0), ("warm: the default cache", None)):
            config = replace(base, embedding_cache_bytes=cache)
            without, ahead = _pairs(cohort, config, arguments.d_model, arguments.pairs)
            ratios = sorted(
                a["steps_per_second"] / w["steps_per_second"] for a, w in zip(ahead, without, strict=True)
            )
            assert {row["loss"] for row in ahead} == {row["loss"] for row in without}, "other bits"
            print(
                f"{name}: nothing is computed in {1 - _median(without, 'busy_share'):.0%} without the thread; "
                f"busy {_median(without, 'busy_share'):.0%} -> {_median(ahead, 'busy_share'):.0%}; "
                f"{_median(without, 'steps_per_second'):,.0f} -> {_median(ahead, 'steps_per_second'):,.0f} steps/s; "
                f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} pairs)"
            )


def _pairs(
    cohort: TinyCohort, config: TrainingConfig, d_model: int, pairs: int
) -> tuple[list[dict], list[dict]]:
    rows: dict[int, list[dict]] = {0: [], 2: []}
    epoch(cohort, config, d_model)  # a running program's state
    for pair in range(pairs):
        for depth in (0, 2) if pair % 2 else (2, 0):
            rows[depth].append(epoch(cohort, replace(config, prefetch_micro_batches=depth), d_model))
    return rows[0], rows[2]


def _median(rows: list[dict], name: str) -> float:
    return statistics.median(row[name] for row in rows)


if __name__ == "__main__":
    main()
