"""What every method is trained on, and the hashes of it that a checkpoint carries."""

import hashlib
from dataclasses import dataclass
from typing import Any

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.training.checkpoints import store_encoder
from pipeline.training.embedding_cache import EmbeddingCache


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The cohort with its embeddings, scaling and division."""

    aligned: AlignedCohort
    store: WindowStore
    scaler: LabScaler
    splits: Splits
    cache: EmbeddingCache

    def patients(self, split: str) -> list[str]:
        """Return the cohort's patients of one split; a patient without a split is refused."""
        return [
            p for p in dict.fromkeys(self.aligned.sequences["patient_id"]) if self.splits.split_of(p) == split
        ]

    def provenance(self) -> dict[str, Any]:
        """Return hashes of all that the weights come from, without anything about a patient."""
        frames = [getattr(self.aligned, name) for name in ("sequences", "pieces", "draws")]
        rows = "".join(frame.to_csv(index=False) for frame in frames).encode()
        return {
            "split_hash": self.splits.hash,
            "scaler_hash": config_hash(self.scaler.to_json()),
            "cohort_hash": hashlib.sha256(rows).hexdigest(),
            "alignment": to_plain(self.aligned.config),
            "encoder": store_encoder(self.store),
        }
