"""``predict`` and ``plot``: estimates of new patients, and a picture of one of them."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.commands.project_options import add_project_options, project
from pipeline.foundation.errors import ConfigError
from pipeline.foundation.number_format import counted
from pipeline.foundation.progress import progress
from pipeline.foundation.summary import StageSummary


def add_prediction_commands(commands, show: Callable[[StageSummary], str]) -> None:
    """Add both sub-commands; `show` turns a stage's summary into text."""
    predict = commands.add_parser(
        "predict", help="estimate labs of new patients every 30 s, into a Parquet or CSV file"
    )
    add_project_options(predict)
    predict.add_argument(
        "--checkpoint", required=True, help="folder of a trained method, such as .../mt_pcs/seed0"
    )
    predict.add_argument("--out", required=True, help="file to write; its name ends in .parquet or .csv")
    predict.set_defaults(run=lambda parsed: _predict(parsed, show))
    plot = commands.add_parser("plot", help="draw one patient's estimates and draws, as SVG and PNG")
    plot.add_argument("estimates", help="file that predict wrote, .parquet or .csv")
    plot.add_argument(
        "--row", type=int, metavar="N",
        help="draw the patient, and the sequence, of the file's N-th row, 1 being the first; without it the "
        "patient's id is read from standard input, and the longest sequence is drawn",
    )  # fmt: skip
    plot.add_argument(
        "--out", default="trajectory", help="name of the two files, without an ending; trajectory when absent"
    )
    plot.set_defaults(run=_plot)


def _predict(parsed: argparse.Namespace, show: Callable[[StageSummary], str]) -> None:
    from pipeline import stages

    with progress("predict"):
        summary = stages.predict_new_patients(*project(parsed), parsed.checkpoint, parsed.out)
    sys.stdout.write(show(summary) + "\n")


def _plot(parsed: argparse.Namespace) -> None:
    from pipeline.prediction.one_patient import (
        read_one_patient,
    )  # imports torch, which other commands need not
    from pipeline.report.patient_plot import picture_names, write_pictures

    names = picture_names(Path(parsed.out))
    path = Path(parsed.estimates)
    if parsed.row is not None:
        found = read_one_patient(path, row=parsed.row)
    else:
        found = read_one_patient(path, patient=_asked_patient())
    if found.is_named_in(names[0].name):
        raise ConfigError(
            "--out: the file's name would hold the patient's id, and names are read by more people than files are; "
            "choose another one."
        )
    write_pictures(found, names)
    if found.other_sequences:
        others = counted(found.other_sequences, "other sequences")
        sys.stdout.write(f"Not drawn: {others} of this patient; choose one by a row: --row N\n")
    sys.stdout.write("".join(f"picture: {name}\n" for name in names))


def _asked_patient() -> str:
    """Return the first line of standard input; it is asked for where a person sits before it."""
    if sys.stdin.isatty():
        sys.stderr.write("Patient, as the file's column 'patient' has it: ")
        sys.stderr.flush()
    patient = sys.stdin.readline().strip()
    if not patient:
        raise ConfigError(
            "plot: no patient was named; type an id on standard input, or name a row of the file with --row N."
        )
    return patient
