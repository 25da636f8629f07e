"""What a stage tells a person about its run: counts, what was dropped and why, tables and pictures."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import MissingArtifactError

Scalar = int | float | str | bool | None


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """The readable outcome of one stage; holds no patient id, record name or date.

    Attributes
    ----------
    stage : name of the stage, also the name of its asset
    counts : what came out, in the order to be shown
    exclusions : how many things were dropped, by reason
    tables : name -> rows
    figures : name -> SVG text
    artefacts : what was written
    data_version : hash of the result; equal versions mean that nothing downstream has to run again
    """

    stage: str
    counts: Mapping[str, Scalar] = field(default_factory=dict)
    exclusions: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, Scalar]]] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    artefacts: Mapping[str, Path | str] = field(default_factory=dict)
    data_version: str | None = None

    def __post_init__(self) -> None:
        """Undefined numbers (too few draws for an R2) become None, which JSON and tables can hold."""
        object.__setattr__(self, "counts", _defined(self.counts))
        tables = {name: [_defined(row) for row in rows] for name, rows in self.tables.items()}
        object.__setattr__(self, "tables", tables)

    def save(self, path: Path) -> "StageSummary":
        """Write counts, exclusions and tables as JSON and return self."""
        write_json(
            path,
            {
                "stage": self.stage,
                "counts": self.counts,
                "exclusions": dict(self.exclusions),
                "tables": self.tables,
                "data_version": self.data_version,
            },
        )
        return self


def _defined(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def load_summary(path: Path) -> dict:
    """Read a saved summary.

    Raises
    ------
    MissingArtifactError
        The stage has not run.
    """
    if not path.exists():
        raise MissingArtifactError(f"{path} does not exist: run the stage '{path.stem}' first.")
    return json.loads(path.read_text())
