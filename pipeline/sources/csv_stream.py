"""CSV tables too large for memory, read in pieces.

Columns are found by name whatever their case; cells stay text, so nothing is guessed ("007" stays "007").
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipeline.foundation.errors import LabError
from pipeline.foundation.progress import progress
from pipeline.sources.rows import PADDING

BLOCK_BYTES = 16 * 2**20
"""Read at a time; also the longest line that is accepted."""
MAX_ROWS_KEPT = 200_000_000
"""Beyond it the table is not what it seems (a compressed bomb), or belongs in Parquet."""


def find_table(root: Path, stem: str) -> Path | None:
    """Find ``STEM.csv`` or ``STEM.csv.gz`` in `root`, whatever its case; None where there is none."""
    wanted = (f"{stem}.csv".casefold(), f"{stem}.csv.gz".casefold())
    matches = [path for path in root.iterdir() if path.name.casefold() in wanted]
    return min(matches, default=None)


def stream_csv(
    path: Path,
    columns: Mapping[str, str],
    exclusions: Counter[str],
    *,
    optional: Collection[str] = (),
    keep: tuple[str, Collection[str]] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield the table in pieces of text columns.

    Parameters
    ----------
    path : .csv, or .csv.gz, which is unpacked as it is read
    columns : our name of a column -> its name in the file, compared without case
    exclusions : receives the rows with too many or too few cells
    optional : our names of columns that may be absent (then empty)
    keep : (our name, values): rows with another value in that column are left out, uncounted

    Raises
    ------
    LabError
        A column is absent, or the file is no CSV table.
    """
    bad_rows = Counter[str]()

    def skip(row: pa_csv.InvalidRow) -> str:
        bad_rows["row with a wrong number of cells"] += 1
        return "skip"

    names = _header(path)
    found = _find_columns(path, names, columns, optional)
    options = {
        "read_options": pa_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names, skip_rows=1),
        "parse_options": pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        "convert_options": pa_csv.ConvertOptions(
            include_columns=list(dict.fromkeys(found.values())),
            column_types=dict.fromkeys(names, pa.binary()),  # text is decoded for the few rows kept
        ),
    }
    rows_kept = 0
    yield pd.DataFrame(
        columns=list(columns), dtype="str"
    )  # a table without rows has its columns all the same
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for batch in _counted(pa_csv.open_csv(stream, **options)):
                frame = _frame(batch, found, columns, keep)
                rows_kept += len(frame)
                if rows_kept > MAX_ROWS_KEPT:
                    raise LabError(
                        f"{path} unpacks to over {MAX_ROWS_KEPT} rows; split it, or check what it is."
                    )
                yield frame
    except (pa.ArrowInvalid, OSError) as error:
        raise LabError(f"{path} cannot be read as CSV ({str(error).splitlines()[0][:120]}).") from error
    exclusions.update(bad_rows)


def _counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with progress("reading a table", unit="rows") as bar:
        for batch in batches:
            yield batch
            bar.advance(batch.num_rows)


def _header(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(1_000_000).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(f"{path} cannot be read ({error}).") from error
    names = [name.strip(PADDING).strip('"').casefold() for name in line.split(",")]
    if not any(names):
        raise LabError(f"{path} is empty; it should begin with a line of column names.")
    return [name if names.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(names)]


def _find_columns(
    path: Path, names: list[str], columns: Mapping[str, str], optional: Collection[str]
) -> dict[str, str]:
    found = {ours: theirs.casefold() for ours, theirs in columns.items() if theirs.casefold() in names}
    absent = [theirs for ours, theirs in columns.items() if ours not in found and ours not in optional]
    if absent:
        raise LabError(
            f"{path} has no column {', '.join(absent)}; it has {', '.join(names)}."
            " Map the columns to these names."
        )
    return found


def _frame(
    batch: pa.RecordBatch,
    found: Mapping[str, str],
    columns: Mapping[str, str],
    keep: tuple[str, Collection[str]] | None,
) -> pd.DataFrame:
    if keep is not None:
        name, values = keep
        spellings = [spelling for value in values for spelling in (value, f"{value}.0")]
        wanted = pa.array([value.encode() for value in spellings], pa.binary())
        batch = batch.filter(
            pc.call_function("is_in", [batch.column(found[name])], pc.SetLookupOptions(wanted))
        )
    return pd.DataFrame(
        {
            ours: _text(batch.column(found[ours])) if ours in found else [""] * batch.num_rows
            for ours in columns
        },
        dtype="str",
    )


def _text(column: pa.Array) -> list[str]:
    """UTF-8 where it is, Latin-1 where it is not; cells without padding, NULs or byte-order marks."""
    return [_decoded(cell).strip(PADDING) for cell in column.to_pylist()]


def _decoded(cell: bytes | None) -> str:
    try:
        return (cell or b"").decode("utf-8")
    except UnicodeDecodeError:
        return (cell or b"").decode("latin-1")
