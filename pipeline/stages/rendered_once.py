"""Render planted waveforms a few patients at a time, embed them, and delete them: the disk never holds a whole cohort.

A hundred and sixty recordings of days are ten gigabytes of waveform that nobody reads twice. Which patients are done
the store's manifest says, so that a killed run goes on at the patient where it stood.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from models.encoders.base import Encoder
from pipeline.embedding.config import EncodingConfig
from pipeline.embedding.plan import key_template, plan_embedding
from pipeline.embedding.progress import shown_progress
from pipeline.embedding.run import embed
from pipeline.foundation.errors import StoreError
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_waveforms
from pipeline.sources.synthetic.plan import CohortPlan, claim, patient_count, subject_id_of
from pipeline.store.embeddings import EmbeddingStore

logger = logging.getLogger(__name__)

BATCH_PATIENTS = 8
"""Patients whose waveforms lie on the disk together: 72 hours of each are some 0.4 GB."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderedOnce:
    """What is to be rendered and embedded.

    Attributes
    ----------
    plan : the patients; couplings and null A share their waveforms
    store : gets the embeddings, of these patients alone
    folder : for the waveforms that are being embedded, and what says whose they are; nothing else may lie there
    encoder, config : how stage 1 runs
    """

    plan: CohortPlan
    store: EmbeddingStore
    folder: Path
    encoder: Encoder
    config: EncodingConfig

    @property
    def patients(self) -> list[str]:
        """All patients by id, in the cohort's order."""
        return [str(subject_id_of(self.plan.seed, i)) for i in range(patient_count(self.plan))]

    def missing(self) -> list[int]:
        """Return the numbers of the patients whose embeddings in this encoding the store has not."""
        encoding, manifest = key_template(self.encoder, self.config.window).encoding, self.store.manifest()
        found = (manifest.get(self.store.patient_key(patient)) for patient in self.patients)
        return [i for i, entry in enumerate(found) if entry is None or entry.encoding != encoding]


def embed_rendered_once(what: RenderedOnce, *, batch_patients: int = BATCH_PATIENTS) -> tuple[int, float]:
    """Render, embed and delete what is missing; return windows embedded now, and the seconds that all of it took.

    Raises
    ------
    ConfigError : `what.folder` holds another cohort's waveforms, or something else
    StoreError : an embedding that cannot be stored, a full disk, a patient of whom no window is usable; run again to
        go on
    """
    began, windows = time.monotonic(), 0
    # At coupling 1 whatever is asked: the waveforms are the same, and one folder serves all couplings.
    plan = dataclasses.replace(what.plan, root=what.folder, coupling=1.0, null=_of_waveform(what.plan.null))
    claim(plan)
    missing = what.missing()
    for first in range(0, len(missing), batch_patients):
        batch = missing[first : first + batch_patients]
        windows += _embed_batch(what, plan, batch)
        logger.info(
            "rendered once: %d of %d patients embedded",
            len(what.patients) - len(missing) + first + len(batch), len(what.patients),
        )  # fmt: skip
    _delete_waveforms(plan)
    return windows, time.monotonic() - began


def _of_waveform(null: str | None) -> str | None:
    """Return the null as far as waveforms know of it: only in null B has no patient an offset."""
    return "b" if null == "b" else None


def _embed_batch(what: RenderedOnce, plan: CohortPlan, batch: Sequence[int]) -> int:
    """Leave the waveforms of `batch` embedded and deleted; those of a run that was killed are gone before."""
    _delete_waveforms(plan)
    for patient in batch:
        write_waveforms(plan, patient)
    source = Mimic3Waveforms(plan.root / "waveforms")
    catalog = source.catalog()
    only = {what.store.patient_key(record.patient_id) for record in catalog.records}
    todo = plan_embedding(catalog, what.store, what.encoder, what.config.window, only=only)
    with shown_progress() as told:  # a partial plan retires nobody
        done = embed(source, what.store, what.encoder, what.config, plan=todo, progress=told)
    if done.failures:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(done.failures.items()))
        raise StoreError(
            f"planted patients could not be embedded ({reasons}); their waveforms stay in {plan.root}: run again"
        )
    _delete_waveforms(plan)
    return done.embedded_windows


def _delete_waveforms(plan: CohortPlan) -> None:
    for name in ("waveforms", ".staging"):
        shutil.rmtree(plan.root / name, ignore_errors=True)
