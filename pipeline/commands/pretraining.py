"""``python -m pipeline pretrain`` and ``python -m pipeline probe``."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.foundation.atomic import make_private_dir, require_writable, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.summary import StageSummary
from pipeline.stages.pretraining import DATA_VARIABLE, run_pretraining

MIX_OPTIONS = (
    ("synthetic_share", float, "share of an epoch that the cohort's generator makes; 0.2 when absent"),
    ("synthetic_patients", int, "how many of its patients; 120 when absent"),
    ("synthetic_hours", float, "hours of each; 0.5 when absent"),
    ("synthetic_seed", int, "their seed, 20150001 or higher"),
    ("families_share", float, "share of an epoch that other pulse families make; 0 when absent"),
    ("families_patients", int, "how many of their patients; 4000 when absent"),
    ("families_seed", int, "their seed, 20150001 or higher"),
)  # fmt: skip
"""Fields of ``CorpusMix``."""


def add_pretraining_commands(commands, show: Callable[[StageSummary], str]) -> None:
    """Add both sub-commands; `show` turns a stage's summary into text."""
    pretrain = commands.add_parser("pretrain", help="pretrain PPG-GPT on PPG without labels")
    pretrain.add_argument("--data", type=Path, help=f"waveform folder or .npz of PLETH; {DATA_VARIABLE}")
    pretrain.add_argument("--out", type=Path, default=Path("artifacts/pretraining"))
    pretrain.add_argument("--scale", default="1m", help="1m, 19m, 85m, 345m or 1b")
    pretrain.add_argument("--epochs", type=int, default=100, help="raise it to prolong a finished run")
    pretrain.add_argument("--batch-windows", type=int, default=64)
    pretrain.add_argument("--epoch-windows", type=int, help="most windows in an epoch; all when absent")
    pretrain.add_argument("--learning-rate", type=float, default=1e-3)
    pretrain.add_argument("--optimizer", default="adamw", help="adamw or muon")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument(
        "--from", dest="start", help="name or path of the PPG-GPT to train on; random when absent"
    )
    pretrain.add_argument("--fuse", action="store_true", help="compile the training step")
    for name, kind, said in MIX_OPTIONS:
        pretrain.add_argument(f"--{name.replace('_', '-')}", type=kind, help=said)
    pretrain.add_argument(
        "--probe-every", type=int, help="epochs between two probes of the weights; none when absent"
    )
    pretrain.add_argument("--bidmc", type=Path, help="folder of BIDMC as CSV files, for the probe")
    pretrain.set_defaults(run=lambda parsed: _pretrain(parsed, show))
    probe = commands.add_parser("probe", help="what frozen embeddings know of heart and respiration rate")
    probe.add_argument("--bidmc", type=Path, help="folder of BIDMC as CSV files; synthetic PPG when absent")
    probe.add_argument(
        "--encoder", action="append", help="name or checkpoint, repeatable; shipped and random when absent"
    )
    probe.add_argument("--out", type=Path, help="JSON file for the table")
    probe.set_defaults(run=_probe)


def _pretrain(parsed: argparse.Namespace, show: Callable[[StageSummary], str]) -> None:
    from pipeline.pretraining.config import PretrainingConfig  # imports torch, which other commands need not
    from pipeline.pretraining.mix import CorpusMix

    names = (
        "scale",
        "epochs",
        "batch_windows",
        "epoch_windows",
        "learning_rate",
        "seed",
        "fuse",
        "optimizer",
    )
    if parsed.probe_every is not None and parsed.probe_every < 1:
        raise ConfigError(f"--probe-every {parsed.probe_every} must be at least 1 epoch")
    try:
        config = PretrainingConfig(**{name: getattr(parsed, name) for name in names})
        mix = CorpusMix(
            **{name: value for name, *_ in MIX_OPTIONS if (value := getattr(parsed, name)) is not None}
        )
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    make_private_dir(parsed.out)
    require_writable(parsed.out / "summary.json")
    named = parsed.data or os.environ.get(DATA_VARIABLE)
    summary = run_pretraining(
        Path(named) if named else None, parsed.out, config,
        mix=mix, start=parsed.start, probe_every=parsed.probe_every, bidmc=parsed.bidmc,
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(show(summary) + "\n")


def _probe(parsed: argparse.Namespace) -> None:
    from pipeline.embedding.encoders import make_encoder
    from pipeline.pretraining.probe_data import BIDMC_LICENCE, bidmc_windows, synthetic_windows
    from pipeline.pretraining.probing import named, probe, probe_table

    if parsed.out is not None:
        require_writable(parsed.out)
    encoders = [
        make_encoder(name)
        for name in parsed.encoder or ("ppg_gpt_1m", "ppg_gpt_1m_long", "ppg_gpt_1m_random")
    ]
    if parsed.bidmc is None:
        with TemporaryDirectory() as folder:
            data, described = synthetic_windows(Path(folder)), "synthetic PPG"
    else:
        data, described = bidmc_windows(parsed.bidmc), BIDMC_LICENCE
    rows = probe(data, encoders)
    sys.stdout.write(probe_table(rows) + "\n")
    if parsed.out is not None:
        hashes = {name: encoder.weights_hash for name, encoder in named(encoders).items()}
        write_json(
            parsed.out,
            {
                "data": described, "dropped": dict(data.exclusions), "encoders": hashes, "rows": rows,
            },
        )  # fmt: skip
