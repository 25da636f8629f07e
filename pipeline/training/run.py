"""The loop of one training run: global batches in micro-batches, validation, checkpoints, exact resume."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.regressor.lab_regressor import LabRegressor
from models.regressor.lstm import WindowLSTM
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.atomic import make_private_dir
from pipeline.foundation.errors import OtherRunError
from pipeline.training.base import BatchSource
from pipeline.training.busy import BusyClock
from pipeline.training.checkpoints import save_checkpoint
from pipeline.training.config import TrainingConfig, TrainingProgress
from pipeline.training.curves import write_curves
from pipeline.training.distributed import Ranks
from pipeline.training.hardware import bytes_of_a_step, micro_batch_steps, uses_bfloat16
from pipeline.training.prefetch import ReadAhead
from pipeline.training.resume import RESUME_FILE, load_resume, progress_of, save_resume
from pipeline.training.schedule import learning_rate, plan_epoch
from pipeline.training.step import BatchStep
from pipeline.training.validation import Validation, clearly_positive

logger = logging.getLogger(__name__)

Listener = Callable[[TrainingProgress], None]
Validate = Callable[[LabRegressor | WindowLSTM], Validation]


@dataclass(kw_only=True)
class RunState:
    """How far a run has come; all of it is plain JSON.

    Attributes
    ----------
    identity : hash of everything that the result depends on; a folder of another run is refused
    epoch : epochs finished
    best_epoch, best_error : the epoch (from 1) kept as best and its mean scaled validation error
    start_shares : of the validation error before the first epoch, where that stands for selection
    rows : one row per finished epoch, and one of epoch 0 where the lines before training may be kept; of its time,
        ``training_seconds`` is its batches alone, ``validation_seconds`` the validation,
        ``saving_seconds`` its checkpoints, ``seconds`` all before these
    steps_per_micro_batch : that the run has trained with, where it has
    """

    identity: str
    epoch: int = 0
    best_epoch: int = 0
    best_error: float | None = None
    start_shares: list[float] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps_per_micro_batch: int | None = None


@dataclass(kw_only=True)
class TrainingRun:
    """One model, its data and its folder.

    Attributes
    ----------
    part : "all", or the lab of an st_pcs model
    validate : from a model to its errors on the validation patients
    identity : see `RunState`
    scaler, experiment, provenance : what every checkpoint carries
    resumed : what ``read_resume`` found in the folder; empty: nothing
    """

    method: str
    part: str
    model: LabRegressor | WindowLSTM
    optimizer: torch.optim.Optimizer
    source: BatchSource
    validate: Validate
    config: TrainingConfig
    folder: Path
    identity: str
    scaler: LabScaler
    experiment: Mapping[str, Any]
    provenance: Mapping[str, Any]
    device: torch.device
    ranks: Ranks
    resumed: bytes = b""

    @property
    def counts(self) -> dict[str, int]:
        """What the run learns from."""
        return self.source.counts()

    def run(self, listener: Listener | None = None) -> RunState:
        """Train until the last epoch, or until patience ends; a finished run returns at once.

        Raises
        ------
        ConfigError : the folder holds a run of another configuration, or the loss is no longer finite
        """
        state = self._resume()
        self.ranks.alone(lambda: make_private_dir(self.folder))
        if state.epoch == 0 and self.config.fit_lines and self.config.selection == "validation":
            self._keep_start(state)
        step = None
        while state.epoch < self.config.epochs and not self._out_of_patience(state):
            started = time.monotonic()
            step = step or self._step(state)  # not for a finished run: it measures the GPU's memory
            row = self._train_epoch(state.epoch, step, listener)
            trained = time.monotonic()
            validation = self.validate(self.model)
            row["validation"] = validation.errors
            row["validation_seconds"] = round(time.monotonic() - trained, 6)
            row["seconds"] = round(time.monotonic() - started, 3)
            self._finish_epoch(state, row, validation)
            self._tell(listener, row, row["validation"])
        return state

    def _train_epoch(self, epoch: int, step: BatchStep, listener: Listener | None) -> dict[str, Any]:
        config = self.config
        plan = plan_epoch(
            self.source.group_sizes, config.batch_pieces, epoch, config.seed, config.batches_per_epoch
        )
        planned = [step.plan(batch) for batch in plan]
        self.model.train()
        errors = torch.zeros(len(self.source.labs), dtype=torch.float64)
        weights = torch.zeros_like(errors)
        losses: list[float] = []
        row: dict[str, Any] = {
            "method": self.method,
            "part": self.part,
            "epoch": epoch + 1,
            "batches": len(plan),
        }
        clock = BusyClock(self.device)
        with ReadAhead(step.loads(planned, epoch), config.prefetch_micro_batches) as loads:
            for number, one in enumerate(planned):
                row["learning_rate"] = self._set_rate(epoch + number / len(plan))
                loss, batch_errors, batch_weights = step.train(one, loads, epoch, clock)
                losses.append(loss)
                errors += batch_errors
                weights += batch_weights
                lab_losses = self._by_lab(batch_errors, batch_weights)
                row |= {"batch": number + 1, "loss": loss, "lab_losses": lab_losses}
                self._tell(listener, row, None)
        worked, seconds = clock.read()
        return row | {
            "loss": sum(losses) / len(losses),
            "lab_losses": self._by_lab(errors, weights),
            "training_seconds": round(seconds, 6),
            "busy_share": round(worked / seconds, 4),
            "steps_per_second": round(sum(one.steps for one in planned) / seconds, 1),
        }

    def _step(self, state: RunState) -> BatchStep:
        bfloat16 = uses_bfloat16(self.config, self.device)
        with self.ranks.in_step():
            own = micro_batch_steps(
                self.config, self.device, state.steps_per_micro_batch,
                lambda: bytes_of_a_step(
                    self.model, self.source.sample(self.config.seed), self.device, bfloat16=bfloat16
                ),
            )  # fmt: skip
        state.steps_per_micro_batch = self.ranks.least(own)  # cards may differ
        return BatchStep(
            model=self.model, optimizer=self.optimizer, source=self.source, config=self.config, device=self.device,
            ranks=self.ranks, micro_steps=state.steps_per_micro_batch, bfloat16=bfloat16,
        )  # fmt: skip

    def _set_rate(self, epoch: float) -> float:
        c = self.config
        rate = learning_rate(
            epoch,
            c.epochs,
            peak=c.learning_rate,
            start=c.warmup_start,
            final=c.final_lr,
            warmup_epochs=c.warmup_epochs,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _finish_epoch(self, state: RunState, row: dict[str, Any], validation: Validation) -> None:
        """Judge the epoch and write all of it: rank 0, and the others take over what it decided."""
        vars(state).update(json.loads(self.ranks.from_first(lambda: self._finished(state, row, validation))))

    def _finished(self, state: RunState, row: dict[str, Any], validation: Validation) -> bytes:
        state.epoch += 1
        row["selection_error"] = validation.error
        row["kept"] = better = self._is_better(state, validation)
        if better:
            state.best_epoch, state.best_error = state.epoch, validation.error
        state.rows.append(row)
        judged = time.monotonic()
        if better:
            self._save(self.folder / "best", state)
        self._save(self.folder / "last", state)
        row["saving_seconds"] = round(time.monotonic() - judged, 6)
        write_curves(self.folder, state.rows, tensorboard=self.config.tensorboard)
        # Last of all: if it is there, so is everything of its epoch; if not, the epoch is trained again,
        # alike.
        save_resume(self.folder / "last" / RESUME_FILE, self.model, self.optimizer, asdict(state))
        return json.dumps(asdict(state)).encode()

    def _is_better(self, state: RunState, validation: Validation) -> bool:
        """Tell whether this epoch is the best so far.

        Lines fitted before the first epoch are the simpler model: an epoch must be clearly better than they. On
        few validation patients the best of several epochs looks a little better by luck alone, and where labs know
        nothing of the waveform that luck would pass for a difference from the twin.
        """
        error = validation.error
        if self.config.selection == "last" or error is None or state.best_error is None:
            return True
        if state.start_shares is not None and not clearly_positive(
            np.asarray(state.start_shares) - validation.shares
        ):
            return False
        return error < state.best_error

    def _keep_start(self, state: RunState) -> None:
        """Let the lines alone, before the first epoch, stand for selection too: they are epoch 0 of the curves."""
        started = time.monotonic()
        validation = self.validate(self.model)
        state.best_error, state.start_shares = validation.error, validation.shares.tolist()
        row: dict[str, Any] = {
            "method": self.method, "part": self.part, "epoch": 0, "batches": 0, "loss": None, "lab_losses": {},
            "learning_rate": 0.0, "validation": validation.errors, "selection_error": validation.error, "kept": True,
            "seconds": round(time.monotonic() - started, 3),
        }  # fmt: skip
        state.rows.append(row)
        errors = ", ".join(f"{name} {error:.4f}" for name, error in validation.errors.items())
        logger.info(
            "%s (%s): epoch 0, lines fitted before training, validation error %s",
            self.method,
            self.part,
            errors,
        )
        self.ranks.alone(lambda: self._save(self.folder / "best", state))
        self.ranks.alone(lambda: write_curves(self.folder, state.rows, tensorboard=self.config.tensorboard))

    def _save(self, folder: Path, state: RunState) -> None:
        precision = "bfloat16" if uses_bfloat16(self.config, self.device) else "float32"
        machine = {"training_precision": precision, "steps_per_micro_batch": state.steps_per_micro_batch}
        save_checkpoint(
            folder,
            self.model,
            method=self.method,
            scaler=self.scaler,
            experiment=self.experiment,
            provenance={**self.provenance, **machine, "epoch": state.epoch, "counts": self.counts},
        )

    def _resume(self) -> RunState:
        if not self.resumed:
            return RunState(identity=self.identity)
        path = self.folder / "last" / RESUME_FILE
        state = RunState(**progress_of(self.resumed, path))
        if state.identity != self.identity:
            raise OtherRunError(
                f"{self.folder} holds a run of {self.method} with another configuration, cohort or split; "
                "choose another folder, or delete it to train anew"
            )
        load_resume(self.resumed, path, self.model, self.optimizer)
        if state.epoch < self.config.epochs:
            logger.info(
                "%s (%s): resumed after epoch %d of %d",
                self.method,
                self.part,
                state.epoch,
                self.config.epochs,
            )
        return state

    def _out_of_patience(self, state: RunState) -> bool:
        return self.config.patience is not None and state.epoch - state.best_epoch >= self.config.patience

    def _by_lab(self, errors: Tensor, weights: Tensor) -> dict[str, float]:
        table = zip(self.source.labs, errors.tolist(), weights.tolist(), strict=True)
        return {lab: error / weight for lab, error, weight in table if weight > 0}

    def _tell(
        self, listener: Listener | None, row: Mapping[str, Any], validation: dict[str, float] | None
    ) -> None:
        if listener is None or not self.ranks.first:
            return
        names = ("method", "part", "epoch", "batch", "batches", "loss", "lab_losses")
        told = {name: row[name] for name in names}
        told |= {name: row.get(name) for name in ("busy_share", "steps_per_second")}
        listener(TrainingProgress(**told, epochs=self.config.epochs, validation=validation))
