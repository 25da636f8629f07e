"""Time the providers of a case side by side and keep the results as rows."""

import csv
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
IDLE_CYCLES = 10_000_000
"""Of a GPU, some 5 ms: longer than the host takes for a call."""

LEAST_ROUNDS = 6
"""Of fewer, not even the smallest and the largest ratio bound their median at 95 %."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One implementation of a case.

    Attributes
    ----------
    name : shown in the table
    run : the timed call; what it returns is dropped
    rounds : at most this many rounds (slow peers), or None for all
    reason : why it is not measured; then `run` is never called
    check : called once before anything is measured; returns why it must not be, or ""
    """

    name: str
    run: Callable[[], object] = lambda: None
    rounds: int | None = None
    reason: str = ""
    check: Callable[[], str] = str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement: the same work by several providers, "ours" first.

    Attributes
    ----------
    name : says what is done at which size
    providers : makes the providers, with their inputs, when the case runs
    floor : returns the seconds that the machine needs at least, or None
    device : time on the GPU alone, in place of the wall's; without peak memory, which the wall's case has
    """

    name: str
    providers: Callable[[], list[Provider]]
    floor: Callable[[], float] | None = None
    device: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of results; seconds are medians of interleaved rounds, empty where not measured.

    ``ratio`` is the median of each round's own ratio to ours, whose two times lie seconds apart: on a shared machine
    the ratio of two medians, or of two minima, says as much of the neighbours. ``ratio_low`` and ``ratio_high`` bound
    it at 95 %; None for fewer than `LEAST_ROUNDS`.
    """

    case: str
    provider: str
    seconds: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    fastest: float | None
    rounds: int
    peak_mb: float | None
    note: str
    machine: str
    commit: str
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())


def run_case(case: Case, rounds: int, peak_of: Callable[[Case, Provider], float | None]) -> list[Row]:
    """Measure every provider of `case` in interleaved rounds, its floor, and each provider's peak memory in MB."""
    providers = case.providers()
    times: dict[str, list[float]] = {p.name: [] for p in providers}
    reasons = {p.name: p.reason or p.check() for p in providers}
    peaks = {p.name: peak_of(case, p) for p in providers if not (reasons[p.name] or case.device)}
    clock = device_seconds if case.device else seconds
    for i in range(rounds):
        for provider in providers:
            if not reasons[provider.name] and i < (provider.rounds or rounds):
                try:
                    if provider.rounds is None:
                        provider.run()  # a running program's state: memory that the machine took back is here again
                    times[provider.name].append(clock(provider.run))
                except (
                    torch.OutOfMemoryError
                ):  # the GPU's; a peer's need is no reason to lose the others' figures
                    reasons[provider.name] = "not measured: the GPU's memory is too small"
    floor = None if case.floor is None else case.floor()
    return rows(case.name, times, peaks, reasons, floor)


def rows(
    case: str,
    times: dict[str, list[float]],
    peaks: dict[str, float | None],
    reasons: dict[str, str],
    floor: float | None,
) -> list[Row]:
    """Turn measured times into rows, with ratios to the first provider."""
    machine, commit = machine_name(), commit_name()
    ours = next(iter(times.values()))
    made = []
    for name, measured in times.items():
        ratio, low, high = paired_ratio(ours, measured)
        made.append(
            Row(
                case=case, provider=name, seconds=statistics.median(measured) if measured else None,
                ratio=ratio, ratio_low=low, ratio_high=high, fastest=min(measured, default=None),
                rounds=len(measured), peak_mb=peaks.get(name), note=reasons[name], machine=machine,
                commit=commit,
            )
        )  # fmt: skip
    if floor is not None:
        ratio = floor / statistics.median(ours) if ours else None
        made.append(
            Row(
                case=case, provider="machine floor", seconds=floor, ratio=ratio, ratio_low=None,
                ratio_high=None, fastest=floor, rounds=1, peak_mb=None, note="see benchmarks/machine.py",
                machine=machine, commit=commit,
            )
        )  # fmt: skip
    return made


def paired_ratio(ours: list[float], theirs: list[float]) -> tuple[float | None, float | None, float | None]:
    """Return the median over rounds of theirs over ours, and the 95 % bounds of that median.

    The bounds are order statistics, which ask nothing of how times are distributed: so many of n ratios lie below
    their true median as heads fall in n throws of a coin.
    """
    ratios = sorted(their / our for our, their in zip(ours, theirs, strict=False))
    if not ratios:
        return None, None, None
    if len(ratios) < LEAST_ROUNDS or ours is theirs:
        return statistics.median(ratios), None, None
    below = 0  # the most that may lie below the lower bound
    while 2 * _coin(below + 1, len(ratios)) <= 0.05:
        below += 1
    return statistics.median(ratios), ratios[below], ratios[-1 - below]


def _coin(heads: int, throws: int) -> float:
    """Return the probability of at most so many heads."""
    return sum(math.comb(throws, k) for k in range(heads + 1)) / 2**throws


def seconds(run: Callable[[], object]) -> float:
    """Time one call, with the device idle before and after."""
    _wait()
    start = time.perf_counter()
    result = run()
    _wait()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def device_seconds(run: Callable[[], object]) -> float:
    """Return the time of one call's work on the GPU: it idles first, until the host has told it all."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _wait()
    torch.cuda._sleep(IDLE_CYCLES)
    start.record()
    result = run()
    end.record()
    _wait()
    del result
    return start.elapsed_time(end) / 1e3


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine_name() -> str:
    """Name the GPU, or the CPU with its threads and vector width."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return f"{model}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def commit_name() -> str:
    """Return the short hash of the checked-out commit, or "unknown"."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def save(name: str, results: list[Row]) -> Path:
    """Append rows to results/<name>.csv."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(results[0])))
        if new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in results)
    return path


def table(results: list[Row]) -> str:
    """Return the rows as a fixed-width table."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def bounds(low: float | None, high: float | None) -> str:
        return "-" if low is None else f"{low:.2f}-{high:.2f}"

    titles = f"{'median s':>9} {'min s':>9} {'x ours':>8} {'95 %':>11} {'peak MB':>8}  note"
    lines = [f"{'case':34} {'provider':28} {titles}"]
    lines += [
        f"{r.case:34} {r.provider:28} {number(r.seconds, '.4f'):>9} {number(r.fastest, '.4f'):>9} "
        f"{number(r.ratio, '.2f'):>8} {bounds(r.ratio_low, r.ratio_high):>11} {number(r.peak_mb, '.0f'):>8}  {r.note}"
        for r in results
    ]
    return "\n".join(lines)
