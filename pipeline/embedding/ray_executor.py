"""Stage 1 on Ray actors, on one machine or many: each keeps an encoder loaded and takes patients as it gets free.

The store must lie where every actor can write it: a shared disk, or object storage. Needs the extra ``ray``.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.embedding.base import BatchResult, PatientMeter
from pipeline.embedding.plan import PatientTask
from pipeline.foundation.errors import ConfigError

log = logging.getLogger(__name__)

TURNS = 4
"""Pieces of a batch for each actor: small enough that actors finish together."""

try:
    import ray
except ImportError as error:
    raise ConfigError(
        'executor is "ray", which is not installed: pip install "uniphy-lab[ray]", or use the executor "local"'
    ) from error


class _Actor:
    """Holds what embeds patients, with its encoder on this process's device."""

    def __init__(self, work: Callable[[Sequence[PatientTask]], BatchResult]) -> None:
        self._work = work

    def embed(self, tasks: Sequence[PatientTask]) -> BatchResult:
        """Embed some patients."""
        return self._work(tasks)


@contextmanager
def actors(
    work: Callable[[Sequence[PatientTask]], BatchResult], n_actors: int, meter: PatientMeter, *, on_gpu: bool
) -> Iterator["RayExecutor"]:
    """Start actors and give the executor that shares patients among them; the actors end with the block.

    Parameters
    ----------
    work : embeds some patients; a copy travels to each actor
    n_actors : how many; each takes a processor core, and a GPU for an encoder on one; where there are fewer of either
        than actors, they share them
    on_gpu : whether the encoder lies on a GPU

    Raises
    ------
    ConfigError : the encoder needs a GPU and the cluster has none

    Notes
    -----
    Joins the cluster that ``RAY_ADDRESS`` names; without it, or without a running one, starts one on this machine.
    """
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves a hospital
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        asked: dict[str, Any] = {**shares(ray.cluster_resources(), n_actors, on_gpu=on_gpu)}
        remote = ray.remote(**asked)(_Actor)
        shared = ray.put(work)
        pool: list[Any] = [remote.remote(shared) for _ in range(n_actors)]
        yield RayExecutor(pool=pool, meter=meter)
        for actor in pool:
            ray.kill(actor)
    finally:
        if started_here:
            ray.shutdown()


def shares(resources: Mapping[str, float], n_actors: int, *, on_gpu: bool) -> dict[str, float]:
    """Return what each actor asks Ray for, so that all of them find a place at the same time.

    Whole cores and GPUs while there are enough; else each takes 1/k of one, with the fewest k that have room. An actor
    that asked for a whole one would wait for ever for another to end.

    Raises
    ------
    ConfigError : a GPU is needed and the cluster has none
    """
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if on_gpu and gpus < 1:
        raise ConfigError(
            "the encoder is on a GPU, and Ray's cluster has none: start Ray where the GPUs are, or use --set "
            "embedding.device=cpu"
        )
    share = {"num_cpus": _share(cores, n_actors), "num_gpus": _share(gpus, n_actors) if on_gpu else 0.0}
    if 0 < share["num_gpus"] < 1:
        log.info("%d actors share %d GPUs", n_actors, int(gpus))
    return share


def _share(available: float, n_actors: int) -> float:
    """Return the share of one unit that lets `n_actors` run at once; none is asked for where there is no unit."""
    whole = math.floor(available)
    if whole == 0:
        return 0.0
    per_unit = math.ceil(n_actors / whole)
    # Ray counts in steps of 1/10000: rounded down, or the last of three thirds would not fit.
    return 1.0 if per_unit == 1 else math.floor(10_000 / per_unit) / 10_000


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Actors that take the next few patients whenever they are free: the executor ``ray``."""

    pool: Sequence[Any]
    meter: PatientMeter

    def embed(self, tasks: Sequence[PatientTask]) -> BatchResult:
        """Embed patients; what comes out is collected in the order of `tasks`."""
        size = max(1, len(tasks) // (TURNS * len(self.pool)))
        waiting = [tasks[first : first + size] for first in range(0, len(tasks), size)]
        busy: dict[Any, tuple[Any, int]] = {}
        free, done, given = list(self.pool), {}, 0
        while len(done) < len(waiting):
            while free and given < len(waiting):
                actor = free.pop()
                busy[actor.embed.remote(waiting[given])] = (actor, given)
                given += 1
            (ready, *_), _ = ray.wait(list(busy))
            actor, number = busy.pop(ready)
            done[number] = ray.get(ready)
            free.append(actor)
            _tell(self.meter, waiting[number], done[number])
        return sum((done[number] for number in range(len(waiting))), BatchResult())


def _tell(meter: PatientMeter, tasks: Sequence[PatientTask], result: BatchResult) -> None:
    if tasks:
        meter.embedded(tasks[0], result.embedded_windows)
    for task in tasks:
        meter.ended(task)
