"""The scale study: one planted cohort, embedded by each encoder, one method trained and judged on each; resumable.

The cohort is written once, each encoder has a store of its own, and what is finished is kept: a killed study goes on,
and a longer list of encoders does only what is new.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.embedding.names import EncoderName, file_name
from pipeline.emulation.model import EMULATED
from pipeline.evaluation.recovery import MODEL, TWIN
from pipeline.evaluation.recovery_conditions import Condition
from pipeline.evaluation.scale_study import EncoderCost, StudiedEncoder, scale_rows
from pipeline.experiments import CohortConfig, ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.atomic import require_writable, write_json, write_parquet, write_text
from pipeline.foundation.provenance import config_hash, to_plain
from pipeline.pretraining.probing.rows import check_seed
from pipeline.report.scale_text import scale_text
from pipeline.sources.synthetic.parameters import CohortParameters
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.stages.embed import experiment_encoder
from pipeline.stages.encoder_files import plain_experiment
from pipeline.stages.ingest import COHORT_LICENCE
from pipeline.stages.planted_cohort import checked_emulator, embedded_cohort
from pipeline.stages.recovery import trained_predictions

logger = logging.getLogger(__name__)

RECIPES: Mapping[str, str] = {"lines": "fitted lines", "mt_pcs": "MT+PCS"}
"""Name of a recipe, and what tables call what it makes."""
METHODS = (MODEL, TWIN)


@dataclass(frozen=True, kw_only=True)
class ScaleStudy:
    """What is compared, on whom, and by which method."""

    encoders: tuple[str, ...]
    """Names or paths; the first is what the others are compared with. All may begin with ``emulated:``: embeddings are
    then drawn by each encoder's emulator, which ``python -m pipeline emulator`` fits, and no waveform is made."""
    patients: int = 160
    """Planted patients in all; the experiment's split divides them."""
    hours: tuple[float, float] = (4.0, 8.0)
    """Shortest and longest recording."""
    seed: int = 7
    """Of the cohort."""
    recipe: str = "lines"
    """``lines``: each lab's line through running means of the waveform and its own history, in closed form, with a
    network that learns a single step of 1e-6 and says nothing: not the paper's MT+PCS, and never called so.
    ``mt_pcs``: the experiment's own recipe."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in self.encoders:
            EncoderName.parse(name)
        if not self.encoders or len(set(self.encoders)) < len(self.encoders):
            raise ValueError(f"encoders = {list(self.encoders)} must be different names, at least one")
        if len({self._is_emulated(name) for name in self.encoders}) > 1:
            raise ValueError(
                f"encoders = {list(self.encoders)}: emulated and rendered cohorts have other gaps, no draw could be "
                f"paired; put {EMULATED} before all of them or none"
            )
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe = {self.recipe!r} must be one of {', '.join(RECIPES)}")
        CohortSize(n_patients=self.patients, hours_low=self.hours[0], hours_high=self.hours[1])

    @staticmethod
    def _is_emulated(name: str) -> bool:
        return name.startswith(EMULATED)

    @property
    def emulated(self) -> bool:
        """Whether embeddings are drawn by emulators."""
        return self._is_emulated(self.encoders[0])

    def experiment(self, base: ExperimentConfig, encoder: str) -> ExperimentConfig:
        """Return the whole configuration of one encoder's part."""
        size = CohortSize(n_patients=self.patients, hours_low=self.hours[0], hours_high=self.hours[1])
        ours = dataclasses.replace(
            base, encoder=encoder, cohort=CohortConfig(size=size, coupling=1.0, seed=self.seed)
        )  # fmt: skip
        if self.recipe == "mt_pcs":
            return ours
        small = {
            "d_model": 16,
            "n_blocks": 1,
            "d_state": 4,
            "dropout": 0.0,
            "trunk_width": 16,
            "history_skip": True,
            "slow_features": base.lines.slow_features,
            "mean_steps": base.lines.mean_steps,
        }
        one_step = {"epochs": 1, "batches_per_epoch": 1, "learning_rate": 1e-6, "warmup_start": 1e-6, "final_lr": 1e-7,
                    "warmup_epochs": 0.0, "fit_lines": True}  # fmt: skip
        return dataclasses.replace(
            ours,
            model=dataclasses.replace(ours.model, **small),
            training=dataclasses.replace(ours.training, **one_step),
        )

    @property
    def method(self) -> str:
        """What the recipe makes, in words."""
        return RECIPES[self.recipe]

    @property
    def words(self) -> str:
        """The study in one sentence."""
        return (
            f"{self.patients} planted patients of {self.hours[0]:g} to {self.hours[1]:g} h, seed {self.seed}, "
            f"coupling 1{', emulated embeddings' if self.emulated else ''}; method: {self.method}"
        )


def run_scale_study(base: ExperimentConfig, root: Path, study: ScaleStudy) -> str:
    """Run what is missing and write ``scale_study.parquet`` and ``scale_study.txt`` into `root`; return the text.

    Raises
    ------
    ConfigError : an encoder that there is not, before any work
    MissingArtifactError, CheckpointError : an emulator that is not there, or of another encoder, likewise
    """
    require_writable(root / "scale_study.txt")
    experiments = {name: study.experiment(base, name) for name in study.encoders}
    weights = {name: _weights(experiment, root.parent) for name, experiment in experiments.items()}
    kind = "emulated" if study.emulated else "cohort"
    cohort = root / f"{kind}_{config_hash(to_plain(next(iter(experiments.values())).cohort))[:12]}"
    found: dict[str, StudiedEncoder] = {}
    text = ""
    for name, experiment in experiments.items():
        folder = root / "encoders" / _identity(experiment, weights[name])
        if not (folder / "outcome.json").exists():
            logger.info("scale study: %s", name)
            with _noted({name: experiment}, weights):
                _run_encoder(experiment, weights[name], cohort, folder)
        found[name] = _outcome(folder)
        table = scale_rows(found, base.evaluation)
        with _noted({done: experiments[done] for done in found}, weights):
            write_parquet(root / "scale_study.parquet", table)
        ours = experiment.departures if study.recipe == "mt_pcs" else ()
        text = scale_text(table, "\n".join([study.words, *ours]))
        write_text(root / "scale_study.txt", text)
    return text


def _weights(experiment: ExperimentConfig, base: Path) -> str:
    """Return the hash of what makes the embeddings: the encoder's weights, or all that an emulator draws from."""
    emulator = checked_emulator(experiment, base)
    return experiment_encoder(experiment).weights_hash if emulator is None else emulator.identity


def _noted(
    experiments: Mapping[str, ExperimentConfig], weights: Mapping[str, str]
) -> AbstractContextManager[ArtefactNote]:
    """Open the note of what is made of these experiments: their encoders and the cohort's parameters alone."""
    inputs: dict[str, Any] = {"cohort parameters": CohortParameters.load().sha256}
    inputs["encoders"] = [weights[name] for name in experiments]
    config = {"experiments": [plain_experiment(experiment) for experiment in experiments.values()]}
    return noted(ArtefactNote.of("scale_study", config=config, inputs=inputs, licences=[COHORT_LICENCE]))


def _identity(experiment: ExperimentConfig, weights_hash: str) -> str:
    """Return what an outcome depends on, as a folder's name; weights by content, since a path may get others."""
    depends = {"experiment": to_plain(experiment), "weights": weights_hash}
    return f"{file_name(experiment.encoder)[:60]}_{config_hash(depends)[:12]}"


def _run_encoder(experiment: ExperimentConfig, weights_hash: str, cohort_folder: Path, folder: Path) -> None:
    root = cohort_folder.parent
    emulator = checked_emulator(experiment, root.parent)
    width = experiment_encoder(experiment).width if emulator is None else emulator.width
    store = root / "stores" / cohort_folder.name / folder.name.rsplit("_", 1)[0] / weights_hash[:12]
    condition = Condition(name="coupling 1", coupling=1.0)
    cohort = embedded_cohort(experiment, condition, cohort_folder, store, emulator)
    cost = _cost(cohort.embedding.windows_now, cohort.embedding.seconds, store.with_suffix(".json"))
    predictions = trained_predictions(experiment, cohort, folder, METHODS)
    write_parquet(folder / "predictions.parquet", predictions)
    outcome = {**cost, "width": width, "cohort_windows": cohort.embedding.windows,
               "train_patients": cohort.splits.counts["train"], "experiment": plain_experiment(experiment)}  # fmt: skip
    write_json(folder / "outcome.json", outcome)


def _cost(windows: int, seconds: float, file: Path) -> dict[str, int | float]:
    """Return what the last run that embedded anything embedded, and in how many seconds."""
    if not windows:
        return json.loads(file.read_text()) if file.exists() else {"windows": 0, "seconds": 0.0}
    cost = {"windows": windows, "seconds": round(seconds, 3)}
    write_json(file, cost)
    return cost


def _outcome(folder: Path) -> StudiedEncoder:
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    cost = EncoderCost(**{field.name: outcome[field.name] for field in dataclasses.fields(EncoderCost)})
    return StudiedEncoder(
        predictions=pd.read_parquet(folder / "predictions.parquet"), cost=cost,
        train_patients=outcome["train_patients"],
    )  # fmt: skip
