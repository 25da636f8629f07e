"""Rates and times left say no more than is known, and nothing is drawn where nobody watches a terminal."""

import io
import logging
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.foundation.progress import (
    Display,
    Meter,
    progress,
    rate_text,
    shown_on_terminal,
    time_text,
    tracked,
)
from pipeline.foundation.terminal import RichDisplay
from pipeline.testing.conformance import forgotten

ROOT = Path(__file__).parents[3]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def met(clock: Clock, *steps: tuple[float, float], total: float | None = 100, done: float = 0) -> Meter:
    """A meter after steps of (seconds, how much more)."""
    meter = Meter(total, done, clock)
    for seconds, more in steps:
        clock.now += seconds
        meter.reach(meter.done + more)
    return meter


def test_every_display_draws_and_takes_away() -> None:
    display = RichDisplay(io.StringIO())
    anew = display.show("embedding", "windows", met(Clock(), (6, 10)))
    anew(None)
    anew("training")
    display.remove(anew)
    display.close()
    assert forgotten(Display, [RichDisplay]) == []


def test_nothing_is_said_before_five_seconds() -> None:
    clock = Clock()
    meter = met(clock, (1, 10), (3.9, 10))
    assert (meter.rate, meter.seconds_left) == (None, None)
    clock.now += 0.1
    assert meter.rate == pytest.approx(4.0)
    assert meter.seconds_left == pytest.approx(20.0)


def test_nothing_is_said_before_the_first_step_ends_or_without_a_total() -> None:
    assert met(Clock(), (50, 0)).seconds_left is None
    unknown = met(Clock(), (10, 20), total=None)
    assert unknown.rate == pytest.approx(2.0)
    assert unknown.seconds_left is None


def test_the_rate_is_the_latest_minutes_and_a_stall_lowers_it() -> None:
    clock = Clock()
    meter = met(clock, *[(1, 1)] * 100, *[(10, 1)] * 20, total=1000)
    assert meter.rate == pytest.approx(0.1, rel=0.1)  # not (100 + 20) / 300
    clock.now += 60
    assert meter.rate == pytest.approx(0.05, rel=0.1)


def test_slow_steps_are_averaged_over_several() -> None:
    meter = met(Clock(), (100, 1), (300, 1), (200, 1), (200, 1), (200, 1), total=10)
    assert meter.rate == pytest.approx(5 / 1000)
    assert meter.seconds_left == pytest.approx(1000)


def test_what_an_earlier_run_left_counts_for_nothing_but_the_rest() -> None:
    assert met(Clock(), (10, 10), total=100, done=80).seconds_left == pytest.approx(10)


def test_at_the_end_nothing_is_left() -> None:
    assert met(Clock(), (1, 100)).seconds_left == 0


def test_texts() -> None:
    assert [time_text(s) for s in (None, 0, 59.4, 59.6, 3599, 3600, 90000)] == [
        "-", "0 s", "59 s", "1:00 min", "59:59 min", "1:00 h", "25:00 h",
    ]  # fmt: skip
    assert [rate_text(r, "x") for r in (None, 0.001, 0.5, 1, 12345.6)] == [
        "-", "3.6 x/h", "30 x/min", "1.0 x/s", "12,346 x/s",
    ]  # fmt: skip


def test_without_a_terminal_nothing_is_written_and_everything_is_yielded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown_on_terminal(), progress("outer") as bar:
        assert list(tracked(iter("abc"), "letters", "letters")) == ["a", "b", "c"]
        assert not bar.watched
    assert capsys.readouterr() == ("", "")


SCRIPT = """
    import logging, sys, time
    from pipeline.foundation.progress import log_to_standard_error, progress, shown_on_terminal, tracked

    log_to_standard_error()
    try:
        with shown_on_terminal(), progress("outer"):
            for item in tracked(range(8), "counting", "sheep"):
                time.sleep(0.7)
                if item == 3:
                    logging.getLogger("x").info("a line")
            if "fail" in sys.argv:
                raise RuntimeError("over")
    except RuntimeError as error:
        print(error, file=sys.stderr)
    print("result")
"""


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Run the script on a terminal of its own and return what that was sent."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"} | environment
    done = subprocess.Popen(command, stdout=follower, stderr=follower, cwd=ROOT, env=environment)
    os.close(follower)
    sent = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        sent += part
    os.close(leader)
    assert done.wait() == 0
    return sent.decode()


@pytest.mark.parametrize("arguments", [(), ("fail",)])
def test_a_terminal_shows_counts_rate_and_time_left_and_is_left_clean(arguments: tuple[str, ...]) -> None:
    sent = on_a_terminal(*arguments)
    assert "4 of 8 sheep" in sent
    assert "sheep/s" in sent
    assert " left" in sent
    line = next(line for line in sent.splitlines() if "a line" in line)
    assert line.endswith("  a line")  # on a line of its own, above the bars
    left = sent[sent.rindex("\x1b[?25h") :]  # the cursor comes back, and then no bar
    assert "sheep" not in left
    assert left.splitlines()[-1].endswith("result")


def test_another_process_of_a_distributed_training_draws_nothing() -> None:
    assert "sheep" not in on_a_terminal(RANK="1", WORLD_SIZE="2")


def test_log_lines_follow_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.foundation.progress import StandardErrorHandler

    handler = StandardErrorHandler()
    handler.emit(logging.makeLogRecord({"msg": "here"}))
    assert capsys.readouterr().err == "here\n"
