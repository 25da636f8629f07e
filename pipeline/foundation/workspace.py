"""Where every artefact of one experiment lies, and where its input comes from."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.foundation.errors import ConfigError, MissingArtifactError

WAVEFORMS_VARIABLE = "UNIPHY_WAVEFORMS"
LABS_VARIABLE = "UNIPHY_LABS"
ARTIFACTS_VARIABLE = "UNIPHY_ARTIFACTS"
EMBEDDINGS_VARIABLE = "UNIPHY_EMBEDDINGS"

Location = TypeVar("Location", bound=Path | str)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folders of one experiment.

    Attributes
    ----------
    root : all artefacts of the experiment
    waveforms : the user's waveform folder; None = the synthetic cohort's
    labs : the user's lab folder or table; None = the synthetic cohort's
    embeddings : folder or URL (``s3://bucket/prefix``) below which each experiment has its embedding store;
        None = inside `root`
    """

    root: Path
    waveforms: Path | None = None
    labs: Path | None = None
    embeddings: str | None = None

    def __post_init__(self) -> None:
        for name, path in (("waveforms", self.waveforms), ("labs", self.labs)):
            if path is not None:
                _require_there(path, f"'{name}'")

    @classmethod
    def from_environment(
        cls,
        experiment: str,
        *,
        waveforms: str | None = None,
        labs: str | None = None,
        artifacts: str | None = None,
        embeddings: str | None = None,
        argument: str = "--{}",
    ) -> "Workspace":
        """Build the workspace from arguments, or else from ``UNIPHY_*`` variables, or else under ``artifacts/``.

        Parameters
        ----------
        argument : how the caller's user calls the argument ``{}``, for messages

        Raises
        ------
        ConfigError : a folder of waveforms or labs that does not exist; the message names the argument or variable
        """
        sources = {}
        for name, value, variable in (
            ("waveforms", waveforms, WAVEFORMS_VARIABLE),
            ("labs", labs, LABS_VARIABLE),
        ):
            sources[name] = _path(value, variable)
            if sources[name] is not None:
                _require_there(sources[name], argument.format(name) if value else variable)
        base = _path(artifacts, ARTIFACTS_VARIABLE) or Path("artifacts").absolute()
        return cls(
            root=base / experiment,
            embeddings=embeddings or os.environ.get(EMBEDDINGS_VARIABLE) or None,
            **sources,
        )

    def arguments(self) -> list[str]:
        """Return what the command line has to be told beside the experiment to find these folders again."""
        base = _path(None, ARTIFACTS_VARIABLE) or Path("artifacts").absolute()
        told = (
            ("--waveforms", self.waveforms, _path(None, WAVEFORMS_VARIABLE)),
            ("--labs", self.labs, _path(None, LABS_VARIABLE)),
            ("--artifacts", self.root.parent, base),
            ("--embeddings", self.embeddings, os.environ.get(EMBEDDINGS_VARIABLE) or None),
        )
        return [
            f"{flag} {shlex.quote(str(value))}"
            for flag, value, usual in told
            if value is not None and value != usual
        ]

    @property
    def is_synthetic(self) -> bool:
        """True where waveforms are planted (labs may still be real)."""
        return self.waveforms is None

    @property
    def cohort(self) -> Path:
        """Folder of the synthetic cohort: waveforms/, clinical/, truth/."""
        return self.root / "cohort"

    @property
    def catalog(self) -> Path:
        """Table of all waveform records."""
        return self.root / "catalog.parquet"

    @property
    def store(self) -> Path | str:
        """Embedding store: a folder, or a URL in object storage."""
        if self.embeddings is None:
            return self.root / "embeddings"
        if "://" in self.embeddings:
            return f"{self.embeddings.rstrip('/')}/{self.root.name}"
        return Path(self.embeddings).expanduser().absolute() / self.root.name

    @property
    def lab_events(self) -> Path:
        """Clean lab results."""
        return self.root / "lab_events.parquet"

    @property
    def admissions(self) -> Path:
        """Admissions with demographics."""
        return self.root / "admissions.parquet"

    @property
    def splits(self) -> Path:
        """Which subject belongs to which split."""
        return self.root / "splits.json"

    @property
    def scaler(self) -> Path:
        """Lab scaling, fitted on training patients."""
        return self.root / "normalization.json"

    @property
    def aligned(self) -> Path:
        """Sequences, pieces, targets, scored examples and history."""
        return self.root / "aligned"

    @property
    def encoder(self) -> Path:
        """Folder of the encoder that was fine-tuned on this experiment's labs."""
        return self.root / "encoder"

    def checkpoint(self, method: str, seed: int) -> Path:
        """Folder of one trained method."""
        return self.root / "checkpoints" / method / f"seed{seed}"

    @property
    def predictions(self) -> Path:
        """Folder of the scored draws and of the dense sums, a file for each method and seed (``prediction.files``)."""
        return self.root / "predictions"

    @property
    def evaluation(self) -> Path:
        """Metrics with intervals."""
        return self.root / "evaluation.parquet"

    @property
    def comparisons(self) -> Path:
        """Paired differences between methods."""
        return self.root / "comparisons.parquet"

    @property
    def result_delay(self) -> Path:
        """Metrics with results that come later."""
        return self.root / "result_delay.parquet"

    @property
    def cross_validation(self) -> Path:
        """Folder of a cross-validation: its tables, and what was trained for each fold."""
        return self.root / "cross_validation"

    @property
    def report(self) -> Path:
        """Self-contained HTML report."""
        return self.root / "report.html"

    @property
    def one_page(self) -> Path:
        """The report in one page, to print."""
        return self.root / "summary.html"

    @property
    def table1_text(self) -> Path:
        """The paper's Table 1 beside ours, as text."""
        return self.root / "table1.txt"

    @property
    def sources(self) -> Path:
        """Which folders the artefacts were read from; stays on this machine."""
        return self.root / "sources.json"

    def record(self, stage: str) -> Path:
        """Return where the record of what made a stage's artefact lies."""
        return self.root / "provenance" / f"{stage}.json"

    def summary(self, stage: str) -> Path:
        """Return where one stage keeps its counts, as JSON, without patient ids."""
        return self.root / "summaries" / f"{stage}.json"


def require(path: Location, *, made_by: str, asset: str) -> Location:
    """Return `path`, or raise one error that says which stage makes it; a URL is asked when it is opened."""
    if isinstance(path, Path) and not path.exists():
        raise MissingArtifactError(
            f"{path} does not exist: '{made_by}' has not run for this experiment. Materialise it together with "
            f"everything before it: dagster asset materialize --select '*{asset}'"
        )
    return path


def _path(value: str | None, variable: str) -> Path | None:
    chosen = value or os.environ.get(variable)
    return Path(chosen).expanduser().absolute() if chosen else None


def _require_there(path: Path, named_by: str) -> None:
    if not path.exists():
        raise ConfigError(f"{named_by} names {path}, which does not exist; name a folder that does.")
