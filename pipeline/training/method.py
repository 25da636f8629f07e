"""Train one method on cached embeddings and aligned labs: the paper's recipe, resumable to the bit.

Every random draw (order of pieces, history windows, dropout) comes from a generator seeded with (seed, epoch,
batch, micro-batch): no generator's state has to be stored, a killed run goes on exactly as if it had not
been, and every rank of a distributed run draws the same. The callers' own generators are left as they were.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.regressor.config import LabRegressorConfig
from models.regressor.inputs import PackedInputs
from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import parameter_groups
from models.regressor.lstm import WindowLSTM, WindowLSTMConfig
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.foundation.errors import ConfigError, LeakError
from pipeline.foundation.provenance import config_hash, from_plain, to_plain
from pipeline.foundation.schema import FITTED_METHODS, LAB_NAMES, TRAINED_METHODS, TWINS
from pipeline.training.base import BatchSource, WindowInputs
from pipeline.training.batches import PieceSource, embedding_width
from pipeline.training.checkpoints import encoder_identity, resolved_experiment
from pipeline.training.closed_form import fit
from pipeline.training.config import (
    TrainingConfig,
    TrainingProgress,
    TrainingResult,
)
from pipeline.training.data import TrainingData
from pipeline.training.distributed import Ranks, joined_ranks, pick_device
from pipeline.training.draw_source import DrawSource
from pipeline.training.embedding_cache import EmbeddingCache
from pipeline.training.forecaster import Forecaster, scale_rows
from pipeline.training.line_fit import fit_lines
from pipeline.training.resume import RESUME_FILE, read_resume
from pipeline.training.run import TrainingRun, Validate
from pipeline.training.schedule import seed_of
from pipeline.training.validation import Validation, validation_examples, validation_of

logger = logging.getLogger(__name__)

PATIENT_STATES = {"mt": "none", "mt_learned": "learned"}
"""How h0 comes about, by method; "pcs" for every other sequence model."""


def train(
    method: str,
    aligned: AlignedCohort,
    store: WindowStore,
    scaler: LabScaler,
    splits: Splits,
    model_config: Mapping[str, Any],
    config: TrainingConfig,
    out_dir: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    *,
    experiment: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Train `method` into `out_dir`, or go on where an interrupted run of the same configuration stopped.

    Parameters
    ----------
    method : one of `TRAINED_METHODS`
    model_config : fields of ``LabRegressorConfig`` (or ``WindowLSTMConfig``) that differ from the
        defaults; fields of the other one are ignored, so that one mapping serves all networks. For ``lines`` those
        of ``LinesShape``, for ``mt_assim`` and its twin those of ``AssimilationShape``
    out_dir : gets ``best/``, ``last/``, ``metrics.jsonl`` and TensorBoard files; for st_pcs one such
        folder a lab
    progress : called after every batch and every epoch
    experiment, provenance : stored in every checkpoint beside what is known here

    Raises
    ------
    ConfigError : an unknown method, no training patients or targets, a run folder of another configuration
    LeakError : a lab scaling that was not fitted on exactly these training patients
    """
    if method not in TRAINED_METHODS:
        raise ConfigError(f"method {method!r} cannot be trained; choose from {list(TRAINED_METHODS)}")
    config = config.for_method(method)
    _check_scaler(scaler, splits, config)
    cache = EmbeddingCache(store, config.embedding_cache_bytes)
    data = TrainingData(aligned=aligned, store=store, scaler=scaler, splits=splits, cache=cache)
    stored: dict[str, Mapping[str, Any]] = {"experiment": experiment or {}, "provenance": provenance or {}}
    if method in FITTED_METHODS:
        return fit(method, data, model_config, config, Path(out_dir), **stored)
    _check_model_config(model_config)
    shared = {"method": method, "model_config": model_config, "config": config, **stored}
    return _train_networks(method, shared, data, Path(out_dir), progress)


def _train_networks(
    method: str,
    shared: Mapping[str, Any],
    data: TrainingData,
    out_dir: Path,
    progress: Callable[[TrainingProgress], None] | None,
) -> TrainingResult:
    """Train the one network of `method`, or one a lab for st_pcs; `shared` is what their recipes have in common."""
    parts = {lab: (lab,) for lab in LAB_NAMES} if method == "st_pcs" else {"all": LAB_NAMES}
    result = TrainingResult(method=method, checkpoint_dir=out_dir, epochs=[], best_epochs={}, counts={})
    with joined_ranks() as ranks:
        for part, labs in parts.items():
            folder = out_dir / part if len(parts) > 1 else out_dir
            run = _Recipe(part=part, labs=labs, **shared).prepare(data, folder, ranks)
            if run is not None:
                state = run.run(progress)
                result.epochs.extend(state.rows)
                result.best_epochs[part], result.counts[part] = state.best_epoch, run.counts
    if not result.best_epochs:
        raise ConfigError(
            "no lab has a target among the training patients: check the lab table and the splits"
        )
    return result


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """One model to be trained: all of a method, or one lab of st_pcs."""

    method: str
    part: str
    labs: tuple[str, ...]
    model_config: Mapping[str, Any]
    config: TrainingConfig
    experiment: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def prepare(self, data: TrainingData, folder: Path, ranks: Ranks) -> TrainingRun | None:
        """Build data, model and optimiser; None for a lab of st_pcs that has no target to learn from."""
        resumed = ranks.from_first(lambda: read_resume(folder / "last" / RESUME_FILE))
        with ranks.in_step():
            source = self._source(data)
            if sum(source.group_sizes) == 0:
                if self.method == "st_pcs":
                    logger.warning("st_pcs: no training target for %s; no model is trained for it", self.part)
                    return None
                raise ConfigError(
                    f"{self.method}: the training patients have no target ({source.counts()}); "
                    "check that the lab table covers the recorded stays and the splits were made for this cohort"
                )
            device = pick_device(self.config.device)
            model = self._started(source, data, resumes=bool(resumed)).to(device)
            known = data.provenance()
        ranks.start_alike(model)
        groups = parameter_groups(model, self.config.weight_decay)
        described = {"model": to_plain(model.config), "training": to_plain(self.config), **known}
        identity = {
            **described, "method": self.method, "part": self.part, "training": self.config.identity(),
            "encoder": encoder_identity(described),
        }  # fmt: skip
        return TrainingRun(
            method=self.method, part=self.part, model=model, source=source, config=self.config, folder=folder,
            optimizer=_adamw(groups, self.config.warmup_start, device),
            validate=self._validate(data, device, ranks), scaler=data.scaler, device=device, ranks=ranks,
            identity=config_hash(identity), resumed=resumed,
            experiment={**resolved_experiment(self.experiment, known), "training": to_plain(self.config)},
            provenance={**to_plain(self.provenance), **known, "config_hash": config_hash(described)},
        )  # fmt: skip

    def _started(
        self, source: BatchSource, data: TrainingData, *, resumes: bool
    ) -> LabRegressor | WindowLSTM:
        """Return the model before its first step: scaled to its inputs, with its lines."""
        model = self._model(embedding_width(data.store, data.patients("train")))
        model.set_output_means(torch.tensor(source.target_means(), dtype=torch.float32))
        _fit_scales(model, source.sample(self.config.seed))
        if self.config.fit_lines and isinstance(model, LabRegressor):
            assert isinstance(source, PieceSource)
            if resumes:  # a run that goes on brings its own
                model.hold_lines()
            else:
                fit_lines(model, source, self.config.seed)
        return model

    def _source(self, data: TrainingData) -> BatchSource:
        patients = data.patients("train")
        if not patients:
            raise ConfigError(
                "no patient of this cohort belongs to the training split: split this cohort anew"
            )
        if self.method == "lstm":
            return DrawSource(
                data.aligned, data.store, data.scaler, patients=patients, protocols=self.config.protocols,
                centred=self.config.lstm_centred,
            )  # fmt: skip
        return PieceSource(
            data.aligned, data.store, data.scaler, patients=patients, protocols=self.config.protocols,
            labs=self.labs, twin=self.method in TWINS, seed=self.config.seed, cache=data.cache,
        )  # fmt: skip

    def _model(self, width: int) -> LabRegressor | WindowLSTM:
        # The generator is the callers' own: it is put back as it was.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.config.seed))
            if self.method == "lstm":
                chosen = _fields_of(WindowLSTMConfig, self.model_config) | {"embed_width": width}
                return WindowLSTM(from_plain(WindowLSTMConfig, chosen))
            state = PATIENT_STATES.get(self.method, "pcs")
            own: dict[str, Any] = {"embed_width": width, "task_labs": self.labs, "patient_state": state}
            chosen = _fields_of(LabRegressorConfig, self.model_config) | own
            return LabRegressor(from_plain(LabRegressorConfig, chosen))

    def _validate(self, data: TrainingData, device: torch.device, ranks: Ranks) -> Validate:
        """Return what judges a model: the mean absolute error of measured draws by protocol and lab."""
        patients, twin = data.patients("validation"), self.method in TWINS
        frame = validation_examples(
            data.aligned, patients, self.config.protocols, self.labs, ranks, twin=twin
        )
        truth = frame["truth"].to_numpy(dtype=np.float64)

        def validate(model: LabRegressor | WindowLSTM) -> Validation:
            forecaster = Forecaster(
                model=model.eval(), labs=self.labs, scaler=data.scaler, device=device, twin=twin,
                centred=self.config.lstm_centred, seed=self.config.seed,
            )  # fmt: skip
            with ranks.in_step():
                estimate = forecaster.scaled(
                    frame, data.aligned, data.store, patients, cache=data.cache, exact=False
                )
            scaled_truth = scale_rows(data.scaler, truth, frame["lab"])
            rows = frame[["protocol", "lab", "patient_id"]].assign(error=np.abs(estimate - scaled_truth))
            return validation_of(rows, self.config.protocols, self.labs, patients, ranks, device)

        return validate


def _adamw(groups: list[dict[str, object]], rate: float, device: torch.device) -> torch.optim.AdamW:
    # On a CPU the default goes through the parameters one by one, four times as long; on a GPU it is chosen well.
    return torch.optim.AdamW(
        groups, lr=rate, betas=(0.9, 0.999), fused=True if device.type == "cpu" else None
    )


def _check_scaler(scaler: LabScaler, splits: Splits, config: TrainingConfig) -> None:
    scaler.check(splits)
    if scaler.fitted_on != "train" and not config.allow_leaks:
        raise LeakError(
            f"the lab scaling was fitted on {scaler.fitted_on!r}, which knows held-out patients; fit it on "
            "the training patients, or set allow_leaks (the authors preset) and say so beside every number"
        )


def _fit_scales(model: LabRegressor | WindowLSTM, inputs: PackedInputs | WindowInputs) -> None:
    if isinstance(model, WindowLSTM):
        assert isinstance(inputs, WindowInputs)
        model.fit_input_scales(inputs.embeddings, inputs.mask)
    else:
        assert isinstance(inputs, PackedInputs)
        model.fit_input_scales(inputs)


def _check_model_config(values: Mapping[str, Any]) -> None:
    known = {f.name for kind in (LabRegressorConfig, WindowLSTMConfig) for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"model_config has unknown fields {unknown}; known are {sorted(known)}")


def _fields_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {f.name for f in fields(kind)}
    return {name: value for name, value in values.items() if name in known}
