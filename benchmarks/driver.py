"""Time the providers of a case side by side and keep the results as rows."""

import csv
import functools
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
IDLE_CYCLES = 10_000_000
"""Of a GPU, some 5 ms: longer than the host takes for a call."""

LEAST_ROUNDS = 6
"""Of fewer, not even the smallest and the largest ratio bound their median at 95 %."""

PACKAGES = ("torch", "triton", "mamba-ssm", "mambapy")
"""Whose versions stand beside a time: whose code runs in it."""

UNKNOWN = "unknown"
CHANGED = "+"
"""Behind a commit: files differ from it."""


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
    versions: str
    commit: str
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())


def run_case(
    case: Case, rounds: int, peak_of: Callable[[Case, Provider], float | None], enough: float = math.inf
) -> list[Row]:
    """Measure every provider of `case` in interleaved rounds, its floor, and each provider's peak memory in MB.

    From `LEAST_ROUNDS` on there are no more rounds once they took `enough` seconds, those of slow peers left out.
    """
    providers = case.providers()
    times: dict[str, list[float]] = {p.name: [] for p in providers}
    reasons = {p.name: p.reason or p.check() for p in providers}
    peaks = {p.name: peak_of(case, p) for p in providers if not (reasons[p.name] or case.device)}
    clock = device_seconds if case.device else seconds
    spent = 0.0
    for i in range(rounds):
        if i >= LEAST_ROUNDS and spent > enough:
            break
        for provider in providers:
            if not reasons[provider.name] and i < (provider.rounds or rounds):
                start = time.perf_counter()
                try:
                    if provider.rounds is None:
                        provider.run()  # a running program's state: memory that the machine took back is here again
                    times[provider.name].append(clock(provider.run))
                except (
                    torch.OutOfMemoryError
                ):  # the GPU's; a peer's need is no reason to lose the others' figures
                    reasons[provider.name] = "not measured: the GPU's memory is too small"
                spent += 0.0 if provider.rounds else time.perf_counter() - start
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
    measured_on = {"machine": machine_name(), "versions": versions(), "commit": commit_name()}
    ours = next(iter(times.values()))
    made = []
    for name, measured in times.items():
        ratio, low, high = paired_ratio(ours, measured)
        made.append(
            Row(
                case=case, provider=name, seconds=statistics.median(measured) if measured else None,
                ratio=ratio, ratio_low=low, ratio_high=high, fastest=min(measured, default=None),
                rounds=len(measured), peak_mb=peaks.get(name), note=reasons[name], **measured_on,
            )
        )  # fmt: skip
    if floor is not None:
        ratio = floor / statistics.median(ours) if ours else None
        made.append(
            Row(
                case=case, provider="machine floor", seconds=floor, ratio=ratio, ratio_low=None,
                ratio_high=None, fastest=floor, rounds=1, peak_mb=None, note="see benchmarks/machine.py",
                **measured_on,
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


def versions() -> str:
    """Return the versions of those of `PACKAGES` that are installed."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


@functools.cache
def commit_name() -> str:
    """Return the short hash of the checked-out commit, with `CHANGED` where tracked files differ from it.

    Results are left out of that: they differ as soon as there are new ones. A copy without git is told its commit by
    the variable BENCHMARK_COMMIT; else it is `UNKNOWN`.
    """
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return os.environ.get("BENCHMARK_COMMIT") or UNKNOWN
    others = (":(top)", ":(top,exclude)benchmarks/results")
    return commit + (CHANGED if _git("status", "--porcelain", "--untracked-files=no", "--", *others) else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def kept(name: str) -> dict[str, list[Row]]:
    """Return by case what results/<name>.csv has of this machine, these versions and this commit, its latest rows."""
    here, path = (machine_name(), versions(), commit_name()), RESULTS / f"{name}.csv"
    found: dict[str, dict[str, Row]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                if (line["machine"], line["versions"], line["commit"]) == here:
                    found.setdefault(line["case"], {})[line["provider"]] = _row(line)
    return {case: list(providers.values()) for case, providers in found.items()}


def _row(line: dict[str, Any]) -> Row:
    numbers = ("seconds", "ratio", "ratio_low", "ratio_high", "fastest", "peak_mb")
    read = {column: float(line[column]) if line[column] else None for column in numbers}
    return Row(**{**line, **read, "rounds": int(line["rounds"])})


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
