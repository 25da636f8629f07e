"""The windows that an encoder is fine-tuned on, decoded once into a file that is mapped into memory.

Sixteen bits a sample: a prepared window lies in 0..1, and 1/65535 is finer than any recorder's codes. The file is as
private as the waveforms that it was cut from, and is deleted when the training has ended.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.encoders.ppg_gpt import WINDOW_SAMPLES
from pipeline.foundation.atomic import explained_os_errors, make_private_dir, write_json
from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.foundation.schema import WINDOW_US
from pipeline.foundation.workers import worker_pool
from pipeline.sources.base import Record, WaveformSource
from pipeline.training.encoder.draws import EncoderDraws
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.resample import prepare_ppg_gpt

FULL_SCALE = 65_535
SAMPLES_FILE, RECORD_FILE = "windows.u16", "windows.json"


@dataclass(frozen=True, kw_only=True)
class WindowCache:
    """Prepared windows on disk, in the order of ``EncoderDraws.start_us``; readable from any thread."""

    samples: np.ndarray

    def take(self, rows: np.ndarray) -> Float[Tensor, "n samples"]:
        """Return some windows as the encoder wants them, float32 in 0..1."""
        return torch.from_numpy(self.samples[rows].astype(np.float32) / np.float32(FULL_SCALE))


def readable_patients(records: Mapping[str, Sequence[Record]], patients: Sequence[str]) -> list[str]:
    """Return the patients all of whose files are there; costs one ``stat`` a file."""
    return [
        patient
        for patient in patients
        if records.get(patient)
        and all(file.is_file() for record in records[patient] for file in record.files)
    ]


def cached_windows(
    folder: Path,
    draws: EncoderDraws,
    source: WaveformSource,
    records: Mapping[str, Sequence[Record]],
    window: WindowConfig,
    *,
    identity: str,
    workers: int = 0,
) -> WindowCache:
    """Decode the windows of `draws` into `folder`, or map what an interrupted run has decoded.

    Parameters
    ----------
    records : of every patient of `draws`
    identity : of draws and waveforms; a cache of another one is made anew
    workers : processes that read; 0 = this one

    Raises
    ------
    ConfigError : a recording cannot be read, or has changed since it was embedded
    StoreError : no room on the disk, or a folder that may not be written
    """
    path, record = folder / SAMPLES_FILE, folder / RECORD_FILE
    shape = (len(draws.start_us), WINDOW_SAMPLES)
    described = {"identity": identity, "windows": shape[0]}
    if not (path.exists() and record.exists() and json.loads(record.read_text()) == described):
        record.unlink(missing_ok=True)
        _reserve(path, shape)
        samples = np.memmap(path, np.uint16, mode="r+", shape=shape)
        for rows, decoded in _decoded(draws, source, records, window, workers):
            samples[rows] = decoded
        samples.flush()
        write_json(record, described)
    return WindowCache(samples=np.memmap(path, np.uint16, mode="r", shape=shape))


def forget_windows(folder: Path) -> None:
    """Delete the cache."""
    for name in (RECORD_FILE, SAMPLES_FILE):
        (folder / name).unlink(missing_ok=True)


def _reserve(path: Path, shape: tuple[int, int]) -> None:
    """Make the file at its full size, so that a full disk is found out now and not by a signal later."""
    make_private_dir(path.parent)
    with explained_os_errors(path):
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * shape[0] * shape[1])


def _decoded(
    draws: EncoderDraws,
    source: WaveformSource,
    records: Mapping[str, Sequence[Record]],
    window: WindowConfig,
    workers: int,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the rows of one patient after another, and their windows."""
    ends = np.searchsorted(draws.owner, np.arange(len(draws.patients)), side="right")
    starts = np.searchsorted(draws.owner, np.arange(len(draws.patients)), side="left")
    parts = [slice(int(first), int(last)) for first, last in zip(starts, ends, strict=True)]
    jobs = [
        _Job(
            source=source, window=window, start_us=draws.start_us[rows],
            records=_needed(records[patient], draws.start_us[rows]),
        )
        for patient, rows in zip(draws.patients, parts, strict=True)
    ]  # fmt: skip
    with _mapper(workers) as run:
        yield from zip(parts, run(_decode, jobs), strict=True)


@contextmanager
def _mapper(workers: int) -> Iterator:
    if not workers:
        yield map
        return
    with worker_pool(workers) as pool:
        yield pool.map


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One patient to decode; can travel to a worker process."""

    source: WaveformSource
    window: WindowConfig
    start_us: np.ndarray
    records: tuple[Record, ...]


def _needed(records: Sequence[Record], start_us: np.ndarray) -> tuple[Record, ...]:
    """Return the records that reach into a wanted window: no other one decides what a window is cut from."""
    return tuple(
        record
        for record in records
        if np.any((start_us < record.end_us) & (start_us + WINDOW_US > record.start_us))
    )


def _decode(job: _Job) -> np.ndarray:
    """Return the wanted windows of one patient, in order."""
    out = np.zeros((len(job.start_us), WINDOW_SAMPLES), np.uint16)
    missing = np.ones(len(out), bool)
    try:
        for found in iterate_windows(job.source, job.records, job.window, Counter()):
            place = np.searchsorted(job.start_us, found.start_us).clip(max=len(out) - 1)
            wanted = job.start_us[place] == found.start_us
            if wanted.any():
                ready = prepare_ppg_gpt(found.samples[wanted], found.sampling_rate_hz, found.rails)
                out[place[wanted]] = np.rint(ready * FULL_SCALE)
                missing[place[wanted]] = False
    except (OSError, RecordError) as problem:
        raise ConfigError(
            f"a recording of a training patient cannot be read ({type(problem).__name__}): mend it, run catalog, embed "
            "and align again, then train_encoder"
        ) from None
    if missing.any():
        raise ConfigError(
            f"{int(missing.sum())} windows of a training patient are no longer in the recordings as they were "
            "embedded: run catalog, embed and align again, then train_encoder"
        )
    return out
