"""The emulator: draws what an encoder would say of a pulse of given shape, in numpy alone, and its file.

An embedding is the mean that a small network gives for the pulse's shape and noise, plus a residual in two
parts: what is new in every window, and what lasts (the network's misfit and what a recording keeps), each with
the rendered windows' covariance over dimensions. What lasts decays along each of its own directions to a share
that stays for the whole record.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.embedding.names import file_name
from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import CheckpointError, MissingArtifactError
from pipeline.foundation.tensor_files import read_tensors, write_tensors
from pipeline.store.manifest import EmbeddingKey

FORMAT_VERSION = 1
TENSORS_FILE, RECORD_FILE = "emulator.safetensors", "emulator.json"
FIT_COMMAND = "python -m pipeline emulator"
EMULATED = "emulated:"
"""How the encoder's name in a store of emulated embeddings begins."""
COARSE_STEPS_A_TIME_CONSTANT = 10
"""Points a time constant at which what lasts is drawn; a line joins them."""


def emulator_folder(base: Path, encoder: str) -> Path:
    """Return where the emulator of `encoder`, a name or path, lies below the folder of all artefacts."""
    return base / "emulators" / file_name(encoder)


@dataclass(frozen=True, kw_only=True)
class EmulatorKey:
    """Which encoder an emulator stands for; a file fitted for another one is refused.

    Attributes
    ----------
    encoder_name, weights_hash, preprocessing_version, readout, projection, precision : as in ``store.Encoding``
    parameters_sha256 : of the cohort's parameters
    """

    encoder_name: str
    weights_hash: str
    preprocessing_version: str
    readout: str
    projection: str
    precision: str
    parameters_sha256: str

    def store_key(self, source_hash: str) -> EmbeddingKey:
        """Return the key of emulated embeddings: the encoder's own but for its name, so that no store mixes both."""
        return EmbeddingKey(
            encoder_name=f"{EMULATED}{self.encoder_name}", weights_hash=self.weights_hash,
            preprocessing_version=self.preprocessing_version, readout=self.readout,
            projection=self.projection, precision=self.precision, source_hash=source_hash,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """Fitted weights; `draw` is all that a cohort needs.

    Attributes
    ----------
    key : the encoder that it stands for
    layers : (weight, bias) of the network, inputs first; SiLU between them
    input_mean, input_sd : of the inputs
    fresh : (width, width) factor of what is new in every window: white numbers times it
    lasting : (kept, width) factor of what lasts
    constant : (kept,) share of the lasting variance along each direction that stays for a whole record
    time_constant_steps : of the rest, windows
    concentration : quantiles of the spectral concentration
    """

    key: EmulatorKey
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    input_mean: Float32[np.ndarray, " inputs"]
    input_sd: Float32[np.ndarray, " inputs"]
    fresh: Float32[np.ndarray, "width width"]
    lasting: Float32[np.ndarray, "kept width"]
    constant: Float32[np.ndarray, " kept"]
    time_constant_steps: float
    concentration: Float32[np.ndarray, " quantiles"]

    @property
    def width(self) -> int:
        """Columns of an embedding."""
        return int(self.fresh.shape[1])

    @cached_property
    def identity(self) -> str:
        """Hash of everything that it draws from."""
        return hashlib.sha256(save_tensors(self._tensors()) + json.dumps(vars(self.key)).encode()).hexdigest()

    def mean(self, inputs: Float32[np.ndarray, "n inputs"]) -> Float32[np.ndarray, "n width"]:
        """Return the expected embedding."""
        x = (inputs - self.input_mean) / self.input_sd
        for weight, bias in self.layers[:-1]:
            x = x @ weight
            x += bias
            x /= 1 + np.exp(-x)
        weight, bias = self.layers[-1]
        x = x @ weight
        x += bias
        return x

    def draw(
        self, inputs: Float32[np.ndarray, "n inputs"], step: Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> Float32[np.ndarray, "n width"]:
        """Draw the embeddings of one record's windows.

        Parameters
        ----------
        step : of each window on the grid of 30 s, ascending: what lasts goes on through gaps
        """
        drawn = self.mean(inputs)
        if not len(step):
            return drawn
        drawn += rng.standard_normal((len(step), self.width), dtype=np.float32) @ self.fresh
        knot, share = np.divmod((step - step[0]) / self._coarse_steps, 1.0)
        path = self._lasting_path(int(knot[-1]) + 2, rng) @ self.lasting
        knot, share = knot.astype(np.int64), share.astype(np.float32)[:, None]
        drawn += path[knot]
        drawn += (path[knot + 1] - path[knot]) * share
        return drawn

    def draw_concentration(self, n: int, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
        """Draw spectral concentrations as the rendered windows have them."""
        places = np.linspace(0, 1, len(self.concentration))
        return np.interp(rng.random(n), places, self.concentration).astype(np.float32)

    @property
    def _coarse_steps(self) -> float:
        return max(1.0, self.time_constant_steps / COARSE_STEPS_A_TIME_CONSTANT)

    def _lasting_path(self, points: int, rng: np.random.Generator) -> Float32[np.ndarray, "points kept"]:
        """Draw a constant and an Ornstein-Uhlenbeck path of unit variance together, along each direction."""
        from scipy.signal import lfilter  # half a second that Dagster's definitions need not wait for

        kept = len(self.constant)
        decay = float(np.exp(-self._coarse_steps / self.time_constant_steps))
        shocks = rng.standard_normal((points, kept), dtype=np.float32)
        shocks[0] /= np.float32(np.sqrt(1 - decay**2))
        gain = np.array([np.sqrt(1 - decay**2)], np.float32)
        path = np.asarray(lfilter(gain, np.array([1.0, -decay], np.float32), shocks, axis=0))
        path *= np.sqrt(1 - self.constant)
        path += np.sqrt(self.constant) * rng.standard_normal(kept, dtype=np.float32)
        return path

    def _tensors(self) -> dict[str, np.ndarray]:
        named = {name: getattr(self, name) for name in _ARRAYS}
        for number, (weight, bias) in enumerate(self.layers):
            named |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": bias}
        named["time_constant_steps"] = np.array([self.time_constant_steps])
        return {name: np.ascontiguousarray(array, np.float32) for name, array in named.items()}

    def save(self, folder: Path, record: dict[str, Any] | None = None) -> None:
        """Write the tensors, then the record with their hash; `record` says how they were fitted."""
        sha256 = write_tensors(folder / TENSORS_FILE, self._tensors(), save_tensors)
        described = {"format_version": FORMAT_VERSION, "tensors_sha256": sha256}
        write_json(folder / RECORD_FILE, described | {"key": vars(self.key), "fit": record or {}})

    @classmethod
    def load(cls, folder: Path, expected: EmulatorKey | None = None, *, fit: str = FIT_COMMAND) -> "Emulator":
        """Read what `save` wrote.

        Parameters
        ----------
        expected : the encoder that it must stand for; None: any
        fit : the command that fits it, for messages

        Raises
        ------
        MissingArtifactError : no emulator there
        CheckpointError : damaged, of a newer version, or fitted for another encoder than `expected`
        """
        record = emulator_record(folder, fit=fit)
        key = EmulatorKey(**record["key"])
        if expected is not None:
            _refuse_other(folder, key, expected, fit)
        tensors = read_tensors(
            folder / TENSORS_FILE, load_tensors, sha256=record["tensors_sha256"], record=RECORD_FILE,
            remedy=f"fit the emulator again: {fit}",
        )  # fmt: skip
        return cls(
            key=key,
            layers=tuple(
                (tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"])
                for i in range(_n_layers(tensors))
            ),
            time_constant_steps=float(tensors["time_constant_steps"][0]),
            **{name: tensors[name] for name in _ARRAYS},
        )


_ARRAYS = tuple(f.name for f in fields(Emulator) if f.name not in ("key", "layers", "time_constant_steps"))


def emulator_record(folder: Path, *, fit: str = FIT_COMMAND) -> dict[str, Any]:
    """Return how the emulator in `folder` was fitted, and for what; `fit` is the command that fits it.

    Raises
    ------
    MissingArtifactError : no emulator there
    CheckpointError : the record is damaged, or of a newer version
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist: no emulator is fitted; run: {fit}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version, key = record["format_version"], record["key"]
        complete = set(key) == {f.name for f in fields(EmulatorKey)} and "tensors_sha256" in record
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no emulator's record: fit the emulator again: {fit}") from error
    if version != FORMAT_VERSION or not complete:
        raise CheckpointError(
            f"{path} has format version {version}; this version reads {FORMAT_VERSION}: fit the emulator again: {fit}"
        )
    return record


def _refuse_other(folder: Path, found: EmulatorKey, expected: EmulatorKey, fit: str) -> None:
    differing = [f.name for f in fields(EmulatorKey) if getattr(found, f.name) != getattr(expected, f.name)]
    if differing:
        pairs = "; ".join(
            f"{name} is {_short(getattr(found, name))}, wanted {_short(getattr(expected, name))}"
            for name in differing
        )
        raise CheckpointError(
            f"the emulator in {folder} was fitted for another encoder: {pairs}. Fit one for this experiment: {fit}"
        )


def _short(text: str) -> str:
    return text if len(text) < 40 else text[:12]


def _n_layers(tensors: Sequence[str] | dict[str, np.ndarray]) -> int:
    return sum(name.endswith(".weight") for name in tensors)
