"""A cluster in threads that places actors as Ray does, for tests where Ray is not installed."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import ModuleType, SimpleNamespace
from typing import Any


class FakeRay(ModuleType):
    """Places actors as Ray does: one that finds no room is never started, and what it is given never ends."""

    def __init__(self, **resources: float) -> None:
        super().__init__("ray")
        self.free = dict(resources)
        self.resources = dict(resources)
        self.threads = ThreadPoolExecutor(8)
        self.asked: list[dict[str, float]] = []

    def is_initialized(self) -> bool:
        """Say that a cluster runs."""
        return True

    def cluster_resources(self) -> dict[str, float]:
        """Return what the cluster has."""
        return self.resources

    def put(self, value: Any) -> Any:
        """Return the value itself."""
        return value

    def get(self, reference: Future) -> Any:
        """Wait for a result."""
        return reference.result()

    def kill(self, actor: Any) -> None:
        """Do nothing: threads end by themselves."""
        pass

    def wait(self, references: Sequence[Future]) -> tuple[list[Future], list[Future]]:
        """Wait for the first result, ten seconds at most."""
        done, rest = wait_for(references, timeout=10, return_when="FIRST_COMPLETED")
        assert done, "waits for ever for an actor that finds no room"
        return list(done), list(rest)

    def remote(self, *, num_cpus: float, num_gpus: float) -> Any:
        """Return what starts actors that ask for so much."""
        wanted = {"CPU": num_cpus, "GPU": num_gpus}
        self.asked.append(wanted)

        def decorate(kind: type) -> Any:
            return SimpleNamespace(remote=lambda *arguments: self._place(kind(*arguments), wanted))

        return decorate

    def _place(self, actor: Any, wanted: dict[str, float]) -> Any:
        room = all(round(self.free.get(name, 0) - n, 9) >= 0 for name, n in wanted.items())
        for name, n in wanted.items():
            self.free[name] = self.free.get(name, 0) - (n if room else 0)

        def submit(*arguments: Any) -> Future:
            return self.threads.submit(actor.embed, *arguments) if room else Future()

        return SimpleNamespace(embed=SimpleNamespace(remote=submit))
