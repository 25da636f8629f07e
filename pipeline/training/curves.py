"""A run's metrics on disk: one JSON line an epoch, and TensorBoard curves where that is installed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.foundation.atomic import make_private_dir, write_text
from pipeline.foundation.schema import LAB_NAMES

METRICS_FILE = "metrics.jsonl"


def write_curves(folder: Path, rows: Sequence[Mapping[str, Any]], *, tensorboard: bool) -> None:
    """Replace ``metrics.jsonl`` by all `rows` and append the last of them to the TensorBoard curves."""
    write_text(folder / METRICS_FILE, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    if tensorboard and rows:
        _append_to_tensorboard(folder / "tensorboard", rows[-1])


def read_curves(folder: Path | str) -> list[dict[str, Any]]:
    """Return the rows of every ``metrics.jsonl`` in a run's folder: its own, or one a lab (st_pcs)."""
    folder = Path(folder)
    files = [folder / METRICS_FILE, *sorted(folder.glob(f"*/{METRICS_FILE}"))]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def kept_epochs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which epoch of each part of a method was kept; nothing where the rows do not tell."""
    if any("kept" not in row for row in rows):
        return ""
    kept: dict[str, int] = {}
    for row in rows:
        part = str(row.get("part", "all"))
        kept[part] = int(row["epoch"]) if row["kept"] else kept.get(part, 0)
    parts = [part for part in ("all", *LAB_NAMES) if part in kept]
    named = [str(kept[part]) if part == "all" else f"{part} {kept[part]}" for part in parts]
    start = (
        "; 0: no epoch was clearly better than the lines fitted before training" if 0 in kept.values() else ""
    )
    return f", epoch kept: {', '.join(named)}{start}"


def _append_to_tensorboard(folder: Path, row: Mapping[str, Any]) -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter  # an extra: absent on a machine without it
    except ImportError:
        return
    make_private_dir(folder)
    with SummaryWriter(str(folder)) as writer:
        for name, value in _scalars(row):
            writer.add_scalar(name, value, row["epoch"])


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in ("loss", "learning_rate", "selection_error"):
        if row.get(name) is not None:
            yield name, row[name]
    for group in ("lab_losses", "validation"):
        for name, value in row[group].items():
            yield f"{group}/{name}", value
