"""The product's soul: whatever changes after t, in the waveform files or the lab table, estimates up to t stay.

The change is made in the source itself (WFDB samples and LABEVENTS rows), and everything from reading to prediction
runs again.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cohort.aligned import AlignedCohort
from pipeline.cohort.normalization import LabScaler
from pipeline.cohort.splits import Splits
from pipeline.foundation.artefact_notes import ArtefactNote, noted
from pipeline.foundation.provenance import to_plain
from pipeline.foundation.workspace import Workspace
from pipeline.prediction.config import STATES
from pipeline.prediction.estimates_file import ESTIMATES_COLUMNS
from pipeline.sources.detect import DESCRIPTION
from pipeline.sources.mimic3 import Mimic3Waveforms
from pipeline.stages import predict_new_patients
from pipeline.store.embeddings import EmbeddingStore
from pipeline.testing.notes import lacking
from pipeline.training.checkpoints import load_model, save_checkpoint
from pipeline.training.method import train

SAMPLES_A_SECOND = 125


@pytest.fixture(scope="module", params=["anchored", "start", "lines-anchored", "mt_assim-anchored"])
def checkpoint(tiny, request, tmp_path_factory) -> Path:
    """MT+PCS that learnt both kinds of pieces and estimates as `anchored`, or one that learnt `start` alone; ours.

    What the tiny job itself trains is the means of its few patients: nothing could leak into that. The networks were
    trained until waveform and history both move the estimates; lines and filters of so few patients are given numbers.
    """
    method, kind = request.param.rpartition("-")[::2]
    folder = tmp_path_factory.mktemp(f"learnt_{kind}_{method}")
    if method:
        return _with_numbers(tiny, method, folder)
    space = tiny.workspace
    shape = dataclasses.replace(tiny.config.model, slow_features=None)
    recipe = dataclasses.replace(
        tiny.config.training, protocols=("start", kind) if kind == "anchored" else ("start",), epochs=6,
        learning_rate=1e-2, batch_pieces=2, selection="last",
    )  # fmt: skip
    note = ArtefactNote.of("train_mt_pcs", config=recipe, inputs={}, licences=["synthetic"])
    with noted(note):
        train(
            "mt_pcs", AlignedCohort.load(space.aligned), EmbeddingStore.open(space.store),
            LabScaler.from_json(json.loads(space.scaler.read_text())), Splits.load(space.splits),
            dataclasses.asdict(shape), recipe, folder, experiment=to_plain(tiny.config),
        )  # fmt: skip
    shutil.copy(space.checkpoint("mt_pcs", 0) / "intervals.json", folder)
    return folder


def _with_numbers(tiny, method: str, folder: Path) -> Path:
    """Save the tiny job's own lines or filters with read-outs that heed waveform and results for every lab."""
    trained = tiny.workspace.checkpoint(method, 0)
    loaded = load_model(trained / "best")
    generator = torch.Generator().manual_seed(0)
    state = loaded.model.state_dict()
    for name in ("line_weight", "waveform.line.weight", "waveform.reader.heads.weight", "history_line"):
        if name in state:
            drawn = torch.randn(state[name].shape, generator=generator, dtype=torch.float64)
            state[name].copy_(drawn / state[name].shape[1] ** 0.5)
    if method == "mt_assim":
        state["has_line"].fill_(True)
        state["network.share"].fill_(0.5)
        for name in state:
            if name.endswith("head.weight"):
                state[name].copy_(torch.randn(state[name].shape, generator=generator))
    loaded.model.load_state_dict(state)
    provenance = {key: value for key, value in loaded.provenance.items() if key not in ("versions", "note")}
    with noted(ArtefactNote.of(f"train_{method}", config={}, inputs={}, licences=["synthetic"])):
        save_checkpoint(
            folder, loaded.model, method=method, scaler=loaded.scaler, experiment=loaded.experiment,
            provenance=provenance,
        )  # fmt: skip
    shutil.copy(trained / "intervals.json", folder)
    return folder


@pytest.fixture(scope="module")
def patient(tiny) -> str:
    return Splits.load(tiny.workspace.splits).patients("test")[0]


def copy_of_one_patient(tiny, patient: str, root: Path) -> Workspace:
    """Copy a test patient's waveforms and all lab tables as a new hospital's folders."""
    source = tiny.workspace.cohort
    folder = next(source.glob(f"waveforms/p*/p{int(patient):06d}"))
    shutil.copytree(folder, root / "waveforms" / folder.parent.name / folder.name)
    shutil.copytree(source / "clinical", root / "clinical")
    (root / "clinical" / DESCRIPTION).write_text(json.dumps({"licence": "this hospital's"}))
    return Workspace(root=root / "artifacts", waveforms=root / "waveforms", labs=root / "clinical")


def estimates(tiny, workspace: Workspace, checkpoint: Path) -> pd.DataFrame:
    out = workspace.root / "estimates.parquet"
    predict_new_patients(workspace, tiny.config, str(checkpoint), str(out))
    assert lacking(workspace.root) == lacking(out.parent) == {}
    return pd.read_parquet(out)


def overwrite_samples_after(workspace: Workspace, t_us: int) -> int:
    """Replace every PLETH byte that lies wholly after t by noise; return how many bytes changed."""
    generator = np.random.default_rng(0)
    changed = 0
    source = Mimic3Waveforms(workspace.waveforms)
    for record in source.catalog().records:
        lines = [line.split() for line in record.path.read_text().splitlines()[1:] if line and line[0] != "#"]
        position = 0
        for name, length in ((fields[0], int(fields[1])) for fields in lines):
            start_us = record.start_us + round(position * 1e6 / SAMPLES_A_SECOND)
            position += length
            data = record.path.with_name(f"{name}.dat")
            if length == 0 or name == "~" or not data.exists():
                continue
            end_us = record.start_us + round(position * 1e6 / SAMPLES_A_SECOND)
            if end_us <= t_us:
                continue
            raw = np.fromfile(data, np.uint8)
            share = max(0.0, (t_us - start_us) / (end_us - start_us))
            first = min(len(raw), int(np.ceil(share * len(raw) / 12)) * 12 + 12)
            raw[first:] = generator.integers(60, 200, len(raw) - first, dtype=np.uint8)
            raw.tofile(data)
            changed += len(raw) - first
    return changed


def change_labs_after(workspace: Workspace, patient: str, t_us: int) -> int:
    """Multiply every later result of the patient by 1.2; return how many changed."""
    path = next((workspace.labs).glob("LABEVENTS.csv*"))
    table = pd.read_csv(path, dtype=str)
    columns = {name.lower(): name for name in table.columns}
    drawn = pd.to_datetime(table[columns["charttime"]]).to_numpy().astype("datetime64[us]").astype("int64")
    later = (drawn > t_us) & (table[columns["subject_id"]] == patient).to_numpy()
    number = pd.to_numeric(table[columns["valuenum"]], errors="coerce")
    later &= number.notna().to_numpy()
    altered = (number * 1.2).round(2).astype(str)
    for name in ("value", "valuenum"):
        table.loc[later, columns[name]] = altered[later]
    table.to_csv(path, index=False)
    return int(later.sum())


def microseconds(times: pd.Series) -> np.ndarray:
    return times.to_numpy().astype("datetime64[us]").astype("int64")


def test_no_change_after_t_reaches_an_estimate_up_to_t(
    tiny, patient: str, checkpoint: Path, tmp_path: Path
) -> None:
    original = copy_of_one_patient(tiny, patient, tmp_path / "a")
    changed = copy_of_one_patient(tiny, patient, tmp_path / "b")
    before = estimates(tiny, original, checkpoint)
    assert set(before["protocol"]) == {checkpoint.name.split("_")[1]}
    ends = microseconds(before["window_end"])
    t_us = int(np.median(ends))
    assert overwrite_samples_after(changed, t_us) > 10_000
    assert change_labs_after(changed, patient, t_us) > 0
    after = estimates(tiny, changed, checkpoint)

    kept = before[ends <= t_us].reset_index(drop=True)
    again = after[microseconds(after["window_end"]) <= t_us].reset_index(drop=True)
    assert len(kept) > 100
    assert kept["estimate"].notna().any()
    pd.testing.assert_frame_equal(kept, again, check_exact=True)
    assert kept["estimate"].to_numpy().tobytes() == again["estimate"].to_numpy().tobytes()

    later = before[ends > t_us].merge(after, on=["window_end", "lab"], suffixes=("", "_changed"))
    later = later[
        later["estimate"].notna() & later["estimate_changed"].notna()
    ]  # NaN would differ from itself
    assert (later["estimate"] != later["estimate_changed"]).any(), (
        "the change must matter after t, or nothing is tested"
    )


def test_estimates_come_every_30_s_with_their_state(
    tiny, patient: str, checkpoint: Path, tmp_path: Path
) -> None:
    table = estimates(tiny, copy_of_one_patient(tiny, patient, tmp_path), checkpoint)
    assert tuple(table.columns) == ESTIMATES_COLUMNS
    assert table[["lower", "upper"]].isna().all(axis=None)  # one calibration patient
    assert table["interval_state"].str.startswith(("too few calibration patients", "no e")).all()
    assert set(table["state"]) <= set(STATES)
    assert set(table["lab"]) == {"potassium", "calcium", "sodium", "glucose", "lactate"}
    steps = np.diff(np.unique(microseconds(table["window_end"])))
    assert steps.min() == 30_000_000
    known = table[table["state"] == "ok"]
    assert len(known) > 0
    assert known["estimate"].notna().all()
    assert (known["hours_since_last_lab"] >= 0).all()
