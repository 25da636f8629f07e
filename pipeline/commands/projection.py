"""``python -m pipeline projection``: fit the fixed projection of a read-out, beside the encoder's weights."""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from pipeline.foundation.atomic import require_writable, write_bytes
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.number_format import counted
from pipeline.stages.pretraining import DATA_VARIABLE


def add_projection_command(commands) -> None:
    """Add the sub-command."""
    command = commands.add_parser(
        "projection", help="fit the projection that brings an encoder's read-out down to fewer numbers"
    )
    command.add_argument(
        "--encoder", required=True, help="with its read-out, such as ppg_gpt_1m_long+layers+spread"
    )
    command.add_argument("--width", type=int, default=256, help="numbers a window after it; 256 when absent")
    command.add_argument(
        "--data", type=Path, help=f"waveform folder or .npz of PLETH, as of pretrain; {DATA_VARIABLE}"
    )
    command.set_defaults(run=_fit)


def _fit(parsed: argparse.Namespace) -> None:
    from models.encoders.ppg_gpt import PPGGPT  # imports torch, which other commands need not
    from pipeline.embedding.encoders import make_encoder, projection_file, weights_file
    from pipeline.embedding.names import EncoderName
    from pipeline.pretraining.mix import real_waveforms
    from pipeline.pretraining.projection import ProjectionConfig, fit_projection, require_wider

    began, name = time.monotonic(), EncoderName.parse(parsed.encoder)
    if name.width is not None:
        raise ConfigError(
            f"--encoder {parsed.encoder}: leave +to{name.width} out and give --width {name.width}"
        )
    config = ProjectionConfig(width=parsed.width)
    encoder, weights = make_encoder(parsed.encoder), weights_file(name)
    if not isinstance(encoder, PPGGPT) or weights is None:
        raise ConfigError(
            f"--encoder {parsed.encoder}: a projection needs PPG-GPT with a file of weights to lie by"
        )
    require_wider(encoder, parsed.width)
    out = projection_file(weights, replace(name, width=parsed.width))
    require_writable(out)
    data = parsed.data or os.environ.get(DATA_VARIABLE)
    projection, counts = fit_projection(encoder, real_waveforms(Path(data) if data else None), config)
    write_bytes(out, projection.to_bytes())
    fitted_on = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    sys.stdout.write(
        f"{encoder.name}: {counted(encoder.width, 'numbers')} a window to {projection.width}, fitted on {fitted_on} in "
        f"{time.monotonic() - began:.0f} s\nprojection: {out}\n"
    )
