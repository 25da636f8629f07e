"""Command line: one sub-command a stage.

``uniphy <stage> [--experiment NAME] [--waveforms DIR] [--labs DIR] [--artifacts DIR] [--set field=value]``, or, without
the console command, ``python -m pipeline <stage> …``.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from pipeline import stages
from pipeline.commands.configuration import add_config_command
from pipeline.commands.doctor import add_doctor_command
from pipeline.commands.encoder_parts import add_encoder_parts_command
from pipeline.commands.evaluation import add_evaluation_commands
from pipeline.commands.parser import Command, program, version_text
from pipeline.commands.prediction import add_prediction_commands
from pipeline.commands.pretraining import add_pretraining_commands
from pipeline.commands.project_options import add_project_options, project
from pipeline.commands.projection import add_projection_command
from pipeline.commands.rehearsal import add_rehearsal_commands
from pipeline.commands.store import add_store_commands
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.errors import ConfigError, ProjectError
from pipeline.foundation.progress import log_to_standard_error, progress, shown_on_terminal
from pipeline.foundation.ranks import process_count, speaks_for_all
from pipeline.foundation.schema import TRAINED_METHODS
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace
from pipeline.stages.lineage import training_stage
from pipeline.stages.sources import check_sources

Stage = Callable[[Workspace, ExperimentConfig], StageSummary]

TOGETHER = ("train", "pretrain")
"""Sub-commands that torchrun may start in several processes."""
STAGES: dict[str, tuple[Stage, str]] = {
    "cohort": (stages.synthetic_cohort, "write the synthetic cohort"),
    "catalog": (stages.waveform_catalog, "find every waveform record"),
    "embed": (stages.ppg_embeddings, "window, encode and store what is new or changed"),
    "labs": (stages.lab_events, "read and clean the labs"),
    "split": (stages.cohort_splits, "divide patients by subject"),
    "normalize": (stages.normalization_stats, "fit lab scaling on training patients"),
    "align": (stages.lab_alignment, "cut sequences and match draws with windows"),
    "score": (stages.predictions, "estimate every scored draw with every trained method"),
    "evaluate": (stages.evaluation, "metrics, skill and paired differences"),
    "report": (stages.report, "write report.html"),
}


INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit statuses of a shell: 128 and the signal's number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the exit status; what a user can mend ends in one line on standard error."""
    parsed = _parser().parse_args(arguments)
    log_to_standard_error()
    try:
        _refuse_several_processes(parsed)
        with shown_on_terminal():
            status = parsed.run(parsed) or 0
        sys.stdout.flush()
        return status
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept: the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _refuse_several_processes(parsed: argparse.Namespace) -> None:
    """Refuse what torchrun would start several times on one folder; trainings alone know of each other.

    Raises
    ------
    ConfigError : it would
    """
    processes = process_count()
    if parsed.command not in TOGETHER and processes > 1:
        raise ConfigError(
            f"torchrun started {processes} processes of '{parsed.command}' (WORLD_SIZE), which would work on one "
            f"folder at the same time: run it alone, {program()} {parsed.command} …; only {' and '.join(TOGETHER)} run "
            "together. If an earlier launch left WORLD_SIZE in this shell, unset it."
        )


def _parser() -> argparse.ArgumentParser:
    parser = Command(prog=program(), description="Lab values from PPG, stage by stage.")
    parser.add_argument("--version", action="version", version=version_text())
    commands = parser.add_subparsers(metavar="command", dest="command")
    for name, (stage, help_text) in STAGES.items():
        _add_stage(commands, name, help_text, stage)
    train = _add_stage(commands, "train", "train one method, or all of the experiment's", _train_all)
    train.add_argument(
        "--method", help=f"{', '.join(TRAINED_METHODS)}; all of the experiment's when left out"
    )
    _add_stage(
        commands,
        "train_encoder",
        "fine-tune the encoder on the training patients' labs",
        stages.train_encoder,
    )
    everything = _add_stage(commands, "all", "every stage in order", _everything)
    everything.set_defaults(method=None)
    table1 = commands.add_parser(
        "table1", help="train what is missing and print the paper's Table 1 beside ours"
    )
    add_project_options(table1)
    table1.set_defaults(run=partial(_printed, stages.reproduce_table1))
    delay = commands.add_parser(
        "result-delay",
        help="score the trained models with results known 0, 30 and 60 minutes after their draw",
    )
    add_project_options(delay)
    delay.set_defaults(run=partial(_printed, stages.printed_result_delay))
    add_prediction_commands(commands, _text)
    add_doctor_command(commands)
    add_config_command(commands)
    add_store_commands(commands)
    add_pretraining_commands(commands, _text)
    add_projection_command(commands)
    add_encoder_parts_command(commands)
    add_evaluation_commands(commands)
    add_rehearsal_commands(commands)
    return parser


def _add_stage(commands, name: str, help_text: str, stage: Callable) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help_text)
    add_project_options(command)
    command.set_defaults(run=lambda parsed: _run_stage(stage, parsed))
    return command


def _run_stage(stage: Callable, parsed: argparse.Namespace) -> None:
    workspace, config = project(parsed)
    if stage in (_train_all, _everything):
        stage(workspace, config, parsed.method)
    else:
        _show(parsed.command, stage, workspace, config)


def _show(name: str, stage: Stage, workspace: Workspace, config: ExperimentConfig) -> None:
    """Run one stage, with a clock on a terminal meanwhile, and print what came of it."""
    with progress(name):
        summary = stage(workspace, config)
    print(_text(summary))


def _printed(make: Callable[[Workspace, ExperimentConfig], str], parsed: argparse.Namespace) -> None:
    with progress(parsed.command):
        text = make(*project(parsed))
    print(text)


def _train_all(workspace: Workspace, config: ExperimentConfig, method: str | None) -> None:
    names = (method,) if method else config.methods
    for name in names:
        training_stage(name)  # a name that is none is refused before any of them is trained
    for name in names:
        summary = stages.train(workspace, config, method=name)
        if speaks_for_all():  # one of several processes under torchrun
            print(_text(summary))


def _everything(workspace: Workspace, config: ExperimentConfig, method: str | None) -> None:
    check_sources(workspace, labs_needed=True)
    stages.check_devices(config)
    stages.check_encoder(workspace, config)
    if method:
        training_stage(method)
    names = list(STAGES)
    for name in names[: names.index("score")]:
        _show(name, STAGES[name][0], workspace, config)
    _train_all(workspace, config, method)
    for name in names[names.index("score") :]:
        _show(name, STAGES[name][0], workspace, config)
    print(stages.printed_table(workspace, config))


def _text(summary: StageSummary) -> str:
    """Return a summary as lines of text."""
    lines = [f"{summary.stage}:"]
    lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in summary.counts.items()]
    if summary.exclusions:
        lines.append("  dropped:")
        lines += [f"    {count:>9}  {reason}" for reason, count in sorted(summary.exclusions.items())]
    lines += [f"  {name}: {path}" for name, path in summary.artefacts.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
