"""What must hold of an experiment's artefacts, each recomputed from them and not taken on trust."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.experiments import ExperimentConfig
from pipeline.foundation.errors import LeakError
from pipeline.foundation.number_format import UNITS, counted
from pipeline.foundation.schema import DAY_US, LABS_BY_NAME
from pipeline.foundation.workspace import Workspace, require
from pipeline.labs.versions import final_results
from pipeline.prediction.files import read_predictions
from pipeline.sources.content_hashes import CACHE_FILE
from pipeline.store.admin import verify_store
from pipeline.store.embeddings import MANIFEST, EmbeddingStore

LEAST_SHARE_WITH_WINDOW = 0.5
"""Share of the draws inside sequences that must have found a usable window."""


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """Whether a rule holds, in one sentence, with the numbers behind it."""

    passed: bool
    explanation: str
    numbers: Mapping[str, int | float] = field(default_factory=dict)


def store_matches_its_manifest(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """Every embedding is there, finite, and hashes to what the manifest says."""
    found = verify_store(EmbeddingStore.open(workspace.store))
    damaged = len(found.damaged)
    problems = "; ".join(sorted(set(found.damaged.values())))
    read = counted(found.checked, "patients")
    return CheckOutcome(
        passed=found.ok and found.checked > 0,
        explanation=f"{read} read, {damaged} damaged{': ' + problems if problems else ''}.",
        numbers={"patients": found.checked, "damaged": damaged},
    )


def units_are_plausible(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """Check that the median of each lab lies where its unit puts it."""
    events = final_results(pd.read_parquet(workspace.lab_events))
    medians = {lab: float(np.median(group["value"])) for lab, group in events.groupby("lab")}
    wrong = [
        f"{lab} (median {f'{median:.3f}'.rstrip('0').rstrip('.')}, expected {low:g} to {high:g} {UNITS[str(lab)]})"
        for lab, median in medians.items()
        for low, high in [LABS_BY_NAME[str(lab)].plausible_median]
        if not low <= median <= high
    ]
    text = (
        f"implausible: {', '.join(wrong)}. Look at the units of the table"
        if wrong
        else "all medians are plausible"
    )
    return CheckOutcome(
        passed=not wrong and bool(medians),
        explanation=f"{counted(len(medians), 'labs')}, {text}.",
        numbers={f"median {lab}": median for lab, median in medians.items()},
    )


def no_subject_in_two_splits(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """No subject is in two splits, and the stored membership is the one that was drawn."""
    try:
        splits = Splits.load(workspace.splits)
    except LeakError as leak:
        return CheckOutcome(passed=False, explanation=str(leak))
    return CheckOutcome(passed=True, explanation="Each subject is in one split.", numbers=splits.counts)


def scaling_comes_from_training_patients(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """Check that the labs' scaling equals the range of the training patients of the stored splits."""
    scaler = LabScaler.from_json(json.loads(workspace.scaler.read_text()))
    splits = Splits.load(workspace.splits)
    events = final_results(pd.read_parquet(workspace.lab_events))
    events = events.loc[events["patient_id"].isin(splits.patients("train"))]
    differing = [
        lab
        for lab, group in events.groupby("lab")
        if group["value"].nunique() > 1
        and (scaler.low[str(lab)], scaler.high[str(lab)]) != (group["value"].min(), group["value"].max())
    ]
    same_splits = scaler.split_hash == splits.hash
    told = "" if experiment.scaler.fitted_on == "train" else f" This experiment's caveat: {experiment.caveat}"
    return CheckOutcome(
        passed=(same_splits and not differing) or experiment.scaler.fitted_on != "train",
        explanation=f"Fitted under {'the stored' if same_splits else 'other'} splits; "
        f"{counted(len(differing), 'labs')} with another range than the training patients'.{told}",
        numbers={"training_patients": scaler.n_patients},
    )


def draws_found_a_window(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """Most draws inside a sequence have a usable window shortly before them."""
    summary = json.loads(workspace.summary("lab_alignment").read_text())
    exclusions = summary["exclusions"]
    scored = sum(row["draws"] for row in summary["tables"]["scored draws"])
    without = sum(n for reason, n in exclusions.items() if "no usable window" in reason)
    share = scored / max(scored + without, 1)
    return CheckOutcome(
        passed=share >= LEAST_SHARE_WITH_WINDOW,
        explanation=f"{share:.0%} of the draws inside sequences found a window (at least "
        f"{LEAST_SHARE_WITH_WINDOW:.0%} expected; fewer points to shifted clocks or missing signal).",
        numbers={"scored": scored, "without_window": without},
    )


def locf_recomputed_independently(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """LOCF in the predictions equals the latest earlier result, looked up anew in the lab table."""
    table = read_predictions(workspace, asset="report", methods=("locf",))
    table = table.loc[table["split"] == "test"]
    events = pd.read_parquet(workspace.lab_events)
    results = {key: group for key, group in events.groupby(["patient_id", "lab"])}
    wrong = sum(not _is_latest(row, results) for row in table.to_dict(orient="records"))
    return CheckOutcome(
        passed=wrong == 0 and len(table) > 0,
        explanation=f"{counted(len(table), 'test draws')} looked up again, different: {wrong}.",
        numbers={"draws": len(table), "differing": wrong},
    )


def _is_latest(row: dict, results: Mapping) -> bool:
    """Whether the estimate is a result seen by then: available by t0 (start) or before the draw (anchored)."""
    earlier = results[row["patient"], row["lab"]]
    sampled_us, t0_us = (int(pd.Timestamp(row[name]).to_datetime64().astype("datetime64[us]").astype(int))
                         for name in ("sampled_at", "t0"))  # fmt: skip
    seen = (earlier["available_at_us"] <= t0_us) & (earlier["sampled_at_us"] >= t0_us - 30 * DAY_US)
    seen &= earlier["available_at_us"] < sampled_us
    versions = earlier.loc[seen].sort_values(["sampled_at_us", "available_at_us"])
    latest = versions.drop_duplicates("sampled_at_us", keep="last")["value"].dropna()
    return bool(len(latest) > 0 and latest.iloc[-1] == row["estimate"])


def no_patient_ids_in_metadata(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """No patient id stands in a summary, in the store's manifest, in a file name of the store, or in the report."""
    splits = Splits.load(require(workspace.splits, made_by="cohort_splits", asset="report"))
    ids = {patient for patient in splits.patients(*splits.members) if len(patient) >= 4}
    texts = [path.read_text() for path in workspace.root.glob("summaries/*.json")]
    texts += _texts_of_store(EmbeddingStore.open(workspace.store))
    pages = [workspace.report, *([workspace.one_page] if workspace.one_page.exists() else [])]
    texts += [
        re.sub(r"base64,[^\"')]+|<svg.*?</svg>", "", page.read_text(), flags=re.DOTALL) for page in pages
    ]
    words = set(re.findall(r"[A-Za-z0-9_-]+", "\n".join(texts)))
    return CheckOutcome(
        passed=not ids & words,
        explanation=f"{counted(len(ids), 'patient ids')} looked for in metadata, file names and the report, "
        f"found: {len(ids & words)}.",
        numbers={"patients": len(ids)},
    )


def _texts_of_store(store: EmbeddingStore) -> Iterator[str]:
    """Names of the patients' folders, manifest, hashes of sources and provenance, as they lie in the store."""
    yield from store.storage.folders()
    names = {f"provenance/{entry.provenance}.json" for entry in store.manifest().values()}
    for name in (MANIFEST, CACHE_FILE, *sorted(names)):
        yield (store.storage.read(name) or b"").decode()


_HEEDS_NOTHING = (
    " The model's estimates follow neither the waveform nor the labs, so that this shows nothing."
)


def future_does_not_leak(workspace: Workspace, experiment: ExperimentConfig) -> CheckOutcome:
    """Estimates of a held-out patient up to t stay identical to the bit when PPG and labs after t change."""
    return _no_leak(workspace, experiment, "mt_pcs")


def future_does_not_leak_into_assimilation(
    workspace: Workspace, experiment: ExperimentConfig
) -> CheckOutcome:
    """As `future_does_not_leak`, of assimilation: its estimates up to t stay the same to the bit whatever follows."""
    return _no_leak(workspace, experiment, "mt_assim")


def _no_leak(workspace: Workspace, experiment: ExperimentConfig, method: str) -> CheckOutcome:
    from pipeline.evaluation.leak_check import changed_rows  # imports torch, which definitions must not

    rows, changed, changed_after = changed_rows(
        workspace.checkpoint(method, experiment.seeds[0]),
        EmbeddingStore.open(workspace.store),
        pd.read_parquet(workspace.lab_events),
        pd.read_parquet(workspace.admissions),
        Splits.load(workspace.splits).patients("test"),
        experiment.sequences,
    )
    return CheckOutcome(
        passed=changed == 0 and rows > 0,
        explanation=f"{rows} estimates before t compared after changing everything after t, {changed} changed; "
        f"of those after t, {changed_after} changed.{'' if changed_after else _HEEDS_NOTHING}",
        numbers={"estimates": rows, "changed": changed, "changed_after_t": changed_after},
    )
