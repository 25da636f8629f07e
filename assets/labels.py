"""What each count of a stage means, in the words of the person who reads it beside the asset."""

from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS

LABELS = {
    "used": "what is used",
    "records": "recordings",
    "draws": "lab results",
    "coupling": "coupling of labs to the pulse (0 none, 1 full)",
    "parameters": "fingerprint of the cohort's parameters",
    "recorded_hours": "hours recorded, by the headers",
    "patients_embedded_now": "patients embedded in this run",
    "patients_unchanged": "patients unchanged, nothing done",
    "patients_retired": "patients retired: recordings vanished",
    "windows": "30 s windows in the store",
    "hours": "hours of usable PPG",
    "hours_per_patient": "hours per patient, mean",
    "patients_without_embeddings": "patients without a usable window",
    "train": "patients who train the models",
    "validation": "patients who choose the epoch",
    "calibration": "patients who set the intervals",
    "test": "patients who test, seen once",
    "fitted_on": "fitted on patients of split",
    "seeds": "training runs (seeds)",
    "final_loss": "training loss, last epoch",
    "best_validation_error": "best validation error",
    "best_epoch": "best epoch, kept (0: lines fitted before)",
    "pieces": "pieces to learn from",
    "targets_interpolated": "interpolated steps (training only)",
    "targets_measured": "blood draws to learn from",
    "base": "encoder that was fine-tuned",
    "adapted": "what was trained of it",
    "patients_learned_from": "training patients with draws to learn from",
    "patients_choosing_the_epoch": "validation patients, who choose the epoch",
    "draws_learned_from": "blood draws to learn from (all labs of one moment)",
    "windows_learned_from": "30 s windows before them",
    "epoch_kept": "epoch kept (0: the encoder as it was)",
    "name_it_by": "how a run of its own names it",
    "methods": "methods scored",
    "rows": "rows in the table",
    "megabytes": "size in MB",
}


def label(name: str) -> str:
    """Return the words for a count: of `LABELS`, or the name itself without underscores.

    ``<lab>_<count>`` and ``<count>_<lab or protocol>`` count the same for one lab or protocol.
    """
    if name in LABELS:
        return LABELS[name]
    first, _, rest = name.partition("_")
    if first in LAB_NAMES and rest:
        return f"{first}: {label(rest)}"
    rest, _, last = name.rpartition("_")
    if rest in LABELS and last in (*LAB_NAMES, *PROTOCOLS):
        return f"{LABELS[rest]}: {last}"
    return name.replace("_", " ")
