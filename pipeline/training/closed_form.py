"""Fit a method in one go, ``lines`` or ``mt_assim``, and save it as any other method is saved.

One fit stands in the place of all epochs: ``best/`` and ``last/`` hold the same model, ``metrics.jsonl`` one row. The
networks that read the waveform for ``mt_assim`` are kept one by one until it is finished, so that it may be killed.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from models.assimilation.config import AssimilationConfig, FitConfig
from models.assimilation.lab_assimilation import LabAssimilation
from models.regressor.lab_lines import LabLines, LabLinesConfig
from pipeline.foundation.atomic import make_private_dir
from pipeline.foundation.errors import ConfigError, OtherRunError
from pipeline.foundation.provenance import config_hash, from_plain, to_plain
from pipeline.foundation.schema import LAB_NAMES, TWINS
from pipeline.training.assimilation_fit import NetworkFit, fit_assimilation
from pipeline.training.batches import PieceSource, embedding_width
from pipeline.training.checkpoints import (
    CONFIG_FILE,
    encoder_identity,
    provenance_of,
    resolved_experiment,
    save_checkpoint,
)
from pipeline.training.closed_form_config import AssimilationShape, LinesShape
from pipeline.training.config import TrainingConfig, TrainingResult
from pipeline.training.curves import read_curves, write_curves
from pipeline.training.data import TrainingData
from pipeline.training.dataset import twin_mapping
from pipeline.training.distributed import Ranks, joined_ranks, pick_device
from pipeline.training.filter_forecaster import FilterForecaster
from pipeline.training.forecaster import AnyForecaster, Forecaster, scale_rows
from pipeline.training.kept_networks import KeptNetworks
from pipeline.training.line_fit import fit_lines
from pipeline.training.resume import RESUME_FILE
from pipeline.training.validation import Validation, validation_examples, validation_of

logger = logging.getLogger(__name__)

NETWORKS = "networks"
"""Folder of the networks of a fit that is not finished."""
Shape = TypeVar("Shape", LinesShape, AssimilationShape)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A model, what it was fitted on, and how each lab came about."""

    model: LabLines | LabAssimilation
    counts: dict[str, int]
    status: dict[str, str]
    network_share: dict[str, float] = field(default_factory=dict)
    """What networks count in each lab's readings; empty without any."""


def fit(
    method: str,
    data: TrainingData,
    shape: Mapping[str, Any],
    config: TrainingConfig,
    folder: Path,
    *,
    experiment: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> TrainingResult:
    """Fit `method` into `folder`; a finished fit of the same configuration, cohort and split stays as it is.

    Parameters
    ----------
    shape : fields of ``LinesShape`` or ``AssimilationShape``
    config : protocols (lines), seed, and whether a leaking scaling is accepted; nothing else of it counts

    Raises
    ------
    ConfigError : no training patient or target, an unknown field
    OtherRunError : the folder holds a fit of something else
    """
    build, made_with = _BUILDERS[method](shape)
    known = data.provenance()
    described = {"method": method, "shape": to_plain(made_with), "seed": config.seed, **known}
    if method == "lines":
        described["protocols"] = list(config.protocols)
    identity = config_hash({**described, "encoder": encoder_identity(known)})
    with joined_ranks() as ranks:

        def work() -> None:
            kept = KeptNetworks(folder=folder / NETWORKS, identity=identity)
            if not _is_done(folder, identity):
                started = time.monotonic()
                fitted = build(data, config, method in TWINS, kept)
                validation = _validated(fitted, method, data, config)
                _save(
                    folder, fitted, method, data, validation, time.monotonic() - started,
                    experiment={**resolved_experiment(experiment, known), "training": to_plain(config)},
                    provenance={**to_plain(provenance), **known, "config_hash": config_hash(described),
                                "run_identity": identity},
                )  # fmt: skip
            kept.clear()

        ranks.alone(work)
    counts = provenance_of(folder / "best")["counts"]
    return TrainingResult(
        method=method,
        checkpoint_dir=folder,
        epochs=read_curves(folder),
        best_epochs={"all": 1},
        counts={"all": counts},
    )


def _is_done(folder: Path, identity: str) -> bool:
    path = folder / "last" / CONFIG_FILE  # written last of all
    if not path.exists():  # not begun, or killed while it was written
        if (folder / "last" / RESUME_FILE).exists():
            raise OtherRunError(f"{folder} holds a run of another kind; choose another folder, or delete it")
        return False
    if provenance_of(folder / "last").get("run_identity") != identity:
        raise OtherRunError(
            f"{folder} holds a fit with another configuration, cohort or split; choose another folder, or delete it to "
            "fit anew"
        )
    return True


def _save(
    folder: Path,
    fitted: Fitted,
    method: str,
    data: TrainingData,
    validation: Validation,
    seconds: float,
    *,
    experiment: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    make_private_dir(folder)
    row = {
        "method": method, "part": "all", "epoch": 1, "batches": 1, "loss": None, "lab_losses": {},
        "learning_rate": 0.0, "validation": validation.errors, "selection_error": validation.error, "kept": True,
        "seconds": round(seconds, 3), "fitted": True,
    }  # fmt: skip
    write_curves(folder, [row], tensorboard=False)
    for name in ("best", "last"):
        save_checkpoint(
            folder / name, fitted.model, method=method, scaler=data.scaler, experiment=experiment,
            provenance={**provenance, "epoch": 1, "counts": fitted.counts, "status": fitted.status,
                        "network_share": fitted.network_share},
        )  # fmt: skip


def _validated(fitted: Fitted, method: str, data: TrainingData, config: TrainingConfig) -> Validation:
    """Return the error on the validation patients' draws, on the axis on which networks are judged too."""
    patients, twin, ranks = data.patients("validation"), method in TWINS, Ranks()
    frame = validation_examples(data.aligned, patients, config.protocols, LAB_NAMES, ranks, twin=twin)
    forecaster = _forecaster(fitted.model, data, twin, config.seed)
    value = forecaster.estimated(
        frame, data.aligned, data.store, patients, cache=data.cache, exact=False
    ).value
    truth = scale_rows(data.scaler, frame["truth"].to_numpy(dtype=np.float64), frame["lab"])
    error = np.abs(scale_rows(data.scaler, value, frame["lab"]) - truth)
    rows = frame[["protocol", "lab", "patient_id"]].assign(error=error)
    return validation_of(rows, config.protocols, LAB_NAMES, patients, ranks, torch.device("cpu"))


def _forecaster(
    model: LabLines | LabAssimilation, data: TrainingData, twin: bool, seed: int
) -> AnyForecaster:
    if isinstance(model, LabAssimilation):
        return FilterForecaster(model=model, scaler=data.scaler, twin=twin, seed=seed)
    return Forecaster(
        model=model.eval(),
        labs=LAB_NAMES,
        scaler=data.scaler,
        device=torch.device("cpu"),
        twin=twin,
        seed=seed,
    )


Build = Callable[[TrainingData, TrainingConfig, bool, KeptNetworks], Fitted]


def _lines(values: Mapping[str, Any]) -> tuple[Build, LinesShape]:
    shape = _shape(LinesShape, values)

    def build(data: TrainingData, config: TrainingConfig, twin: bool, kept: KeptNetworks) -> Fitted:
        patients = _training_patients(data)
        source = PieceSource(
            data.aligned, data.store, data.scaler, patients=patients, protocols=config.protocols, labs=LAB_NAMES,
            twin=twin, seed=config.seed, cache=data.cache,
        )  # fmt: skip
        if sum(source.group_sizes) == 0:
            raise ConfigError(
                f"lines: the training patients have no target ({source.counts()}); check that the lab table covers the "
                "recorded stays and the splits were made for this cohort"
            )
        with torch.random.fork_rng(devices=[]):  # the generator is the callers' own
            torch.default_generator.manual_seed(config.seed)
            model = LabLines(
                from_plain(
                    LabLinesConfig, to_plain(shape) | {"embed_width": embedding_width(data.store, patients)}
                )
            )
        model.set_output_means(torch.tensor(source.target_means(), dtype=torch.float32))
        model.fit_input_scales(source.sample(config.seed))
        fit_lines(model, source, config.seed)
        return Fitted(model=model, counts=source.counts(), status={})

    return build, shape


def _assimilation(values: Mapping[str, Any], *, by_lines: bool = False) -> tuple[Build, AssimilationShape]:
    shape = _shape(AssimilationShape, values)

    def build(data: TrainingData, config: TrainingConfig, twin: bool, kept: KeptNetworks) -> Fitted:
        patients = _training_patients(data)
        fitted = fit_assimilation(
            data.aligned, data.store, patients,
            AssimilationConfig(
                labs=LAB_NAMES, log_scale=shape.log_scale,
                fit=FitConfig(reading_weight=shape.reading_weight, prior_weight=shape.prior_weight),
            ),
            features=shape.features, twins=twin_mapping(patients, config.seed) if twin else None, cache=data.cache,
            network=None if by_lines else NetworkFit(
                shape=shape.network, seed=config.seed, device=pick_device(config.device), kept=kept
            ),
        )  # fmt: skip
        counts = {f"draws_{lab.name}": lab.fit.n_draws for lab in fitted.labs}
        counts |= {f"readings_{lab.name}": lab.fit.n_readings for lab in fitted.labs}
        return Fitted(
            model=fitted.model, counts=counts, status={lab.name: lab.status for lab in fitted.labs},
            network_share={lab.name: lab.network_share for lab in fitted.labs} if fitted.networks else {},
        )  # fmt: skip

    return build, shape


def _training_patients(data: TrainingData) -> list[str]:
    patients = data.patients("train")
    if not patients:
        raise ConfigError("no patient of this cohort belongs to the training split: split this cohort anew")
    return patients


def _shape(kind: type[Shape], values: Mapping[str, Any]) -> Shape:
    return from_plain(kind, to_plain(values))


_BUILDERS = {"lines": _lines, "mt_assim": _assimilation, "mt_assim_twin": _assimilation,
             "mt_assim_lines": partial(_assimilation, by_lines=True)}  # fmt: skip
