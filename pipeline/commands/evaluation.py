"""``lab-baselines``, ``recovery`` and ``scale-study``: what judges a method beside the stages of one experiment."""

import argparse
import sys
from pathlib import Path

from pipeline.commands.project_options import add_experiment_option, add_override_option, configuration
from pipeline.evaluation.lab_baselines import (
    LabBaselineConfig,
    read_icu_stays,
    real_lab_baselines,
)
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace
from pipeline.report.baseline_text import baseline_table
from pipeline.sources.detect import open_clinical


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
    _add_recovery(commands)
    _add_scale_study(commands)


def _add_recovery(commands) -> None:
    command = commands.add_parser(
        "recovery",
        help="what is found of what the pulse could tell, on cohorts with a known truth; resumable",
    )
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
    # Both import torch, which other commands need not.
    from pipeline.report.recovery_text import recovery_text
    from pipeline.stages.recovery import run_recovery

    config = configuration(parsed)
    workspace = Workspace.from_environment(config.name, artifacts=parsed.artifacts)
    sys.stdout.write(recovery_text(run_recovery(config, workspace.root)))


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
