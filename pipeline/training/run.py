"""The loop of one training run: global batches in micro-batches, validation, checkpoints, exact resume."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import uncertainty_weighted_l1, weighted_error_sums, weighted_l1
from models.regressor.lstm import WindowLSTM
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.atomic import make_private_dir
from pipeline.foundation.errors import ConfigError, OtherRunError
from pipeline.training.batches import BatchSource, MicroBatch, forward
from pipeline.training.checkpoints import save_checkpoint
from pipeline.training.config import TrainingConfig, TrainingProgress
from pipeline.training.curves import write_curves
from pipeline.training.distributed import Ranks
from pipeline.training.resume import RESUME_FILE, load_resume, read_progress, save_resume
from pipeline.training.schedule import Batch, learning_rate, micro_batches, plan_epoch, seed_of
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
    rows : one row per finished epoch
    """

    identity: str
    epoch: int = 0
    best_epoch: int = 0
    best_error: float | None = None
    start_shares: list[float] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(kw_only=True)
class TrainingRun:
    """One model, its data and its folder.

    Attributes
    ----------
    part : "all", or the lab of an st_pcs model
    validate : from a model to its errors on the validation patients
    identity : see `RunState`
    scaler, experiment, provenance : what every checkpoint carries
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
        make_private_dir(self.folder)
        state = self._resume()
        if state.epoch == 0 and self.config.fit_lines and self.config.selection == "validation":
            self._keep_start(state)
        while state.epoch < self.config.epochs and not self._out_of_patience(state):
            started = time.monotonic()
            row = self._train_epoch(state.epoch, listener)
            validation = self.validate(self.model)
            row["validation"] = validation.errors
            row["seconds"] = round(time.monotonic() - started, 3)
            self._finish_epoch(state, row, validation)
            self._tell(listener, row, row["validation"])
        return state

    def _train_epoch(self, epoch: int, listener: Listener | None) -> dict[str, Any]:
        config = self.config
        plan = plan_epoch(
            self.source.group_sizes, config.batch_pieces, epoch, config.seed, config.batches_per_epoch
        )
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
        for batch in plan:
            row["learning_rate"] = self._set_rate(epoch + batch.number / len(plan))
            loss, batch_errors, batch_weights = self._train_batch(batch, epoch)
            losses.append(loss)
            errors += batch_errors
            weights += batch_weights
            row |= {
                "batch": batch.number + 1,
                "loss": loss,
                "lab_losses": self._by_lab(batch_errors, batch_weights),
            }
            self._tell(listener, row, None)
        return row | {"loss": sum(losses) / len(losses), "lab_losses": self._by_lab(errors, weights)}

    def _train_batch(self, batch: Batch, epoch: int) -> tuple[float, Tensor, Tensor]:
        """Accumulate one global batch's gradient and step; return the loss, and error and weight per lab."""
        totals = torch.from_numpy(self.source.weight_sums(batch.group, batch.items))
        lengths = self.source.lengths(batch.group, batch.items)
        micro = micro_batches(batch.items, lengths, self.config.steps_per_micro_batch)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(1 + len(totals), dtype=torch.float64)  # the loss, then each lab's error
        for number, items in self.ranks.share(list(enumerate(micro))):
            loaded = self.source.load(batch.group, items, epoch)
            with _seeded(seed_of(self.config.seed, epoch, batch.number, number), self.device):
                loss, errors = self._losses(loaded, totals, with_penalty=number == 0)
                loss.backward()
            sums += torch.cat([loss.detach().reshape(1), errors.detach()]).double().cpu()
        sums = self.ranks.sum(sums.to(self.device)).cpu()
        self._check_finite(float(sums[0]), epoch)
        self.ranks.sum_gradients(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        return float(sums[0]), sums[1:], totals

    def _losses(self, loaded: MicroBatch, totals: Tensor, *, with_penalty: bool) -> tuple[Tensor, Tensor]:
        """Return this part's share of the global batch's loss, and the summed error per lab.

        The penalty on sigma belongs to the batch as a whole: its first part carries it.
        """
        with self._autocast():
            inputs = loaded.inputs.to(self.device)
            prediction = forward(self.model, inputs, self.config.steps_per_micro_batch)
        target, weight = loaded.targets.to(self.device), loaded.weights.to(self.device)
        total = totals.to(self.device, torch.float32)
        errors, _ = weighted_error_sums(prediction, target, weight)
        log_variance = getattr(self.model, "log_variance", None)
        if log_variance is None or len(self.source.labs) == 1:
            return weighted_l1(prediction, target, weight, total), errors
        share = 1.0 if with_penalty else 0.0
        return uncertainty_weighted_l1(prediction, target, weight, log_variance, total, share), errors

    def _autocast(self) -> torch.autocast:
        enabled = self.config.amp and self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

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
        state.epoch += 1
        row["selection_error"] = validation.error
        row["kept"] = better = self._is_better(state, validation)
        if better:
            state.best_epoch, state.best_error = state.epoch, validation.error
        state.rows.append(row)
        if not self.ranks.first:
            return
        if better:
            self._save(self.folder / "best", state)
        self._save(self.folder / "last", state)
        write_curves(self.folder, state.rows, tensorboard=self.config.tensorboard)
        # Last of all: if it is there, so is everything of its epoch; if not, the epoch is trained again,
        # alike.
        save_resume(self.folder / "last" / RESUME_FILE, self.model, self.optimizer, asdict(state))

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
        """Let the lines alone, before the first epoch, stand for selection too."""
        validation = self.validate(self.model)
        state.best_error, state.start_shares = validation.error, validation.shares.tolist()
        if self.ranks.first:
            self._save(self.folder / "best", state)

    def _save(self, folder: Path, state: RunState) -> None:
        save_checkpoint(
            folder,
            self.model,
            method=self.method,
            scaler=self.scaler,
            experiment=self.experiment,
            provenance={**self.provenance, "epoch": state.epoch, "counts": self.counts},
        )

    def _resume(self) -> RunState:
        path = self.folder / "last" / RESUME_FILE
        if not path.exists():
            return RunState(identity=self.identity)
        state = RunState(**read_progress(path))
        if state.identity != self.identity:
            raise OtherRunError(
                f"{self.folder} holds a run of {self.method} with another configuration, cohort or split; "
                "choose another folder, or delete it to train anew"
            )
        load_resume(path, self.model, self.optimizer)
        logger.info(
            "%s (%s): resumed after epoch %d of %d", self.method, self.part, state.epoch, self.config.epochs
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
        listener(TrainingProgress(**told, epochs=self.config.epochs, validation=validation))

    def _check_finite(self, loss: float, epoch: int) -> None:
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise ConfigError(
                f"the loss of {self.method} became {loss} in epoch {epoch + 1}; lower learning_rate = "
                f"{self.config.learning_rate}, or look for infinite values among embeddings and labs"
            )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw dropout from a seed of its own and leave the callers' generators as they were."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
