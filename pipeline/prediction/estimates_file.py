"""The file of estimates that `predict` writes: Parquet or CSV by its name, and who of its patients the model knows."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from pipeline.cohort.encoder_patients import LearnedFrom, known_patients
from pipeline.cohort.splits import Splits, normal_id
from pipeline.foundation.atomic import write_parquet, write_text
from pipeline.foundation.errors import ConfigError, ProjectError
from pipeline.foundation.number_format import counted
from pipeline.prediction.new_patients import PREDICT_COLUMNS
from pipeline.training.checkpoints import checkpoint_folders, load_model

KNOWN_PATIENT = "known_patient"
ESTIMATES_COLUMNS = (*PREDICT_COLUMNS, KNOWN_PATIENT)
"""``known_patient``: whether the row's patient helped to make the model or its encoder (see `patients_behind` and
``cohort.encoder_patients``); empty where neither says so and the division of the model's patients is not at hand."""
ENDINGS = (".parquet", ".csv")
_USED_SPLITS = ("train", "validation", "calibration")


def check_name(path: Path | str) -> Path:
    """Return the path of an estimates file, whose ending says its format.

    Raises
    ------
    ConfigError : another ending than one of `ENDINGS`, or a folder
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"--out {path}: estimates are written as Parquet or CSV; end the file's name in {' or '.join(ENDINGS)}"
        )
    if path.is_dir():
        raise ConfigError(
            f"--out {path} is a folder; name a file in it, such as {path / 'estimates.parquet'}"
        )
    return path


def write_estimates(path: Path, table: pd.DataFrame) -> None:
    """Write the table whole or not at all, readable by its owner alone; in CSV what is unknown is an empty field."""
    check_name(path)
    if path.suffix.lower() == ".csv":
        write_text(path, table.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%S", lineterminator="\n"))
    else:
        write_parquet(path, table)


def patients_behind(checkpoint_dir: Path | str) -> frozenset[str] | None:
    """Return the patients who trained, selected or calibrated a model, from the splits file of its experiment.

    A checkpoint holds the hash of the division alone, not its patients: weights may travel where ids may not. So
    the division is looked up in the folder that holds the checkpoint's ``checkpoints``, and believed if its
    hash is the model's.

    Returns
    -------
    Ids as ``normal_id`` writes them; None where no such file is at hand.
    """
    split_hash = load_model(checkpoint_folders(checkpoint_dir)[0]).provenance.get("split_hash")
    above = Path(checkpoint_dir).expanduser().absolute().parents
    beside = [folder.parent / "splits.json" for folder in above if folder.name == "checkpoints"]
    for path in filter(Path.is_file, beside):
        try:
            splits = Splits.load(path)
        except ProjectError:  # damaged or changed: it cannot vouch for anybody
            continue
        if splits.hash == split_hash:
            return frozenset(map(normal_id, splits.patients(*_USED_SPLITS)))
    return None


def with_known_patients(
    table: pd.DataFrame, known: Collection[str] | None, encoder: Iterable[LearnedFrom] = ()
) -> tuple[pd.DataFrame, str]:
    """Return `ESTIMATES_COLUMNS`, and a warning without ids where patients are known to the model; "" without one.

    Parameters
    ----------
    known : what `patients_behind` returns
    encoder : whom the encoder was fine-tuned on; its weights say so wherever they are, so a patient may be found
        here even where `known` is None
    """
    patients = set(table["patient"])
    taught = known_patients(encoder, patients)
    flags: dict[str, bool | None] = {
        patient: True if patient in taught else None if known is None else normal_id(patient) in known
        for patient in patients
    }
    n_known = sum(flag is True for flag in flags.values())
    column = pd.array([flags[patient] for patient in table["patient"]], dtype="boolean")
    warnings = []
    if n_known:
        behind = "the model or its encoder" if taught else "the model"
        having = "has an id" if n_known == 1 else "have ids"
        warnings.append(
            f"{n_known} of {counted(len(flags), 'patients')} {having} of those who trained, selected or calibrated "
            f"{behind}: their estimates look better than a new patient's ({KNOWN_PATIENT} marks the rows)"
        )
    if known is None:
        warnings.append(
            "the patients who trained the model are not known here (no splits file beside the checkpoint fits it): "
            f"{KNOWN_PATIENT} stays empty" + (" for the others" if n_known else "")
        )
    table = table.assign(**{KNOWN_PATIENT: column}).filter(list(ESTIMATES_COLUMNS))
    return table, "; ".join(warnings)
