"""One patient's sequence out of a file of estimates, which may hold thousands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.prediction.config import STATES
from pipeline.prediction.estimates_file import ENDINGS, ESTIMATES_COLUMNS, KNOWN_PATIENT

_KEYS = ("patient", "sequence")
_ROWS_AT_ONCE = 1_000_000
_LEAST_TELLING = 4
"""Letters of an id from which it is looked for inside longer words."""


@dataclass(frozen=True, kw_only=True)
class OnePatient:
    """A patient's sequence.

    Attributes
    ----------
    patient : the id; for comparison alone, not to be shown
    rows : ``ESTIMATES_COLUMNS`` of one sequence, in order of time
    other_sequences : how many more the file has of this patient
    """

    patient: str
    rows: pd.DataFrame
    other_sequences: int

    @property
    def trajectory(self) -> pd.DataFrame:
        """Estimates on hours since the sequence's first window began, without id or date."""
        shown = ["lab", "unit", "estimate", "lower", "upper", "state", "protocol"]
        return self.rows[shown].assign(hours=self._hours("window_end"))

    @property
    def draws(self) -> pd.DataFrame:
        """Measured values that stand at the end, ``lab, hours, value``; the last one before the first row too."""
        own = self.rows.dropna(subset="measured_at").assign(hours=self._hours("measured_at"))
        own = own.drop_duplicates(["lab", "measured_at"], keep="last").dropna(subset="measured")
        first = self.rows.drop_duplicates("lab").dropna(subset="last_lab")
        before = pd.DataFrame(
            {
                "lab": first["lab"],
                "hours": WINDOW_US / HOUR_US - first["hours_since_last_lab"],
                "value": first["last_lab"],
            }
        )
        drawn: Any = pd.concat([before, own.rename(columns={"measured": "value"})[["lab", "hours", "value"]]])
        return drawn.sort_values(["lab", "hours"], ignore_index=True)

    @property
    def helped_to_train(self) -> bool:
        """Whether the model knows the patient, so that the estimates look better than they are."""
        return bool(self.rows[KNOWN_PATIENT].fillna(False).astype(bool).any())

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds the id: as a word of its own, or, of `_LEAST_TELLING` letters or more, anywhere."""
        own = re.escape(self.patient)
        whole = own if len(self.patient) >= _LEAST_TELLING else rf"(?<![^\W_]){own}(?![^\W_])"
        return re.search(whole, text, re.IGNORECASE) is not None

    def _hours(self, column: str) -> pd.Series:
        begin = self.rows["window_end"].iloc[0] - pd.Timedelta(microseconds=WINDOW_US)
        return (self.rows[column] - begin) / pd.Timedelta(hours=1)


def read_one_patient(path: Path, *, patient: str | None = None, row: int | None = None) -> OnePatient:
    """Read the sequence of the file's `row` (1 is the first), or the longest one of `patient`.

    Raises
    ------
    ConfigError
        No such file, another ending than that of estimates, a file that is none or was written by an earlier version,
        no such row, a state that is none, or no row of the patient; the id is not repeated.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: a file of estimates ends in {' or '.join(ENDINGS)}")
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; name the file that predict wrote")
    sequence = None
    if row is not None:
        patient, sequence = _keys_of_row(path, row)
    parts = [part.loc[part["patient"] == patient] for part in _tables(path, ESTIMATES_COLUMNS, patient)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(ESTIMATES_COLUMNS))
    if rows.empty:
        raise ConfigError(
            f"{path} has no row of the patient named; ids are compared letter by letter with its column 'patient'"
        )
    unknown = sorted(set(rows["state"].astype(str)) - set(STATES))
    if unknown:
        raise ConfigError(f"{path}: state {unknown[0]!r} is none of {', '.join(STATES)}; run predict again")
    lengths = rows["sequence"].value_counts()
    chosen = lengths.index[0] if sequence is None else sequence
    rows = rows.loc[rows["sequence"] == chosen].sort_values("window_end", kind="stable", ignore_index=True)
    return OnePatient(patient=str(patient), rows=rows, other_sequences=len(lengths) - 1)


def _keys_of_row(path: Path, row: int) -> tuple[str, str]:
    """Return patient and sequence of a row."""
    seen = 0
    for part in _tables(path, _KEYS):
        if 1 <= row <= seen + len(part):
            found = part.iloc[row - seen - 1]
            return str(found["patient"]), str(found["sequence"])
        seen += len(part)
    raise ConfigError(
        f"--row {row}: {path} has the rows 1 to {seen}" if seen else f"{path} has no row at all"
    )


def _tables(path: Path, columns: tuple[str, ...], patient: str | None = None) -> Iterator[pd.DataFrame]:
    """Yield the file's rows in parts of a bounded size."""
    try:
        yield from (_csv if path.suffix.lower() == ".csv" else _parquet)(path, columns, patient)
    except (pa.ArrowException, ValueError, KeyError, OSError) as problem:
        told = str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__
        raise ConfigError(
            f"{path} is not a file of estimates of this version ({told}); it should have the columns "
            f"{', '.join(ESTIMATES_COLUMNS)}: run predict again"
        ) from problem


def _parquet(path: Path, columns: tuple[str, ...], patient: str | None) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(path) as file:
        _require(columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns)):
            if patient is not None:
                batch = batch.filter(pc.call_function("equal", [batch["patient"], pa.scalar(patient)]))
            yield batch.to_pandas()


def _csv(path: Path, columns: tuple[str, ...], patient: str | None) -> Iterator[pd.DataFrame]:
    _require(columns, list(pd.read_csv(path, nrows=0).columns))
    texts: Any = {**dict.fromkeys(_KEYS, str), "lab": str, "unit": str, "state": str, "protocol": str}
    times = [name for name in ("window_end", "measured_at") if name in columns]
    numbers = [name for name in ("estimate", "lower", "upper", "last_lab", "hours_since_last_lab", "measured")
               if name in columns]  # fmt: skip
    for part in pd.read_csv(path, usecols=list(columns), dtype=texts, chunksize=_ROWS_AT_ONCE):
        part = part if patient is None else part.loc[part["patient"] == patient]
        part = part.assign(**{name: part[name].astype(np.float64) for name in numbers})
        yield part.assign(
            **{name: pd.to_datetime(part[name], format="ISO8601").astype("datetime64[us]") for name in times}
        )


def _require(columns: tuple[str, ...], found: list[str]) -> None:
    lacking = [name for name in columns if name not in found]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
