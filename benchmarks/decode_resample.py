"""Decode and resample: windows a second on one core, ours against ``wfdb.rdrecord`` with ``scipy.signal``.

``OMP_NUM_THREADS=1 python benchmarks/decode_resample.py`` prints one row a case. "pipeline" is all that happens to
a window before the encoder (clock grid, usability, quality scores); "alone" is the same work as the other's, with
rails replaced and bits that depend on nothing but the window; the ratio compares these two.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import resample_poly

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, installed or not

from pipeline.sources.wfdb.folder import WfdbFolder
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.resample import prepare_ppg_gpt

RATE_HZ = 125


@dataclass(frozen=True, kw_only=True)
class Case:
    """A record of one storage format with PLETH as its last channel."""

    fmt: str
    n_signals: int


CASES = [Case(fmt="80", n_signals=1), Case(fmt="80", n_signals=4), Case(fmt="16", n_signals=4),
         Case(fmt="212", n_signals=2), Case(fmt="516", n_signals=1)]  # fmt: skip


def write_case(case: Case, folder: Path, hours: int) -> None:
    """Write one record of `hours` with a pulse, noise and some rail samples."""
    n = hours * 3600 * RATE_HZ
    rng = np.random.default_rng(0)
    wave = 90 * np.sin(2 * np.pi * 1.2 * np.arange(n) / RATE_HZ) + rng.normal(0, 15, n)
    codes = np.clip(wave, -127, 127).astype(np.int64)
    names = [f"S{i}" for i in range(case.n_signals - 1)] + ["PLETH"]
    signals = np.repeat(codes[:, None], case.n_signals, axis=1)
    wfdb.wrsamp(
        "a", RATE_HZ, ["NU"] * case.n_signals, names, d_signal=signals, fmt=[case.fmt] * case.n_signals,
        adc_gain=[255.0] * case.n_signals, baseline=[-128] * case.n_signals, write_dir=str(folder),
    )  # fmt: skip
    header = (folder / "a.hea").read_text().split("\n", 1)
    (folder / "a.hea").write_text(f"{header[0]} 10:00:00 01/01/2150\n{header[1]}")


def ours(folder: Path) -> Iterator[int]:
    """Windows of the pipeline: strict headers, decoding, grid, quality, resampling, scaling."""
    source = WfdbFolder(folder)
    for batch in iterate_windows(source, source.catalog().records, WindowConfig(), Counter()):
        yield len(prepare_ppg_gpt(batch.samples, batch.sampling_rate_hz, batch.rails))


def alone(folder: Path) -> Iterator[int]:
    """Decode, resample and scale alone: the same work as `plain`."""
    source = WfdbFolder(folder)
    for record in source.catalog().records:
        for stretch in source.stretches(record, Counter()):
            windows = stretch.samples.reshape(-1, 30 * RATE_HZ)
            yield len(prepare_ppg_gpt(windows, stretch.sampling_rate_hz, stretch.rails))


def plain(folder: Path) -> Iterator[int]:
    """``wfdb.rdrecord`` of the one channel, an hour at a time, then ``resample_poly`` and min-max."""
    path = str(folder / "a")
    n = wfdb.rdheader(path).sig_len
    for first in range(0, n, 3600 * RATE_HZ):
        last = min(first + 3600 * RATE_HZ, n)
        record = wfdb.rdrecord(path, sampfrom=first, sampto=last, channel_names=["PLETH"], return_res=32)
        windows = np.asarray(record.p_signal)[:, 0].reshape(-1, 30 * RATE_HZ)
        resampled = resample_poly(windows, 8, 25, axis=1, padtype="line")
        low, high = resampled.min(axis=1, keepdims=True), resampled.max(axis=1, keepdims=True)
        yield len((resampled - low) / (high - low))


def rate(provider: Callable[[Path], Iterator[int]], folder: Path, repeats: int) -> float:
    """Best windows a CPU second of `repeats` runs, after one to warm up."""
    best = 0.0
    for _ in range(repeats + 1):
        start = time.process_time()
        windows = sum(provider(folder))
        best = max(best, windows / (time.process_time() - start))
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{'case':<16}{'pipeline':>12}{'alone':>12}{'wfdb+scipy':>12}{'ratio':>8}   windows per CPU second")
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_case(case, folder, options.hours)
            rates = [rate(provider, folder, options.repeats) for provider in (ours, alone, plain)]
        label = f"fmt {case.fmt} x {case.n_signals}"
        print(f"{label:<16}" + "".join(f"{r:>12,.0f}" for r in rates) + f"{rates[1] / rates[2]:>8.2f}")


if __name__ == "__main__":
    main()
