"""What stage 1 does before the first window: catalogue, plan and a batch's plan, in seconds and in files looked at.

``python benchmarks/embedding_plan.py --records 500 --files 40`` writes small files, one patient for five records, and
prints a row a step for half the records and for all of them: a step that grows with the square would take four times.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, installed or not

import torch

from pipeline.embedding.plan import plan_embedding
from pipeline.sources import content_hashes
from pipeline.sources.base import Catalog, Record
from pipeline.sources.catalog import catalogued_patients, load_catalog, release_catalog, save_catalog
from pipeline.store.embeddings import EmbeddingStore
from pipeline.windows.cutting import WindowConfig

RECORDS_A_PATIENT = 5


class NoEncoder:
    """Planning asks an encoder for its name alone."""

    name, width, sampling_rate_hz, samples_per_window, weights_hash = "none", 1, 40.0, 1200, "0" * 64

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        """Never called."""
        raise NotImplementedError


def write_records(root: Path, n_records: int, n_files: int, file_bytes: int) -> Catalog:
    """Write the files of all records and return their catalogue."""
    records = []
    for number in range(n_records):
        folder = root / f"p{number // RECORDS_A_PATIENT:06d}" / f"{number:07d}"
        folder.mkdir(parents=True)
        files = [folder / f"{number:07d}_{part:04d}.dat" for part in range(n_files)]
        for part, file in enumerate(files):
            file.write_bytes(f"{number} {part} ".encode() + bytes(file_bytes))
            os.utime(file, ns=(10**18, 10**18))
        patient, start = str(number // RECORDS_A_PATIENT), number * 3_600_000_000
        records.append(
            Record(
                patient_id=patient,
                name=f"{patient}/{number}",
                path=files[0],
                files=tuple(files),
                start_us=start,
                end_us=start + 3_600_000_000,
            )
        )
    return Catalog(records=tuple(records))


def timed(act: Callable[[], Any]) -> tuple[float, int]:
    """Return the seconds that `act` takes and how many files are read for their content meanwhile."""
    reads, original = 0, content_hashes._file_hash

    def counted(path: Path) -> str:
        nonlocal reads
        reads += 1
        return original(path)

    content_hashes._file_hash = counted
    began = time.perf_counter()
    try:
        act()
    finally:
        content_hashes._file_hash = original
    return time.perf_counter() - began, reads


def measure(root: Path, catalog: Catalog) -> dict[str, tuple[float, int]]:
    """Return seconds and files read by step."""
    file, encoder, window = root / "catalog.parquet", NoEncoder(), WindowConfig()
    save_catalog(file, catalog, root)
    store = EmbeddingStore.open(root / "store", create=True)
    patients = catalogued_patients(file)
    release_catalog()

    def batches() -> None:
        for first in range(0, len(patients), 32):
            part = patients[first : first + 32]
            keys = {store.patient_key(patient) for patient in part}
            plan_embedding(load_catalog(file, root, part), store, encoder, window, only=keys)

    def embed_nothing() -> None:
        plan = plan_embedding(catalog, store, encoder, window)
        for task in plan.stale:
            state = content_hashes.source_state(task.records)
            key = task.of_state(state).key
            hashes.remember(task.patient, state)
            with store.stage(task.patient_id, key, width=1) as writer:
                entries.append(writer.finish())
        store.commit(entries)
        hashes.save()

    rows = {"catalogue": timed(lambda: load_catalog(file, root))}
    rows["plan, all new"] = timed(lambda: plan_embedding(catalog, store, encoder, window))
    rows["plan of every batch"] = timed(batches)
    hashes, entries = content_hashes.SourceHashes(store.storage), []
    embed_nothing()
    rows["plan, all known"] = timed(lambda: plan_embedding(catalog, store, encoder, window))
    for record in catalog.records:
        for path in record.files:
            os.utime(path, ns=(10**18, 10**18 + 1))
    rows["plan, all touched"] = timed(lambda: plan_embedding(catalog, store, encoder, window))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--bytes", type=int, default=4096, help="of each file")
    arguments = parser.parse_args()
    results = []
    for n_records in (arguments.records // 2, arguments.records):
        with tempfile.TemporaryDirectory() as name:
            catalog = write_records(Path(name), n_records, arguments.files, arguments.bytes)
            results.append(measure(Path(name), catalog))
    print(
        f"{'step':<22}{arguments.records // 2:>10} records{arguments.records:>10} records{'ratio':>8}{'read':>9}"
    )
    for step, (seconds, reads) in results[1].items():
        half = results[0][step][0]
        print(f"{step:<22}{half:>16.3f} s{seconds:>16.3f} s{seconds / half:>8.1f}{reads:>9}")


if __name__ == "__main__":
    main()
