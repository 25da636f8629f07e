"""Pieces as model inputs: embeddings, mask, history, pooled waveform history and scaled targets."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from models.regressor.inputs import PackedInputs
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.errors import ConfigError, StoreError
from pipeline.foundation.schema import LAB_NAMES, WINDOW_US
from pipeline.training.embedding_cache import CachedPatient, EmbeddingCache

POOLED_WINDOWS = 64
"""Windows drawn from the waveform history in training; our decision, docs/evaluation.md."""

_LONGEST_LOG_HOURS = float(np.log1p(30 * 24))


@dataclass(frozen=True, kw_only=True)
class PieceItem:
    """One piece, unpacked.

    Attributes
    ----------
    piece_id : key into the cohort's ``pieces``
    embeddings : (steps, width), zeros where masked
    step_mask : (steps,) True where the window was usable
    history : (labs, features) scaled, zeros where absent: values by the lab scaler, log1p hours and counts by
        their value at 30 days and at one draw an hour
    history_present : (labs,)
    pooled : (width,) mean of windows that end at or before t0; zeros where there is none
    pooled_present : whether there is one
    targets : (steps, task labs) scaled, 0 where the weight is 0
    weights : (steps, task labs)
    """

    piece_id: str
    embeddings: Float32[np.ndarray, "steps width"]
    step_mask: Bool[np.ndarray, " steps"]
    history: Float32[np.ndarray, "labs features"]
    history_present: Bool[np.ndarray, " labs"]
    pooled: Float32[np.ndarray, " width"]
    pooled_present: bool
    targets: Float32[np.ndarray, "steps task_labs"]
    weights: Float32[np.ndarray, "steps task_labs"]


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Pieces end to end: inputs, targets (steps, task labs; 0 where the weight is 0), weights, keys."""

    inputs: PackedInputs
    targets: Float32[Tensor, "steps task_labs"]
    weights: Float32[Tensor, "steps task_labs"]
    piece_ids: tuple[str, ...]


class PieceDataset:
    """The pieces of some patients.

    Parameters
    ----------
    aligned, store, scaler : the cohort, its embeddings, and the scaling fitted on training patients
    patients : whose pieces; with `twin` they must be the patients of one split
    protocol : ``start``, ``anchored``, or None for both
    pooling : ``sampled`` draws at most 64 history windows anew in every epoch; ``mean`` takes all of them
    twin : give every patient the embeddings, and the pooled vector, of another of `patients`, on the own mask
    seed : of the pooled draws and of who is whose twin
    labs : task labs, the columns of the targets; the history always has all labs
    cache : shared with other data sets of the same store; by default an own one, see there
    """

    def __init__(
        self,
        aligned: AlignedCohort,
        store: WindowStore,
        scaler: LabScaler,
        *,
        patients: Iterable[str],
        protocol: str | None = None,
        pooling: Literal["sampled", "mean"] = "mean",
        twin: bool = False,
        seed: int = 0,
        labs: tuple[str, ...] = LAB_NAMES,
        cache: EmbeddingCache | None = None,
    ) -> None:
        if pooling not in ("sampled", "mean"):
            raise ValueError(f"pooling must be sampled or mean, not {pooling!r}")
        chosen = set(patients)
        rows = aligned.pieces["patient_id"].isin(sorted(chosen))
        if protocol is not None:
            rows &= aligned.pieces["protocol"] == protocol
        self._rows = np.flatnonzero(rows)
        self._pieces = aligned.pieces.iloc[self._rows].reset_index(drop=True)
        self._aligned, self._scaler, self._labs = aligned, scaler, labs
        self._cache = cache or EmbeddingCache(store)
        self._pooling, self._seed, self._epoch = pooling, seed, 0
        self._steps = self._pieces["n_steps"].to_numpy()
        self._origin = dict(
            zip(aligned.sequences["sequence_id"], aligned.sequences["origin_us"], strict=True)
        )
        self._numbers = {name: number for number, name in enumerate(self._origin)}
        self._twins = twin_mapping(chosen & set(aligned.sequences["patient_id"]), seed) if twin else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def piece_ids(self) -> tuple[str, ...]:
        """Keys into the cohort's ``pieces``, in order."""
        return tuple(self._pieces["piece_id"])

    def patient_id(self, index: int) -> str:
        """Return whose piece it is."""
        return str(self._pieces["patient_id"].iat[index])

    def first_step_number(self, index: int) -> int:
        """Return a number of the piece's first step that tells it from every other step of the cohort."""
        piece = self._pieces.iloc[index]
        return (self._numbers[str(piece["sequence_id"])] << 32) + int(piece["first_step"])

    def n_steps(self, index: int) -> int:
        """Return the length of a piece without reading it."""
        return int(self._steps[index])

    def set_epoch(self, epoch: int) -> None:
        """Draw other history windows from now on (``pooling="sampled"``)."""
        self._epoch = epoch

    def __getitem__(self, index: int) -> PieceItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, piece = int(self._rows[index]), self._pieces.iloc[index]
        patient_id, first, n = str(piece["patient_id"]), int(piece["first_step"]), int(piece["n_steps"])
        grid = self._aligned.grid(str(piece["sequence_id"]))
        mask = grid.usable[first : first + n]
        own = self._cache.get(patient_id)
        source = own if self._twins is None else self._cache.get(self._twins[patient_id])
        embeddings = np.zeros((n, source.embeddings.shape[1]), np.float32)
        embeddings[mask] = source.take(_rows_of(own, grid.start_us[first : first + n][mask]))
        pooled = self._pooled(own, source, str(piece["sequence_id"]), patient_id, int(piece["t0_us"]))
        targets = self._aligned.piece_targets(row, self._labs)
        scaled = self._scaler.scale(targets.value, self._labs)
        return PieceItem(
            piece_id=str(piece["piece_id"]),
            embeddings=embeddings,
            step_mask=mask,
            history=scale_history(self._aligned.history[row], self._scaler),
            history_present=self._aligned.history_present[row],
            pooled=np.zeros(embeddings.shape[1], np.float32) if pooled is None else pooled,
            pooled_present=pooled is not None,
            targets=np.nan_to_num(scaled, nan=0.0).astype(np.float32),
            weights=targets.weight.astype(np.float32),
        )

    def _pooled(
        self, own: CachedPatient, source: CachedPatient, sequence_id: str, patient_id: str, t0_us: int
    ) -> np.ndarray | None:
        first, stop = own.rows_known_at(t0_us)
        if first == stop:
            return None
        if self._pooling == "mean" or stop - first <= POOLED_WINDOWS:
            return source.mean(first, stop)
        # The id's hash and not the sequence's number: another patient's arrival must not change the draw.
        name = hashlib.sha256(f"{patient_id}:{self._origin[sequence_id]}".encode()).digest()
        key = [self._seed, self._epoch, int.from_bytes(name[:8]), t0_us % 2**63]
        drawn = np.random.default_rng(key).choice(stop - first, POOLED_WINDOWS, replace=False)
        return source.take(first + np.sort(drawn)).mean(axis=0, dtype=np.float64).astype(np.float32)


def scale_history(
    history: Float32[np.ndarray, "labs features"], scaler: LabScaler
) -> Float32[np.ndarray, "labs features"]:
    """Scale one piece's history: values like targets, log1p hours and counts to about [0, 1]; absent is 0."""
    scaled = np.empty(history.shape)
    scaled[:, :2] = scaler.scale(history[:, :2].T.astype(float)).T
    scaled[:, 2:] = history[:, 2:] / _LONGEST_LOG_HOURS
    return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


def twin_mapping(patients: Iterable[str], seed: int) -> dict[str, str]:
    """Give every patient another one: the next in an order drawn by `seed`.

    Raises
    ------
    ConfigError
        There is only one patient.
    """
    order = sorted(set(patients), key=lambda p: hashlib.sha256(f"twin:{seed}:{p}".encode()).digest())
    if len(order) == 1:
        raise ConfigError("A twin is another patient of the same split, but this split has one patient only.")
    return dict(zip(order, order[1:] + order[:1], strict=True))


def pack(items: Sequence[PieceItem]) -> PackedBatch:
    """Lay pieces end to end."""
    lengths = torch.tensor([0, *(len(item.step_mask) for item in items)], dtype=torch.int64)
    inputs = PackedInputs(
        embeddings=_joined([item.embeddings for item in items]),
        step_mask=_joined([item.step_mask for item in items]),
        cu_seqlens=lengths.cumsum(0),
        history=_stacked([item.history for item in items]),
        history_present=_stacked([item.history_present for item in items]),
        pooled=_stacked([item.pooled for item in items]),
        pooled_present=torch.tensor([item.pooled_present for item in items]),
    )
    return PackedBatch(
        inputs=inputs,
        targets=_joined([item.targets for item in items]),
        weights=_joined([item.weights for item in items]),
        piece_ids=tuple(item.piece_id for item in items),
    )


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _rows_of(patient: CachedPatient, start_us: np.ndarray) -> np.ndarray:
    """Return the store's rows of the windows that begin at `start_us`."""
    rows = np.searchsorted(patient.start_us, start_us)
    if len(rows) and (
        rows[-1] >= len(patient.start_us) or not np.array_equal(patient.start_us[rows], start_us)
    ):
        raise StoreError(
            f"The store lacks windows of {WINDOW_US // 1_000_000} s that the cohort was aligned with: it "
            "has changed since. Run the alignment again."
        )
    return rows
