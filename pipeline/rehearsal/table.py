"""The rehearsal's table, and how time and memory grow from one size to another."""

from collections.abc import Mapping, Sequence

from pipeline.rehearsal.measure import Row

_TITLES = ("stage", "time", "CPU", "peak memory", "read", "written", "the sample", "the whole")


def rehearsal_table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, which reads well on a terminal too.

    Time is each stage's own from start to end, so that the last line is what the rehearsal took; the time of a
    sample, which may have passed within another stage, stands beside what it says of the whole.
    """
    cells = [_cells(row) for row in rows]
    peaks = [row.peak_mb for row in rows if row.peak_mb is not None]
    wall, cpu = sum(row.wall_seconds for row in rows), sum(row.cpu_seconds for row in rows)
    cells.append(("all", _time(wall), _time(cpu), _size(max(peaks, default=None)), "", "", "", ""))
    lines = [_line(_TITLES), _line(["---"] * len(_TITLES)), *map(_line, cells), "", *map(_counted, rows)]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    part, whole = "", ""
    if row.whole_seconds is not None:
        part, whole = _time(row.seconds), f"{_time(row.whole_seconds)}, {row.whole_means}"
    sizes = (_size(row.peak_mb), _size(row.read_mb), _size(row.written_mb))
    return row.stage, _time(row.wall_seconds), _time(row.cpu_seconds), *sizes, part, whole


def growth_table(patients: int, rows: Sequence[Row], others: Mapping[int, Mapping[str, Row]]) -> str:
    """Return seconds and peak memory of every stage beside those of other sizes; empty without any.

    Parameters
    ----------
    patients : of the run at hand
    rows : its stages; wall and CPU time in seconds, memory in MB
    others : the same rows of other sizes, by their number of patients and their stage
    """
    sizes = sorted(others)
    if not sizes:
        return ""
    title = ["stage", *(f"{n} patients" for n in (*sizes, patients)), f"time, CPU: {sizes[0]} to {patients}"]
    lines = [_line(title), _line(["---"] * len(title))]
    for row in rows:
        before = [others[n].get(row.stage) for n in sizes]
        shown = [f"{_time(r.wall_seconds)}, {_size(r.peak_mb)}" if r else "" for r in (*before, row)]
        first = before[0]
        lines.append(_line([row.stage, *shown, _factors(first, row)]))
    lines.append(_line(["(patients)", *("" for _ in (*sizes, patients)), f"x {patients / sizes[0]:.1f}"]))
    return "\n".join(lines)


def _factors(before: Row | None, after: Row) -> str:
    """Return how many times as long it took, by the clock and in CPU time, which alone is fair on a busy machine."""
    if before is None or not before.wall_seconds or not before.cpu_seconds:
        return ""
    return f"x {after.wall_seconds / before.wall_seconds:.1f}, x {after.cpu_seconds / before.cpu_seconds:.1f}"


def _counted(row: Row) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.counts.items())
    return f"* {row.stage}: {facts}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _size(megabytes: float | None) -> str:
    if megabytes is None:
        return ""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
