"""Which file of weights an encoder's name stands for. Loads no torch, so that stages without an encoder may ask."""

from pathlib import Path

from models.encoders.part_names import first_part
from pipeline.embedding.names import EncoderName

WEIGHTS = Path(__file__).parents[2] / "models" / "encoders" / "weights"
"""Weights that come with the project, ``<name>.safetensors``."""


def file_of(name_or_path: str, shipped: Path = WEIGHTS) -> Path | None:
    """Return the file of an encoder's weights, of parts the first; None where there is none, as for random weights.

    Parameters
    ----------
    name_or_path : a shipped name, a path, or ``<adapter>:<path>``; words for read-out and projection may follow, each
        after a ``+`` (``pipeline.embedding.names``, which alone says what they mean)
    shipped : folder of the weights that come with the project
    """
    name = EncoderName.parse(name_or_path).weights
    path = Path(name.partition(":")[2] or name)
    candidates = (shipped / f"{name}.safetensors", path)
    return next((path for path in candidates if path.is_file()), None) or first_part(path)
