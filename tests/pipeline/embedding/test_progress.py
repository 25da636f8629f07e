"""Stage 1 on no terminal: a log line every few seconds and one at the end, without a guess at the start."""

import logging

import pytest

from pipeline.embedding.progress import EmbeddingProgress, shown_progress


def at(windows: int, patients_done: int, seconds_left: float | None) -> EmbeddingProgress:
    return EmbeddingProgress(
        patients_done=patients_done, patients=2, windows=windows, windows_per_second=10.0, planned_windows=100,
        left_windows=100 - windows, seconds_left=seconds_left,
    )  # fmt: skip


def test_log_lines_come_seldom_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), shown_progress() as callback:
        callback(at(1, 0, None))
        callback(at(50, 1, 5.0))  # too soon for another line
        callback(at(100, 2, 0.0))
    assert [record.getMessage() for record in caplog.records] == [
        "embedded 1 windows of 0/2 patients, 10 windows/s, - left",
        "embedded 100 windows of 2/2 patients, 10 windows/s, 0 s left",
    ]
