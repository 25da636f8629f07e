"""Trained models on disk: ``model.safetensors`` beside ``config.json``; nothing is ever unpickled.

A checkpoint folder holds everything that a prediction needs besides its inputs: weights, the model's config,
the method, the lab scaling fitted on training patients, and where all of it came from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from models.assimilation.lab_assimilation import LabAssimilation, LabAssimilationConfig
from models.errors import BadAssimilationInput
from models.regressor.config import LabRegressorConfig
from models.regressor.lab_lines import LabLines, LabLinesConfig
from models.regressor.lab_regressor import LabRegressor
from models.regressor.lstm import WindowLSTM, WindowLSTMConfig
from pipeline.cohort.base import WindowStore
from pipeline.cohort.normalization import LabScaler
from pipeline.foundation.artefact_notes import add_checkpoint, current_note
from pipeline.foundation.atomic import write_json
from pipeline.foundation.errors import CheckpointError, ConfigError, ProjectError
from pipeline.foundation.provenance import from_plain, to_plain, versions
from pipeline.foundation.schema import LAB_NAMES
from pipeline.foundation.tensor_files import read_tensors, write_tensors
from pipeline.store.embeddings import EmbeddingStore
from pipeline.store.manifest import Encoding

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

_KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "lab_regressor": (LabRegressorConfig, LabRegressor),
    "window_lstm": (WindowLSTMConfig, WindowLSTM),
    "lab_lines": (LabLinesConfig, LabLines),
    "lab_assimilation": (LabAssimilationConfig, LabAssimilation),
}
TrainedModel = LabRegressor | WindowLSTM | LabLines | LabAssimilation


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A checkpoint ready to predict.

    Attributes
    ----------
    model : in evaluation mode
    method : one of ``schema.METHODS``
    labs : what the columns of the model's output are
    scaler : the lab scaling fitted on the training patients
    experiment : the run's whole config as plain JSON
    provenance : versions, hashes, encoder, licence of the source
    """

    model: TrainedModel
    method: str
    labs: tuple[str, ...]
    scaler: LabScaler
    experiment: Mapping[str, Any]
    provenance: Mapping[str, Any]


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    method: str,
    scaler: LabScaler,
    experiment: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write weights, then the config that carries their hash: a mixed pair is found out when it is loaded.

    Raises
    ------
    CheckpointError : a weight is not finite
    """
    weights = model_tensors(model)
    _check_finite(weights, "the model to be saved")
    kind = next(name for name, (_, built) in _KINDS.items() if type(model) is built)
    sha256 = write_tensors(folder / WEIGHTS_FILE, weights, save_tensors)
    write_json(
        folder / CONFIG_FILE,
        {
            "format_version": FORMAT_VERSION,
            "weights_sha256": sha256,
            "method": method,
            "model": {"kind": kind, "config": to_plain(model.config)},
            "scaler": scaler.to_json(),
            "experiment": to_plain(experiment),
            "provenance": {"versions": versions(), **to_plain(provenance), "note": current_note().as_plain()},
        },
    )


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> LoadedModel:
    """Build the model that `folder` holds, in evaluation mode, on `device`.

    Raises
    ------
    CheckpointError : no checkpoint there, a newer format, a config that builds no model, weights that do
        not belong to the config, are cut short or are not finite
    """
    folder = Path(folder)
    config = _read_config(folder)
    weights = read_tensors(
        folder / WEIGHTS_FILE, load_tensors, sha256=config["weights_sha256"], record=CONFIG_FILE,
        remedy="copy both files of one run, or train the method again",
    )  # fmt: skip
    add_checkpoint(config["weights_sha256"], (config["provenance"].get("note") or {}).get("licences", ()))
    model = _build(folder, config["model"])
    fill_model(model, weights, folder)
    _check_filters(model, folder)
    try:
        scaler = LabScaler.from_json(config["scaler"])
    except (ProjectError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: the lab scaling cannot be read: {error}") from error
    return LoadedModel(
        model=model.to(device).eval(),
        method=config["method"],
        labs=tuple(getattr(model.config, "task_labs", LAB_NAMES)),
        scaler=scaler,
        experiment=config["experiment"],
        provenance=config["provenance"],
    )


def weights_sha256(folder: Path | str) -> str:
    """Return the hash of a checkpoint's weights, as its config records it; see `load_model` for errors."""
    return str(_read_config(Path(folder))["weights_sha256"])


def provenance_of(folder: Path | str) -> dict[str, Any]:
    """Return where a checkpoint comes from, as its config records it; see `load_model` for errors."""
    return dict(_read_config(Path(folder))["provenance"])


def checkpoint_folders(folder: Path | str) -> list[Path]:
    """Return the checkpoints in a run's folder: itself, its ``best``, or one ``<lab>/best`` a lab (st_pcs).

    Raises
    ------
    CheckpointError : none, or only some of the labs of a run that has one model a lab
    """
    folder = Path(folder)
    for single in (folder, folder / "best"):
        if (single / CONFIG_FILE).exists():
            return [single]
    found = [folder / lab / "best" for lab in LAB_NAMES if (folder / lab / "best" / CONFIG_FILE).exists()]
    if not found:
        raise CheckpointError(
            f"no checkpoint in {folder}: expected {CONFIG_FILE}, best/ or <lab>/best/; train first"
        )
    return found


def store_encoder(store: WindowStore) -> dict[str, Any]:
    """Return what the embeddings of a store were computed with; empty for an empty or another kind of store.

    Raises
    ------
    StoreError : its patients were embedded in different ways
    """
    encoding = store.one_encoding() if isinstance(store, EmbeddingStore) else None
    return {} if encoding is None else {_SHORT.get(k, k): value for k, value in asdict(encoding).items()}


def encoding_of(provenance: Mapping[str, Any]) -> Encoding | None:
    """Return how the embeddings that a checkpoint was trained on were made; None where it does not say.

    Older checkpoints name fewer fields; the others are what they were then (`Encoding`).

    Raises
    ------
    CheckpointError : it names a field that this version does not know
    """
    told = provenance.get("encoder")
    if not told:
        return None
    values = {_LONG[name] if name in _LONG else str(name): value for name, value in told.items()}
    try:
        return Encoding(**values)
    except TypeError as error:
        raise CheckpointError(
            f"the checkpoint describes its encoder in words that this version does not know ({error}): upgrade, or "
            "train again"
        ) from error


def resolved_experiment(experiment: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment with the precision that the embeddings have: "auto" means another one elsewhere."""
    encoding, plain = encoding_of(known), to_plain(experiment)
    if encoding is not None and "encoder_precision" in plain:
        plain["encoder_precision"] = encoding.precision
    return plain


def encoder_identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells one way of embedding from another: the same for an older run and for this version's."""
    encoding = encoding_of(provenance)
    return {} if encoding is None else {_SHORT.get(k, k): value for k, value in encoding.plain().items()}


def check_encoder(loaded: LoadedModel, store: WindowStore) -> None:
    """Refuse embeddings of another encoder than the one the model was trained on.

    Raises
    ------
    CheckpointError : weights, read-out, projection, windows or precision differ; device and batch may
    """
    found = store.one_encoding() if isinstance(store, EmbeddingStore) else None
    if found is not None:
        check_encoding(loaded, found)


def check_encoding(loaded: LoadedModel, found: Encoding) -> None:
    """Do what `check_encoder` does, for embeddings that may not be made yet."""
    expected = encoding_of(loaded.provenance)
    if expected is not None and not expected.serves(found):
        raise CheckpointError(
            f"the checkpoint was trained on embeddings of {expected}, these are of {found}; embed with the same "
            "encoder weights, read-out, precision and window configuration"
        )


_SHORT = {"encoder_name": "name", "preprocessing_version": "preprocessing"}
"""Names of an `Encoding`'s fields in checkpoints."""
_LONG = {short: name for name, short in _SHORT.items()}


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"no checkpoint in {folder}: {CONFIG_FILE} is missing; train first") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} must hold one JSON object, not a {type(config).__name__}")
    check_format(config.get("format_version"), path)
    expected = {"weights_sha256", "method", "model", "scaler", "experiment", "provenance"}
    if missing := sorted(expected - set(config)):
        raise CheckpointError(f"{path} lacks {missing}; it is not a checkpoint of this project")
    return config


def check_format(found: Any, path: Path) -> None:
    """Refuse a format that this version cannot read.

    Raises
    ------
    CheckpointError : newer than `FORMAT_VERSION`, or no version at all
    """
    if not isinstance(found, int) or not 1 <= found <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {found}; this version reads up to {FORMAT_VERSION}: upgrade, "
            "or train again"
        )


def _build(folder: Path, described: Mapping[str, Any]) -> TrainedModel:
    kind = described.get("kind")
    if kind not in _KINDS:
        raise CheckpointError(f"{folder / CONFIG_FILE}: unknown model kind {kind!r}; known: {sorted(_KINDS)}")
    config_type, model_type = _KINDS[kind]
    try:
        return model_type(from_plain(config_type, described["config"]))
    except (ConfigError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: no model can be built from it: {error}") from error


def _check_filters(model: TrainedModel, folder: Path) -> None:
    """Refuse numbers that no filter can have."""
    if isinstance(model, LabAssimilation):
        try:
            _ = model.parameters_by_lab, model.transforms, model.carried_by_lab
            _ = model.network is None or model.network.checked()
        except BadAssimilationInput as error:
            raise CheckpointError(f"{folder / WEIGHTS_FILE}: {error} Train the method again.") from error


def fill_model(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load `weights` into `model`; every name and shape must fit, every number be finite.

    Raises
    ------
    CheckpointError : they do not; `path` names where they come from
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        missing = sorted(set(expected) - set(found))[:3]
        unknown = sorted(set(found) - set(expected))[:3]
        shapes = [f"{n}: {found[n]} instead of {expected[n]}" for n in sorted(set(expected) & set(found))
                  if found[n] != expected[n]][:3]  # fmt: skip
        raise CheckpointError(
            f"the weights in {path} do not fit the config: missing {missing}, unknown {unknown}, "
            f"shapes {shapes}"
        )
    _check_finite(weights, str(path))
    model.load_state_dict(dict(weights))


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state as tensors that safetensors can write."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    bad = [
        name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise CheckpointError(
            f"{len(bad)} tensors of {where} hold NaN or infinity, first {bad[0]}: the training diverged; "
            "lower the learning rate and train again"
        )
