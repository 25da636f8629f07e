"""How a checkpoint estimates new patients, ``anchored`` or ``start``: as it was trained, scored and calibrated."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.cohort.alignment_config import AlignmentConfig
from pipeline.foundation.errors import CheckpointError, ConfigError
from pipeline.foundation.provenance import from_plain
from pipeline.foundation.schema import PROTOCOLS
from pipeline.training.checkpoints import LoadedModel, checkpoint_folders, load_model
from pipeline.training.distributed import pick_device
from pipeline.training.forecaster import AnyForecaster, Forecaster, forecaster_of


def learnt_protocols(loaded: LoadedModel) -> tuple[str, ...]:
    """Return the kinds of pieces that a checkpoint learnt from, in the order of ``schema.PROTOCOLS``.

    Raises
    ------
    CheckpointError : its record does not say
    """
    cut = set(alignment_of(loaded).protocols)
    learnt = cut & set(loaded.experiment.get("training", {}).get("protocols", ()))
    if not learnt:
        raise CheckpointError(
            f"the checkpoint of {loaded.method} does not say which pieces it learnt from (training.protocols, of "
            f"{list(PROTOCOLS)}); train it again"
        )
    return tuple(name for name in PROTOCOLS if name in learnt)


def protocols_of(checkpoint_dir: Path | str) -> tuple[str, ...]:
    """Return the kinds of estimates that a trained method can give: those that all its models learnt."""
    models = [load_model(folder) for folder in checkpoint_folders(checkpoint_dir)]
    return _common(models)


def bedside_protocol(checkpoint_dir: Path | str, wanted: str | None = None) -> str:
    """Return how a checkpoint will estimate, ``start`` or ``anchored``; needs no patient.

    Raises
    ------
    CheckpointError, ConfigError : as `Predictor.load` raises them, before a window is embedded
    """
    models = [load_model(folder) for folder in checkpoint_folders(checkpoint_dir)]
    return chosen_protocol(models, forecaster_of(models[0], pick_device("cpu")), wanted)


def chosen_protocol(models: Sequence[LoadedModel], forecaster: AnyForecaster, wanted: str | None) -> str:
    """As `bedside_protocol`, for the loaded models of one method and the forecaster of the first."""
    steps = alignment_of(models[0]).steps
    centred = isinstance(forecaster, Forecaster) and forecaster.looks_ahead
    if forecaster.twin or centred or steps == "concatenated":
        raise ConfigError(
            f"a checkpoint of {models[0].method} (twin: {forecaster.twin}, centred windows: {centred}, steps: "
            f"{steps}) cannot predict at the bedside: it needs another patient or the future; choose a causal method"
        )
    learnt = _common(models)
    if wanted is None and learnt:
        return "anchored" if "anchored" in learnt else learnt[0]
    if wanted not in learnt:
        raise ConfigError(
            f"protocol = {wanted!r}: the checkpoint of {models[0].method} learnt from {list(learnt)} alone; choose "
            "one of these, or train with training.protocols naming the other"
        )
    return wanted


def _common(models: Sequence[LoadedModel]) -> tuple[str, ...]:
    return tuple(name for name in PROTOCOLS if all(name in learnt_protocols(loaded) for loaded in models))


def alignment_of(loaded: LoadedModel) -> AlignmentConfig:
    """Return how the cohort of a checkpoint was aligned.

    Raises
    ------
    CheckpointError : its record does not say
    """
    try:
        return from_plain(AlignmentConfig, loaded.provenance["alignment"])
    except (KeyError, ConfigError) as error:
        raise CheckpointError(
            f"the checkpoint of {loaded.method} does not say how its cohort was aligned "
            f"({error}); train it again"
        ) from error
