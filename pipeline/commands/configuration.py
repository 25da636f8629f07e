"""``python -m pipeline config``: the whole configuration of an experiment, and what differs from the defaults."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.commands.project_options import add_project_options, configuration, overrides
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.number_format import counted
from pipeline.foundation.overrides import differences, dotted
from pipeline.foundation.provenance import config_hash, to_plain


def add_config_command(commands) -> None:
    """Add the sub-command."""
    command = commands.add_parser(
        "config", help="print an experiment's whole configuration, and what differs from the defaults"
    )
    add_project_options(command)
    command.add_argument("--json", action="store_true", help="as JSON, for programs")
    command.set_defaults(run=_config)


def _config(parsed: argparse.Namespace) -> None:
    config = configuration(parsed)
    show = config_json if parsed.json else config_text
    sys.stdout.write(show(config, overrides(parsed.set)))


def config_json(config: ExperimentConfig, changed: Mapping[str, str]) -> str:
    """Return hash, every field, and the fields that differ from the defaults with who set them, as JSON."""
    content = {
        "experiment": config.name,
        "config_hash": config_hash(config),
        "config": to_plain(config),
        "differs_from_defaults": _differing(config, changed),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def config_text(config: ExperimentConfig, changed: Mapping[str, str]) -> str:
    """Return the same for a person: what differs from the defaults first, then every field."""
    differing = _differing(config, changed)
    lines = [f"experiment {config.name}, configuration {config_hash(config)[:16]}", ""]
    lines += [f"Differs from the defaults ({counted(len(differing), 'fields')}):"]
    lines += _columns((name, _text(row["value"]), f"default {_text(row['default'])}, set by {row['set_by']}")
                      for name, row in differing.items())  # fmt: skip
    lines += ["", "Whole configuration:"]
    lines += _columns((name, _text(value), "") for name, value in dotted(config).items())
    return "\n".join(lines) + "\n"


def _differing(config: ExperimentConfig, changed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    default = ExperimentConfig(name=config.name)
    usual = dotted(default)
    return {
        name: {
            "value": value,
            "default": usual[name],
            "set_by": "--set" if name in changed else "the experiment",
        }
        for name, value in differences(config, default).items()
    }


def _columns(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    table = list(rows)
    width = max((len(name) for name, _, _ in table), default=0)
    return [f"  {name:<{width}}  {value}{f'   ({note})' if note else ''}" for name, value, note in table]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
