"""Worker processes: same windows as in one thread, bounded, and no death goes unnoticed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.foundation.errors import RecordError
from pipeline.sources.array_folder import ArrayFolder
from pipeline.sources.base import Record
from pipeline.sources.content_hashes import fingerprint
from pipeline.windows.cutting import WindowConfig
from pipeline.windows.decoding import EndOfPatient, PreparedWindows, decoded
from pipeline.windows.resample import prepare_ppg_gpt

Task = tuple[tuple[Record, ...], str]


@pytest.fixture
def source(tmp_path: Path) -> ArrayFolder:
    for number in range(3):
        samples = np.random.default_rng(number).standard_normal(125 * 60 * 20).astype(np.float32)
        np.save(tmp_path / f"bed{number}.npy", samples)
        about = {"patient_id": f"A{number}", "start": "2111-05-02T10:00:00", "sampling_rate_hz": 125}
        (tmp_path / f"bed{number}.json").write_text(json.dumps(about))
    return ArrayFolder(tmp_path)


def tasks(source: ArrayFolder) -> list[Task]:
    return [((record,), fingerprint((record,))) for record in source.catalog().records]


def run(source: ArrayFolder, workers: int) -> Iterator[PreparedWindows | EndOfPatient]:
    return decoded(source, prepare_ppg_gpt, WindowConfig(), tasks(source), workers=workers, queue_blocks=1)


def rows(items: Iterator[PreparedWindows | EndOfPatient]) -> dict[int, tuple[bytes, bytes]]:
    found: dict[int, tuple[bytes, bytes]] = {}
    for item in items:
        if isinstance(item, PreparedWindows):
            start, samples = found.get(item.task, (b"", b""))
            found[item.task] = (start + item.start_us.tobytes(), samples + item.samples.tobytes())
    return found


def test_processes_give_what_a_thread_gives(source: ArrayFolder) -> None:
    in_thread = rows(run(source, 0))
    assert {task: len(start) // 8 for task, (start, _) in in_thread.items()} == {0: 40, 1: 40, 2: 40}
    assert rows(run(source, 2)) == in_thread


def test_giving_up_stops_the_workers(source: ArrayFolder) -> None:
    items = run(source, 0)
    assert isinstance(next(items), PreparedWindows)
    items.close()  # type: ignore[attr-defined]  # hangs here if a worker waits for room in the queue


@pytest.mark.slow
def test_killed_worker_is_an_error(
    source: ArrayFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os, signal\ndef prepare(samples, rate, rails):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from deadly import prepare  # type: ignore[import-not-found]

    items = decoded(source, prepare, WindowConfig(), tasks(source), workers=1, queue_blocks=1)
    with pytest.raises(RecordError, match="a decoding process was killed"):
        list(items)
