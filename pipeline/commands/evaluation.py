"""Studies beside the stages of one experiment: cross-validation, baselines of labs alone, recovery, encoder scale."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.project_options import (
    add_experiment_option,
    add_override_option,
    add_project_options,
    configuration,
    project,
)
from pipeline.evaluation.lab_baselines import (
    LabBaselineConfig,
    read_icu_stays,
    real_lab_baselines,
)
from pipeline.evaluation.recovery_conditions import REGIMES, Condition
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.progress import progress
from pipeline.foundation.schema import TRAINED_METHODS
from pipeline.foundation.workspace import Workspace
from pipeline.report.baseline_text import baseline_table
from pipeline.sources.detect import open_clinical
from pipeline.sources.synthetic.plan import CohortSize

if TYPE_CHECKING:
    from pipeline.stages.recovery_regimes import LongCohorts


def add_evaluation_commands(commands) -> None:
    """Add the sub-commands."""
    labs = commands.add_parser(
        "lab-baselines", help="what labs alone tell about the next lab, on a real table"
    )
    labs.add_argument("--labs", type=Path, required=True, help="folder of MIMIC-III tables, with ICUSTAYS")
    labs.add_argument("--stay-days", type=float, default=7.0, help="days from ICU admission that are scored")
    labs.add_argument(
        "--max-age-hours", type=float, default=72.0, help="oldest previous value carried forward"
    )
    labs.set_defaults(run=_lab_baselines)
    _add_cross_validation(commands)
    _add_recovery(commands)
    _add_scale_study(commands)


def _add_cross_validation(commands) -> None:
    command = commands.add_parser(
        "cross-validate",
        help="train and score methods once a fold of subjects, for cohorts too small for a test split; resumable",
    )
    add_project_options(command)
    command.add_argument(
        "--method", action="append", metavar="NAME", help="repeatable; all of the experiment's when left out"
    )
    command.add_argument("--folds", type=int, default=5, help="divisions; each subject is tested in one")
    command.set_defaults(run=_cross_validate)


def _cross_validate(parsed: argparse.Namespace) -> None:
    from pipeline import stages

    workspace, config = project(parsed)
    with progress("cross-validate"):
        text = stages.printed_cross_validation(
            workspace, config, methods=parsed.method or config.methods, folds=parsed.folds
        )
    sys.stdout.write(text + "\n")


def _add_recovery(commands) -> None:
    command = commands.add_parser(
        "recovery",
        help="what is found of what the pulse could tell, on cohorts with a known truth; resumable",
    )
    command.add_argument(
        "--regime", choices=("short", "long"), default="short",
        help="short: 1000 patients of hours; long: 160 rendered ones of days, and 1000 emulated ones of a week",
    )  # fmt: skip
    command.add_argument(
        "--patients", type=int, nargs=2, default=(160, 1000), metavar=("RENDERED", "EMULATED"),
        help="of the regime long; EMULATED 0: none",
    )  # fmt: skip
    command.add_argument(
        "--hours", type=float, nargs=2, default=(48.0, 96.0), metavar=("LOW", "HIGH"),
        help="of a rendered recording, regime long",
    )  # fmt: skip
    command.add_argument(
        "--days", type=float, nargs=2, default=(7.0, 7.0), metavar=("LOW", "HIGH"),
        help="of an emulated recording, regime long",
    )  # fmt: skip
    command.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help="only these, repeatable; a model needs its twin to be judged",
    )
    command.add_argument(
        "--condition", action="append", metavar="NAME", help="only these conditions of the regime, repeatable"
    )
    command.add_argument(
        "--seeds", type=int, help="training seeds of every condition; those of docs/recovery.md when left out"
    )
    command.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1),
        help="trainings side by side, a process each; 2 where there are two cores",
    )  # fmt: skip
    add_experiment_option(command, default="recovery")
    command.add_argument("--artifacts", help="output folder; UNIPHY_ARTIFACTS, or ./artifacts")
    add_override_option(command)
    command.set_defaults(run=_recovery)


def _add_scale_study(commands) -> None:
    command = commands.add_parser(
        "scale-study",
        help="recovery by encoder and read-out on one planted cohort, with what each costs; resumable",
    )
    command.add_argument(
        "--encoder", action="append", required=True, metavar="NAME",
        help="name or path with its read-out, repeatable; the others are compared with the first; emulated:NAME, all "
        "or none of them: embeddings drawn by its emulator, for long recordings",
    )  # fmt: skip
    command.add_argument("--patients", type=int, default=160, help="planted patients, divided by the split")
    command.add_argument("--hours", type=float, nargs=2, default=(4.0, 8.0), metavar=("LOW", "HIGH"))
    command.add_argument("--seed", type=int, default=7, help="of the cohort; 7 or 8 to choose by")
    command.add_argument(
        "--recipe", default="lines", help="lines (closed form), or mt_pcs (the experiment's)"
    )
    add_experiment_option(command, default="recovery")
    command.add_argument("--artifacts", help="output folder; UNIPHY_ARTIFACTS, or ./artifacts")
    add_override_option(command)
    command.set_defaults(run=_scale_study)


def _scale_study(parsed: argparse.Namespace) -> None:
    from pipeline.stages.scale_study import ScaleStudy, run_scale_study  # imports torch, as above

    config = configuration(parsed)
    try:
        study = ScaleStudy(
            encoders=tuple(parsed.encoder), patients=parsed.patients, hours=tuple(parsed.hours), seed=parsed.seed,
            recipe=parsed.recipe,
        )  # fmt: skip
    except ValueError as problem:
        raise ConfigError(f"scale-study: {problem}") from None
    workspace = Workspace.from_environment("scale_study", artifacts=parsed.artifacts)
    sys.stdout.write(run_scale_study(config, workspace.root, study))


def _recovery(parsed: argparse.Namespace) -> None:
    from pipeline.stages.recovery import run_long_recovery, run_recovery  # imports torch, as above

    config, methods = configuration(parsed), parsed.method  # None: each condition's own
    if unknown := sorted(set(methods or ()) - set(TRAINED_METHODS)):
        raise ConfigError(
            f"--method {unknown[0]} cannot be trained; choose from {', '.join(TRAINED_METHODS)}"
        )
    workspace = Workspace.from_environment(config.name, artifacts=parsed.artifacts)
    conditions = _conditions(parsed)
    if parsed.regime == "short":
        run_recovery(config, workspace.root, conditions, methods=methods, workers=parsed.workers)
    else:
        run_long_recovery(
            config, workspace.root, _long_cohorts(parsed), conditions, methods=methods, workers=parsed.workers
        )
    written = workspace.root / ("recovery.txt" if parsed.regime == "short" else "recovery_long.txt")
    sys.stdout.write(written.read_text(encoding="utf-8"))


def _conditions(parsed: argparse.Namespace) -> list[Condition]:
    """Return the conditions of the regime that were asked for, with as many training seeds."""
    known = {condition.name: condition for condition in REGIMES[parsed.regime]}
    wanted = parsed.condition or [c.name for c in known.values() if parsed.patients[1] or not c.emulated]
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigError(
            f"--condition {unknown[0]!r} is none of the regime {parsed.regime}: choose from {', '.join(known)}"
        )
    if parsed.seeds is not None and parsed.seeds < 1:
        raise ConfigError(f"--seeds {parsed.seeds}: at least one training run is needed")
    if parsed.workers < 1:
        raise ConfigError(f"--workers {parsed.workers}: at least one process is needed")
    return [dataclasses.replace(known[name], seeds=parsed.seeds or known[name].seeds) for name in wanted]


def _long_cohorts(parsed: argparse.Namespace) -> "LongCohorts":
    from pipeline.stages.recovery_regimes import LongCohorts  # imports torch, as above

    (rendered, emulated), (low, high) = parsed.patients, parsed.hours
    shortest, longest = (24 * days for days in parsed.days)
    try:
        return LongCohorts(
            rendered=CohortSize(n_patients=rendered, hours_low=low, hours_high=high),
            emulated=CohortSize(n_patients=max(emulated, 1), hours_low=shortest, hours_high=longest),
        )
    except ValueError as problem:
        raise ConfigError(f"recovery --regime long: {problem}") from None


def _lab_baselines(parsed: argparse.Namespace) -> None:
    try:
        config = LabBaselineConfig(stay_days=parsed.stay_days, max_age_hours=parsed.max_age_hours)
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    if not Path(parsed.labs).exists():
        raise ConfigError(f"--labs names {parsed.labs}, which does not exist; name a folder that does.")
    stays = read_icu_stays(parsed.labs)
    rows = real_lab_baselines(open_clinical(parsed.labs).tables(), stays, config)
    sys.stdout.write(baseline_table(rows) + "\n")
