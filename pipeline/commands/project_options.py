"""The options that name an experiment and its folders, and what they mean: the same for every sub-command."""

import argparse
from collections.abc import Sequence

from pipeline.experiments import EXPERIMENTS, ExperimentConfig, default_experiment_name, experiment
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.workspace import Workspace


def add_project_options(command: argparse.ArgumentParser) -> None:
    """Add experiment, folders and overrides."""
    add_experiment_option(command)
    command.add_argument("--waveforms", help="waveform folder; UNIPHY_WAVEFORMS, or the synthetic cohort")
    command.add_argument("--labs", help="lab folder; UNIPHY_LABS, or the synthetic cohort's")
    command.add_argument("--artifacts", help="output folder; UNIPHY_ARTIFACTS, or ./artifacts")
    command.add_argument(
        "--embeddings",
        help="folder or URL (s3://...) for embedding stores; UNIPHY_EMBEDDINGS, or inside the output folder",
    )
    add_override_option(command)


def add_experiment_option(command: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the experiment's name; `default` where it is left out, else what `default_experiment_name` says."""
    usual = "UNIPHY_EXPERIMENT, or default where waveforms are named, or demo"
    command.add_argument(
        "--experiment", choices=EXPERIMENTS, default=default, help=f"when left out: {default or usual}"
    )


def add_override_option(command: argparse.ArgumentParser) -> None:
    """Add overrides of single fields."""
    command.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override, repeatable, in any order"
    )


def project(parsed: argparse.Namespace) -> tuple[Workspace, ExperimentConfig]:
    """Return the folders and the whole configuration that the options stand for."""
    config = configuration(parsed)
    workspace = Workspace.from_environment(
        config.name,
        waveforms=parsed.waveforms,
        labs=parsed.labs,
        artifacts=parsed.artifacts,
        embeddings=parsed.embeddings,
    )
    return workspace, config


def configuration(parsed: argparse.Namespace) -> ExperimentConfig:
    """Return the whole configuration alone; no folder has to be there."""
    waveforms = getattr(parsed, "waveforms", None)
    return experiment(parsed.experiment or default_experiment_name(waveforms), overrides(parsed.set))


def overrides(items: Sequence[str]) -> dict[str, str]:
    """Return ``FIELD=VALUE`` items by field.

    Raises
    ------
    ConfigError : an item without a value, or a field that is given two values
    """
    found: dict[str, str] = {}
    for item in items:
        field, equals, value = item.partition("=")
        if not equals or not field:
            raise ConfigError(f"--set {item!r} must be FIELD=VALUE, such as training.epochs=20.")
        if found.setdefault(field, value) != value:
            raise ConfigError(
                f"--set gives {field!r} two values, {found[field]!r} and {value!r}; choose one."
            )
    return found
