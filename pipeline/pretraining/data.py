"""What the encoder is pretrained on: windows of any waveform source, cut anew for every epoch.

An epoch shifts each record by a random part of 30 s before the usual wall-clock cut, so that every epoch sees
other crops, under the very rules (and counts) of ``windows.iterate_windows``. All of it is a pure function of
(seed, epoch): a resumed run needs no generator's state.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import config_hash
from pipeline.foundation.schema import HOUR_US, WINDOW_US
from pipeline.sources.base import Catalog, Record, Stretch, WaveformSource
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.sources.synthetic.cohort import write_cohort
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.training.schedule import seed_of
from pipeline.windows.cutting import WindowConfig, iterate_windows
from pipeline.windows.resample import prepare_ppg_gpt

SYNTHETIC_SEED = 20_150_001
"""Far from the seeds of the experiments: the encoder never sees a patient of a cohort it is judged on."""
SYNTHETIC_PROBE_SEED = 20_150_002
"""Of the patients that the probe judges on: neither the seed of pretraining nor one of an experiment."""
SYNTHETIC_LICENCE = "synthetic, made by this project: no licence of data applies"


def synthetic_source(
    root: Path, *, patients: int, hours: float, seed: int = SYNTHETIC_SEED
) -> WaveformSource:
    """Write synthetic patients of `hours` each under `root` (or find them there) and return their waveforms."""
    parameters = CohortParameters.load()
    size = CohortSize(n_patients=patients, hours_low=hours, hours_high=hours)
    write_cohort(parameters, size, root, seed=seed)
    return Mimic3Waveforms(root / "waveforms", licence=SYNTHETIC_LICENCE)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Records of one source, on one side of the split.

    Attributes
    ----------
    name : what curves and the model card call it
    source : reads the records
    records : those of this side
    share : of every epoch's windows that come from here, 0..1
    """

    name: str
    source: WaveformSource
    records: tuple[Record, ...]
    share: float

    @property
    def fingerprint(self) -> str:
        """SHA-256 of which records there are, how long and where in time."""
        rows = [[record.patient_id, record.start_us, record.end_us] for record in self.records]
        return config_hash({"name": self.name, "records": rows})

    def windows(self, config: WindowConfig, exclusions: Counter[str]) -> Float[np.ndarray, "n 1200"]:
        """Return all prepared windows on the unshifted grid: the validation set."""
        return _joined(_cut(self.source, record, 0, config, exclusions) for record in self.records)

    def epoch(
        self, epoch: int, seed: int, most: int | None, config: WindowConfig, exclusions: Counter[str]
    ) -> Float[np.ndarray, "n 1200"]:
        """Return the prepared windows of one epoch, records in random order and shifted at random.

        Parameters
        ----------
        most : windows wanted; None for those of all records, cut once
        """
        rng = np.random.default_rng(seed_of(seed, epoch, int(self.fingerprint[:8], 16)))
        parts, total = [], 0
        for place in rng.permutation(len(self.records)):
            shift_us = int(rng.integers(WINDOW_US))
            parts.append(_cut(self.source, self.records[place], shift_us, config, exclusions))
            total += len(parts[-1])
            if most is not None and total >= most:
                break
        return _joined(parts)[:most]


def divide(
    name: str,
    source: WaveformSource,
    share: float,
    *,
    validation_share: float,
    seed: int,
    most_hours: float | None = None,
) -> tuple[Corpus, Corpus]:
    """Return the training and the validation part of a source, divided by patient.

    A source without identities gives each record a patient of its own: that is a division by record. Of the
    patients that `validation_share` asks for, at most as many are held out as have `most_hours` of records on average.

    Raises
    ------
    ConfigError : fewer than two patients
    """
    records = source.catalog().records
    patients = sorted({record.patient_id for record in records})
    if len(patients) < 2:
        raise ConfigError(f"{name} has {len(patients)} patients or records; validation needs at least two")
    order = np.random.default_rng(seed_of(seed, len(patients))).permutation(len(patients))
    count = round(validation_share * len(patients))
    if most_hours is not None:
        hours = sum(record.end_us - record.start_us for record in records) / HOUR_US
        count = min(count, round(most_hours / hours * len(patients)))
    held_out = {patients[i] for i in order[: max(1, count)]}
    parts = [
        tuple(record for record in records if (record.patient_id in held_out) is wanted)
        for wanted in (False, True)
    ]
    training, validation = (Corpus(name=name, source=source, records=part, share=share) for part in parts)
    return training, validation


def epoch_windows(
    corpora: Sequence[Corpus], epoch: int, seed: int, most: int | None, config: WindowConfig
) -> tuple[Float[np.ndarray, "n 1200"], Counter[str]]:
    """Return one epoch's windows of all corpora in random order, and what was dropped.

    The first corpus gives all that it has (at most its share of `most`); the others follow by their shares.
    """
    exclusions: Counter[str] = Counter()
    first = corpora[0]
    wanted = None if most is None else max(1, round(most * first.share))
    parts = [first.epoch(epoch, seed, wanted, config, exclusions)]
    for corpus in corpora[1:]:
        wanted = round(len(parts[0]) * corpus.share / first.share)
        if wanted:
            parts.append(corpus.epoch(epoch, seed, wanted, config, exclusions))
    windows = _joined(parts)
    return windows[np.random.default_rng(seed_of(seed, epoch)).permutation(len(windows))], exclusions


class _Shifted:
    """A source whose records all begin a little later."""

    def __init__(self, source: WaveformSource, shift_us: int):
        self.name, self.licence, self.root = source.name, source.licence, source.root
        self._source, self._shift_us = source, shift_us

    def catalog(self) -> Catalog:
        return self._source.catalog()

    def stretches(self, record: Record, exclusions: Counter[str]) -> Iterator[Stretch]:
        for stretch in self._source.stretches(record, exclusions):
            yield replace(stretch, start_us=stretch.start_us + self._shift_us)


def _cut(
    source: WaveformSource, record: Record, shift_us: int, config: WindowConfig, exclusions: Counter[str]
) -> np.ndarray:
    return _joined(
        prepare_ppg_gpt(windows.samples, windows.sampling_rate_hz, windows.rails)
        for windows in iterate_windows(_Shifted(source, shift_us), [record], config, exclusions)
    )


def _joined(parts) -> np.ndarray:
    return np.concatenate([np.empty((0, 1200), np.float32), *parts])
