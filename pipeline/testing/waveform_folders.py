"""Waveform folders of every layout that a source reads, a record at a time: noise with a known place in time."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

START = "2150-02-01T10:00:00"
START_US = 5_682_996_000_000_000
"""The same time as int64 microseconds."""
WFDB_START = "10:00:00 01/02/2150"
"""The same time as a WFDB header has it."""
SIGNAL = "80 255(-128)/NU 8 0 0 0 0"
"""Eight bits, code -128 = missing, as most of the Matched Subset."""


def write_matched_subset_record(
    root: Path, subject: int, stem: str, when: str, n: int = 7500, master_lines: str = ""
) -> Path:
    """Write one Matched Subset record and return its header.

    A master, its layout, one segment after a gap of 10 s, and a numerics decoy.

    Parameters
    ----------
    stem : seven digits, with which the names of the segments begin
    when : such as "2183-04-28 17:47:00"
    n : samples of the segment
    master_lines : other segment lines for the master
    """
    folder = root / f"p{subject // 10000:02d}" / f"p{subject:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    day, clock = when.split(" ")
    year, month, dom = day.split("-")
    name = f"p{subject:06d}-{day}-{clock[:5].replace(':', '-')}"
    lines = master_lines or f"{stem}_layout 0\n~ 1250\n{stem}_0001 {n}\n"
    total = sum(int(line.split()[1]) for line in lines.splitlines())
    head = f"{name}/{len(lines.splitlines())} 1 125 {total} {clock} {dom}/{month}/{year}\n"
    (folder / f"{name}.hea").write_text(head + lines)
    (folder / f"{name}n.hea").write_text(
        f"{name}n 1 0.0166 10 {clock} {dom}/{month}/{year}\n{stem}n.dat 16 1/bpm\n"
    )
    (folder / f"{stem}_layout.hea").write_text(
        f"{stem}_layout 1 125 0\n~ 0 255(-128)/NU 8 0 -128 0 0 PLETH\n"
    )
    (folder / f"{stem}_0001.hea").write_text(f"{stem}_0001 1 125 {n}\n{stem}_0001.dat {SIGNAL} PLETH\n")
    codes = np.random.default_rng(subject).integers(2, 250, n).astype(np.uint8)
    (folder / f"{stem}_0001.dat").write_bytes(codes.tobytes())
    return folder / f"{name}.hea"


def write_wfdb_record(
    folder: Path, name: str, when: str = WFDB_START, channel: str = "PLETH", n: int = 7500
) -> Path:
    """Write a WFDB record of one segment, `n` samples at 125 Hz, and return its header."""
    folder.mkdir(parents=True, exist_ok=True)
    codes = np.random.default_rng(0).integers(5, 250, n).astype(np.uint8)
    (folder / f"{name}.dat").write_bytes(codes.tobytes())
    path = folder / f"{name}.hea"
    path.write_text(f"{name} 1 125 {n} {when}\n{name}.dat {SIGNAL} {channel}\n")
    return path


def write_npy_record(folder: Path, samples: np.ndarray, name: str = "bed7", **sidecar: object) -> Path:
    """Write an array with its sidecar (patient A-17, 125 Hz, unless `sidecar` says otherwise)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npy"
    np.save(path, samples)
    about = {"patient_id": "A-17", "start": START, "sampling_rate_hz": 125} | sidecar
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


def write_bidmc_recording(folder: Path, number: str, patient: str, *, seconds: int) -> Path:
    """Write a recording as BIDMC's folder has it (signals, numerics, fixed data) and return its signals."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, n = folder / f"bidmc_{number}", seconds * 125 + 1
    pleth = np.random.default_rng(int(number)).normal(size=n).round(3)
    signals = pd.DataFrame({"Time [s]": np.arange(n) / 125, " PLETH": pleth})
    signals.to_csv(f"{stem}_Signals.csv", index=False)
    numerics = pd.DataFrame({"Time [s]": np.arange(seconds + 1), " HR": 80.0, " RESP": 18.0})
    numerics.to_csv(f"{stem}_Numerics.csv", index=False)
    Path(f"{stem}_Fix.txt").write_text(f"MIMIC II matched wdb ID: {patient}\n")
    return Path(f"{stem}_Signals.csv")


def waveform_table(**changes: object) -> pa.Table:
    """Return three rows of two patients, A's later one first; `changes` replace columns."""
    rows = {
        "patient_id": ["A", "B", "A"],
        "start": pa.array(pd.to_datetime(["2150-02-01T11:00:00", START, START]), pa.timestamp("us")),
        "sampling_rate_hz": [100.0, 125.0, 125.0],
        "samples": pa.array([[1.0, 2.0], [3.0], [4.0, None, 6.0]], pa.list_(pa.float32())),
    }
    return pa.table(rows | changes)
