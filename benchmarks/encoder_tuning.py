"""``python -m benchmarks.encoder_tuning``: what a line reads of labs from encoders' features, on test patients' draws.

For an experiment that is aligned: lines are fitted on the windows before the training patients' draws, as
``train_encoder`` sees them, and judged on those before the test patients', who took part in nothing.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from models.encoders.base import Encoder
from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.encoder_patients import learned_from, refuse_learned_patients
from pipeline.cohort.splits import Splits
from pipeline.commands.project_options import add_project_options, project
from pipeline.embedding.encoders import make_encoder
from pipeline.embedding.weights_files import file_of
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.schema import LAB_NAMES
from pipeline.foundation.workspace import Workspace
from pipeline.sources.catalog import load_catalog
from pipeline.sources.detect import open_waveforms
from pipeline.training.encoder.draws import draws_with_windows
from pipeline.training.encoder.judging import Judgement, judge
from pipeline.training.encoder.run import TunedDraws, mean_features, scaled_targets
from pipeline.training.encoder.windows import cached_windows

SPLITS = ("train", "test")


def read_by_lines(
    workspace: Workspace, experiment: ExperimentConfig, encoders: Mapping[str, Encoder], folder: Path
) -> dict[str, Judgement]:
    """Judge each encoder's features on the test patients' draws; `folder` gets the windows."""
    parts = _drawn(workspace, experiment, folder)
    train, test = (parts[name] for name in SPLITS)
    target, held_out = (t.double().numpy() for t in scaled_targets(train.draws.target, test.draws.target))
    return {
        name: judge(
            mean_features(encoder, train), target, train.draws.patient,
            mean_features(encoder, test), held_out, test.draws.patient, levels=True,
        )
        for name, encoder in encoders.items()
    }  # fmt: skip


def _drawn(workspace: Workspace, experiment: ExperimentConfig, folder: Path) -> dict[str, TunedDraws]:
    aligned, splits = AlignedCohort.load(workspace.aligned), Splits.load(workspace.splits)
    source = open_waveforms(workspace.waveforms or workspace.cohort / "waveforms")
    records: dict[str, list] = {}
    for record in load_catalog(workspace.catalog, source.root).records:
        records.setdefault(record.patient_id, []).append(record)
    how = experiment.encoder_training
    parts = {}
    for name in SPLITS:
        draws = draws_with_windows(aligned, splits.patients(name), how, how.most_windows, Counter())
        cache = cached_windows(folder / name, draws, source, records, experiment.window, identity=name)
        parts[name] = TunedDraws(draws=draws, windows=cache)
    return parts


def table(judged: Mapping[str, Judgement]) -> str:
    """Return one row an encoder and measure."""
    lines = [f"{'test draws':<34}{'loss':>8}" + "".join(f"{lab:>11}" for lab in LAB_NAMES) + f"{'mean':>8}"]
    for name, found in judged.items():
        for words, values in (("R2", found.r2), ("R2 within a patient", found.within_r2)):
            numbers = [values.get(lab, np.nan) for lab in LAB_NAMES]
            cells = "".join(f"{x:>11.3f}" for x in numbers)
            lines.append(f"{f'{name}, {words}':<34}{found.loss:>8.3f}{cells}{np.nanmean(numbers):>8.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of two or more encoders."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_tuning", description=__doc__)
    add_project_options(parser)
    parser.add_argument("--encoder", action="append", required=True, help="label=name or path; repeatable")
    parsed = parser.parse_args(arguments)
    workspace, experiment = project(parsed)
    torch.set_num_threads(1)
    encoders = {}
    for text in parsed.encoder:
        label, _, name = text.partition("=")
        refuse_learned_patients(learned_from(file_of(name)), Splits.load(workspace.splits), label)
        encoders[label] = make_encoder(name, device=experiment.embedding.device)
    with TemporaryDirectory() as folder:
        sys.stdout.write(table(read_by_lines(workspace, experiment, encoders, Path(folder))) + "\n")


if __name__ == "__main__":
    main()
