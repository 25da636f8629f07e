"""Data-parallel training under torchrun: what one process must know of the others, and sums over all of them.

Gradients are summed explicitly instead of through ``DistributedDataParallel``: the loss is normalised by the
whole batch before any backward pass, micro-batches differ in number between ranks, and a task layer may have
no target on one of them.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist


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
        """Return `tensor` summed over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

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
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the group that torchrun announces, and leave it at the end; alone without torchrun."""
    if dist.is_available() and dist.is_initialized():
        yield Ranks(rank=dist.get_rank(), world=dist.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield Ranks(rank=dist.get_rank(), world=dist.get_world_size())
        finally:
            dist.destroy_process_group()
    else:
        yield Ranks()


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is this rank's own GPU where there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
