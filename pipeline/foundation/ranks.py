"""Which of torchrun's processes this one is, by its environment alone: the same question without torch.

A shell that keeps ``RANK`` of an earlier launch starts a process that is alone all the same: what torchrun starts
together knows how many it is (``WORLD_SIZE``), and only then does the number of one of them mean anything.
"""

import os


def process_count() -> int:
    """Return how many processes torchrun started together; 1 without torchrun."""
    return _number("WORLD_SIZE", 1)


def speaks_for_all() -> bool:
    """Whether this process prints, draws and writes records: the first of several, or the only one."""
    return process_count() < 2 or _number("RANK", 0) == 0


def rank_on_this_machine() -> int:
    """Return this process's number among those of its machine: the GPU that it takes."""
    return _number("LOCAL_RANK", 0) if process_count() > 1 else 0


def processes_on_this_machine() -> int:
    """Return how many of torchrun's processes share this machine; 1 without torchrun."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdigit() else default
