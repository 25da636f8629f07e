"""A rendered cohort emulated window by window: the same patients, times and quality, other embeddings.

So a method is judged on emulated against rendered embeddings with everything else equal, draw by draw: what is left
is what the emulator gets wrong, and its luck.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.emulation.cohort import EMULATED_LICENCE
from pipeline.emulation.model import Emulator
from pipeline.emulation.rendered import record_inputs
from pipeline.foundation.provenance import config_hash, versions
from pipeline.foundation.schema import WINDOW_US
from pipeline.sources.synthetic.physiology import random_stream
from pipeline.sources.synthetic.plan import CohortPlan, plan_patient
from pipeline.sources.synthetic.wfdb_files import plan_record
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import ManifestEntry

_DRAWS = 101
"""Purpose of the generator, beside those of ``physiology.random_stream`` and of whole emulated cohorts."""


@dataclass(frozen=True, kw_only=True)
class SameWindows:
    """A cohort that was rendered and embedded, and where its windows go once more, emulated.

    Attributes
    ----------
    plan : what the cohort was written from (``sources.synthetic.write_cohort``), without real labs
    rendered : the encoder's embeddings of its waveforms
    emulated : receives the emulator's
    emulator : of that encoder
    draw : number of the emulator's draw: each has another luck, and a store of its own
    """

    plan: CohortPlan
    rendered: EmbeddingStore
    emulated: EmbeddingStore
    emulator: Emulator
    draw: int = 0

    def write(self) -> int:
        """Emulate every window and return how many there are; patients who are there already are kept.

        Raises
        ------
        StoreError : a store that cannot be read or written
        """
        provenance = self.emulated.write_provenance(
            {
                "encoder": vars(self.emulator.key) | {"width": self.emulator.width},
                "emulator": self.emulator.identity,
                "source": {"kind": "rendered windows, emulated", "licence": EMULATED_LICENCE},
                "versions": versions(),
            }
        )
        entries = [self._patient(patient, provenance) for patient in range(self.plan.size.n_patients)]
        there = [entry for entry in entries if entry is not None]
        self.emulated.commit(there)
        return sum(entry.n_windows for entry in there)

    def _patient(self, patient: int, provenance: str) -> ManifestEntry | None:
        """Emulate one patient's windows; None for one of whom no window was usable."""
        plan, emulator = self.plan, self.emulator
        stay, course = plan_patient(plan, patient)
        patient_id = str(stay.subject_id)
        if patient_id not in self.rendered:
            return None
        windows = self.rendered.read(patient_id)
        luck = [self.draw] if self.draw else []
        source = config_hash([emulator.identity, windows.entry.path, plan.seed, *luck])[:32]
        key = emulator.key.store_key(source)
        found = self.emulated.published(patient_id, key)
        if found is not None:
            return found
        drawn_by = random_stream(plan.seed, patient, "records")
        spans = stay.recordings
        records = [plan_record(plan.parameters, course, span, stay.subject_id, drawn_by) for span in spans]
        start_us, quality = np.asarray(windows.start_us), np.asarray(windows.quality)
        of_record = np.searchsorted([record.start_us for record in records], start_us, side="right") - 1
        rng = np.random.default_rng([plan.seed, patient, _DRAWS, *luck])
        with self.emulated.stage(patient_id, key, width=emulator.width, provenance=provenance) as writer:
            for number, record in enumerate(records):
                rows = of_record == number
                at = start_us[rows]
                inputs = record_inputs(plan.parameters, course, record, at)
                drawn = emulator.draw(inputs, (at - record.start_us) // WINDOW_US, rng)
                writer.append(at, drawn, quality[rows])
            return writer.finish(windows.entry.exclusions)
