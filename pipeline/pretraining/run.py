"""Pretrain PPG-GPT by predicting each next second of the pulse wave; resumable to the bit.

One epoch = one pass over the first corpus, cut at other places every time (``pipeline.pretraining.data``).
Every random draw is seeded by its place (seed, epoch, batch), so no generator's state is stored. A run may be
prolonged by raising ``epochs``: from there on the rate is that of the longer cosine.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.encoders.ppg_gpt import PPG_GPT_SCALES, PPGGPT, PPGGPTConfig, scale_of
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import make_private_dir, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.progress import progress, tracked
from pipeline.foundation.provenance import config_hash, to_plain, versions
from pipeline.foundation.tensor_files import write_tensors
from pipeline.pretraining.config import PretrainingConfig, PretrainingState
from pipeline.pretraining.data import Corpus, epoch_windows
from pipeline.pretraining.optimizers import make_optimizer
from pipeline.training.checkpoints import model_tensors
from pipeline.training.curves import write_curves
from pipeline.training.distributed import Ranks, joined_ranks, pick_device
from pipeline.training.hardware import autocast, seeded
from pipeline.training.resume import RESUME_FILE, load_resume, progress_of, read_resume, save_resume
from pipeline.training.schedule import learning_rate, seed_of

logger = logging.getLogger(__name__)

WEIGHTS_FILE, RECORD_FILE = "model.safetensors", "pretraining.json"
Listener = Callable[[Mapping[str, Any]], None]


def pretrain(
    training: Sequence[Corpus],
    validation: Sequence[Corpus],
    config: PretrainingConfig,
    out_dir: Path,
    listener: Listener | None = None,
    *,
    model: PPGGPTConfig | None = None,
    start: PPGGPT | None = None,
    probe: Callable[[PPGGPT], Mapping[str, Any]] | None = None,
    probe_every: int = 10,
) -> PretrainingState:
    """Train into `out_dir`, or go on where an interrupted (or shorter) run stopped.

    Writes ``model.safetensors`` (the best epoch's weights, as ``make_encoder`` reads them),
    ``pretraining.json`` (where they come from), ``metrics.jsonl`` and ``last/resume.safetensors``.

    Parameters
    ----------
    training, validation : the two sides of ``pretraining.data.divide``, the main corpus first
    listener : called with each finished epoch's row
    model : other sizes than those of ``config.scale``
    start : train its weights on, with a fresh optimiser; None: random weights. They are part of the run's identity
    probe : its plain JSON stands as ``probe`` in the rows of every `probe_every`-th epoch and of the last, and as
        ``probe_before`` in the first row (the weights before any step); it chooses nothing

    Raises
    ------
    ConfigError : `out_dir` holds another run, `start` has other sizes, no usable window, or the loss is no longer
        finite
    """
    _refuse_overlap(training, validation)
    with joined_ranks() as ranks:
        sizes = replace(model or PPG_GPT_SCALES[config.scale], dropout=config.dropout)
        run = _Run(training, validation, config, sizes, Path(out_dir), ranks)
        if start is not None:
            run.start_from(start)
        if probe is not None:
            run.probe, run.probe_every = probe, probe_every
        with noted(run.note):
            return run.go(listener)


class _Run:
    """One model, its data and its folder."""

    def __init__(
        self, training: Sequence[Corpus], validation: Sequence[Corpus], config: PretrainingConfig,
        sizes: PPGGPTConfig, folder: Path, ranks: Ranks,
    ):  # fmt: skip
        self.training, self.validation = training, validation
        self.config, self.folder, self.ranks = config, folder, ranks
        self.device = pick_device(config.device)
        with seeded(seed_of(config.seed), self.device):
            self.model = PPGGPT(sizes).to(self.device)
        self.optimizer = make_optimizer(self.model, config)
        self.probe: Callable[[PPGGPT], Mapping[str, Any]] | None = None
        self.probe_every = 1
        self.loss = torch.compile(self.model.loss, dynamic=False) if config.fuse else self.model.loss
        self.validation_dropped: Counter[str] = Counter()
        self.held_out = {c.name: c.windows(config.window, self.validation_dropped) for c in validation}
        if empty := [name for name, windows in self.held_out.items() if not len(windows)]:
            raise ConfigError(
                f"no usable window is held out of {', '.join(empty)}: raise validation_share or bring more data "
                f"(dropped: {dict(self.validation_dropped)})"
            )
        self.described = {
            "config": _without(config, "epochs", "device"), "model": to_plain(sizes),
            "training": [c.fingerprint for c in training], "validation": [c.fingerprint for c in validation],
        }  # fmt: skip

    @property
    def note(self) -> ArtefactNote:
        """What the weights carry: the licences of both sides, for the held-out one chose the epoch."""
        inputs = {side: self.described.get(side) for side in ("start", "training", "validation")}
        licences = {corpus.source.licence for corpus in (*self.training, *self.validation)}
        return ArtefactNote.of("pretrain_ppg_gpt", config=self.config, inputs=inputs, licences=licences)

    def start_from(self, start: PPGGPT) -> None:
        """Take over another model's weights before the first epoch; a resumed run keeps its own."""
        require_sizes(start, self.model.config, self.config.scale)
        self.model.load_state_dict(start.state_dict())
        self.described["start"] = start.weights_hash

    def go(self, listener: Listener | None) -> PretrainingState:
        """Train until the last epoch; a finished run returns at once."""
        make_private_dir(self.folder)
        state = self._resume()
        before = self._probed(0) if state.epoch == 0 else {}
        with progress("pretraining", self.config.epochs, "epochs", state.epoch) as bar:
            while state.epoch < self.config.epochs:
                started = time.monotonic()
                row = self._train_epoch(state.epoch)
                row["validation"] = {name: self._loss_of(windows) for name, windows in self.held_out.items()}
                row["seconds"] = round(time.monotonic() - started, 3)
                row |= self._probed(state.epoch + 1) | {
                    f"{name}_before": value for name, value in before.items()
                }
                before = {}
                self._finish(state, row)
                if listener is not None and self.ranks.first:
                    listener(row)
                bar.reach(state.epoch)
        return state

    def _probed(self, epoch: int) -> dict[str, Any]:
        """Return what the probe says of the weights after `epoch`, where it is its turn."""
        if self.probe is None or not (epoch % self.probe_every == 0 or epoch == self.config.epochs):
            return {}
        return {"probe": dict(self.probe(self.model.eval()))} if self.ranks.first else {}

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        c = self.config
        windows, dropped = epoch_windows(self.training, epoch, c.seed, c.epoch_windows, c.window)
        if not len(windows):
            raise ConfigError(f"no usable window to pretrain on; dropped: {dict(dropped)}")
        batches = np.array_split(windows, -(-len(windows) // c.batch_windows))
        self.model.train()
        losses = [
            self._step(batch, epoch, number, epoch + number / len(batches))
            for number, batch in enumerate(tracked(batches, f"epoch {epoch + 1} of {c.epochs}", "batches"))
        ]
        rate = self.optimizer.param_groups[0]["lr"]
        return {
            "epoch": epoch + 1, "windows": len(windows), "batches": len(batches), "dropped": dict(dropped),
            "loss": float(np.mean(losses)), "learning_rate": rate,
        }  # fmt: skip

    def _step(self, batch: np.ndarray, epoch: int, number: int, progress: float) -> float:
        c = self.config
        rate = learning_rate(
            progress, c.epochs, peak=c.learning_rate, start=c.warmup_start, final=c.final_lr,
            warmup_epochs=c.warmup_epochs,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        own = batch[self.ranks.rank :: self.ranks.world]
        total = torch.zeros(1, device=self.device)
        if len(own):
            with (
                seeded(seed_of(c.seed, epoch, number, self.ranks.rank), self.device),
                autocast(self.config.precision, self.device),
                self._attention(),
            ):
                loss = self.loss(torch.from_numpy(own).to(self.device)) * (len(own) / len(batch))
            loss.backward()
            total += loss.detach()
        value = float(self.ranks.sum(total))
        if not np.isfinite(value):
            raise ConfigError(
                f"the loss became {value} in epoch {epoch + 1}; lower learning_rate = {c.learning_rate}"
            )
        self.ranks.sum_gradients(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), c.clip)
        self.optimizer.step()
        return value

    def _attention(self) -> AbstractContextManager[object]:
        """Plain matrix products on a CPU: the chunked kernel is slow at 31 positions, half of a step's time."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def _loss_of(self, windows: np.ndarray) -> float:
        """Mean loss in float32, over all ranks alike."""
        self.model.eval()
        total = 0.0
        with torch.no_grad():
            for part in np.array_split(windows, max(1, -(-len(windows) // 256))):
                total += float(self.model.loss(torch.from_numpy(part).to(self.device))) * len(part)
        return total / len(windows)

    def _finish(self, state: PretrainingState, row: dict[str, Any]) -> None:
        state.epoch += 1
        state.rows.append(row)
        judged = next(iter(row["validation"].values()))
        better = state.best_loss is None or judged < state.best_loss
        if better:
            state.best_epoch, state.best_loss = state.epoch, judged
        if not self.ranks.first:
            return
        if better:
            self._save(state)
        write_curves(self.folder, state.rows, tensorboard=False)
        # Last of all: if it is there, so is everything of its epoch; if not, the epoch is trained again, alike.
        save_resume(self.folder / "last" / RESUME_FILE, self.model, self.optimizer, asdict(state))

    def _save(self, state: PretrainingState) -> None:
        sha256 = write_tensors(self.folder / WEIGHTS_FILE, model_tensors(self.model), save_tensors)
        write_json(
            self.folder / RECORD_FILE,
            {
                "model": to_plain(self.model.config),
                "file_sha256": sha256,
                "weights_hash": self.model.weights_hash,
                "recipe": to_plain(self.config),
                "epoch": state.epoch,
                "windows_seen": sum(row["windows"] for row in state.rows),
                "training_loss": state.rows[-1]["loss"],
                "validation_loss": state.rows[-1]["validation"],
                "validation_windows": {name: len(windows) for name, windows in self.held_out.items()},
                "records": {c.name: {"training": len(c.records), "share": c.share} for c in self.training},
                "licences": {c.name: c.source.licence for c in self.training},
                "dropped_last_epoch": state.rows[-1]["dropped"],
                "dropped_validation": dict(self.validation_dropped),
                "started_from": self.described.get("start"),
                "identity": state.identity,
                "versions": versions(),
            },
        )

    def _resume(self) -> PretrainingState:
        identity, path = config_hash(self.described), self.folder / "last" / RESUME_FILE
        held = self.ranks.from_first(lambda: read_resume(path))
        if not held:
            return PretrainingState(identity=identity)
        state = PretrainingState(**progress_of(held, path))
        if state.identity != identity:
            raise ConfigError(
                f"{self.folder} holds another pretraining run (recipe, sizes or data differ): choose another "
                "folder, or delete it to train anew"
            )
        load_resume(held, path, self.model, self.optimizer)
        logger.info("pretraining resumed after epoch %d of %d", state.epoch, self.config.epochs)
        return state


def _refuse_overlap(training: Sequence[Corpus], validation: Sequence[Corpus]) -> None:
    for one, other in zip(training, validation, strict=True):
        if {r.patient_id for r in one.records} & {r.patient_id for r in other.records}:
            raise ConfigError(f"{one.name}: a patient is in training and validation; use divide()")


def require_sizes(start: PPGGPT, wanted: PPGGPTConfig, scale: str) -> None:
    """Raise ConfigError where `start` cannot be trained on as a model of these sizes."""
    sizes = replace(start.config, dropout=wanted.dropout)
    if sizes != wanted:
        raise ConfigError(
            f"the weights to start from are of scale {scale_of(sizes)} ({_sizes(sizes)}), the run's model is of scale "
            f"{scale} ({_sizes(wanted)}): give --scale as the weights have it"
        )


def _sizes(model: PPGGPTConfig) -> str:
    return (
        f"width {model.d_model}, {model.n_layers} layers, {model.n_heads} heads, patch {model.patch}, "
        f"head {model.head}"
    )


def _without(config: PretrainingConfig, *names: str) -> dict[str, Any]:
    return {name: value for name, value in to_plain(config).items() if name not in names}
