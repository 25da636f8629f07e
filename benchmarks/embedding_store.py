"""Write, read and slice patient-weeks: the embedding store against raw ``.npy``, memory-mapped where it reads.

``python benchmarks/embedding_store.py`` prints one row an operation: milliseconds (median) and ours over raw. Reads
are warm (from the page cache). "durable" writes are flushed to the disk on both sides; "slice" is 2016 consecutive
rows (16.8 h), "pick" 64 rows at random, as the patient state's pooled vector takes them.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, installed or not

from pipeline.foundation.schema import MAX_SEQUENCE_STEPS, QUALITY_COLUMNS, WINDOW_US
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import EmbeddingKey

SLICE_ROWS = 2016
PICKED_ROWS = 64
START_US = np.arange(MAX_SEQUENCE_STEPS, dtype=np.int64) * WINDOW_US
QUALITY = np.zeros((MAX_SEQUENCE_STEPS, len(QUALITY_COLUMNS)), np.float32)


def write_ours(store: EmbeddingStore, patient: int, embeddings: np.ndarray) -> None:
    """Stage, check, hash, flush, rename and commit one patient."""
    key = EmbeddingKey(source_hash="s", encoder_name="b", weights_hash="w", preprocessing_version="1")
    with store.stage(str(patient), key, width=embeddings.shape[1]) as writer:
        for first in range(0, len(embeddings), 256):
            rows = slice(first, first + 256)
            writer.append(START_US[rows], embeddings[rows], QUALITY[rows])
        store.commit([writer.finish()])


def write_raw(folder: Path, patient: int, embeddings: np.ndarray) -> None:
    """Save three arrays and flush them."""
    for name, values in (("e", embeddings.astype(np.float16)), ("s", START_US), ("q", QUALITY)):
        with open(folder / f"{patient}{name}.npy", "wb") as file:
            np.save(file, values)
            file.flush()
            os.fsync(file.fileno())


def median_ms(act: Callable[[int], object], items: range) -> float:
    """Return the median time of `act` over `items`, in milliseconds."""
    seconds = []
    for item in items:
        began = time.perf_counter()
        act(item)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((MAX_SEQUENCE_STEPS, arguments.width)).astype(np.float32)
    starts = rng.integers(0, MAX_SEQUENCE_STEPS - SLICE_ROWS, 400)
    picks = rng.integers(0, MAX_SEQUENCE_STEPS, (400, PICKED_ROWS))
    patients = range(arguments.patients)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        store, raw = EmbeddingStore.open(Path(name, "store"), create=True), Path(name)

        def mapped(patient: int) -> np.ndarray:
            return np.load(raw / f"{patient % len(patients)}e.npy", mmap_mode="r")

        def ours(patient: int) -> object:
            return store.read(str(patient % len(patients))).embeddings

        rows = {
            "write, durable": (
                lambda p: write_ours(store, p, embeddings),
                lambda p: write_raw(raw, p, embeddings),
                patients,
            ),
            "read all": (lambda p: ours(p)[:], lambda p: np.array(mapped(p)), range(3 * len(patients))),
            "open and slice": (
                lambda i: ours(i)[starts[i] : starts[i] + SLICE_ROWS],
                lambda i: np.array(mapped(i)[starts[i] : starts[i] + SLICE_ROWS]),
                range(400),
            ),
            "open and pick": (lambda i: ours(i)[picks[i]], lambda i: mapped(i)[picks[i]], range(400)),
        }
        sys.stdout.write(f"{'operation':16s} {'ours ms':>9s} {'raw ms':>9s} {'ratio':>6s}\n")
        for operation, (act, reference, items) in rows.items():
            both = [(median_ms(act, items), median_ms(reference, items)) for _ in range(3)]
            mine, theirs = np.median(both, axis=0)
            sys.stdout.write(f"{operation:16s} {mine:9.3f} {theirs:9.3f} {mine / theirs:6.2f}\n")


if __name__ == "__main__":
    main()
