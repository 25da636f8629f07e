"""The aligned cohort: sequences, pieces, draws, scored examples and histories, in memory and on disk.

Targets are not kept step by step, because seven days of five labs for thousands of patients would fill the
memory: each piece's targets are drawn from the patient's results when they are asked for.
"""

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32

from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.targets import LabTargets, StepGrid, lab_targets
from pipeline.foundation.atomic import make_private_dir, write_bytes, write_json, write_parquet
from pipeline.foundation.errors import MissingArtifactError
from pipeline.foundation.schema import LAB_NAMES, TARGET_COLUMNS, WINDOW_US
from pipeline.labs.history import HistoryConfig, LabSeries

_FRAMES = ("sequences", "pieces", "draws", "examples")
_ARRAYS = ("history", "history_present", "usable")
_RECORD = "alignment.json"


@dataclass(frozen=True, kw_only=True)
class PieceTargets:
    """Training targets of one piece.

    Attributes
    ----------
    value : (steps, labs) clinical units, NaN where the weight is 0
    weight : (steps, labs) 1 measured, less where interpolated, 0 where there is no target
    measured : (steps, labs) whether the value is a draw
    """

    value: Float[np.ndarray, "steps labs"]
    weight: Float[np.ndarray, "steps labs"]
    measured: Bool[np.ndarray, "steps labs"]


@dataclass(kw_only=True)
class AlignedCohort:
    """Everything that training and scoring need beside the embeddings.

    Attributes
    ----------
    sequences, pieces, examples : ``schema.SEQUENCE_COLUMNS``, ``PIECE_COLUMNS``, ``EXAMPLE_COLUMNS``. A
        piece is ``n_steps`` model steps from ``first_step`` of its sequence, all of whose windows begin at
        or after t0. The column ``step`` of the examples counts from the piece's first step.
    draws : ``schema.LAB_EVENT_COLUMNS`` of the cohort's patients
    history : (pieces, labs, history features) clinical units, NaN where absent
    history_present : (pieces, labs)
    usable : the sequences' grid steps end to end, True where the window is in the store
    config : how it was aligned
    exclusions : draws left out of scoring, by protocol and reason
    """

    sequences: pd.DataFrame
    pieces: pd.DataFrame
    draws: pd.DataFrame
    examples: pd.DataFrame
    history: Float32[np.ndarray, "pieces labs features"]
    history_present: Bool[np.ndarray, "pieces labs"]
    usable: Bool[np.ndarray, " steps"]
    config: AlignmentConfig
    exclusions: Counter[str] = field(default_factory=Counter)

    @cached_property
    def series(self) -> dict[str, dict[str, LabSeries]]:
        """The draws of each patient and lab, in order."""
        return series_by_patient(self.draws)

    @cached_property
    def _sequence_rows(self) -> dict[str, tuple[int, int, int]]:
        """Each sequence's origin and its part of ``usable``."""
        ends = np.cumsum(self.sequences["n_steps"].to_numpy())
        starts = ends - self.sequences["n_steps"].to_numpy()
        columns = (self.sequences["sequence_id"], self.sequences["origin_us"], starts, ends)
        return {
            str(name): (int(origin), int(start), int(end))
            for name, origin, start, end in zip(*columns, strict=True)
        }

    def grid(self, sequence_id: str) -> StepGrid:
        """Return the model steps of a sequence."""
        origin, start, end = self._sequence_rows[sequence_id]
        return step_grid(origin, self.usable[start:end], self.config)

    def piece_targets(self, index: int, labs: tuple[str, ...] = LAB_NAMES) -> PieceTargets:
        """Return the training targets of the piece in row `index` of ``pieces``."""
        piece = self.pieces.iloc[index]
        steps = slice(int(piece["first_step"]), int(piece["first_step"] + piece["n_steps"]))
        grid = self.grid(str(piece["sequence_id"]))
        series = self.series.get(str(piece["patient_id"]), {})
        columns = [
            lab_targets(series[lab], grid, steps, self.config)
            if lab in series
            else LabTargets.none(steps.stop - steps.start)
            for lab in labs
        ]
        return PieceTargets(
            value=np.stack([column.value for column in columns], axis=1),
            weight=np.stack([column.weight for column in columns], axis=1),
            measured=np.stack([column.measured for column in columns], axis=1),
        )

    @property
    def targets(self) -> pd.DataFrame:
        """All targets as one table of ``schema.TARGET_COLUMNS``: for small cohorts and inspection."""
        frames = [_target_rows(piece, targets) for piece, targets in self._each_piece()]
        if not frames:
            return pd.DataFrame({name: [] for name in TARGET_COLUMNS})
        return pd.concat(frames, ignore_index=True)

    def _each_piece(self) -> Iterator[tuple[str, PieceTargets]]:
        for index, piece in enumerate(self.pieces["piece_id"]):
            yield str(piece), self.piece_targets(index)

    def save(self, folder: Path) -> None:
        """Write Parquet and NPY files; the JSON record comes last: a folder without it is no cohort."""
        folder = Path(folder)
        make_private_dir(folder)
        (folder / _RECORD).unlink(missing_ok=True)
        for name in _FRAMES:
            write_parquet(folder / f"{name}.parquet", getattr(self, name))
        for name in _ARRAYS:
            buffer = io.BytesIO()
            np.save(buffer, getattr(self, name), allow_pickle=False)
            write_bytes(folder / f"{name}.npy", buffer.getvalue())
        write_json(
            folder / _RECORD,
            {"config": dataclasses.asdict(self.config), "exclusions": dict(self.exclusions)},
        )

    @classmethod
    def load(cls, folder: Path) -> "AlignedCohort":
        """Read what ``save`` wrote.

        Raises
        ------
        MissingArtifactError
            The folder holds no complete cohort.
        """
        folder = Path(folder)
        if not (folder / _RECORD).exists():
            raise MissingArtifactError(f"{folder} holds no aligned cohort; run the alignment stage first.")
        record = json.loads((folder / _RECORD).read_text())
        history = HistoryConfig(**record["config"].pop("history"))
        record["config"]["protocols"] = tuple(record["config"]["protocols"])
        return cls(
            **{name: pd.read_parquet(folder / f"{name}.parquet") for name in _FRAMES},
            **{name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS},
            config=AlignmentConfig(history=history, **record["config"]),
            exclusions=Counter(record["exclusions"]),
        )


def step_grid(origin_us: int, usable: Bool[np.ndarray, " steps"], config: AlignmentConfig) -> StepGrid:
    """Return a sequence's model steps: the wall-clock grid, or (authors) its usable windows end to end."""
    if config.steps == "concatenated":
        start_us = origin_us + np.flatnonzero(usable) * WINDOW_US
        return StepGrid(start_us=start_us, usable=np.ones(len(start_us), bool))
    return StepGrid(start_us=origin_us + np.arange(len(usable), dtype=np.int64) * WINDOW_US, usable=usable)


def series_by_patient(draws: pd.DataFrame) -> dict[str, dict[str, LabSeries]]:
    """Group lab events into one series for each patient and lab, in order of draw."""
    ordered = draws.sort_values(["patient_id", "lab", "sampled_at_us", "available_at_us"], kind="stable")
    series: dict[str, dict[str, LabSeries]] = {}
    for key, group in ordered.groupby(["patient_id", "lab"]):
        patient, lab = key  # pyright: ignore[reportGeneralTypeIssues]  # two keys make a pair
        series.setdefault(str(patient), {})[str(lab)] = LabSeries(
            value=group["value"].to_numpy("float64"),
            sampled_us=group["sampled_at_us"].to_numpy("int64"),
            available_us=group["available_at_us"].to_numpy("int64"),
            source_code=group["source_code"].to_numpy(object) if "source_code" in group else None,
        )
    return series


def _target_rows(piece_id: str, targets: PieceTargets) -> pd.DataFrame:
    step, lab = np.nonzero(targets.weight > 0)
    return pd.DataFrame(
        {
            "piece_id": piece_id,
            "step": step,
            "lab": np.array(LAB_NAMES, dtype=object)[lab],
            "value": targets.value[step, lab],
            "weight": targets.weight[step, lab],
            "measured": targets.measured[step, lab],
        }
    )
