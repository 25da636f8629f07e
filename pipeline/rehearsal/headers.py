"""Generated WFDB records: true headers in the Matched Subset's layout, beside data files that hold no block.

A data file has the size that its header promises and is sparse: reading it gives zeros, and it takes no room.
Catalogue and planning look at headers, names, sizes and times alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.foundation.atomic import make_private_dir
from pipeline.foundation.workers import worker_pool
from pipeline.sources.synthetic.ppg import SAMPLING_RATE_HZ
from pipeline.sources.synthetic.wfdb_files import patient_folder

RECORDS_A_PATIENT = 5
_SEGMENT_SAMPLES = 2 * 3600 * SAMPLING_RATE_HZ
_FIRST = datetime(2120, 1, 1)  # noqa: DTZ001  naive wall clock, as everywhere
_SIGNAL = "80 255(-128)/NU 8 0 0 0 0 PLETH"


@dataclass(frozen=True, kw_only=True)
class HeaderPlan:
    """How many records there are, of how many files each: a master, a layout, and two a segment."""

    records: int
    files: int
    seed: int

    @property
    def segments(self) -> int:
        """Segments of a record."""
        return max(1, (self.files - 2) // 2)


def write_headers(plan: HeaderPlan, root: Path, *, workers: int) -> None:
    """Write what is missing of the records of `plan` into `root`, patient by patient."""
    make_private_dir(root)
    patients = range(-(-plan.records // RECORDS_A_PATIENT))
    arguments = ([plan] * len(patients), [root] * len(patients), patients)
    if workers <= 1:
        list(map(_write_patient, *arguments))
        return
    with worker_pool(workers) as pool:
        list(pool.map(_write_patient, *arguments, chunksize=16))


def _write_patient(plan: HeaderPlan, root: Path, patient: int) -> None:
    folder = root / patient_folder(patient + 1)
    done = folder / "RECORDS"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    first = patient * RECORDS_A_PATIENT
    names = [
        _write_record(plan, folder, patient, record)
        for record in range(first, min(first + RECORDS_A_PATIENT, plan.records))
    ]
    done.write_text("\n".join(names) + "\n", encoding="ascii")


def _write_record(plan: HeaderPlan, folder: Path, patient: int, record: int) -> str:
    length = timedelta(seconds=plan.segments * _SEGMENT_SAMPLES // SAMPLING_RATE_HZ)
    at = _FIRST + (record % RECORDS_A_PATIENT) * (length + timedelta(days=1))
    name, stem = f"p{patient + 1:06d}-{at:%Y-%m-%d-%H-%M}", f"{3_000_000 + record:07d}"
    segments = [f"{stem}_{number + 1:04d}" for number in range(plan.segments)]
    for number, segment in enumerate(segments):
        begins = at + timedelta(seconds=number * _SEGMENT_SAMPLES // SAMPLING_RATE_HZ)
        _write(folder / f"{segment}.hea", _segment_lines(segment, begins))
        with (folder / f"{segment}.dat").open("wb") as data:
            data.truncate(_SEGMENT_SAMPLES)
    layout = f"{stem}_layout"
    _write(
        folder / f"{layout}.hea", [f"{layout} 1 {SAMPLING_RATE_HZ} 0 {at:%H:%M:%S}", f"~ {_layout_signal()}"]
    )
    samples = plan.segments * _SEGMENT_SAMPLES
    head = f"{name}/{plan.segments + 1} 1 {SAMPLING_RATE_HZ} {samples} {at:%H:%M:%S}.000 {at:%d/%m/%Y}"
    _write(
        folder / f"{name}.hea",
        [head, f"{layout} 0", *(f"{segment} {_SEGMENT_SAMPLES}" for segment in segments)],
    )
    return name


def _segment_lines(segment: str, begins: datetime) -> Iterator[str]:
    yield f"{segment} 1 {SAMPLING_RATE_HZ} {_SEGMENT_SAMPLES} {begins:%H:%M:%S}"
    yield f"{segment}.dat {_SIGNAL}"


def _layout_signal() -> str:
    return "0" + _SIGNAL.removeprefix("80")


def _write(path: Path, lines) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
