"""A stage's summary as Dagster shows it."""

import base64
import re
from collections.abc import Mapping

import dagster as dg

from assets.labels import label
from pipeline.foundation.summary import Scalar, StageSummary

VIEW_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
PIXELS_PER_POINT = 96 / 72
BAR = " "
"""Name of the column that draws a count as a bar."""
BAR_LENGTH = 16
"""Leaves the words beside it room on the page."""
ONE_LINE = 22
"""Texts of a table up to so many characters are never broken: an interval in three lines cannot be compared."""


def _number_or_text(value: Scalar) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(float(f"{value:.6g}"))
    return dg.MetadataValue.text("" if value is None else value)


def _table(rows: list[dict[str, Scalar]]) -> dg.MetadataValue:
    rows = [{name.replace("_", " "): value for name, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    rows = [
        dict.fromkeys(columns, "") | {k: _readable(v) for k, v in row.items() if v is not None}
        for row in rows
    ]
    if _are_counts(rows, columns):
        _draw_bars(rows, columns[-1])
        columns.append(BAR)
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in columns]),
    )


def _readable(value: Scalar) -> Scalar:
    """Four digits of a number are what a person reads; the artefacts hold all of them."""
    if isinstance(value, str) and len(value) <= ONE_LINE:
        return value.replace(" ", "\N{NO-BREAK SPACE}")
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _are_counts(rows: list[dict], columns: list[str]) -> bool:
    """Whether a table is a label and a count, which a bar makes readable at a glance."""
    counts = [row[columns[-1]] for row in rows]
    return (
        len(columns) == 2 and all(type(count) is int and count >= 0 for count in counts) and max(counts) > 0
    )


def _draw_bars(rows: list[dict], column: str) -> None:
    most = max(row[column] for row in rows)
    for row in rows:
        row[BAR] = "█" * round(BAR_LENGTH * row[column] / most) or ("▏" if row[column] else "")


def _picture(svg: str) -> dg.MetadataValue:
    """Return a picture of its natural size: Dagster's dialog is as wide as what it shows, 100 % would be nothing."""
    box = VIEW_BOX.search(svg)
    if box:
        width, height = (round(float(points) * PIXELS_PER_POINT) for points in box.groups())
        svg = re.sub(r'<svg style="[^"]*"', f'<svg width="{width}" height="{height}"', svg, count=1)
    data = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![](data:image/svg+xml;base64,{data})")


def metadata(
    summary: StageSummary, experiment: str, links: Mapping[str, str] | None = None
) -> Mapping[str, dg.MetadataValue]:
    """Return the experiment first, then links, pictures, counts, exclusions and tables as tables, artefacts as paths.

    Dagster draws each number over all runs of an asset, whatever experiment they were of: the experiment is part of a
    number's name, so that each has a plot of its own.
    """
    shown: dict[str, dg.MetadataValue] = {"experiment": dg.MetadataValue.text(experiment)}
    shown.update({name: dg.MetadataValue.url(address) for name, address in (links or {}).items()})
    shown.update({f"{name} (picture)": _picture(svg) for name, svg in summary.figures.items()})
    for name, value in summary.counts.items():
        drawn = isinstance(value, int | float) and not isinstance(value, bool)
        shown[f"{label(name)} \N{MIDDLE DOT} {experiment}" if drawn else label(name)] = _number_or_text(value)
    dropped = [
        {"reason": reason, "count": count}
        for reason, count in sorted(summary.exclusions.items(), key=lambda item: (-item[1], item[0]))
    ]
    if dropped:
        shown["dropped, by reason"] = _table(dropped)
    shown.update({name: _table(rows) for name, rows in summary.tables.items() if rows})
    shown.update({f"{name} (file)": dg.MetadataValue.path(path) for name, path in summary.artefacts.items()})
    return shown


def result(
    summary: StageSummary, experiment: str, links: Mapping[str, str] | None = None
) -> dg.MaterializeResult:
    """Return what an asset hands to Dagster."""
    version = dg.DataVersion(summary.data_version) if summary.data_version else None
    return dg.MaterializeResult(metadata=metadata(summary, experiment, links), data_version=version)
