"""Which file an encoder's name stands for. Loads no torch."""

from pathlib import Path

WEIGHTS = Path(__file__).parents[2] / "models" / "encoders" / "weights"
"""Weights that come with the project, ``<name>.safetensors``."""


def weights_file(name_or_path: str) -> Path | None:
    """Return the weights file that an encoder's name stands for; None where there is none (random weights).

    Parameters
    ----------
    name_or_path : a shipped name, a path, or ``<adapter>:<path>``, each with or without words for the read-out, which
        follow a ``+``
    """
    name = name_or_path
    while True:
        for path in (WEIGHTS / f"{name}.safetensors", Path(name.partition(":")[2] or name)):
            if path.is_file():
                return path
        if "+" not in name:
            return None
        name = name.rpartition("+")[0]
