"""Experiments: functions that return one whole configuration. A variant is ``dataclasses.replace``.

The configuration, as JSON with its hash, travels in every artefact (``pipeline.foundation.provenance``).
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.cohort.alignment_config import AlignmentConfig, authors_alignment, paper_alignment
from pipeline.cohort.normalization import ScalerConfig
from pipeline.cohort.sequences import SequenceConfig
from pipeline.cohort.splits import SplitConfig
from pipeline.embedding.config import EmbeddingConfig
from pipeline.embedding.names import EncoderName
from pipeline.evaluation.judge import EvaluationConfig
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.overrides import overridden
from pipeline.foundation.schema import FITTED_METHODS, SCORINGS, TRAINED_METHODS
from pipeline.foundation.workspace import WAVEFORMS_VARIABLE
from pipeline.labs.cleaning import LabConfig
from pipeline.sources.synthetic.plan import CohortSize
from pipeline.training.closed_form_config import AssimilationShape, LinesShape
from pipeline.training.config import TrainingConfig
from pipeline.training.encoder.config import EncoderTrainingConfig
from pipeline.training.reading_network_config import ReadingNetworkShape
from pipeline.windows.cutting import WindowConfig

EXPERIMENT_VARIABLE = "UNIPHY_EXPERIMENT"
BEST_ENCODER = "ppg_gpt_1m_broad+layers+spread+to256"
"""Knows most of the wave's shape (planted patients) and no less of heart rate (real ones) than any other network here,
in 256 numbers a window: docs/encoder.md. The paper embeds by the last position, and so do `paper` and `authors`."""
LONGEST_FIRST_STEP = 0.1
"""``MambaConfig.dt_max``."""
PAPER_METHODS = ("lstm", "mt", "st_pcs", "mt_pcs", "mt_pcs_twin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""An experiment's name is a folder below the artifacts and goes into the store's URL."""


@dataclass(frozen=True, kw_only=True)
class CohortConfig:
    """The embedded cohort: its size, and how its labs hang on the physiology that drives the pulse."""

    size: CohortSize = field(default_factory=lambda: CohortSize(n_patients=200))
    """Patients and hours."""
    coupling: float = 0.8
    """0 = labs know nothing of the pulse, 1 = labs follow from the physiology behind it."""
    null: str | None = None
    """``a`` (coupling 0) or ``b`` (draws independent in time, no patient offset)."""
    seed: int = 0
    """Seed of the cohort."""

    def __post_init__(self) -> None:
        if not 0 <= self.coupling <= 1:
            raise ValueError(f"coupling = {self.coupling} must lie in 0..1")
        if self.null not in (None, "a", "b"):
            raise ValueError(f"null = {self.null!r}: choose a, b or null (none)")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} must not be negative")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of the trained models; the defaults are the paper's where it gives them (docs/evaluation.md)."""

    d_model: int = 256
    """Width of the backbone."""
    n_blocks: int = 4
    """Backbone blocks (paper: 4)."""
    d_state: int = 16
    """States per channel."""
    dropout: float = 0.1
    """Share dropped in training."""
    trunk_width: int = 128
    """Width of the patient's code in the PCS trunk."""
    dt_min: float = 0.001
    """Shortest step size at initialisation; 0.001: the longest memory of a state is 8 h."""
    history_skip: bool = False
    """Show each lab's own layer the patient's code at every step; ours, see ``LabRegressorConfig``."""
    slow_features: int | None = None
    """Lasting directions of the embedding, seen by every model instead of all of it; ours, ``LabRegressorConfig``."""
    mean_steps: tuple[float, ...] = ()
    """Time constants of running means of the waveform, steps of 30 s; ours, see ``LabRegressorConfig``."""
    reader_width: int | None = None
    """Width of an LSTM over the latest windows in every sequence model, for use with ``training.fit_lines``; ours."""
    hidden: int = 256
    """Width of the LSTM baseline."""

    def __post_init__(self) -> None:
        # The models' own rules, which stand beside their layers and need torch: here before anything is read.
        for name in (
            "d_model",
            "n_blocks",
            "d_state",
            "trunk_width",
            "hidden",
            "slow_features",
            "reader_width",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout} must lie in [0, 1)")
        if not 0 < self.dt_min <= LONGEST_FIRST_STEP:
            raise ValueError(f"dt_min = {self.dt_min} must lie in (0, {LONGEST_FIRST_STEP}]")
        if any(steps < 1 for steps in self.mean_steps):
            raise ValueError(f"mean_steps = {list(self.mean_steps)}: each must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides the numbers of one experiment."""

    name: str
    """Also the folder under ``artifacts/``."""
    caveat: str = ""
    """Printed with every table where the protocol flatters."""
    cohort: CohortConfig = field(default_factory=CohortConfig)
    """The synthetic cohort, used where no waveform folder is given."""
    encoder: str = "ppg_gpt_1m"
    """Name of a shipped encoder or path of a checkpoint, then read-out and projection: ``pipeline.embedding.names``."""
    encoder_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of PPG-GPT; auto: bfloat16 where the encoder's device multiplies it natively. Part of the store's key,
    and of a checkpoint, as what it came to."""
    encoder_patients: Literal["refuse", "other_people"] = "refuse"
    """What ids that a fine-tuned encoder has learned from mean here: the same people, so that a division that holds one
    of them out is refused, or other_people (another hospital, another synthetic cohort). Changes no number."""
    encoder_training: EncoderTrainingConfig = field(default_factory=EncoderTrainingConfig)
    """How ``train_encoder`` fine-tunes the encoder on labs; touches nothing else of the experiment."""
    embedding_executor: Literal["local", "ray"] = "local"
    """Where the encoder runs; changes no number."""
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    """How stage 1 uses the machine."""
    window: WindowConfig = field(default_factory=WindowConfig)
    labs: LabConfig = field(default_factory=LabConfig)
    splits: SplitConfig = field(default_factory=SplitConfig)
    scaler: ScalerConfig = field(default_factory=ScalerConfig)
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    model: ModelShape = field(default_factory=ModelShape)
    lines: LinesShape = field(default_factory=LinesShape)
    """Of the method ``lines``; ours."""
    assimilation: AssimilationShape = field(default_factory=AssimilationShape)
    """Of ``mt_assim`` and its twin; ours."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    methods: tuple[str, ...] = (*PAPER_METHODS, "mt_learned")
    """Methods that the report expects; one that is not trained is left out and named."""
    seeds: tuple[int, ...] = (0,)
    """One training run for each."""
    scorings: tuple[Literal["measured", "dense"], ...] = ("measured",)
    """``measured`` draws, which are always scored; ``dense`` beside them: interpolated points, as sums, labelled."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name = {self.name!r} must be a name, not a path: letters, digits, '_', '-' and '.', at most 64 of "
                "them, the first a letter or digit"
            )
        try:
            EncoderName.parse(self.encoder)
        except (
            ConfigError
        ) as problem:  # what reads a configuration from JSON expects a rule's refusal as ValueError
            raise ValueError(str(problem)) from None
        for field_name, known in (("methods", TRAINED_METHODS), ("scorings", SCORINGS)):
            chosen = getattr(self, field_name)
            if not chosen or set(chosen) - set(known):
                raise ValueError(f"{field_name} = {list(chosen)}: choose one or more of {', '.join(known)}")
        if self.embedding_executor == "ray" and ":" in self.embedding.device:
            raise ValueError(
                f"embedding.device = {self.embedding.device!r} and embedding_executor = 'ray': Ray gives each actor a "
                "GPU of its own, so choose cuda"
            )
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} must be different numbers from 0 on, at least one")

    @property
    def departures(self) -> tuple[str, ...]:
        """What of the methods that carry the paper's names is ours here."""
        ours = "ST+PCS and MT+PCS show each lab's own layer the history at every step (model.history_skip): ours, not "
        ours += "the paper's, whose history enters through h0 alone."
        return (ours,) if self.model.history_skip else ()

    @property
    def above_tables(self) -> str:
        """What stands above every table: why the protocol flatters, and what of the paper's methods is ours here."""
        return "\n".join([*filter(None, [self.caveat]), *self.departures])

    def shape_of(self, method: str) -> ModelShape | LinesShape | AssimilationShape:
        """Return what decides the size of a trained method."""
        if method not in FITTED_METHODS:
            return self.model
        return self.lines if method == "lines" else self.assimilation


_FITTED_IN_SMALL = tuple(method for method in FITTED_METHODS if method != "mt_assim_lines")
"""Cohorts too small for the networks of ``mt_assim`` (``least_draws``) have nothing to set beside its lines."""
_FEW_LABELS = AlignmentConfig(interpolated_weight=0.002)
"""All the interpolated steps of four hours weigh about as much as one draw: docs/notes/recipe.md."""


_NETWORK = ModelShape(
    d_model=64, trunk_width=64, hidden=64, dropout=0.1, dt_min=2e-4, history_skip=True, slow_features=32
)  # fmt: skip
"""256 takes four to ten times as long a step; whether it tells more from as many is open: docs/notes/recipe.md."""
_TRAINING = TrainingConfig(
    epochs=4, learning_rate=1e-3, lstm_epochs=6, warmup_epochs=1.0, final_lr=1e-5, batch_pieces=8
)  # fmt: skip


def default() -> ExperimentConfig:
    """Return the best recipe that we know, for real data of up to seven days a patient (docs/evaluation.md)."""
    return ExperimentConfig(
        name="default",
        encoder=BEST_ENCODER,
        alignment=_FEW_LABELS,
        model=_NETWORK,
        # Of recordings of days single ones make a batch: a small cohort has few updates otherwise.
        training=dataclasses.replace(_TRAINING, batch_pieces=1),
        methods=(*PAPER_METHODS, "mt_learned", *FITTED_METHODS),
    )


def demo() -> ExperimentConfig:
    """Return the embedded cohort at a size that two cores finish in minutes."""
    return ExperimentConfig(
        name="demo",
        encoder=BEST_ENCODER,
        cohort=CohortConfig(size=CohortSize(n_patients=120, hours_low=6.0, hours_high=18.0)),
        splits=SplitConfig(fractions=(0.6, 0.24, 0.16)),
        # `default`'s, found on the validation patients of another cohort, seed 7: docs/notes/recipe.md.
        alignment=_FEW_LABELS,
        model=_NETWORK,
        training=dataclasses.replace(_TRAINING, tensorboard=False),
        methods=(*PAPER_METHODS, *_FITTED_IN_SMALL),
    )


def tiny() -> ExperimentConfig:
    """Return the smallest whole run, for the tests."""
    return dataclasses.replace(
        demo(),
        name="tiny",
        methods=(*PAPER_METHODS, *FITTED_METHODS),
        cohort=CohortConfig(size=CohortSize(n_patients=10, hours_low=3.0, hours_high=5.0)),
        model=ModelShape(
            d_model=16,
            n_blocks=1,
            d_state=4,
            dropout=0.0,
            trunk_width=16,
            hidden=16,
            history_skip=True,
            slow_features=8,
        ),
        lines=LinesShape(slow_features=8, mean_steps=(20.0, 60.0), reader_width=8),
        assimilation=AssimilationShape(
            features=8,
            network=ReadingNetworkShape(folds=2, least_draws=0, d_model=8, n_blocks=1, d_state=4, epochs=1),
        ),
        training=TrainingConfig(
            epochs=1,
            learning_rate=1e-3,
            warmup_epochs=0.0,
            final_lr=1e-5,
            batch_pieces=8,
            tensorboard=False,
        ),
        evaluation=EvaluationConfig(bootstrap=50),
    )


def recovery() -> ExperimentConfig:
    """Return what ``python -m pipeline recovery`` runs under every coupling: many patients, short recordings."""
    return dataclasses.replace(
        demo(),
        name="recovery",
        cohort=CohortConfig(size=CohortSize(n_patients=1000, hours_low=4.0, hours_high=8.0), coupling=1.0),
        splits=SplitConfig(fractions=(0.6, 0.1, 0.3)),
    )


def paper() -> ExperimentConfig:
    """Return the paper's protocol on any data, three seeds, dense scoring beside the measured one."""
    return ExperimentConfig(
        name="paper",
        alignment=paper_alignment(),
        training=TrainingConfig(protocols=("start",), lstm_centred=True),
        seeds=(0, 1, 2),
        scorings=("measured", "dense"),
    )


def authors() -> ExperimentConfig:
    """Return the way of the authors' public preparation code, which flatters; every table says so."""
    return ExperimentConfig(
        name="authors",
        caveat="Flatters: windows may pass their draw, gaps are cut out, lab ranges come from all patients, "
        "interpolated points are scored, and no validation set selects the epoch. Subjects are divided here, not "
        "admissions as in the authors' code: that part of the flattery is left out.",
        labs=LabConfig(duplicates="max"),
        alignment=authors_alignment(),
        scaler=ScalerConfig(fitted_on="everything", clip=True),
        splits=SplitConfig(fractions=(0.74, 0.01, 0.25)),
        training=TrainingConfig(protocols=("start",), lstm_centred=True, selection="last", allow_leaks=True),
        scorings=("measured", "dense"),
    )


EXPERIMENTS: Mapping[str, Callable[[], ExperimentConfig]] = {
    build.__name__: build for build in (demo, default, paper, authors, recovery, tiny)
}


def default_experiment_name(waveforms: str | None = None) -> str:
    """Return ``UNIPHY_EXPERIMENT``, or ``default`` where a waveform folder is named, or else ``demo``.

    Parameters
    ----------
    waveforms : the folder that a flag or a resource names; None or empty: the one of ``UNIPHY_WAVEFORMS``, if any
    """
    named = waveforms or os.environ.get(WAVEFORMS_VARIABLE)
    return os.environ.get(EXPERIMENT_VARIABLE) or ("default" if named else "demo")


def experiment(name: str, overrides: Mapping[str, str] | None = None) -> ExperimentConfig:
    """Return the named experiment with fields replaced, e.g. ``{"training.epochs": "3"}``.

    Raises
    ------
    ConfigError
        No such experiment or field, a value that the field's owner refuses, or fields that contradict each other;
        all overrides count together, in any order.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"There is no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    return overridden(EXPERIMENTS[name](), overrides or {})
