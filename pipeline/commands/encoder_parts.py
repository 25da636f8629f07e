"""``python -m pipeline encoder-parts``: an encoder's weights in bfloat16, in files that a small channel takes."""

import argparse
import sys
from pathlib import Path

from pipeline.foundation.artefact_notes import HEADER_KEY, ArtefactNote, noted
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.number_format import counted
from pipeline.foundation.tensor_files import weights_texts
from pipeline.stages.encoder_patients import weights_licences

PART_MIB = 16.0


def add_encoder_parts_command(commands) -> None:
    """Add the sub-command."""
    command = commands.add_parser(
        "encoder-parts",
        help="write an encoder's weights in bfloat16, in parts that pretrain --from goes on from",
    )
    command.add_argument(
        "--encoder", required=True, help="name or path of a PPG-GPT's weights, without a read-out"
    )
    command.add_argument("--out", type=Path, required=True, help="new folder for the parts")
    command.add_argument(
        "--part-mib", type=float, default=PART_MIB, help=f"most MiB of a part; {PART_MIB:g} when absent"
    )
    command.set_defaults(run=_write)


def _write(parsed: argparse.Namespace) -> None:
    from models.encoders.ppg_gpt import PPGGPT  # imports torch, which other commands need not
    from pipeline.embedding.encoders import make_encoder, weights_file
    from pipeline.embedding.names import EncoderName
    from pipeline.pretraining.parts import MEBIBYTE, require_free, write_parts

    if not 0 < parsed.part_mib < float("inf"):
        raise ConfigError(f"--part-mib {parsed.part_mib:g} must be above 0")
    require_free(parsed.out)
    encoder, weights = (
        make_encoder(parsed.encoder, device="cpu"),
        weights_file(EncoderName.parse(parsed.encoder)),
    )
    if not isinstance(encoder, PPGGPT):
        raise ConfigError(
            f"--encoder {parsed.encoder}: only a PPG-GPT is written in parts; {encoder.name} is none"
        )
    if encoder.readout != "last" or encoder.projection is not None:
        raise ConfigError(f"--encoder {parsed.encoder}: name the weights alone, without a read-out")
    # Whom the weights have learned from travels on in the header; the note is written anew, with the same licences.
    texts = {} if weights is None else weights_texts(weights)
    note = ArtefactNote.of(
        "encoder_parts",
        config={"part_mib": parsed.part_mib},
        inputs={"weights": encoder.weights_hash},
        licences=weights_licences(weights),
    )
    with noted(note):
        parts = write_parts(
            encoder,
            parsed.out,
            most_bytes=int(parsed.part_mib * MEBIBYTE),
            header={name: text for name, text in texts.items() if name != HEADER_KEY},
        )
    total = sum(part.stat().st_size for part in parts) / MEBIBYTE
    sys.stdout.write(
        f"{encoder.name} in bfloat16: {counted(len(parts), 'parts')}, {total:.1f} MiB\n"
        f"go on with: python -m pipeline pretrain --from {parsed.out}\n"
    )
