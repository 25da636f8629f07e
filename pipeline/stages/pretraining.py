"""The stage that pretrains the encoder on real PPG, where there is some, and synthetic PPG beside it."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments import ExperimentConfig
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.provenance import canonical_json
from pipeline.foundation.summary import StageSummary
from pipeline.foundation.workspace import Workspace
from pipeline.stages.ingest import COHORT_LICENCE

if TYPE_CHECKING:
    from models.encoders.ppg_gpt import PPGGPT
    from pipeline.pretraining.config import PretrainingConfig
    from pipeline.pretraining.data import Corpus
    from pipeline.pretraining.mix import CorpusMix
    from pipeline.pretraining.probing.shape import ShapeProbe
    from pipeline.sources.base import WaveformSource

logger = logging.getLogger(__name__)

DATA_VARIABLE = "UNIPHY_PRETRAINING"


def pretrain_ppg_gpt(workspace: Workspace, experiment: ExperimentConfig) -> StageSummary:
    """Pretrain the 1M encoder on what ``UNIPHY_PRETRAINING`` names, into ``artifacts/pretraining``."""
    from pipeline.pretraining.config import PretrainingConfig  # imports torch, which definitions must not

    named = os.environ.get(DATA_VARIABLE)
    data = Path(named).expanduser().absolute() if named else None
    return run_pretraining(data, workspace.root.parent / "pretraining", PretrainingConfig())


def run_pretraining(
    data: Path | None,
    out: Path,
    config: "PretrainingConfig",
    *,
    mix: "CorpusMix | None" = None,
    start: str | None = None,
    probe_every: int | None = None,
    bidmc: Path | None = None,
) -> StageSummary:
    """Pretrain, or go on where an interrupted (or shorter) run stopped.

    Parameters
    ----------
    data : a folder of waveforms in any layout that ``embed`` reads, or an ``.npz`` of PLETH at 40 Hz
        (``sources.challenge2015.Challenge2015``); None: synthetic PPG alone
    out : gets the weights, their provenance, the curves and the synthetic patients
    mix : what is made up beside it, and how much
    start : name or path of the PPG-GPT whose weights are trained on; None: random ones
    probe_every : epochs between two probes of what the weights know of the pulse (``probing.shape``); None: never
    bidmc : BIDMC's folder, so that the probe reads real heart rates, too

    Raises
    ------
    ConfigError : no data there, nothing to start from, or `out` holds another run
    CheckpointError : `start` is no PPG-GPT
    """
    from pipeline.pretraining.mix import CorpusMix, real_waveforms
    from pipeline.pretraining.run import RECORD_FILE, WEIGHTS_FILE, pretrain
    from pipeline.training.distributed import joined_ranks

    started_from = None if start is None else _ppg_gpt(start, config.scale)
    wanted = partial(_corpora, real_waveforms(data), out / "synthetic", mix or CorpusMix(), config)

    with joined_ranks() as ranks:
        probe = _probe(bidmc) if probe_every is not None and ranks.first else None
        pairs = wanted() if ranks.first else []
        ranks.wait()  # the first rank has written the synthetic patients that the others read
        pairs = pairs or wanted()
        training, validation = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        state = pretrain(
            training, validation, config, out, _teller(config.epochs),
            start=started_from, probe=probe, probe_every=probe_every or 1,
        )  # fmt: skip
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


def _ppg_gpt(name_or_path: str, scale: str) -> "PPGGPT":
    """Return the PPG-GPT of that name or path, which must be of that scale."""
    from models.encoders.ppg_gpt import PPG_GPT_SCALES, PPGGPT
    from pipeline.embedding.encoders import make_encoder
    from pipeline.pretraining.run import require_sizes

    encoder = make_encoder(name_or_path, device="cpu")
    if not isinstance(encoder, PPGGPT):
        raise ConfigError(f"--from {name_or_path}: only a PPG-GPT can be trained on; {encoder.name} is none")
    if encoder.readout != "last" or encoder.projection is not None:
        raise ConfigError(f"--from {name_or_path}: name the weights alone, without a read-out")
    require_sizes(encoder, PPG_GPT_SCALES[scale], scale)
    return encoder


def _corpora(
    real: "WaveformSource | None", root: Path, mix: "CorpusMix", config: "PretrainingConfig"
) -> list[tuple["Corpus", "Corpus"]]:
    """Return `mix.corpora`; what it writes says what made it."""
    from pipeline.pretraining.mix import corpora

    note = ArtefactNote.of(
        "pretrain_ppg_gpt: synthetic PPG", config=mix, inputs={}, licences=[COHORT_LICENCE]
    )
    with noted(note):
        return corpora(real, root, mix, validation_share=config.validation_share, seed=config.seed)


def _probe(bidmc: Path | None) -> "ShapeProbe":
    from pipeline.pretraining.probing.shape import ShapeProbe

    return ShapeProbe(bidmc)


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
