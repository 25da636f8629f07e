"""One global batch: read in micro-batches, forward and backward on each, one step of the optimiser."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from models.regressor.lab_regressor import LabRegressor
from models.regressor.losses import uncertainty_weighted_l1, weighted_error_sums, weighted_l1
from models.regressor.lstm import WindowLSTM
from pipeline.foundation.errors import ConfigError
from pipeline.training.base import BatchSource, MicroBatch
from pipeline.training.batches import forward
from pipeline.training.busy import BusyClock
from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import Ranks
from pipeline.training.hardware import matrix_precision, seeded
from pipeline.training.schedule import Batch, micro_batches, seed_of


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """A global batch in its micro-batches.

    Attributes
    ----------
    own : number and items of those that this rank computes
    steps : of the whole batch
    """

    batch: Batch
    own: tuple[tuple[int, list[int]], ...]
    steps: int


@dataclass(frozen=True, kw_only=True)
class BatchStep:
    """A model and its optimiser, with all that one step of training asks for.

    Attributes
    ----------
    micro_steps : most packed steps in memory at once; a longer piece runs in chunks of that
    bfloat16 : forward in bfloat16 autocast, other matrix products in TF32
    """

    model: LabRegressor | WindowLSTM
    optimizer: torch.optim.Optimizer
    source: BatchSource
    config: TrainingConfig
    device: torch.device
    ranks: Ranks
    micro_steps: int
    bfloat16: bool

    def plan(self, batch: Batch) -> PlannedBatch:
        """Divide a batch: alike on every rank."""
        lengths = self.source.lengths(batch.group, batch.items)
        parts = micro_batches(batch.items, lengths, self.micro_steps)
        own = self.ranks.share(list(enumerate(parts)))
        return PlannedBatch(batch=batch, own=tuple(own), steps=sum(lengths))

    def loads(self, planned: Sequence[PlannedBatch], epoch: int) -> Iterator[MicroBatch]:
        """Read this rank's micro-batches in order, each when it is asked for; pinned where they go to a GPU."""
        for one in planned:
            for _, items in one.own:
                loaded = self.source.load(one.batch.group, items, epoch)
                yield loaded.pinned() if self.device.type == "cuda" else loaded

    def train(
        self, planned: PlannedBatch, loads: Iterator[MicroBatch], epoch: int, clock: BusyClock
    ) -> tuple[float, Float64[Tensor, " labs"], Float64[Tensor, " labs"]]:
        """Accumulate one global batch's gradient and step; return the loss, and error and weight per lab.

        Parameters
        ----------
        loads : gives this batch's micro-batches next
        clock : is told when the device works

        Raises
        ------
        ConfigError : the GPU's memory is too small for a micro-batch
        OtherRankError : another rank failed
        """
        batch = planned.batch
        totals = torch.from_numpy(self.source.weight_sums(batch.group, batch.items))
        self.optimizer.zero_grad(set_to_none=True)
        # The loss, then each lab's error; on the device, so that nothing waits for it between micro-batches.
        sums = torch.zeros(1 + len(totals), dtype=torch.float64, device=self.device)
        with matrix_precision(tf32=self.bfloat16):
            with self.ranks.in_step(), _explained_memory(self.micro_steps):
                for number, _ in planned.own:
                    loaded = next(loads)
                    seed = seed_of(self.config.seed, epoch, batch.number, number)
                    with clock.working(), seeded(seed, self.device):
                        loss, errors = self._losses(loaded, totals, with_penalty=number == 0)
                        loss.backward()
                        sums += torch.cat([loss.detach().reshape(1), errors.detach()]).double()
            sums = self.ranks.sum(sums).cpu()
            self._check_finite(float(sums[0]), epoch)
            self.ranks.sum_gradients(self.model.parameters())
            with clock.working():
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
                self.optimizer.step()
        return float(sums[0]), sums[1:], totals

    def _losses(self, loaded: MicroBatch, totals: Tensor, *, with_penalty: bool) -> tuple[Tensor, Tensor]:
        """Return this part's share of the global batch's loss, and the summed error per lab.

        The penalty on sigma belongs to the batch as a whole: its first part carries it.
        """
        loaded = loaded.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            prediction = forward(self.model, loaded.inputs, self.micro_steps)
        target, weight = loaded.targets, loaded.weights
        total = totals.to(self.device, torch.float32)
        errors, _ = weighted_error_sums(prediction, target, weight)
        log_variance = getattr(self.model, "log_variance", None)
        if log_variance is None or len(self.source.labs) == 1:
            return weighted_l1(prediction, target, weight, total), errors
        share = 1.0 if with_penalty else 0.0
        return uncertainty_weighted_l1(prediction, target, weight, log_variance, total, share), errors

    def _check_finite(self, loss: float, epoch: int) -> None:
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise ConfigError(
                f"the loss became {loss} in epoch {epoch + 1}; lower learning_rate = "
                f"{self.config.learning_rate}, or look for infinite values among embeddings and labs"
            )


@contextmanager
def _explained_memory(micro_steps: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU's memory is too small for a micro-batch of {micro_steps} steps: set "
            f"training.steps_per_micro_batch to {max(1, micro_steps // 2)} or less; what is trained so far is kept"
        ) from error
