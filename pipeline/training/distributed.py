"""Data-parallel training under torchrun: what one process must know of the others, and sums over all of them.

Gradients are summed explicitly instead of through ``DistributedDataParallel``: the loss is normalised by the
whole batch before any backward pass, micro-batches differ in number between ranks, and a task layer may have
no target on one of them.

Two rules keep several processes from waiting for each other for ever, or from spoiling each other's files. What
every rank does for itself stands in `Ranks.in_step`: where it fails on one, all of them stop. What touches the
run's folder is done by rank 0, in `Ranks.alone` or `from_first`: the others learn its result, or raise its error too.
"""

import atexit
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pipeline.foundation import errors
from pipeline.foundation.errors import ConfigError, OtherRankError, ProjectError
from pipeline.foundation.ranks import process_count, processes_on_this_machine, rank_on_this_machine

LONGEST_WAIT = timedelta(hours=1)
"""For a rank that neither comes nor ends; what rank 0 does alone (reading a corpus) may take minutes."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The number of the own process, and how many there are; rank 0 alone writes files."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, items: list) -> list:
        """Return this rank's part of `items`: every world-th one."""
        return items[self.rank :: self.world]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return `tensor` summed over all ranks, in place.

        Raises
        ------
        OtherRankError : another rank has ended
        """
        if self.world > 1:
            with _ended_ranks_explained():
                dist.all_reduce(tensor)
        return tensor

    def least(self, number: int) -> int:
        """Return the smallest `number` of all ranks."""
        if self.world == 1:
            return number
        tensor = torch.tensor(number, dtype=torch.int64)
        with _ended_ranks_explained():
            dist.all_reduce(tensor, dist.ReduceOp.MIN)
        return int(tensor)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum every gradient over all ranks in one message; a rank without micro-batch adds zeros."""
        if self.world == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([g.reshape(-1) for g in gradients]))
        for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def start_alike(self, model: nn.Module) -> None:
        """Give every rank rank 0's weights: what was fitted before training may differ in its last bits elsewhere."""
        if self.world > 1:
            with _ended_ranks_explained():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.least(0)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Do what every rank does for itself; where it fails on one of them, all of them raise and none waits.

        No sum and no other message may be exchanged inside.

        Raises
        ------
        OtherRankError : it failed on another rank, whose own message says why
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # any: raised below, once the others know of it
            failure = error
        failed = torch.zeros(self.world, dtype=torch.int64)
        failed[self.rank] = failure is not None
        try:
            self.sum(failed)
        except OtherRankError:
            if failure is None:
                raise
        if failure is not None:
            raise failure
        if failed.any():
            raise OtherRankError(
                f"process {int(failed.nonzero()[0])} of {self.world} of this training failed, so that all of them "
                "stop; its own message says why"
            )

    def alone(self, work: Callable[[], object]) -> None:
        """Let rank 0 alone do some `work` on files while the others wait; errors as of `from_first`."""

        def done() -> bytes:
            work()
            return b""

        self.from_first(done)

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """Let rank 0 alone call `make`, while the others wait, and return its bytes everywhere.

        Raises
        ------
        ProjectError : what `make` raised on rank 0, on every rank alike; on the others an error that is not the
            user's becomes an OtherRankError
        """
        if self.world == 1:
            return make()
        if not self.first:
            return _received(_broadcast(b""))
        try:
            message = b"\0" + make()
        except Exception as error:  # any: the others wait for a message; raised here too
            _broadcast(b"\1" + json.dumps([type(error).__name__, str(error)]).encode())
            raise
        return _received(_broadcast(message))


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the group that torchrun announces, once for all trainings of this process; alone without torchrun.

    The group is left when the process ends: one that is left and joined again finds its old addresses and waits for
    them. Ranks above 0 keep quiet below warnings.
    """
    if not dist.is_available() or (not dist.is_initialized() and process_count() < 2):
        yield Ranks()
        return
    if not dist.is_initialized():
        _join()
    ranks = Ranks(rank=dist.get_rank(), world=dist.get_world_size())
    with _quiet_above(ranks.rank):
        yield ranks


def _join() -> None:
    """Exchange messages among processors by gloo, among GPUs by NCCL, each rank with its own GPU as the current one."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT", "RANK") if name not in os.environ]:
        raise ConfigError(
            f"WORLD_SIZE = {process_count()} says that this is one of several processes, but {' and '.join(missing)} "
            "is not set: start them with torchrun, or unset WORLD_SIZE if an earlier launch left it in this shell"
        )
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    if on_gpus and rank_on_this_machine() < torch.cuda.device_count():
        torch.cuda.set_device(rank_on_this_machine())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=LONGEST_WAIT)
    atexit.register(dist.destroy_process_group)


def pick_device(name: str, *, field: str = "device") -> torch.device:
    """Return the device called `name`, a GPU as the current one; "auto" is this rank's own GPU, or else the CPU.

    Parameters
    ----------
    field : whose value `name` is, for messages

    Raises
    ------
    ConfigError : no such device here, or one GPU for several processes
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f'{field} = {name!r} is none that can be used: choose "auto", "cpu", "cuda" or "cuda:N"'
        )
    if device.type == "cpu":
        return device
    device = torch.device("cuda", _gpu_number(device, field))
    torch.cuda.set_device(device)
    return device


def _gpu_number(device: torch.device, field: str) -> int:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ConfigError(
            f'{field} = "{device}", but PyTorch sees no GPU: choose "cpu", or mend driver or CUDA_VISIBLE_DEVICES'
        )
    processes = processes_on_this_machine()
    if device.index is not None and processes > 1:
        raise ConfigError(
            f'{field} = "{device}" for each of {processes} processes: leave it "auto", and each takes its own GPU'
        )
    number = rank_on_this_machine() if device.index is None else device.index
    if number >= count:
        raise ConfigError(
            f"GPU {number} is wanted, but PyTorch sees {count} (numbered from 0): start at most {count} processes on "
            'this machine (torchrun --nproc-per-node), or choose device = "cpu"'
        )
    return number


def _broadcast(message: bytes) -> bytes:
    """Return rank 0's `message`, sent as numbers: nothing is unpickled."""
    with _ended_ranks_explained():
        length = torch.tensor(len(message), dtype=torch.int64)
        dist.broadcast(length, src=0)
        content = torch.frombuffer(bytearray(message or bytes(int(length))), dtype=torch.uint8)
        dist.broadcast(content, src=0)
    return content.numpy().tobytes()


def _received(message: bytes) -> bytes:
    if message[:1] == b"\0":
        return message[1:]
    name, text = json.loads(message[1:])
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ProjectError):
        raise kind(text)
    raise OtherRankError(f"process 0 of this training failed with {name}, so that all of them stop")


@contextmanager
def _ended_ranks_explained() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo's and NCCL's only kind
        raise OtherRankError(
            f"another process of this training has ended or cannot be reached; its own message says why ({error})"
        ) from error


@contextmanager
def _quiet_above(rank: int) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pipeline", "models", "kernels")] if rank else []
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
