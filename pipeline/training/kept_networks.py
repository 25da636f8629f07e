"""Networks of a fit that is not finished, a file each: one that is killed goes on with the next of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pipeline.foundation.atomic import make_private_dir
from pipeline.foundation.errors import CheckpointError, OtherRunError
from pipeline.foundation.tensor_files import header_of, loaded_tensors, write_tensors
from pipeline.training.checkpoints import fill_model, model_tensors

N = TypeVar("N", bound=nn.Module)
_IDENTITY = "run_identity"
_REMEDY = "delete it to fit anew"


@dataclass(frozen=True, kw_only=True)
class KeptNetworks:
    """A folder of networks by number, of one fit.

    Attributes
    ----------
    folder : holds nothing else; made when the first is kept
    identity : hash of all that decides them
    """

    folder: Path
    identity: str

    def filled(self, number: int, network: N, train: Callable[[N], None]) -> None:
        """Fill `network` with what was kept under a number, or train it now and keep it.

        Raises
        ------
        OtherRunError : what was kept is of a fit of something else
        CheckpointError : it cannot be read
        """
        path = self.folder / f"{number}.safetensors"
        if path.exists():
            self._read(path, network)
            return
        train(network)
        make_private_dir(self.folder)
        write_tensors(path, model_tensors(network), save_tensors, {_IDENTITY: self.identity})

    def clear(self) -> None:
        """Drop all of them: the fit is finished."""
        if self.folder.exists():
            for path in self.folder.iterdir():
                path.unlink()
            self.folder.rmdir()

    def _read(self, path: Path, network: nn.Module) -> None:
        try:
            data = path.read_bytes()
            identity = header_of(data).get(_IDENTITY)
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} cannot be gone on from: {error}; {_REMEDY}") from error
        if identity != self.identity:
            raise OtherRunError(
                f"{self.folder.parent} holds an unfinished fit with another configuration, cohort or split; choose "
                "another folder, or delete it to fit anew"
            )
        fill_model(network, loaded_tensors(data, path, load_tensors, remedy=_REMEDY), path)
