"""``python -m pipeline pretrain`` and ``python -m pipeline probe``."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.experiments import BEST_ENCODER
from pipeline.foundation.atomic import make_private_dir, require_writable, write_json
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.ranks import speaks_for_all
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
        "--from",
        dest="start",
        help="name or path of the PPG-GPT to train on, or its folder of parts; random when absent",
    )
    pretrain.add_argument("--fuse", action="store_true", help="compile the training step")
    for name, kind, said in MIX_OPTIONS:
        pretrain.add_argument(f"--{name.replace('_', '-')}", type=kind, help=said)
    pretrain.add_argument(
        "--probe-every", type=int, help="epochs between two probes of the weights; none when absent"
    )
    pretrain.add_argument("--bidmc", type=Path, help="folder of BIDMC as CSV files, for the probe")
    pretrain.set_defaults(run=lambda parsed: _pretrain(parsed, show))
    _add_probe(commands)


def _add_probe(commands) -> None:
    probe = commands.add_parser(
        "probe", help="what encoders know of one window: the planted pulse's shape, real patients' rates"
    )
    probe.add_argument(
        "--encoder", action="append", metavar="NAME",
        help="name or path, repeatable; some shipped read-outs when absent; pulse_features, the baseline, comes first",
    )  # fmt: skip
    probe.add_argument(
        "--bidmc", type=Path, help="folder of BIDMC as CSV files; no real patients when absent"
    )
    probe.add_argument(
        "--half", default="all", help="half of BIDMC's patients: choose (by), judge (by), or all"
    )
    probe.add_argument("--skip-planted", action="store_true", help="real patients alone")
    probe.add_argument(
        "--patients", dest="fitted", type=int, help="planted patients that lines are fitted on; 400"
    )
    probe.add_argument("--judged", type=int, help="other planted patients, whom they are judged on; 160")
    probe.add_argument("--bursts", type=int, help="stretches of two windows each planted patient; 10")
    probe.add_argument(
        "--seed", type=int, help="of planted patients; the probe's own when absent, 7 or 8 to choose by"
    )
    probe.add_argument(
        "--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that render"
    )
    probe.add_argument("--out", type=Path, help="JSON file for the table, with every interval and difference")
    probe.set_defaults(run=_probe)


def _pretrain(parsed: argparse.Namespace, show: Callable[[StageSummary], str]) -> None:
    from pipeline.pretraining.config import PretrainingConfig  # imports torch, which other commands need not
    from pipeline.pretraining.mix import CorpusMix

    names = (
        "scale", "epochs", "batch_windows", "epoch_windows", "learning_rate", "seed", "fuse", "optimizer",
    )  # fmt: skip
    if parsed.probe_every is not None and parsed.probe_every < 1:
        raise ConfigError(f"--probe-every {parsed.probe_every} must be at least 1 epoch")
    if parsed.bidmc is not None and parsed.probe_every is None:
        raise ConfigError("--bidmc is for the probe: give --probe-every as well")
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
    if speaks_for_all():
        sys.stdout.write(show(summary) + "\n")


PROBED = (
    "ppg_gpt_1m_long",
    "ppg_gpt_1m_long+mean",
    "ppg_gpt_1m_long+layers",
    "ppg_gpt_1m_long+layers+spread",
    BEST_ENCODER,
)
"""Encoders of the table where none is named: from the paper's read-out to today's."""


def _probe(parsed: argparse.Namespace) -> None:
    from pipeline.embedding.encoders import make_encoder
    from pipeline.pretraining.probing.rows import PlantedSize, named, plain_rows, probe, with_baseline
    from pipeline.pretraining.probing.text import planted_words, probe_text, real_words
    from pipeline.pretraining.probing.windows import bidmc_windows, planted_windows

    if parsed.out is not None:
        require_writable(parsed.out)
    try:
        given = {name: getattr(parsed, name) for name in ("fitted", "judged", "bursts", "seed")}
        size = PlantedSize(**{name: value for name, value in given.items() if value is not None})
    except ValueError as problem:
        raise ConfigError(f"probe: {problem}") from None
    if parsed.skip_planted and parsed.bidmc is None:
        raise ConfigError("probe: --skip-planted leaves no patients; name real ones with --bidmc")
    if parsed.half != "all" and parsed.bidmc is None:
        raise ConfigError(
            f"probe: --half {parsed.half} is a half of BIDMC's patients; name them with --bidmc"
        )
    encoders = [make_encoder(name) for name in dict.fromkeys(parsed.encoder or PROBED)]
    real = None if parsed.bidmc is None else bidmc_windows(parsed.bidmc).half(parsed.half)
    planted = None if parsed.skip_planted else planted_windows(size.plan, workers=max(1, parsed.workers))
    rows = probe(encoders, planted=planted, fitted=size.fitted, real=real)
    words = {
        "planted": "" if planted is None else planted_words(size, planted),
        "real": "" if real is None else real_words(parsed.half, real),
    }
    sys.stdout.write(probe_text(rows, **words))
    if parsed.out is not None:
        dropped = {
            kind: dict(data.exclusions) for kind, data in (("planted", planted), ("real", real)) if data
        }
        hashes = {name: encoder.weights_hash for name, encoder in named(with_baseline(encoders)).items()}
        write_json(
            parsed.out, {"data": words, "dropped": dropped, "encoders": hashes, "rows": plain_rows(rows)}
        )
