"""Fine-tune an encoder on measured draws of training patients; resumable to the bit after every epoch.

Before each epoch a line a lab is fitted to the features in closed form, once without each fold of patients, and held:
the encoder learns through lines that have not seen the draw. Heads that are trained beside the encoder learn a few
hundred draws by heart within an epoch, and what they ask of it from then on helps nobody else. Epoch 0 is the encoder
as it was; where no epoch is better for the validation patients, the weights stay so. Every random draw is seeded by its
place (seed, epoch, step), so no generator's state is stored.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.encoders.lab_heads import LabHeads
from models.encoders.ppg_gpt import PPGGPT
from pipeline.cohort.encoder_patients import LearnedFrom
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.progress import progress, tracked
from pipeline.foundation.schema import LAB_NAMES
from pipeline.training.curves import write_curves
from pipeline.training.distributed import pick_device
from pipeline.training.encoder.config import EncoderTrainingConfig
from pipeline.training.encoder.draws import EncoderDraws
from pipeline.training.encoder.judging import LEAST_DRAWS, Judgement, judge
from pipeline.training.encoder.weights import WEIGHTS_FILE, adapted, merged, save_tuned
from pipeline.training.encoder.windows import WindowCache
from pipeline.training.hardware import autocast, seeded
from pipeline.training.resume import RESUME_FILE, load_resume, progress_of, read_resume, save_resume
from pipeline.training.ridge import FOLDS
from pipeline.training.schedule import learning_rate, seed_of

logger = logging.getLogger(__name__)

Listener = Callable[[Mapping[str, Any]], None]
MOST_JUDGED = 20_000
"""Draws that lines are fitted and judged on after each epoch; more of them would tell no more."""
WINDOWS_AT_ONCE = 4096
UNFINISHED = "unfinished"
"""Folder of what an interrupted run goes on from."""


@dataclass(frozen=True, kw_only=True)
class TunedDraws:
    """Draws with their windows: of training patients, who are learned from, or of validation patients, who judge."""

    draws: EncoderDraws
    windows: WindowCache


@dataclass(kw_only=True)
class EncoderTrainingState:
    """How far a run has come; plain JSON.

    Attributes
    ----------
    identity : hash of all that decides the weights
    epoch : epochs finished; 0 has been judged as well
    best_epoch, best_loss : the epoch that is kept, and the validation patients' loss after it
    best_weights : what tells its weights apart
    rows : one row for epoch 0 and each finished one
    """

    identity: str
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    best_weights: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def tune(
    encoder: PPGGPT,
    training: TunedDraws,
    validation: TunedDraws,
    config: EncoderTrainingConfig,
    folder: Path,
    *,
    identity: str,
    learned: Sequence[LearnedFrom],
    listener: Listener | None = None,
) -> EncoderTrainingState:
    """Train a copy of `encoder` and leave the weights of the epoch kept in ``unfinished/model.safetensors``.

    Parameters
    ----------
    encoder : with its read-out; stays as it is
    identity : of everything that decides the weights; an unfinished run of another one is begun anew
    learned : whom the weights will have learned from; goes into their file
    listener : called with each finished epoch's row, that of epoch 0 included

    Raises
    ------
    ConfigError : no lab has draws enough, a step does not fit into memory, or the loss is no longer finite
    """
    return _Run(encoder, training, validation, config, folder / UNFINISHED, learned).go(identity, listener)


class _Run:
    """One encoder, its draws and its folder."""

    def __init__(
        self, encoder: PPGGPT, training: TunedDraws, validation: TunedDraws, config: EncoderTrainingConfig,
        folder: Path, learned: Sequence[LearnedFrom],
    ):  # fmt: skip
        self.training, self.validation, self.config = training, validation, config
        self.folder, self.learned = folder, learned
        self.device = pick_device(config.device)
        self.target, self.held_out_target = scaled_targets(training.draws.target, validation.draws.target)
        with seeded(seed_of(config.seed), self.device):
            self.encoder = adapted(encoder, config).to(self.device)
        self.heads = LabHeads(encoder.width, len(LAB_NAMES), FOLDS).to(self.device)
        self.fold = torch.zeros(len(training.draws.patients), len(LAB_NAMES), dtype=torch.int64)
        self.own = [p for p in self.encoder.parameters() if p.requires_grad]
        decay = (
            (config.weight_decay, [p for p in self.own if p.ndim > 1]),
            (0.0, [p for p in self.own if p.ndim < 2]),
        )
        groups = [{"params": chosen, "weight_decay": share} for share, chosen in decay if chosen]
        self.optimizer = torch.optim.AdamW(groups, lr=config.warmup_start)

    def go(self, identity: str, listener: Listener | None) -> EncoderTrainingState:
        """Train until the last epoch, or until validation has found nothing better for long enough."""
        state = self._resume(identity)
        judgement = self._judge()
        if all(line is None for line in judgement.lines):
            raise ConfigError(
                f"no lab has {LEAST_DRAWS} draws of training patients with a usable window at most "
                f"{self.config.minutes_before:g} minutes before them: nothing can be learned from so few; bring more "
                "patients, or raise encoder_training.minutes_before"
            )
        if not state.rows:
            start = {"epoch": 0, "loss": None, "learning_rate": 0.0, "seconds": 0.0}
            self._finish(state, start | _told(judgement), listener)
        with progress("fine-tuning", self.config.epochs, "epochs", state.epoch) as bar:
            while state.epoch < self.config.epochs and not self._given_up(state):
                began = time.monotonic()
                self._set_heads(judgement)
                row = self._train_epoch(state.epoch)
                state.epoch += 1
                judgement = self._judge()
                row |= _told(judgement) | {"seconds": round(time.monotonic() - began, 3)}
                self._finish(state, row, listener)
                bar.reach(state.epoch)
        return state

    def _given_up(self, state: EncoderTrainingState) -> bool:
        patience = self.config.patience
        chosen = self.config.selection == "validation" and patience is not None
        return chosen and state.epoch - state.best_epoch >= (patience or 0)

    def _set_heads(self, judgement: Judgement) -> None:
        """Hold the lines that were just fitted, each without a fold of patients, and what they leave."""
        for column, (line, levels) in enumerate(zip(judgement.lines, judgement.levels, strict=True)):
            if line is None or levels is None:
                continue
            self.heads.weights[:, column] = torch.tensor(line.fold_weights, dtype=torch.float32)
            self.heads.bias[:, column] = torch.tensor(line.fold_bias, dtype=torch.float32)
            self.heads.noise[column], self.heads.level[column] = levels.noise, levels.level
            for patient, fold in judgement.folds[column].items():
                self.fold[patient, column] = fold

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        c = self.config
        batches = plan_batches(self.training.draws.patient, c.draws_together, c.batch_draws, c.seed, epoch)
        self.encoder.train()
        losses = [
            self._step(groups, epoch, number, epoch + number / len(batches))
            for number, groups in enumerate(tracked(batches, f"epoch {epoch + 1} of {c.epochs}", "batches"))
        ]
        rate = self.optimizer.param_groups[0]["lr"]
        return {"epoch": epoch + 1, "loss": float(np.mean(losses)), "learning_rate": rate}

    def _step(self, groups: list[np.ndarray], epoch: int, number: int, progress: float) -> float:
        c = self.config
        rate = learning_rate(
            progress, c.epochs, peak=c.learning_rate, start=c.warmup_start, final=c.final_lr,
            warmup_epochs=c.warmup_epochs,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        try:
            value = self._descend(groups, seed_of(c.seed, epoch, number))
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"a step of {c.batch_draws} draws with {c.step_windows} windows each does not fit into the GPU's "
                f"memory: try --set encoder_training.batch_draws={max(1, c.batch_draws // 4)}"
            ) from None
        if not np.isfinite(value):
            raise ConfigError(
                f"the loss became {value} in epoch {epoch + 1}: lower encoder_training.learning_rate, which is "
                f"{c.learning_rate:g}"
            )
        return value

    def _descend(self, groups: list[np.ndarray], seed: int) -> float:
        draws = np.concatenate(groups)
        rows, share = _chosen_windows(self.training.draws.window[draws], self.config.step_windows, seed)
        windows = self.training.windows.take(rows).to(self.device)
        same = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        with seeded(seed, self.device), autocast(self.config.precision, self.device):
            features = self.encoder.features(windows)
        fold = self.fold[self.training.draws.patient[draws]].to(self.device)
        estimate = self.heads(share.to(self.device) @ features.float(), fold)
        group = torch.from_numpy(np.arange(len(groups))[:, None] == same).to(self.device)
        loss = self.heads.loss(estimate, self.target[draws].to(self.device), group)
        loss.backward()
        nn.utils.clip_grad_norm_(self.own, self.config.clip)
        self.optimizer.step()
        return float(loss.detach())

    def _judge(self) -> Judgement:
        """Judge the encoder's features as they are now, frozen, on the validation draws."""
        plain = merged(self.encoder)
        training, held_out = (_judged(len(one.draws.patient)) for one in (self.training, self.validation))
        return judge(
            mean_features(plain, self.training), self.target.double().numpy()[training],
            self.training.draws.patient[training],
            mean_features(plain, self.validation), self.held_out_target.double().numpy()[held_out],
            self.validation.draws.patient[held_out], levels=self.config.patient_levels,
        )  # fmt: skip

    def _finish(self, state: EncoderTrainingState, row: dict[str, Any], listener: Listener | None) -> None:
        state.rows.append(row)
        loss = row["validation_loss"]
        better = state.best_loss is None or (loss is not None and loss < state.best_loss)
        if not state.best_weights or better or self.config.selection == "last":
            state.best_epoch, state.best_loss = state.epoch, loss
            state.best_weights = save_tuned(self.folder / WEIGHTS_FILE, merged(self.encoder), self.learned)
        write_curves(self.folder, state.rows, tensorboard=False)
        # Last of all: if it is there, so is everything of its epoch; if not, the epoch is trained again, alike.
        save_resume(self.folder / RESUME_FILE, self.encoder, self.optimizer, asdict(state))
        if listener is not None:
            listener(row)

    def _resume(self, identity: str) -> EncoderTrainingState:
        path = self.folder / RESUME_FILE
        held = read_resume(path)
        state = EncoderTrainingState(**progress_of(held, path)) if held else None
        if state is None or state.identity != identity or not (self.folder / WEIGHTS_FILE).exists():
            return EncoderTrainingState(identity=identity)
        load_resume(held, path, self.encoder, self.optimizer)
        logger.info("fine-tuning resumed after epoch %d of at most %d", state.epoch, self.config.epochs)
        return state


def mean_features(encoder: Encoder, of: TunedDraws) -> np.ndarray:
    """Return the mean embedding of each judged draw's windows, (draws, width) float64; memory: one block of windows."""
    window = of.draws.window[_judged(len(of.draws.patient))]
    out = np.zeros((len(window), encoder.width))
    at_once = max(1, WINDOWS_AT_ONCE // window.shape[1])
    for first in range(0, len(window), at_once):
        part = window[first : first + at_once]
        there = part >= 0
        embedded = encoder.embed(of.windows.take(part[there])).double().cpu().numpy()
        np.add.at(out[first : first + at_once], np.nonzero(there)[0], embedded)
        out[first : first + at_once] /= there.sum(axis=1)[:, None]
    return out


def plan_batches(
    patient: np.ndarray, together: int, batch_draws: int, seed: int, epoch: int
) -> list[list[np.ndarray]]:
    """Return one epoch's steps: each a list of groups of at most `together` draws of one patient, every draw once."""
    rng = np.random.default_rng(seed_of(seed, epoch))
    groups = []
    for rows in np.split(np.arange(len(patient)), np.flatnonzero(np.diff(patient)) + 1):
        shuffled = rng.permutation(rows)
        groups += [shuffled[first : first + together] for first in range(0, len(rows), together)]
    batches: list[list[np.ndarray]] = []
    room = 0
    for place in rng.permutation(len(groups)):
        if room <= 0:
            batches.append([])
            room = batch_draws
        batches[-1].append(groups[place])
        room -= len(groups[place])
    return batches


def _chosen_windows(window: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, Tensor]:
    """Draw at most `most` windows of each draw; return their rows, and what averages them, (draws, rows)."""
    order = np.random.default_rng(seed).random(window.shape)
    order[window < 0] = 2.0  # after all that are there
    chosen = np.take_along_axis(window, np.argsort(order, axis=1)[:, :most], axis=1)
    there = chosen >= 0
    owner = np.nonzero(there)[0]
    share = np.zeros((len(window), len(owner)), np.float32)
    share[owner, np.arange(len(owner))] = 1 / there.sum(axis=1)[owner]
    return chosen[there], torch.from_numpy(share)


def scaled_targets(training: np.ndarray, held_out: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return both by the training draws' mean and spread; labs with too few draws are left out (NaN)."""
    known = np.isfinite(training)
    enough = known.sum(axis=0) >= LEAST_DRAWS
    filled, count = np.where(known, training, 0.0), np.maximum(known.sum(axis=0), 1)
    mean = filled.sum(axis=0) / count
    spread = np.sqrt(np.where(known, np.square(training - mean), 0.0).sum(axis=0) / count)
    scale = np.where(spread > 0, spread, 1.0)
    parts = [np.where(enough, (values - mean) / scale, np.nan) for values in (training, held_out)]
    return torch.tensor(parts[0], dtype=torch.float32), torch.tensor(parts[1], dtype=torch.float32)


def _judged(count: int) -> np.ndarray:
    """Return the rows that are judged: all, or `MOST_JUDGED` of them, evenly."""
    if count <= MOST_JUDGED:
        return np.arange(count)
    return np.linspace(0, count - 1, MOST_JUDGED).round().astype(int)


def _told(judgement: Judgement) -> dict[str, Any]:
    rounded = {
        name: {
            lab: round(value, 4) if np.isfinite(value) else None
            for lab, value in getattr(judgement, name).items()
        }
        for name in ("r2", "within_r2")
    }
    return {"validation_loss": judgement.loss, **rounded}
