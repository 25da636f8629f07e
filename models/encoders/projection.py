"""A fixed projection after a read-out: fewer numbers a window, fitted once for one read-out of one set of weights.

It lies beside the weights in a ``.safetensors`` file, whose metadata say what it belongs to and what it was fitted on.
How it is fitted: ``pipeline.pretraining.projection``.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from models.errors import CheckpointMismatch

_TENSORS = ("centre", "directions")
_REQUIRED = ("weights_hash", "readout", "licence", "fitted_on")


class Projection(nn.Module):
    """(x - centre) times directions, in float32 whatever the encoder's precision.

    Its numbers are no part of a model's ``state_dict`` and so of no weights' hash, but follow it to its device.

    Parameters
    ----------
    about : text of ``weights_hash`` and ``readout``, which it was fitted for, ``licence`` and ``fitted_on``
    """

    centre: Tensor
    directions: Tensor

    def __init__(
        self,
        centre: Float[Tensor, " inputs"],
        directions: Float[Tensor, "inputs width"],
        about: Mapping[str, str],
    ):
        super().__init__()
        self.register_buffer("centre", centre.float().contiguous(), persistent=False)
        self.register_buffer("directions", directions.float().contiguous(), persistent=False)
        self.about = dict(about)

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n width"]:
        """Project read-outs."""
        with torch.autocast(x.device.type, enabled=False):
            return (x.float() - self.centre) @ self.directions

    @property
    def width(self) -> int:
        """Numbers a window after it."""
        return self.directions.shape[1]

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of its numbers and of what they belong to."""
        digest = hashlib.sha256(f"{self.about['weights_hash']}|{self.about['readout']}|".encode())
        for name in _TENSORS:
            tensor = getattr(self, name).detach().cpu()
            digest.update(f"{name}|{tuple(tensor.shape)}|".encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    def require(self, *, weights_hash: str, readout: str, inputs: int, source: str) -> None:
        """Refuse an encoder that it was not fitted for.

        Raises
        ------
        CheckpointMismatch : other weights, another read-out, or another width of the read-out
        """
        wanted = {"weights_hash": weights_hash, "readout": readout}
        other = [f"{name} {self.about[name][:12]}, here {value[:12]}" for name, value in wanted.items()
                 if self.about[name] != value]  # fmt: skip
        if not other and len(self.centre) != inputs:
            other = [f"{len(self.centre)} numbers, here {inputs}"]
        if other:
            raise CheckpointMismatch(f"{source} is a projection of {'; of '.join(other)}.")

    def to_bytes(self) -> bytes:
        """Return the file."""
        return save({name: getattr(self, name).detach().cpu() for name in _TENSORS}, metadata=self.about)

    @classmethod
    def from_file(cls, path: Path) -> "Projection":
        """Read the file that `to_bytes` made.

        Raises
        ------
        CheckpointMismatch : it cannot be read, or is no projection
        """
        try:
            with safe_open(path, framework="pt") as file:
                about, names = file.metadata() or {}, sorted(file.keys())
                tensors = {name: file.get_tensor(name) for name in names if name in _TENSORS}
        except (SafetensorError, OSError) as error:
            raise CheckpointMismatch(f"{path.name}: not a readable projection ({error}).") from error
        absent = [name for name in _REQUIRED if name not in about]
        if names != sorted(_TENSORS) or absent:
            raise CheckpointMismatch(
                f"{path.name} is no projection: it holds {', '.join(names) or 'nothing'}, and its metadata lack "
                f"{', '.join(absent) or 'nothing'}."
            )
        centre, directions = (tensors[name] for name in _TENSORS)
        if centre.ndim != 1 or directions.ndim != 2 or len(centre) != len(directions):
            shapes = f"centre {tuple(centre.shape)}, directions {tuple(directions.shape)}"
            raise CheckpointMismatch(f"{path.name} is no projection: {shapes} do not fit.")
        if not (centre.isfinite().all() and directions.isfinite().all()):
            raise CheckpointMismatch(f"{path.name} is no projection: it holds numbers that are not finite.")
        return cls(centre, directions, about)
