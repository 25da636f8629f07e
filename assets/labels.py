"""What each count of a stage means, in the words of the person who reads it beside the asset."""

from pipeline.foundation.schema import LAB_NAMES, PROTOCOLS

LABELS = {
    "used": "what is used",
    "records": "recordings",
    "draws": "lab results",
    "coupling": "coupling of labs to the pulse (0 none, 1 full)",
    "parameters": "fingerprint of the cohort's parameters",
    "recorded_hours": "recorded, by the headers (hours)",
    "patients_embedded_now": "patients embedded in this run",
    "patients_unchanged": "patients unchanged, nothing done",
    "patients_retired": "patients retired: recordings vanished",
    "windows": "windows in the store (of 30 s)",
    "hours": "usable PPG (hours)",
    "hours_per_patient": "usable PPG per patient, mean (hours)",
    "patients_without_embeddings": "patients without a usable window",
    "train": "patients who train the models",
    "validation": "patients who choose the epoch",
    "calibration": "patients who set the intervals",
    "test": "patients who test, seen once",
    "fitted_on": "fitted on patients of split",
    "seeds": "training runs (seeds)",
    "final_loss": "training loss, last epoch (mean absolute, share of the lab's range)",
    "best_validation_error": "validation error of what is kept (mean absolute, share of the lab's range)",
    "best_epoch": "best epoch, kept (0: lines fitted before)",
    "pieces": "pieces to learn from",
    "targets_interpolated": "interpolated steps (of 30 s, training only)",
    "targets_measured": "blood draws to learn from",
    "base": "encoder that was fine-tuned",
    "adapted": "what was trained of it",
    "patients_learned_from": "training patients with draws to learn from",
    "patients_choosing_the_epoch": "validation patients, who choose the epoch",
    "draws_learned_from": "blood draws to learn from (all labs of one moment)",
    "windows_learned_from": "windows before them (of 30 s)",
    "epoch_kept": "epoch kept (0: the encoder as it was)",
    "name_it_by": "how a run of its own names it",
    "made_of": "made of",
    "unchanged": "unchanged",
    "methods": "methods scored",
    "rows": "rows in the table",
    "megabytes": "size (MB)",
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
