"""Any folder of WFDB records: single or multi-segment, fixed or variable layout, any format and rate.

Every header below the folder is looked at; lists such as RECORDS are not read, so nothing they name is
followed.
"""

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.foundation.errors import ConfigError, RecordError
from pipeline.foundation.progress import tracked
from pipeline.sources.base import Catalog, Record, Stretch
from pipeline.sources.rows import normalise_patient_id
from pipeline.sources.wfdb.header import BadRecord, Header, read_header
from pipeline.sources.wfdb.records import PLETH, open_record, read_stretches, record_files

_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - naive wall clock


@dataclass(frozen=True, kw_only=True)
class WfdbFolderConfig:
    """How to read a folder whose conventions are its own.

    Attributes
    ----------
    patient_from : "folder": the innermost folder that is not named like the record itself (the record's name
        for records at the top); "record": the record's name; anything else is a regular expression whose
        first group, searched in the path below the root, is the patient
    channel : name of the waveform, compared without case
    assume_start : naive wall clock of the first sample for records without a base date; None leaves them out
    licence : licence and sharing limits of the data, carried into every artefact
    """

    patient_from: str = "folder"
    channel: str = PLETH
    assume_start: datetime.datetime | None = None
    licence: str = "not stated; treat as confidential"

    def __post_init__(self) -> None:
        if self.patient_from not in ("folder", "record"):
            try:
                groups = re.compile(self.patient_from).groups
            except re.error as error:
                raise ValueError(
                    f"patient_from = {self.patient_from!r}: no regular expression ({error})"
                ) from error
            if groups < 1:
                raise ValueError(f"patient_from = {self.patient_from!r}: needs a group, such as 'p(\\d+)/'")
        if not self.channel:
            raise ValueError("channel = '': must name a waveform, such as PLETH")
        if self.assume_start is not None and self.assume_start.tzinfo is not None:
            raise ValueError(f"assume_start = {self.assume_start}: must be naive, without a zone")


class WfdbFolder:
    """A folder of WFDB records.

    Parameters
    ----------
    root : folder; nothing outside it is read
    config : conventions of the folder
    changes : fields of `config` to change, for short
    """

    name = "wfdb"

    def __init__(self, root: Path, config: WfdbFolderConfig = WfdbFolderConfig(), **changes) -> None:
        self.root = Path(root).resolve()
        self.config = replace(config, **changes)
        self.licence = self.config.licence
        if not self.root.is_dir():
            raise RecordError(f"{root} is no folder; point at a folder of WFDB records.")

    def catalog(self) -> Catalog:
        """Find every record; what belongs to a master is none, what cannot be used is counted by reason."""
        exclusions: Counter[str] = Counter()
        headers, problems = self._headers()
        segments = {(path.parent, name) for path, header in headers.items() for name, _ in header.segments}
        for path, reason in problems.items():
            if (path.parent, path.stem) not in segments:
                exclusions[f"record: {reason}"] += 1
        records = []
        for path in headers:
            if (path.parent, path.stem) in segments:
                continue
            try:
                records.append(self._record(path))
            except BadRecord as problem:
                exclusions[f"record: {problem.reason}"] += 1
        records.sort(key=lambda record: (record.patient_id, record.start_us, record.name))
        return Catalog(records=tuple(records), exclusions=exclusions)

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        """Yield the record's channel in time order, at most an hour at a time; bad segments are counted."""
        channel = self.config.channel
        try:
            header = open_record(record.path, self.root, channel)
            yield from read_stretches(header, self.root, exclusions, channel=channel, base_us=record.start_us)
        except BadRecord as problem:  # changed since the catalogue was made
            exclusions[f"record: {problem.reason}"] += 1

    def _headers(self) -> tuple[dict[Path, Header], dict[Path, str]]:
        headers, problems = {}, {}
        for path in tracked(sorted(self.root.rglob("*.hea")), "reading headers", "files"):
            try:
                headers[path] = read_header(path, self.root)
            except BadRecord as problem:
                problems[path] = problem.reason
        return headers, problems

    def _record(self, path: Path) -> Record:
        header = open_record(path, self.root, self.config.channel)
        start_us = header.base_us
        if start_us is None:
            if self.config.assume_start is None:
                raise BadRecord("no base date", f"{path} has no base date; configure assume_start.")
            start_us = (self.config.assume_start - _EPOCH) // datetime.timedelta(microseconds=1)
        return Record(
            patient_id=self._patient_id(path),
            name=path.relative_to(self.root).with_suffix("").as_posix(),
            path=path,
            files=record_files(header, self.root, self.config.channel),
            start_us=start_us,
            end_us=start_us + header.duration_us(header.n_frames or 0),
        )

    def _patient_id(self, path: Path) -> str:
        below = path.relative_to(self.root).with_suffix("")
        rule = self.config.patient_from
        if rule == "record":
            text = below.name
        elif rule == "folder":
            text = next((part for part in reversed(below.parts) if part != below.name), below.name)
        else:
            match = re.search(rule, below.as_posix())
            text = match[1] if match and match[1] else ""
        patient_id = normalise_patient_id(text)
        if patient_id is None:
            raise BadRecord("no patient", f"{path}: {rule!r} finds no patient in the path.")
        return patient_id


def parse_assume_start(text: str) -> datetime.datetime:
    """Read ``assume_start`` from a command line: ISO 8601 without a zone.

    Raises
    ------
    ConfigError
        It is no such time.
    """
    try:
        start = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"assume_start = {text!r} is no time; write it as 2100-01-01T00:00:00.") from error
    if start.tzinfo is not None:
        raise ConfigError(f"assume_start = {text!r} has a time zone; give the naive wall clock.")
    return start
