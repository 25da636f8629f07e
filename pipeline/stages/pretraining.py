"""The stage that pretrains the encoder on real PPG, where there is some, and synthetic PPG beside it."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import canonical_json
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.pretraining.config import PretrainingConfig
    from pipeline.pretraining.data import Corpus
    from pipeline.sources.base import WaveformSource

logger = logging.getLogger(__name__)

DATA_VARIABLE = "UNIPHY_PRETRAINING"
SYNTHETIC_SHARE = 0.2
SYNTHETIC_PATIENTS, SYNTHETIC_HOURS = 120, 0.5


def pretrain_ppg_gpt(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Pretrain the 1M encoder on what ``UNIPHY_PRETRAINING`` names, into ``artifacts/pretraining``."""
    from pipeline.pretraining.config import PretrainingConfig  # imports torch, which definitions must not

    named = os.environ.get(DATA_VARIABLE)
    data = Path(named).expanduser().absolute() if named else None
    return run_pretraining(data, workspace.root.parent / "pretraining", PretrainingConfig())


def run_pretraining(data: Path | None, out: Path, config: "PretrainingConfig") -> StageSummary:
    """Pretrain, or go on where an interrupted (or shorter) run stopped.

    Parameters
    ----------
    data : a folder of waveforms in any layout that ``embed`` reads, or an ``.npz`` of PLETH at 40 Hz
        (``pretraining.data.Challenge2015``); None: synthetic PPG alone
    out : gets the weights, their provenance, the curves and the synthetic patients

    Raises
    ------
    ConfigError : no data there, or `out` holds another run
    """
    from pipeline.pretraining.run import RECORD_FILE, WEIGHTS_FILE, pretrain
    from pipeline.training.distributed import joined_ranks

    with joined_ranks() as ranks:
        pairs = _corpora(data, out / "synthetic", config) if ranks.first else []
        ranks.wait()  # the first rank has written the synthetic patients that the others read
        pairs = pairs or _corpora(data, out / "synthetic", config)
        training, validation = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        state = pretrain(training, validation, config, out, _teller(config.epochs))
    counts: dict[str, Any] = {"epochs": state.epoch, "best_epoch": state.best_epoch}
    for corpus, held_out in pairs:
        counts[f"{corpus.name} training records"] = len(corpus.records)
        counts[f"{corpus.name} held-out records"] = len(held_out.records)
    last = state.rows[-1]
    counts |= {f"{name} held-out loss": round(loss, 4) for name, loss in last["validation"].items()}
    summary = StageSummary(
        stage="pretrain_ppg_gpt",
        counts=counts,
        exclusions=last["dropped"],
        tables={"epochs": [_flat(row) for row in state.rows]},
        artefacts={"weights": out / WEIGHTS_FILE, "provenance": out / RECORD_FILE},
        data_version=canonical_json([state.identity, state.best_epoch])[2:18],
    )
    return summary.save(out / "summary.json") if ranks.first else summary


def real_waveforms(data: Path | None) -> "WaveformSource | None":
    """Open the real PPG of `data`, see `run_pretraining`.

    Raises
    ------
    ConfigError : no data there
    """
    from pipeline.pretraining.data import Challenge2015
    from pipeline.sources.detect import open_waveforms

    if data is None:
        return None
    if not data.exists():
        raise ConfigError(f"{data} does not exist: name a waveform folder or an .npz of PLETH")
    return Challenge2015(data) if data.is_file() else open_waveforms(data)


def _corpora(
    data: Path | None, synthetic_root: Path, config: "PretrainingConfig"
) -> list[tuple["Corpus", "Corpus"]]:
    from pipeline.pretraining.data import divide, synthetic_source

    real = real_waveforms(data)
    synthetic = synthetic_source(synthetic_root, patients=SYNTHETIC_PATIENTS, hours=SYNTHETIC_HOURS)
    sources = [("synthetic", synthetic, 1.0 if data is None else SYNTHETIC_SHARE)]
    if real is not None:
        sources.insert(0, (real.name, real, 1.0 - SYNTHETIC_SHARE))
    return [
        divide(name, source, share, validation_share=config.validation_share, seed=config.seed)
        for name, source, share in sources
    ]


def _teller(epochs: int) -> Callable[[Mapping[str, Any]], None]:
    """Log each epoch with the time that the rest will take."""
    began, done = time.monotonic(), 0

    def tell(row: Mapping[str, Any]) -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - began) / done * (epochs - row["epoch"]) / 60
        held_out = ", ".join(f"{name} {loss:.4f}" for name, loss in row["validation"].items())
        logger.info(
            "epoch %d of %d, loss %.4f, held out: %s, %.0f min left",
            row["epoch"], epochs, row["loss"], held_out, left,
        )  # fmt: skip

    return tell


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    losses = {f"held-out loss, {name}": loss for name, loss in row["validation"].items()}
    return {name: row[name] for name in ("epoch", "windows", "learning_rate", "loss", "seconds")} | losses
