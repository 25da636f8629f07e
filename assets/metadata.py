"""A stage's summary as Dagster shows it."""

import base64
from collections.abc import Mapping

import dagster as dg

from pipeline.summary import Scalar, StageSummary


def _label(name: str) -> str:
    return name.replace("_", " ")


def _number_or_text(value: Scalar) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    return dg.MetadataValue.text("" if value is None else value)


def _table(rows: list[dict[str, Scalar]]) -> dg.MetadataValue:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    empty = dict.fromkeys(columns, "")
    return dg.MetadataValue.table(
        [dg.TableRecord(empty | {k: v for k, v in row.items() if v is not None}) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in columns]),
    )


def _picture(svg: str) -> dg.MetadataValue:
    data = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![](data:image/svg+xml;base64,{data})")


def metadata(summary: StageSummary) -> Mapping[str, dg.MetadataValue]:
    """Return counts as numbers, exclusions and tables as tables, figures inline, artefacts as paths."""
    shown: dict[str, dg.MetadataValue] = {
        _label(name): _number_or_text(value) for name, value in summary.counts.items()
    }
    dropped = [{"reason": reason, "count": count} for reason, count in sorted(summary.exclusions.items())]
    if dropped:
        shown["dropped, by reason"] = _table(dropped)
    shown.update({_label(name): _table(rows) for name, rows in summary.tables.items() if rows})
    shown.update({_label(name): _picture(svg) for name, svg in summary.figures.items()})
    shown.update({_label(name): dg.MetadataValue.path(path) for name, path in summary.artefacts.items()})
    return shown


def result(summary: StageSummary) -> dg.MaterializeResult:
    """Return what an asset hands to Dagster."""
    version = dg.DataVersion(summary.data_version) if summary.data_version else None
    return dg.MaterializeResult(metadata=metadata(summary), data_version=version)
