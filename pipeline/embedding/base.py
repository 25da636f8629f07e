"""What stage 1 asks of the place where its encoder runs, and what comes back from there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pipeline.embedding.plan import PatientTask
from pipeline.store.manifest import ManifestEntry


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What came of one batch of patients.

    Attributes
    ----------
    entries : finished versions, for `EmbeddingStore.commit`
    adopted : how many of them another run had finished already
    embedded_windows : windows that went through the encoder for `entries`
    failures : patients without a result, by reason
    """

    entries: tuple[ManifestEntry, ...] = ()
    adopted: int = 0
    embedded_windows: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "BatchResult") -> "BatchResult":
        return BatchResult(
            entries=self.entries + other.entries,
            adopted=self.adopted + other.adopted,
            embedded_windows=self.embedded_windows + other.embedded_windows,
            failures=self.failures + other.failures,
        )


@runtime_checkable
class PatientMeter(Protocol):
    """Hears of every encoder batch and of every patient that has ended."""

    def embedded(self, task: PatientTask, n_windows: int) -> None:
        """Count `n_windows` more of a patient."""
        ...

    def ended(self, task: PatientTask) -> None:
        """Count a patient as finished, adopted or failed."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Embeds batches of patients somewhere: in this process, on actors. Where it runs changes no bit."""

    def embed(self, tasks: Sequence[PatientTask]) -> BatchResult:
        """Embed patients, each once even when other processes have the same ones to do; commit nothing.

        What cannot be read is counted in ``failures``, and the others go on. The meter hears of every patient's end.

        Raises
        ------
        StoreError : an embedding that cannot be stored, or a disk that cannot be written
        """
        ...
