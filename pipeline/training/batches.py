"""Pieces of sequences as training batches, for the sequence models; the LSTM's draws stand in ``draw_source``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from models.regressor.inputs import PackedInputs
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.errors import StoreError
from pipeline.training.base import MicroBatch, WindowInputs
from pipeline.training.dataset import PieceDataset, pack
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.inference import shortened

SAMPLED_PIECES, SAMPLED_STEPS = 512, 60
"""Pieces, and steps of each, from which the statistics of the inputs are taken."""


class PieceSource:
    """Pieces of training patients, one group per protocol; those without a target are counted."""

    def __init__(
        self,
        aligned: AlignedCohort,
        store: WindowStore,
        scaler: LabScaler,
        *,
        patients: Sequence[str],
        protocols: Sequence[str],
        labs: tuple[str, ...],
        twin: bool,
        seed: int,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.labs, self._patients = labs, sorted(set(patients))
        self._datasets, self._items, self._weights = [], [], []
        self._interpolated_weight = aligned.config.interpolated_weight
        self._counts: Counter[str] = Counter()
        places = {piece: row for row, piece in enumerate(aligned.pieces["piece_id"])}
        measured = []
        for protocol in protocols:
            dataset = PieceDataset(
                aligned, store, scaler, patients=patients, protocol=protocol,
                pooling="sampled", twin=twin, seed=seed, labs=labs, cache=cache,
            )  # fmt: skip
            rows = [places[piece] for piece in dataset.piece_ids]
            targets = [_summarise(aligned, row, labs) for row in rows]
            weights = np.array([t.weight for t in targets]).reshape(len(rows), len(labs))
            used = np.flatnonzero(weights.sum(axis=1) > 0)
            self._datasets.append(dataset)
            self._items.append(used)
            self._weights.append(weights)
            measured += [targets[i].measured for i in used]
            self._count(targets, used, [bool(aligned.history_present[rows[i]].any()) for i in used])
        self.group_sizes = [len(items) for items in self._items]
        self._means = mean_scaled(measured, scaler, labs)

    def lengths(self, group: int, items: Sequence[int]) -> list[int]:
        """Return the steps of each item."""
        return [int(self._datasets[group].n_steps(int(self._items[group][i]))) for i in items]

    def weight_sums(self, group: int, items: Sequence[int]) -> Float64[np.ndarray, " labs"]:
        """Return the target weight of `items`, summed, per lab."""
        return self._weights[group][self._items[group][list(items)]].sum(axis=0)

    def load(self, group: int, items: Sequence[int], epoch: int) -> MicroBatch:
        """Read and pack `items`."""
        dataset = self._datasets[group]
        dataset.set_epoch(epoch)
        packed = pack([dataset[int(self._items[group][i])] for i in items])
        return MicroBatch(
            inputs=packed.inputs,
            targets=torch.as_tensor(packed.targets),
            weights=torch.as_tensor(packed.weights),
        )

    def sample(self, seed: int) -> PackedInputs:
        """Return the first half hour of at most `SAMPLED_PIECES` pieces."""
        places = [(group, int(i)) for group, items in enumerate(self._items) for i in items]
        drawn = np.random.default_rng(seed).permutation(len(places))[:SAMPLED_PIECES]
        items = [self._datasets[group][i] for group, i in (places[k] for k in np.sort(drawn))]
        return pack([shortened(item, SAMPLED_STEPS) for item in items]).inputs

    def item_patients(self) -> dict[int, Int[np.ndarray, " items"]]:
        """Return, by group, the number of the patient of every item."""
        number = {patient: i for i, patient in enumerate(self._patients)}
        return {
            group: np.array([number[dataset.patient_id(int(item))] for item in items], dtype=np.int64)
            for group, (dataset, items) in enumerate(zip(self._datasets, self._items, strict=True))
        }

    def item_starts(self) -> dict[int, Int[np.ndarray, " items"]]:
        """Return, by group, a number of every item's first step; the same step of a sequence has the same number."""
        return {
            group: np.array([dataset.first_step_number(int(item)) for item in items], dtype=np.int64)
            for group, (dataset, items) in enumerate(zip(self._datasets, self._items, strict=True))
        }

    @property
    def interpolated_weight(self) -> float:
        """Weight of a target between two draws; a measured one weighs 1."""
        return self._interpolated_weight

    def target_means(self) -> Float64[np.ndarray, " labs"]:
        """Return the mean scaled measured target per lab."""
        return self._means

    def counts(self) -> dict[str, int]:
        """Return pieces, pieces left out, pieces without history, and targets per lab."""
        return dict(self._counts)

    def _count(
        self, targets: Sequence["_PieceSummary"], used: np.ndarray, with_history: Sequence[bool]
    ) -> None:
        self._counts["pieces"] += len(used)
        self._counts["pieces_without_target"] += len(targets) - len(used)
        self._counts["pieces_without_history"] += len(used) - int(sum(with_history))
        for i in used:
            self._counts["targets_interpolated"] += targets[i].n_interpolated
            for lab, values in zip(self.labs, targets[i].measured, strict=True):
                self._counts["targets_measured"] += len(values)
                self._counts[f"targets_measured_{lab}"] += len(values)


def forward(
    model: nn.Module, inputs: PackedInputs | WindowInputs, chunk_steps: int | None = None
) -> Float[Tensor, "rows labs"]:
    """Run either kind of model on its own kind of inputs; a pack longer than `chunk_steps` in chunks of that."""
    if isinstance(inputs, WindowInputs):
        return model(inputs.embeddings, inputs.mask)
    return model(inputs, chunk_steps=chunk_steps)


def embedding_width(store: WindowStore, patients: Sequence[str]) -> int:
    """Return the width of the embeddings of the first of `patients` that the store holds.

    Raises
    ------
    StoreError : it holds none of them
    """
    for patient in patients:
        try:
            return int(store.read(patient).width)
        except StoreError:
            continue
    raise StoreError(
        f"the store holds no embeddings of any of {len(patients)} patients: run the embed stage first"
    )


def mean_scaled(
    measured: Sequence[Sequence[np.ndarray]], scaler: LabScaler, labs: Sequence[str]
) -> Float64[np.ndarray, " labs"]:
    """Return the mean of measured values per lab on the scaled axis; 0.5 for a lab without one."""
    columns = [np.concatenate([part[i] for part in measured] or [np.empty(0)]) for i in range(len(labs))]
    means = np.array([column.mean() if len(column) else np.nan for column in columns])
    return np.nan_to_num(np.asarray(scaler.scale(means, tuple(labs)), dtype=np.float64), nan=0.5)


@dataclass(frozen=True, kw_only=True)
class _PieceSummary:
    """Target weight per lab, measured values per lab, and the number of interpolated targets of one piece."""

    weight: np.ndarray
    measured: list[np.ndarray]
    n_interpolated: int


def _summarise(aligned: AlignedCohort, row: int, labs: tuple[str, ...]) -> _PieceSummary:
    targets = aligned.piece_targets(row, labs)
    return _PieceSummary(
        weight=targets.weight.sum(axis=0),
        measured=[targets.value[targets.measured[:, i], i] for i in range(len(labs))],
        n_interpolated=int(((targets.weight > 0) & ~targets.measured).sum()),
    )
