"""Estimates for new patients: every 30 s and lab, from a checkpoint, embeddings and the labs so far.

Causal by construction: a row depends on nothing after its ``window_end``. Sequences start at the first usable
window. A model that learnt from ``anchored`` pieces starts afresh at every newly available result from the
history known then; one that learnt from ``start`` alone runs once, from t0 (the 30th minute), and sees no later
result: each as it was trained, scored and calibrated. Rows of a longer silence are left out by a rule that
looks back alone, so that not even a row's existence depends on the future.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cohort.aligned import series_by_patient
from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.cohort.base import WindowStore
from pipeline.cohort.sequences import cut_sequences
from pipeline.foundation.number_format import UNITS
from pipeline.foundation.progress import tracked
from pipeline.foundation.schema import ADMISSION_COLUMNS, LAB_NAMES
from pipeline.labs.cleaning import LabEvents
from pipeline.labs.history import LabSeries
from pipeline.prediction.config import PredictionConfig
from pipeline.prediction.intervals import INTERVAL_STATE, NO_ESTIMATE, NO_INTERVALS, Intervals
from pipeline.prediction.live_sequence import LiveSequence, answers, restarts
from pipeline.prediction.protocols import alignment_of, chosen_protocol
from pipeline.training.checkpoints import check_encoder, checkpoint_folders, load_model
from pipeline.training.distributed import pick_device
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.filter_forecaster import FilterForecaster, PatientFilter, oldest_draw
from pipeline.training.forecaster import AnyForecaster, Forecaster, forecaster_of
from pipeline.training.ten_minute_means import BlockReader

PREDICT_COLUMNS = (
    "patient", "sequence", "window_end", "lab", "estimate", "lower", "upper", "last_lab",
    "hours_since_last_lab", "signal_quality", "state", "unit", "protocol", INTERVAL_STATE, "measured", "measured_at",
    "results_reported",
)  # fmt: skip
"""``last_lab`` is the last result that the estimate knows; ``measured`` and ``measured_at`` (when it was drawn) are a
result that became known since the row before (``measured_draws``), ``results_reported`` how many did; ``unit`` is that
of estimate, bounds and results."""


def predict(
    checkpoint_dir: Path | str,
    store: WindowStore,
    labs: LabEvents,
    config: PredictionConfig = PredictionConfig(),  # noqa: B008 - frozen
    *,
    patients: Iterable[str],
    admissions: pd.DataFrame | None = None,
    intervals: Intervals | None = None,
    exclusions: Counter[str] | None = None,
) -> pd.DataFrame:
    """Return all rows of `Predictor.patients` as one table of `PREDICT_COLUMNS`."""
    predictor = Predictor.load(checkpoint_dir, store, config, intervals=intervals)
    frames = list(predictor.patients(patients, labs, admissions, exclusions))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(PREDICT_COLUMNS))


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A checkpoint ready for new patients.

    Attributes
    ----------
    forecasters : one, or one a lab (st_pcs)
    alignment : how the training cohort was aligned: history and warm-up must be the same
    method, seed, protocol : which intervals apply; the protocol also says when the model starts
    """

    forecasters: tuple[AnyForecaster, ...]
    store: WindowStore
    config: PredictionConfig
    alignment: AlignmentConfig
    method: str
    seed: int
    protocol: str
    intervals: Intervals | None = None

    @classmethod
    def load(
        cls, checkpoint_dir: Path | str, store: WindowStore, config: PredictionConfig,
        *, intervals: Intervals | None = None,
    ) -> "Predictor":  # fmt: skip
        """Load a checkpoint and check that it can serve the store's patients.

        Raises
        ------
        CheckpointError : no checkpoint, a damaged one, one trained on another encoder's embeddings, or one that
            does not say what it learnt from
        ConfigError : a method that cannot run at the bedside: the twin needs another patient, the centred
            LSTM and the concatenated steps look ahead; or a protocol that the checkpoint never learnt
        """
        device = pick_device(config.device)
        models = [load_model(folder, device) for folder in checkpoint_folders(checkpoint_dir)]
        forecasters = tuple(forecaster_of(loaded, device) for loaded in models)
        protocol = chosen_protocol(models, forecasters[0], config.protocol)
        for loaded in models:
            check_encoder(loaded, store)
        return cls(
            forecasters=forecasters, store=store, config=config, alignment=alignment_of(models[0]),
            method=models[0].method, seed=forecasters[0].seed, protocol=protocol, intervals=intervals,
        )  # fmt: skip

    def patients(
        self, patients: Iterable[str], labs: LabEvents, admissions: pd.DataFrame | None = None,
        exclusions: Counter[str] | None = None,
    ) -> Iterator[pd.DataFrame]:  # fmt: skip
        """Yield the rows of one patient after another; memory holds one patient.

        Parameters
        ----------
        patients : whom to predict; one without usable windows has no row and is counted
        labs : clean results; a patient may have none
        admissions : ``schema.ADMISSION_COLUMNS``, to cut sequences by stay; None: one per run of records
        exclusions : counts what was left out, by reason
        """
        stays = pd.DataFrame(columns=list(ADMISSION_COLUMNS)) if admissions is None else admissions
        series = series_by_patient(labs.frame)
        for patient in tracked(list(dict.fromkeys(patients)), "estimating", "patients"):
            sequences = cut_sequences(self.store, [patient], stays, self.config.sequences)
            if exclusions is not None:
                exclusions.update(sequences.exclusions)
            if len(sequences.frame):
                yield self._patient(patient, sequences.frame, series.get(patient, {}))

    def _patient(self, patient: str, sequences: pd.DataFrame, series: dict[str, LabSeries]) -> pd.DataFrame:
        cache = EmbeddingCache(self.store)
        windows = self.store.read(patient)
        filters = [
            self._filters(forecaster, patient, sequences, series, cache) for forecaster in self.forecasters
        ]
        origins, n_steps = (sequences[name].to_list() for name in ("origin_us", "n_steps"))
        frames = []
        for number, origin_us in enumerate(origins):
            live = LiveSequence(
                windows=windows, known=cache.get(patient), series=series, origin_us=origin_us,
                n_steps=n_steps[number], until_us=(*origins, None)[number + 1], alignment=self.alignment,
                config=self.config, protocol=self.protocol,
            )  # fmt: skip
            frames.append(self._sequence(live, filters).assign(patient=patient, sequence=f"{number:08x}"))
        return self._bounded(pd.concat(frames, ignore_index=True)).loc[:, list(PREDICT_COLUMNS)]

    def _filters(
        self,
        forecaster: AnyForecaster,
        patient: str,
        sequences: pd.DataFrame,
        series: dict[str, LabSeries],
        cache: EmbeddingCache,
    ) -> PatientFilter | None:
        """Return a patient's filters where the method has them: they know of all his sequences."""
        if not isinstance(forecaster, FilterForecaster):
            return None
        reader = BlockReader(sequences, cache)
        oldest_us = oldest_draw(self.alignment, reader.first_us(patient))
        means = reader.embedding_means(patient)
        return PatientFilter(model=forecaster.model, means=means, series=series, oldest_us=oldest_us)

    def _sequence(self, live: LiveSequence, filters: Sequence[PatientFilter | None]) -> pd.DataFrame:
        estimate = np.full((live.n_rows, len(LAB_NAMES)), np.nan)
        spread, log_scale = np.full_like(estimate, np.nan), np.zeros(len(LAB_NAMES), dtype=bool)
        reads_waveform = np.ones(len(LAB_NAMES), dtype=bool)
        for forecaster, own in zip(self.forecasters, filters, strict=True):
            columns = [LAB_NAMES.index(lab) for lab in forecaster.labs]
            reads_waveform[columns] = forecaster.model.reads_waveform
            if own is not None:
                estimate[:, columns], spread[:, columns] = answers(live, own)
                log_scale[columns] = own.model.log_scale
            elif isinstance(forecaster, Forecaster):
                scaled = np.full((live.n_rows, len(columns)), np.nan)
                for piece in restarts(live):
                    scaled[piece.rows] = piece.estimates(forecaster)
                estimate[:, columns] = forecaster.scaler.unscale(scaled, forecaster.labs)
        return live.table(estimate, spread, log_scale, reads_waveform)

    def _bounded(self, rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.assign(
            method=self.method,
            protocol=self.protocol,
            seed=self.seed,
            unit=[UNITS[lab] for lab in rows["lab"]],
        )
        if self.intervals is not None:
            return self.intervals.apply(rows)
        state = np.where(rows["estimate"].isna(), NO_ESTIMATE, NO_INTERVALS)
        return rows.assign(**{"lower": np.nan, "upper": np.nan, INTERVAL_STATE: state})
